/* The codec of records; layout in the header. */
#include "queue/record.h"

#include <errno.h>
#include <string.h>

#include "base/crc32c.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian and is written as it stands");

uint32_t record_seed(uint64_t salt) {
    return crc32c(0, &salt, sizeof(salt));
}

uint64_t record_event_padded(const struct record_event *event) {
    uint64_t size = (uint64_t)RECORD_EVENT + event->head_size + event->payload_size + (uint64_t)event->response_size;
    return size > RECORD_MAX ? UINT64_MAX : record_padded(size);
}

static void put_prefix(uint8_t *bytes, size_t size, enum record_kind kind, uint8_t attempts, uint8_t phase) {
    uint32_t narrow = (uint32_t)size;
    memset(bytes, 0, RECORD_PREFIX);
    memcpy(bytes + 4, &narrow, 4);
    bytes[8] = (uint8_t)kind;
    bytes[10] = attempts;
    bytes[11] = phase;
}

size_t record_put_event(uint8_t *bytes, const struct record_event *e) {
    size_t size = RECORD_EVENT + e->head_size + e->payload_size + (size_t)e->response_size;
    size_t padded = record_padded(size);

    put_prefix(bytes, size, e->origin.segment != 0 ? RECORD_MOVED : RECORD_ACCEPT, e->attempts, e->phase);
    memcpy(bytes + 16, e->id, 16);
    memcpy(bytes + 32, e->queue, 16);
    memcpy(bytes + 48, &e->accepted_ms, 8);
    memcpy(bytes + 56, &e->due_ms, 8);
    memcpy(bytes + 64, &e->key, 8);
    memcpy(bytes + 72, &e->digest, 8);
    memcpy(bytes + 80, &e->origin.segment, 8);
    memcpy(bytes + 88, &e->origin.ordinal, 4);
    memcpy(bytes + 92, &e->head_size, 4);
    memcpy(bytes + 96, &e->payload_size, 4);
    memcpy(bytes + 100, &e->response_size, 4);
    memset(bytes + 104, 0, 8);
    bytes[104] = e->depth;
    bytes[105] = e->flags;
    uint8_t *at = bytes + RECORD_EVENT;
    if (e->head_size > 0)
        memcpy(at, e->head, e->head_size);
    at += e->head_size;
    if (e->payload_size > 0)
        memcpy(at, e->payload, e->payload_size);
    at += e->payload_size;
    if (e->response_size > 0)
        memcpy(at, e->response, e->response_size);
    memset(bytes + size, 0, padded - size);
    return padded;
}

size_t record_put_change(uint8_t *bytes, const struct record_change *change) {
    put_prefix(bytes, RECORD_CHANGE_SIZE, RECORD_CHANGE, change->attempts, change->phase);
    memcpy(bytes + 12, &change->place.ordinal, 4);
    memcpy(bytes + 16, &change->place.segment, 8);
    memcpy(bytes + 24, &change->due_ms, 8);
    memcpy(bytes + 32, &change->at_ms, 8);
    return RECORD_CHANGE_SIZE;
}

void record_finish(uint8_t *bytes, uint32_t seed, uint32_t ordinal) {
    uint32_t size, crc;
    memcpy(&size, bytes + 4, 4);
    if (bytes[8] != RECORD_CHANGE)
        memcpy(bytes + 12, &ordinal, 4);
    crc = crc32c(seed, bytes + 4, size - 4);
    memcpy(bytes, &crc, 4);
}

static int parse_event(const uint8_t *bytes, struct record *record) {
    struct record_event *e = &record->event;
    if (record->size < RECORD_EVENT)
        return -EBADMSG;
    memset(e, 0, sizeof(*e));
    memcpy(e->id, bytes + 16, 16);
    memcpy(e->queue, bytes + 32, 16);
    memcpy(&e->accepted_ms, bytes + 48, 8);
    memcpy(&e->due_ms, bytes + 56, 8);
    memcpy(&e->key, bytes + 64, 8);
    memcpy(&e->digest, bytes + 72, 8);
    memcpy(&e->origin.segment, bytes + 80, 8);
    memcpy(&e->origin.ordinal, bytes + 88, 4);
    memcpy(&e->head_size, bytes + 92, 4);
    memcpy(&e->payload_size, bytes + 96, 4);
    memcpy(&e->response_size, bytes + 100, 4);
    e->attempts = bytes[10];
    e->phase = bytes[11];
    e->depth = bytes[104];
    e->flags = bytes[105];
    if ((uint64_t)RECORD_EVENT + e->head_size + e->payload_size + e->response_size != record->size)
        return -EBADMSG;
    if ((e->origin.segment != 0) != (record->kind == RECORD_MOVED))
        return -EBADMSG;
    e->head = bytes + RECORD_EVENT;
    e->payload = bytes + RECORD_EVENT + e->head_size;
    e->response = bytes + RECORD_EVENT + e->head_size + e->payload_size;
    return 0;
}

int record_parse(const uint8_t *bytes, size_t left, uint32_t seed, struct record *ret_record) {
    uint32_t crc, size;

    if (left < RECORD_PREFIX)
        return -EBADMSG;
    memcpy(&crc, bytes, 4);
    memcpy(&size, bytes + 4, 4);
    if (size < RECORD_PREFIX || size > RECORD_MAX || record_padded(size) > left ||
        crc32c(seed, bytes + 4, size - 4) != crc)
        return -EBADMSG;
    return record_look(bytes, left, ret_record);
}

int record_look(const uint8_t *bytes, size_t left, struct record *ret_record) {
    struct record record = {0};

    if (left < RECORD_PREFIX)
        return -EBADMSG;
    memcpy(&record.size, bytes + 4, 4);
    if (record.size < RECORD_PREFIX || record.size > RECORD_MAX || record_padded(record.size) > left)
        return -EBADMSG;
    if (bytes[8] < RECORD_ACCEPT || bytes[8] > RECORD_CHANGE || bytes[9] != 0 || bytes[10] > ATTEMPTS_MAX ||
        bytes[11] > PHASE_SETTLED)
        return -EBADMSG;
    record.kind = bytes[8];
    record.padded = (uint32_t)record_padded(record.size);
    memcpy(&record.ordinal, bytes + 12, 4);
    if (record.kind == RECORD_CHANGE) {
        if (record.size != RECORD_CHANGE_SIZE)
            return -EBADMSG;
        record.change.place.ordinal = record.ordinal;
        record.change.attempts = bytes[10];
        record.change.phase = bytes[11];
        memcpy(&record.change.place.segment, bytes + 16, 8);
        memcpy(&record.change.due_ms, bytes + 24, 8);
        memcpy(&record.change.at_ms, bytes + 32, 8);
        if (record.change.place.segment == 0)
            return -EBADMSG;
    } else if (parse_event(bytes, &record) < 0) {
        return -EBADMSG;
    }
    *ret_record = record;
    return 0;
}
