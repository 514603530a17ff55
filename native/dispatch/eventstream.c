/* Event streams; see the header. */
#include "dispatch/eventstream.h"

#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/base64.h"
#include "dispatch/render.h"

#define POLYNOMIAL 0xedb88320u
#define PRELUDE 12u
#define STRING 7u
#define ERROR_CODE_MAX 256u

/* ---- the check -------------------------------------------------------------------------------------------------- */

/* Eight bytes at a time: a table for each place. */
static uint32_t tables[8][256];

__attribute__((constructor)) static void make_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (unsigned bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
        tables[0][i] = value;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (unsigned place = 1; place < 8; place++)
            tables[place][i] = tables[place - 1][i] >> 8 ^ tables[0][tables[place - 1][i] & 255];
}

static uint32_t little(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint32_t eventstream_crc(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint32_t low = crc ^ little(at), high = little(at + 4);
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^
            tables[3][high & 255] ^ tables[2][high >> 8 & 255] ^ tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
    }
    for (; size > 0; size--)
        crc = crc >> 8 ^ tables[0][(crc ^ *at++) & 255];
    return ~crc;
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static uint8_t *put_u32(uint8_t *at, uint32_t value) {
    for (unsigned i = 0; i < 4; i++)
        *at++ = (uint8_t)(value >> (24 - 8 * i));
    return at;
}

static uint8_t *put_header(uint8_t *at, const char *name, const char *value) {
    size_t name_size = strlen(name), value_size = strlen(value);
    *at++ = (uint8_t)name_size;
    memcpy(at, name, name_size);
    at += name_size;
    *at++ = STRING;
    *at++ = (uint8_t)(value_size >> 8);
    *at++ = (uint8_t)value_size;
    memcpy(at, value, value_size);
    return at + value_size;
}

static size_t put_head(uint8_t *into, const char *event, const char *type, uint32_t payload) {
    uint8_t *at = into + PRELUDE;
    size_t size;

    at = put_header(at, ":event-type", event);
    at = put_header(at, ":content-type", type);
    at = put_header(at, ":message-type", "event");
    size = (size_t)(at - into);
    (void)put_u32(into, (uint32_t)size + payload + EVENTSTREAM_TAIL);
    (void)put_u32(into + 4, (uint32_t)(size - PRELUDE));
    (void)put_u32(into + 8, eventstream_crc(0, into, 8));
    return size;
}

size_t eventstream_chunk_head(uint32_t size, uint8_t ret_head[EVENTSTREAM_HEAD_MAX]) {
    return put_head(ret_head, "PayloadChunk", "application/octet-stream", size);
}

void eventstream_tail(
    const uint8_t *head, size_t head_size, struct wire_slice payload, uint8_t ret_tail[EVENTSTREAM_TAIL]) {
    uint32_t crc = eventstream_crc(0, head, head_size);
    (void)put_u32(ret_tail, eventstream_crc(crc, payload.data, payload.size));
}

/* ---- InvokeComplete --------------------------------------------------------------------------------------------- */

/* How many bytes the UTF-8 sequence at the front has; 0: it is none. */
static unsigned sequence(const uint8_t *at, size_t left) {
    uint8_t first = at[0], low = 0x80, high = 0xbf;
    unsigned size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;

    if (size == 0 || size > left)
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    for (unsigned i = 1; i < size; i++, low = 0x80, high = 0xbf)
        if (at[i] < low || at[i] > high)
            return 0;
    return size;
}

/* The inside of a JSON string, in UTF-8; what is not UTF-8 becomes U+FFFD. A byte takes six at most. */
static uint8_t *put_escaped(uint8_t *at, struct wire_slice text) {
    static const char digits[] = "0123456789abcdef";
    for (uint32_t i = 0; i < text.size;) {
        unsigned n = sequence(text.data + i, text.size - i);
        uint8_t c = text.data[i];
        if (n == 0) {
            memcpy(at, "\xef\xbf\xbd", 3);
            at += 3;
            n = 1;
        } else if (c < 0x20 || c == 0x7f) {
            memcpy(at, "\\u00", 4);
            at[4] = (uint8_t)digits[c >> 4];
            at[5] = (uint8_t)digits[c & 15];
            at += 6;
        } else {
            if (c == '"' || c == '\\')
                *at++ = '\\';
            memcpy(at, text.data + i, n);
            at += n;
        }
        i += n;
    }
    return at;
}

static struct wire_slice cut(struct wire_slice text, uint32_t maximum) {
    if (text.size > maximum) {
        text.size = maximum;
        while (text.size > 0 && (text.data[text.size] & 0xc0) == 0x80)
            text.size--;
    }
    return text;
}

static uint8_t *put_text(uint8_t *at, const char *text) {
    size_t n = strlen(text);
    memcpy(at, text, n);
    return at + n;
}

/* The payload; `into`: eventstream_complete_max less head and tail. */
static size_t put_complete(const struct eventstream_complete *complete, uint8_t *into) {
    uint8_t *at = put_text(into, "{");

    if (complete->error_code.size > 0) {
        at = put_text(at, "\"ErrorCode\":\"");
        at = put_escaped(at, cut(complete->error_code, ERROR_CODE_MAX));
        at = put_text(at, "\",\"ErrorDetails\":\"");
        at = put_escaped(at, cut(complete->error_details, EVENTSTREAM_DETAILS_MAX));
        at = put_text(at, "\"");
    }
    if (complete->log.size > 0) {
        at = put_text(at, complete->error_code.size > 0 ? ",\"LogResult\":\"" : "\"LogResult\":\"");
        at += base64_encode(complete->log.data, MIN(complete->log.size, LOG_TAIL_MAX), (char *)at);
        at = put_text(at, "\"");
    }
    return (size_t)(put_text(at, "}") - into);
}

size_t eventstream_complete_max(const struct eventstream_complete *complete) {
    return EVENTSTREAM_HEAD_MAX + EVENTSTREAM_TAIL + 64 +
        6 *
        ((size_t)MIN(complete->error_code.size, ERROR_CODE_MAX) +
            MIN(complete->error_details.size, EVENTSTREAM_DETAILS_MAX)) +
        (MIN(complete->log.size, LOG_TAIL_MAX) + 2) / 3 * 4 + 1;
}

size_t eventstream_write_complete(const struct eventstream_complete *complete, uint8_t *into) {
    uint8_t head[EVENTSTREAM_HEAD_MAX];
    /* The head's size does not depend on the payload's. */
    size_t head_size = put_head(head, "InvokeComplete", "application/json", 0);
    struct wire_slice payload = {into + head_size, (uint32_t)put_complete(complete, into + head_size)};

    (void)put_head(into, "InvokeComplete", "application/json", payload.size);
    eventstream_tail(into, head_size, payload, into + head_size + payload.size);
    return head_size + payload.size + EVENTSTREAM_TAIL;
}
