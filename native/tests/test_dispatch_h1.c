/* HTTP/1.1 heads and chunked bodies: what is read, what is refused and with which status, and that it makes no
 * difference how the bytes are cut. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/h1.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define HOST "Host: h\r\n"
#define GET "GET / HTTP/1.1\r\n" HOST

/* Reads it whole, then byte by byte from memory of exactly the size; both must say the same. Returns the status, 0:
 * good, 1: not complete. */
static int status_of(const char *text, struct h1_head *ret_head) {
    size_t size = strlen(text), n = 0;
    struct h1_head pieces;
    enum h1_result whole, last = H1_MORE;

    h1_begin(ret_head);
    whole = h1_read(ret_head, (const uint8_t *)text, size);
    h1_begin(&pieces);
    while (n < size && last == H1_MORE) {
        uint8_t *copy = malloc(++n);
        CHECK(copy != NULL);
        memcpy(copy, text, n);
        last = h1_read(&pieces, copy, n);
        free(copy);
    }
    CHECK(whole == last && ret_head->status == pieces.status);
    if (whole == H1_DONE) {
        CHECK(n == ret_head->size && pieces.size == ret_head->size && pieces.n_fields == ret_head->n_fields);
        CHECK(memcmp(pieces.fields, ret_head->fields, pieces.n_fields * sizeof(pieces.fields[0])) == 0);
    }
    return whole == H1_WRONG ? ret_head->status : whole == H1_MORE;
}

static int status(const char *text) {
    struct h1_head head;
    int found = status_of(text, &head);
    CHECK(found < 2 || head.reason != NULL);
    return found;
}

static bool equals(struct wire_slice slice, const char *text) {
    return slice.size == strlen(text) && memcmp(slice.data, text, slice.size) == 0;
}

static void test_a_request(void) {
    static const char text[] =
        "\r\nPOST /a/b?c=d HTTP/1.1\r\nHost: example:80\r\ncontent-length:  12 \t\r\nX-Empty:\r\n"
        "X-Two: a\tb \xc3\xa4\r\nEXPECT: 100-Continue\r\n\r\nrest";
    const uint8_t *data = (const uint8_t *)text;
    struct h1_head head;
    CHECK(status_of(text, &head) == 0);
    CHECK(head.size == strlen(text) - 4);
    CHECK(equals(h1_slice(data, head.method), "POST"));
    CHECK(equals(h1_slice(data, head.target), "/a/b?c=d"));
    CHECK(equals(h1_slice(data, head.host), "example:80"));
    CHECK(head.minor == 1 && !head.close && !head.chunked && head.expect_continue);
    CHECK(head.has_length && head.length == 12 && head.n_fields == 5);
    CHECK(equals(h1_find(&head, data, "x-two"), "a\tb \xc3\xa4"));
    CHECK(equals(h1_find(&head, data, "x-empty"), ""));
    CHECK(equals(h1_find(&head, data, "x-none"), ""));
}

static void test_targets(void) {
    struct h1_head head;
    static const char absolute[] = "GET HTTP://h:1/x?y HTTP/1.1\r\n" HOST "\r\n";
    CHECK(status_of(absolute, &head) == 0);
    CHECK(equals(h1_slice((const uint8_t *)absolute, head.target), "/x?y"));
    CHECK(status("OPTIONS * HTTP/1.1\r\n" HOST "\r\n") == 0);
    CHECK(status("GET * HTTP/1.1\r\n" HOST "\r\n") == 400);
    CHECK(status("CONNECT h:1 HTTP/1.1\r\n" HOST "\r\n") == 400);
    CHECK(status("GET http://h HTTP/1.1\r\n" HOST "\r\n") == 400);
    CHECK(status("GET http:///x HTTP/1.1\r\n" HOST "\r\n") == 400);
    CHECK(status("GET /a#b HTTP/1.1\r\n" HOST "\r\n") == 400);
    CHECK(status("GET /\x80 HTTP/1.1\r\n" HOST "\r\n") == 400);
    CHECK(status("GET /\t HTTP/1.1\r\n" HOST "\r\n") == 400);
}

static void test_request_lines(void) {
    CHECK(status("GET / HTTP/1.1") == 1);
    CHECK(status("GET / HTTP/1.1\n") == 400);
    CHECK(status("GET /\r\n") == 400);
    CHECK(status("GET  / HTTP/1.1\r\n") == 400);
    CHECK(status("GET /  HTTP/1.1\r\n") == 400);
    CHECK(status("GET / HTTP/1.1 \r\n") == 505);
    CHECK(status(" GET / HTTP/1.1\r\n") == 400);
    CHECK(status("G(T / HTTP/1.1\r\n") == 400);
    CHECK(status("GET / http/1.1\r\n") == 400);
    CHECK(status("GET / HTTP/2.0\r\n") == 505);
    CHECK(status("GET / HTTP/1.2\r\n") == 505);
    CHECK(status("GET / HTTP/1.10\r\n") == 505);
    CHECK(status("GET / HTTP/1.1\r\r\n") == 505);
    CHECK(status("\r\n\r\nGET") == 400);
    CHECK(status("\n") == 400);
}

static void test_fields(void) {
    CHECK(status(GET "A: b\r\n\r\n") == 0);
    CHECK(status(GET "A : b\r\n\r\n") == 400);
    CHECK(status(GET ": b\r\n\r\n") == 400);
    CHECK(status(GET "A b\r\n\r\n") == 400);
    CHECK(status(GET "A: b\r\n c\r\n\r\n") == 400);
    CHECK(status(GET "A: b\r\n\tc\r\n\r\n") == 400);
    CHECK(status(GET "A: b\rc\r\n\r\n") == 400);
    CHECK(status(GET "A: b\x01\r\n\r\n") == 400);
    CHECK(status(GET "A: b\x7f\r\n\r\n") == 400);
    CHECK(status(GET "A: b\n\r\n") == 400);
    CHECK(status(GET "\n") == 400);
    CHECK(status("GET / HTTP/1.1\r\n\r\n") == 400);
    CHECK(status("GET / HTTP/1.0\r\n\r\n") == 0);
    CHECK(status(GET HOST "\r\n") == 400);
    CHECK(status("GET / HTTP/1.0\r\n" HOST HOST "\r\n") == 400);
}

static void test_lengths(void) {
    CHECK(status(GET "Content-Length: 0\r\n\r\n") == 0);
    CHECK(status(GET "Content-Length: 1\r\nContent-Length: 1\r\n\r\n") == 400);
    CHECK(status(GET "Content-Length: 1, 1\r\n\r\n") == 400);
    CHECK(status(GET "Content-Length: +1\r\n\r\n") == 400);
    CHECK(status(GET "Content-Length: -1\r\n\r\n") == 400);
    CHECK(status(GET "Content-Length: 0x1\r\n\r\n") == 400);
    CHECK(status(GET "Content-Length:\r\n\r\n") == 400);
    CHECK(status(GET "Content-Length: 9999999999999999999\r\n\r\n") == 413);
    CHECK(status(GET "Transfer-Encoding: Chunked\r\n\r\n") == 0);
    CHECK(status(GET "Transfer-Encoding: gzip, chunked\r\n\r\n") == 501);
    CHECK(status(GET "Transfer-Encoding: identity\r\n\r\n") == 501);
    CHECK(status(GET "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n") == 400);
    CHECK(status(GET "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n") == 400);
    CHECK(status(GET "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n") == 400);
    CHECK(status("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == 400);
    CHECK(status(GET "Expect: 200-ok\r\n\r\n") == 417);
    CHECK(status("GET / HTTP/1.0\r\nExpect: 200-ok\r\n\r\n") == 0);
}

static void test_closing(void) {
    static const struct {
        const char *text;
        bool close;
    } cases[] = {
        {GET "\r\n", false},
        {GET "Connection: close\r\n\r\n", true},
        {GET "Connection: a, Close ,b\r\n\r\n", true},
        {GET "Connection: keep-alive\r\nConnection: close\r\n\r\n", true},
        {GET "Connection: close\r\nConnection: keep-alive\r\n\r\n", true},
        {GET "Connection: closed\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct h1_head head;
        CHECK(status_of(cases[i].text, &head) == 0 && head.close == cases[i].close);
    }
}

/* `n` bytes of filling between the two. */
static int filled(const char *before, size_t n, const char *after) {
    char *text = malloc(strlen(before) + n + strlen(after) + 1);
    struct h1_head head;
    enum h1_result result;
    CHECK(text != NULL);
    strcpy(text, before);
    memset(text + strlen(before), 'x', n);
    strcpy(text + strlen(before) + n, after);
    h1_begin(&head);
    result = h1_read(&head, (const uint8_t *)text, strlen(text));
    free(text);
    return result == H1_WRONG ? head.status : result == H1_MORE;
}

static void test_limits(void) {
    char *many = calloc(1, 8 << 20);
    CHECK(many != NULL);
    CHECK(filled("GET /", H1_TARGET_MAX - 1, " HTTP/1.1\r\n" HOST "\r\n") == 0);
    CHECK(filled("GET /", H1_TARGET_MAX, " HTTP/1.1\r\n" HOST "\r\n") == 414);
    CHECK(filled("GET /", H1_LINE_MAX, "") == 414);
    CHECK(filled(GET "A: ", H1_LINE_MAX - 4, "\r\n\r\n") == 0);
    CHECK(filled(GET "A: ", H1_LINE_MAX, "\r\n\r\n") == 431);
    CHECK(filled(GET "A: ", H1_LINE_MAX, "") == 431);
    strcpy(many, GET);
    for (unsigned i = 1; i < H1_FIELDS_MAX; i++)
        strcat(many, "A: b\r\n");
    strcat(many, "\r\n");
    CHECK(status(many) == 0);
    strcpy(many + strlen(many) - 2, "A: b\r\n\r\n");
    CHECK(status(many) == 431);
    strcpy(many, GET);
    for (unsigned i = 0; i < 5; i++) {
        size_t at = strlen(many);
        memset(many + at, 'x', 14000);
        strcpy(many + at + 14000, ":\r\n");
    }
    CHECK(status(many) == 431);
    free(many);
}

/* Reads a chunked body; the body is appended to ret_body. Returns its status, 0: over, 1: more must come; *ret_taken:
 * how much of the text it is. `step`: bytes at a time. */
static int body_of(const char *text, size_t step, char *ret_body, size_t *ret_taken) {
    size_t size = strlen(text), at = 0, there = 0;
    struct h1_chunks chunks;
    enum h1_result result = H1_MORE;

    *ret_body = '\0';
    h1_chunks_begin(&chunks);
    while (result == H1_MORE && (at < there || there < size)) {
        struct wire_slice body;
        size_t taken;
        if (at == there)
            there = there + step < size ? there + step : size;
        result = h1_chunks_read(&chunks, (const uint8_t *)text + at, there - at, &taken, &body);
        CHECK(taken <= there - at && (taken > 0 || result == H1_WRONG));
        CHECK(body.size == 0 ||
            (body.data >= (const uint8_t *)text + at && body.data + body.size <= (const uint8_t *)text + at + taken));
        strncat(ret_body, (const char *)body.data, body.size);
        at += taken;
    }
    *ret_taken = at;
    CHECK(result != H1_WRONG || chunks.reason != NULL);
    return result == H1_WRONG ? chunks.status : result == H1_MORE;
}

static void test_chunks(void) {
    static const struct {
        const char *text;
        int status;
        const char *body;
        size_t rest;
    } cases[] = {
        {"0\r\n\r\nGET", 0, "", 3},
        {"3\r\nabc\r\n0\r\n\r\n", 0, "abc", 0},
        {"0003\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n00\r\nT: v\r\nU:\r\n\r\nx", 0, "abc0123456789", 1},
        {"3\r\nabc", 1, "abc", 0},
        {"3\r\nabcd\r\n", 400, "abc", 0},
        {"3\nabc\r\n", 400, "", 0},
        {"3\r\nabc\n0\r\n\r\n", 400, "abc", 0},
        {"\r\n0\r\n\r\n", 400, "", 0},
        {"x\r\n", 400, "", 0},
        {"-1\r\n", 400, "", 0},
        {" 3\r\nabc\r\n", 400, "", 0},
        {"3 \r\nabc\r\n", 400, "", 0},
        {"0x3\r\nabc\r\n", 400, "", 0},
        {"0\r\n\n", 400, "", 0},
        {"0\r\nT\r\n\r\n", 400, "", 0},
        {"0\r\n T: v\r\n\r\n", 400, "", 0},
        {"0\r\nT: v\n\r\n", 400, "", 0},
        {"ffffffffffffffff\r\n", 413, "", 0},
        {"1;\x01\r\n", 400, "", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t step = 1; step < 40; step++) {
            char body[256];
            size_t taken;
            int found = body_of(cases[i].text, step, body, &taken);
            if (found != cases[i].status || strcmp(body, cases[i].body) != 0) {
                fprintf(stderr, "case %zu by %zu: %d %s\n", i, step, found, body);
                exit(1);
            }
            CHECK(found != 0 || strlen(cases[i].text) - taken == cases[i].rest);
        }
}

static void test_chunk_limits(void) {
    char text[2 * H1_TRAILER_MAX], body[8];
    size_t taken;
    strcpy(text, "1;");
    memset(text + 2, 'x', sizeof(text) - 2);
    strcpy(text + H1_CHUNK_LINE_MAX - 1, "\r\na\r\n0\r\n\r\n");
    CHECK(body_of(text, 100, body, &taken) == 400);
    strcpy(text + H1_CHUNK_LINE_MAX - 2, "\r\na\r\n0\r\n\r\n");
    CHECK(body_of(text, 100, body, &taken) == 0);
    strcpy(text, "0\r\nT:");
    memset(text + 5, 'x', sizeof(text) - 5);
    text[sizeof(text) - 1] = '\0';
    CHECK(body_of(text, 100, body, &taken) == 431);
}

int main(void) {
    test_a_request();
    test_targets();
    test_request_lines();
    test_fields();
    test_lengths();
    test_closing();
    test_limits();
    test_chunks();
    test_chunk_limits();
    return 0;
}
