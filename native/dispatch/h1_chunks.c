/* Chunked bodies (RFC 9112, 7.1); see h1.h. */
#include <string.h>

#include "dispatch/h1.h"

enum {
    SIZE_FIRST, /* the first digit of a size */
    SIZE,       /* further digits */
    EXTENSION,  /* skipped to the line's end */
    SIZE_LF,    /* CR of the size's line was seen */
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* the first character of a trailer line, or of the empty one */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF, /* CR of the empty line was seen */
    OVER,
};

/* A chunk of more than this is none: bodies are bounded far below. */
#define CHUNK_DIGITS_MAX 15u

void h1_chunks_begin(struct h1_chunks *chunks) {
    *chunks = (struct h1_chunks){.state = SIZE_FIRST};
}

void h1_chunks_keep(struct h1_chunks *chunks, uint8_t *room, uint32_t size) {
    chunks->keep = room;
    chunks->keep_room = size;
}

struct wire_slice h1_trailer(struct wire_slice trailers, const char *name) {
    const uint8_t *at = trailers.data, *end = trailers.data + trailers.size;

    while (at < end) {
        const uint8_t *line_end = memchr(at, '\r', (size_t)(end - at));
        const uint8_t *colon = line_end != NULL ? memchr(at, ':', (size_t)(line_end - at)) : NULL;
        if (colon == NULL)
            break;
        if (h1_is((struct wire_slice){at, (uint32_t)(colon - at)}, name)) {
            for (at = colon + 1; at < line_end && (*at == ' ' || *at == '\t');)
                at++;
            for (end = line_end; end > at && (end[-1] == ' ' || end[-1] == '\t');)
                end--;
            return (struct wire_slice){at, (uint32_t)(end - at)};
        }
        at = line_end + 2;
    }
    return (struct wire_slice){trailers.data, 0};
}

static enum h1_result wrong(struct h1_chunks *chunks, uint16_t status, const char *reason) {
    chunks->status = status;
    chunks->reason = reason;
    return H1_WRONG;
}

static int digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_name(uint8_t c) {
    return c > 0x20 && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
}

static bool is_value(uint8_t c) {
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static enum h1_result size_line(struct h1_chunks *chunks, uint8_t c) {
    int value = digit(c);
    if (++chunks->count > H1_CHUNK_LINE_MAX)
        return wrong(chunks, 400, "A chunk's first line is too long.");
    switch (chunks->state) {
    case SIZE_FIRST:
    case SIZE:
        if (value >= 0) {
            if (chunks->count > CHUNK_DIGITS_MAX)
                return wrong(chunks, 413, "A chunk is larger than anything can be.");
            chunks->left = chunks->left << 4 | (unsigned)value;
            chunks->state = SIZE;
            return H1_DONE;
        }
        if (chunks->state == SIZE_FIRST || (c != '\r' && c != ';'))
            return wrong(chunks, 400, "A chunk's size is not a hexadecimal number.");
        chunks->state = c == ';' ? EXTENSION : SIZE_LF;
        return H1_DONE;
    case EXTENSION:
        if (c == '\r')
            chunks->state = SIZE_LF;
        else if (!is_value(c))
            return wrong(chunks, 400, "A chunk's extension has a character that it may not have.");
        return H1_DONE;
    default: /* SIZE_LF */
        if (c != '\n')
            return wrong(chunks, 400, "A chunk's first line does not end in CR LF.");
        chunks->count = 0;
        chunks->state = chunks->left > 0 ? DATA : TRAILER;
        return H1_DONE;
    }
}

static enum h1_result trailer(struct h1_chunks *chunks, uint8_t c) {
    if (++chunks->count > (chunks->keep != NULL ? chunks->keep_room : H1_TRAILER_MAX))
        return wrong(chunks, 431, "The trailers are too long.");
    if (chunks->keep != NULL)
        chunks->keep[chunks->kept++] = c;
    switch (chunks->state) {
    case TRAILER:
        chunks->state = c == '\r' ? LAST_LF : TRAILER_NAME;
        return c == '\r' || is_name(c) ? H1_DONE : wrong(chunks, 400, "A trailer has no name.");
    case TRAILER_NAME:
        if (c == ':')
            chunks->state = TRAILER_VALUE;
        else if (!is_name(c))
            return wrong(chunks, 400, "A trailer's name has a character that it may not have.");
        return H1_DONE;
    case TRAILER_VALUE:
        if (c == '\r')
            chunks->state = TRAILER_LF;
        else if (!is_value(c))
            return wrong(chunks, 400, "A trailer's value has a character that it may not have.");
        return H1_DONE;
    case TRAILER_LF:
        chunks->state = TRAILER;
        return c == '\n' ? H1_DONE : wrong(chunks, 400, "A trailer does not end in CR LF.");
    default: /* LAST_LF */
        chunks->state = OVER;
        return c == '\n' ? H1_DONE : wrong(chunks, 400, "The body does not end in CR LF.");
    }
}

enum h1_result h1_chunks_read(
    struct h1_chunks *chunks, const uint8_t *data, size_t size, size_t *ret_taken, struct wire_slice *ret_body) {
    enum h1_result result = H1_DONE;
    size_t i = 0;

    *ret_body = (struct wire_slice){data, 0};
    while (i < size && chunks->state != OVER && result == H1_DONE) {
        if (chunks->state == DATA) {
            size_t n = size - i < chunks->left ? size - i : (size_t)chunks->left;
            if (ret_body->size > 0)
                break; /* one piece at a time */
            if (n > UINT32_MAX)
                n = UINT32_MAX;
            *ret_body = (struct wire_slice){data + i, (uint32_t)n};
            chunks->left -= n;
            i += n;
            if (chunks->left == 0)
                chunks->state = DATA_CR;
            continue;
        }
        if (chunks->state < DATA) {
            result = size_line(chunks, data[i++]);
        } else if (chunks->state >= TRAILER) {
            result = trailer(chunks, data[i++]);
        } else if (data[i++] != (chunks->state == DATA_CR ? '\r' : '\n')) {
            result = wrong(chunks, 400, "A chunk does not end in CR LF.");
        } else {
            chunks->state = chunks->state == DATA_CR ? DATA_LF : SIZE_FIRST;
        }
    }
    *ret_taken = i;
    if (result == H1_WRONG)
        return H1_WRONG;
    return chunks->state == OVER ? H1_DONE : H1_MORE;
}
