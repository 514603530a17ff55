/* What the dispatcher's readers of HTTP make of bytes, printed for a comparison with other readers. Not a test itself.
 *
 * Standard input: frames of one byte kind, a 32-bit length in the machine's order, and so many bytes.
 *   R text NUL qualifier   a function's name: the error's number, or name, qualifier, region, account
 *   Q bytes                one request with its body: WRONG status, MORE, or the parts of the request
 *   O method NUL target    an operation: EINVAL, or its number, function, qualifier
 *   S key seconds request  a signed request (32 bytes, 8 bytes, the rest): the error's number, or good or wrong
 *   G message              an InvokeRequest: EBADMSG, or its fields
 *   P numbers and texts    an InvokeResponse of status, failed, payload's size (32 bits each), duration, init (64 bits
 *                          each), version NUL log tail: the head that is sent before the payload
 *   I version NUL type     InvokeStream's first message
 *   K bytes                InvokeStream's message with this part of a payload
 *   L numbers and texts    InvokeStream's last message of status, details' size (32 bits each), duration, init (64 bits
 *                          each), code NUL log tail: the head that is sent before the details
 *   E bytes                a PayloadChunk of these
 *   F code NUL rest        an InvokeComplete of this error code; rest: details NUL log tail
 *   T text                 a grpc-timeout: EINVAL, or microseconds
 *   C status code          an error (16 bits, the rest): the status of gRPC and the code
 * Standard output: for each frame one line of words, bytes as hexadecimal digits with "x" before them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/eventstream.h"
#include "dispatch/grpc.h"
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

static void print_invoke(const uint8_t *data, uint32_t size) {
    struct grpc_invoke invoke;
    if (grpc_read_invoke(data, size, &invoke) < 0) {
        printf("EBADMSG");
        return;
    }
    printf("%d %d", invoke.type, invoke.log);
    put(invoke.function);
    put(invoke.qualifier);
    put(invoke.client_context);
    put(invoke.trace);
    put(invoke.tenant);
    put(invoke.payload);
}

static void print_response(const uint8_t *data, uint32_t size) {
    struct grpc_result result = {.id = "00000000-0000-4000-8000-000000000000"};
    struct wire_slice version;
    uint8_t head[GRPC_HEAD_MAX];
    uint32_t numbers[3];
    uint64_t times[2];
    char text[128] = "";

    if (size < sizeof(numbers) + sizeof(times))
        return;
    memcpy(numbers, data, sizeof(numbers));
    memcpy(times, data + sizeof(numbers), sizeof(times));
    cut(data + sizeof(numbers) + sizeof(times), size - (uint32_t)(sizeof(numbers) + sizeof(times)), &version,
        &result.log_tail);
    memcpy(text, version.data, version.size < sizeof(text) ? version.size : sizeof(text) - 1);
    result.status = (uint16_t)numbers[0];
    result.failed = numbers[1] != 0;
    result.payload = numbers[2];
    result.duration_us = times[0];
    result.init_us = times[1];
    result.version = text;
    put((struct wire_slice){head, (uint32_t)grpc_write_response(&result, head)});
}

static void print_start(const uint8_t *data, uint32_t size) {
    uint8_t message[GRPC_START_MAX];
    struct wire_slice version, type;
    char text[128] = "";
    cut(data, size, &version, &type);
    memcpy(text, version.data, version.size < sizeof(text) ? version.size : sizeof(text) - 1);
    put((struct wire_slice){
        message, (uint32_t)grpc_write_start("00000000-0000-4000-8000-000000000000", text, type, message)});
}

static void print_part(const uint8_t *data, uint32_t size) {
    uint8_t head[GRPC_CHUNK_HEAD_MAX];
    put((struct wire_slice){head, (uint32_t)grpc_write_chunk(size, head)});
    put((struct wire_slice){data, size});
}

static void print_end(const uint8_t *data, uint32_t size) {
    struct grpc_complete complete = {0};
    uint8_t head[GRPC_HEAD_MAX];
    uint32_t numbers[2];
    uint64_t times[2];

    if (size < sizeof(numbers) + sizeof(times))
        return;
    memcpy(numbers, data, sizeof(numbers));
    memcpy(times, data + sizeof(numbers), sizeof(times));
    cut(data + sizeof(numbers) + sizeof(times), size - (uint32_t)(sizeof(numbers) + sizeof(times)),
        &complete.error_code, &complete.log_tail);
    complete.status = (uint16_t)numbers[0];
    complete.details = numbers[1];
    complete.duration_us = times[0];
    complete.init_us = times[1];
    put((struct wire_slice){head, (uint32_t)grpc_write_complete(&complete, head)});
}

static void print_chunk(const uint8_t *data, uint32_t size) {
    uint8_t head[EVENTSTREAM_HEAD_MAX], tail[EVENTSTREAM_TAIL];
    size_t n = eventstream_chunk_head(size, head);
    eventstream_tail(head, n, (struct wire_slice){data, size}, tail);
    put((struct wire_slice){head, (uint32_t)n});
    put((struct wire_slice){data, size});
    put((struct wire_slice){tail, sizeof(tail)});
}

static void print_complete(const uint8_t *data, uint32_t size) {
    struct eventstream_complete complete;
    struct wire_slice rest;
    uint8_t *into;
    cut(data, size, &complete.error_code, &rest);
    cut(rest.data, rest.size, &complete.error_details, &complete.log);
    into = malloc(eventstream_complete_max(&complete));
    if (into != NULL)
        put((struct wire_slice){into, (uint32_t)eventstream_write_complete(&complete, into)});
    free(into);
}

static void print_timeout(const uint8_t *data, uint32_t size) {
    uint64_t us;
    if (grpc_read_timeout((struct wire_slice){data, size}, &us) < 0)
        printf("EINVAL");
    else
        printf("%llu", (unsigned long long)us);
}

static void print_status(const uint8_t *data, uint32_t size) {
    char code[64] = "";
    uint16_t status;
    if (size < 2 || size >= sizeof(code))
        return;
    memcpy(&status, data, 2);
    memcpy(code, data + 2, size - 2);
    printf("%d %s", grpc_status_of(code, status), grpc_code_of(code, status));
}

static void print_frame(uint8_t kind, const uint8_t *data, uint32_t size) {
    static const struct {
        uint8_t kind;
        void (*print)(const uint8_t *data, uint32_t size);
    } printers[] = {
        {'R', print_reference},
        {'Q', print_request},
        {'O', print_operation},
        {'S', print_signature},
        {'G', print_invoke},
        {'P', print_response},
        {'I', print_start},
        {'K', print_part},
        {'L', print_end},
        {'E', print_chunk},
        {'F', print_complete},
        {'T', print_timeout},
        {'C', print_status},
    };
    for (size_t i = 0; i < sizeof(printers) / sizeof(printers[0]); i++)
        if (printers[i].kind == kind)
            printers[i].print(data, size);
}

int main(void) {
    uint8_t kind;
    uint32_t size;
    while (fread(&kind, 1, 1, stdin) == 1 && fread(&size, sizeof(size), 1, stdin) == 1) {
        uint8_t *data = malloc(size > 0 ? size : 1);
        if (data == NULL || fread(data, 1, size, stdin) != size)
            return 1;
        print_frame(kind, data, size);
        free(data);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
