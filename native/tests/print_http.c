/* What the dispatcher's readers of HTTP make of bytes, printed for a comparison with other readers. Not a test itself.
 *
 * Standard input: frames of one byte kind, a 32-bit length in the machine's order, and so many bytes.
 *   R text NUL qualifier   a function's name: the error's number, or name, qualifier, region, account
 *   Q bytes                one request with its body: WRONG status, MORE, or the parts of the request
 *   O method NUL target    an operation: EINVAL, or its number, function, qualifier
 *   S key seconds request  a signed request (32 bytes, 8 bytes, the rest): the error's number, or good or wrong
 * Standard output: for each frame one line of words, bytes as hexadecimal digits with "x" before them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/h1.h"
#include "dispatch/reference.h"
#include "dispatch/sigv4.h"

static void put(struct wire_slice text) {
    printf(" x");
    for (uint32_t i = 0; i < text.size; i++)
        printf("%02x", text.data[i]);
}

static void cut(const uint8_t *data, uint32_t size, struct wire_slice *ret_first, struct wire_slice *ret_second) {
    const uint8_t *nul = memchr(data, 0, size);
    uint32_t first = nul != NULL ? (uint32_t)(nul - data) : size;
    *ret_first = (struct wire_slice){data, first};
    *ret_second = (struct wire_slice){data + first + (nul != NULL), size - first - (nul != NULL)};
}

static void print_reference(const uint8_t *data, uint32_t size) {
    struct wire_slice text, qualifier;
    struct reference reference;
    enum reference_error error;
    cut(data, size, &text, &qualifier);
    error = reference_read(text, qualifier, &reference);
    printf("%d", error);
    if (error == REFERENCE_GOOD) {
        put(reference.name);
        put(reference.qualifier);
        put(reference.region);
        put(reference.account);
    }
}

static void print_operation(const uint8_t *data, uint32_t size) {
    struct wire_slice method, target, function = {data, 0}, qualifier;
    enum operation operation;
    cut(data, size, &method, &target);
    if (operation_read(method, target, &operation, &function, &qualifier) < 0) {
        printf("EINVAL");
        return;
    }
    printf("%d", operation);
    put(function);
    put(qualifier);
}

static void print_chunked(const uint8_t *data, size_t size) {
    struct h1_chunks chunks;
    enum h1_result result;
    size_t at = 0, taken;
    h1_chunks_begin(&chunks);
    printf(" x");
    do {
        struct wire_slice body;
        result = h1_chunks_read(&chunks, data + at, size - at, &taken, &body);
        for (uint32_t i = 0; i < body.size; i++)
            printf("%02x", body.data[i]);
        at += taken;
    } while (result == H1_MORE && at < size);
    printf(" %s", result == H1_DONE ? "DONE" : result == H1_MORE ? "MORE" : "WRONG");
}

static void print_request(const uint8_t *data, uint32_t size) {
    struct h1_head head;
    enum h1_result result;
    h1_begin(&head);
    result = h1_read(&head, data, size);
    if (result != H1_DONE) {
        printf(result == H1_MORE ? "MORE" : "WRONG %d", head.status);
        return;
    }
    printf("DONE");
    put(h1_slice(data, head.method));
    put(h1_slice(data, head.target));
    printf(" 1.%d %s %u", head.minor, head.close ? "close" : "keep", head.n_fields);
    for (unsigned i = 0; i < head.n_fields; i++) {
        put(h1_slice(data, head.fields[i].name));
        put(h1_slice(data, head.fields[i].value));
    }
    if (head.chunked) {
        print_chunked(data + head.size, size - head.size);
    } else {
        bool whole = head.length <= size - head.size;
        put((struct wire_slice){data + head.size, whole ? (uint32_t)head.length : size - head.size});
        printf(whole ? " DONE" : " MORE");
    }
}

static void print_signature(const uint8_t *data, uint32_t size) {
    struct sigv4_claim claim;
    struct h1_head head;
    enum sigv4_error error;
    _Alignas(16) uint8_t memory[SIGV4_SIZE];
    struct sigv4 *sigv4 = (struct sigv4 *)memory;
    const uint8_t *request = data + 40;
    int64_t seconds;

    if (size < 40)
        return;
    memcpy(&seconds, data + 32, 8);
    h1_begin(&head);
    if (h1_read(&head, request, size - 40) != H1_DONE) {
        printf("UNREADABLE");
        return;
    }
    error = sigv4_read(&head, request, seconds, &claim);
    if (error == SIGV4_GOOD)
        error = sigv4_begin(sigv4, &head, request, &claim, data);
    if (error != SIGV4_GOOD) {
        printf("%d", error);
        return;
    }
    sigv4_body(sigv4, request + head.size, size - 40 - head.size);
    printf(sigv4_finish(sigv4) ? "good" : "wrong");
}

int main(void) {
    uint8_t kind;
    uint32_t size;
    while (fread(&kind, 1, 1, stdin) == 1 && fread(&size, sizeof(size), 1, stdin) == 1) {
        uint8_t *data = malloc(size > 0 ? size : 1);
        if (data == NULL || fread(data, 1, size, stdin) != size)
            return 1;
        if (kind == 'R')
            print_reference(data, size);
        else if (kind == 'Q')
            print_request(data, size);
        else if (kind == 'S')
            print_signature(data, size);
        else
            print_operation(data, size);
        free(data);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
