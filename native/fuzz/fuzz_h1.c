/* HTTP/1.1: the input is one connection's bytes. It is read whole, and again in pieces that the input itself decides
 * about; both must see the same requests and bodies, and every range must lie within what was read. */
#include <stdlib.h>
#include <string.h>

#include "dispatch/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TRACE_MAX = 256 };

/* What was seen: one number for each head, body and end. */
struct trace {
    uint64_t seen[TRACE_MAX];
    unsigned n;
};

static void note(struct trace *trace, uint64_t value) {
    if (trace->n < TRACE_MAX)
        trace->seen[trace->n++] = value;
}

static uint64_t hash(uint64_t state, struct wire_slice slice) {
    for (uint32_t i = 0; i < slice.size; i++)
        state = (state ^ slice.data[i]) * 0x100000001b3u;
    return state;
}

static uint64_t hash_head(const struct h1_head *head, const uint8_t *data) {
    uint64_t state = hash(
        head->length * 8 + head->chunked * 4u + head->close * 2u + head->expect_continue, h1_slice(data, head->method));
    state = hash(state, h1_slice(data, head->target));
    for (unsigned i = 0; i < head->n_fields; i++) {
        if (head->fields[i].value.at + head->fields[i].value.size > head->size)
            abort();
        state = hash(state + 1, h1_slice(data, head->fields[i].name));
        state = hash(state + 1, h1_slice(data, head->fields[i].value));
    }
    return state;
}

/* How many bytes come at once: everything, or a number from the input. */
static size_t piece(const uint8_t *data, size_t size, size_t at, bool whole) {
    size_t n = whole ? size : 1u + data[(at * 31 + 7) % size] % 61u;
    return n < size - at ? n : size - at;
}

/* Bytes of the body from `at` on; SIZE_MAX when it is wrong or not all there. */
static size_t read_chunked(const uint8_t *data, size_t size, size_t at, bool whole, struct trace *trace) {
    struct h1_chunks chunks;
    uint64_t state = 0;
    uint8_t kept[512];
    h1_chunks_begin(&chunks);
    if (size % 2)
        h1_chunks_keep(&chunks, kept, sizeof(kept));
    for (;;) {
        size_t there = at + (at < size ? piece(data, size, at, whole) : 0), taken;
        struct wire_slice body;
        enum h1_result result = h1_chunks_read(&chunks, data + at, there - at, &taken, &body);
        if (taken > there - at || (body.size > 0 && (body.data < data + at || body.data + body.size > data + there)))
            abort();
        state = hash(state, body);
        at += taken;
        if (result == H1_DONE) {
            struct wire_slice trailers = {kept, chunks.kept}, value = h1_trailer(trailers, "a");
            if (chunks.kept > sizeof(kept) ||
                (value.size > 0 && (value.data < kept || value.data + value.size > kept + chunks.kept)))
                abort();
            state = hash(state, value);
            note(trace, state);
            return at;
        }
        if (result == H1_WRONG || at == size) {
            note(trace, result == H1_WRONG ? chunks.status : state);
            return SIZE_MAX;
        }
        if (taken == 0)
            abort();
    }
}

static void read_all(const uint8_t *data, size_t size, bool whole, struct trace *trace) {
    size_t at = 0;
    while (at < size) {
        struct h1_head head;
        size_t there = 0;
        enum h1_result result;
        h1_begin(&head);
        do {
            there += piece(data, size, at + there, whole);
            result = h1_read(&head, data + at, there);
        } while (result == H1_MORE && at + there < size);
        if (result != H1_DONE) {
            note(trace, result == H1_WRONG ? head.status : 1);
            return;
        }
        if (head.size > there)
            abort();
        note(trace, hash_head(&head, data + at));
        at += head.size;
        if (head.chunked)
            at = read_chunked(data, size, at, whole, trace);
        else
            at = head.length < size - at ? at + head.length : SIZE_MAX;
        if (at == SIZE_MAX)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct trace whole = {.n = 0}, pieces = {.n = 0};
    if (size == 0)
        return 0;
    read_all(data, size, true, &whole);
    read_all(data, size, false, &pieces);
    if (whole.n != pieces.n || memcmp(whole.seen, pieces.seen, whole.n * sizeof(whole.seen[0])) != 0)
        abort();
    return 0;
}
