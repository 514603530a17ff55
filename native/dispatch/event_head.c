/* What of a call is kept beside its payload, and the chain of functions that it belongs to. Pure. The head: u8 version, 1;
 * name, qualifier, trace and tenant, each as u16 length and bytes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "event_parts.h"

#define HEAD_VERSION 1
#define LINEAGE "Lineage="

static uint8_t *put(uint8_t *at, struct wire_slice slice, uint32_t most) {
    uint16_t size = (uint16_t)MIN(slice.size, most);
    memcpy(at, &size, 2);
    if (size > 0)
        memcpy(at + 2, slice.data, size);
    return at + 2 + size;
}

uint32_t event_head_put(const struct event_head *head, uint8_t ret_bytes[EVENT_HEAD_MAX]) {
    uint8_t *at = ret_bytes;
    *at++ = HEAD_VERSION;
    at = put(at, head->name, WIRE_CALL_NAME_MAX);
    at = put(at, head->qualifier, WIRE_CALL_QUALIFIER_MAX);
    at = put(at, head->trace, WIRE_CALL_TRACE_MAX);
    at = put(at, head->tenant, WIRE_CALL_TENANT_MAX);
    return (uint32_t)(at - ret_bytes);
}

int event_head_read(const void *bytes, uint32_t size, struct event_head *ret_head) {
    const uint8_t *at = bytes, *end = at + size;
    struct event_head head;
    struct wire_slice *const slices[] = {&head.name, &head.qualifier, &head.trace, &head.tenant};

    if (size < 1 || *at++ != HEAD_VERSION)
        return -EBADMSG;
    for (size_t i = 0; i < ARRAY_SIZE(slices); i++) {
        uint16_t length;
        if (end - at < 2)
            return -EBADMSG;
        memcpy(&length, at, 2);
        at += 2;
        if (end - at < length)
            return -EBADMSG;
        *slices[i] = (struct wire_slice){at, length};
        at += length;
    }
    *ret_head = head;
    return 0;
}

/* Of `Root=...;Lineage=1:1a2b3c4d:5`: where that part begins, and its length; NULL: there is none. */
static const uint8_t *find_lineage(struct wire_slice trace, uint32_t *ret_size) {
    const uint8_t *at = trace.data, *end = at + trace.size;
    const size_t key = sizeof(LINEAGE) - 1;
    while (at < end) {
        const uint8_t *next = memchr(at, ';', (size_t)(end - at));
        next = next != NULL ? next : end;
        if ((size_t)(next - at) > key && memcmp(at, LINEAGE, key) == 0) {
            *ret_size = (uint32_t)(next - at);
            return at;
        }
        at = next + 1;
    }
    return NULL;
}

uint8_t event_depth(struct wire_slice trace) {
    uint32_t size, depth = 0, colons = 0;
    const uint8_t *at = find_lineage(trace, &size);
    for (uint32_t i = 0; at != NULL && i < size; i++) {
        if (at[i] == ':')
            colons++, depth = 0;
        else if (colons > 0 && at[i] >= '0' && at[i] <= '9')
            depth = MIN(depth * 10 + (at[i] - '0'), 255u);
        else if (colons >= 2)
            return 0;
    }
    return colons >= 2 ? (uint8_t)depth : 0;
}

uint32_t event_trace(struct wire_slice trace, const uint8_t uid[16], uint8_t depth, char *ret_trace, uint32_t size) {
    uint32_t lineage = 0, length = 0;
    const uint8_t *at = find_lineage(trace, &lineage);
    char text[40];
    int n = snprintf(text, sizeof(text), LINEAGE "1:%02x%02x%02x%02x:%u", uid[0], uid[1], uid[2], uid[3], depth);

    if (trace.size + (uint32_t)n + 2 > size)
        trace.size = 0; /* one that long is none */
    for (uint32_t i = 0; i < trace.size; i++) {
        if (at != NULL && trace.data + i >= at && trace.data + i <= at + lineage)
            continue; /* and what parts it from the next */
        ret_trace[length++] = (char)trace.data[i];
    }
    while (length > 0 && ret_trace[length - 1] == ';')
        length--;
    if (length > 0)
        ret_trace[length++] = ';';
    memcpy(ret_trace + length, text, (size_t)n + 1);
    return length + (uint32_t)n;
}
