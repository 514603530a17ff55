/* Reading groups back; see the header. */
#include "queue/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define BLOCK (256u << 10)

struct reader {
    struct files *files;
    int file;
    uint64_t salt;
    uint64_t limit; /* nothing counts from here on */
    uint8_t *bytes; /* of the group under way */
    size_t capacity;
    uint8_t *block; /* of the search */
    uint64_t unreadable;
};

static int64_t reader_read(struct reader *r, void *data, size_t size, uint64_t offset) {
    if (offset >= r->limit)
        return 0;
    return files_read_most(r->files, r->file, data, MIN(size, r->limit - offset), offset, &r->unreadable);
}

/* The group at `offset`, read whole into r->bytes with its records checked. 1: good; 0: not. `ret_header` is that of a
 * group whose header is good (size 0 otherwise). */
static int group_load(struct reader *r, uint64_t offset, struct group_header *ret_header) {
    uint8_t head[GROUP_HEADER];
    struct group_header h;
    struct record record;
    uint32_t n = 0;
    int64_t got = reader_read(r, head, sizeof(head), offset);

    ret_header->size = 0;
    if (got < 0)
        return (int)got;
    if (got < (int64_t)sizeof(head) || group_parse(head, r->salt, &h) < 0)
        return 0;
    uint64_t whole = GROUP_HEADER + (uint64_t)h.size;
    if (whole > r->limit - offset || h.size % 8 != 0)
        return 0;
    if (whole > r->capacity) {
        uint8_t *more = realloc(r->bytes, whole);
        if (more == NULL)
            return -ENOMEM;
        r->bytes = more;
        r->capacity = whole;
    }
    got = reader_read(r, r->bytes, whole, offset);
    if (got < 0)
        return (int)got;
    if (got < (int64_t)whole)
        return 0;
    *ret_header = h;
    uint32_t seed = record_seed(h.salt);
    for (size_t at = GROUP_HEADER; at < whole; at += record.padded, n++)
        if (record_parse(r->bytes + at, whole - at, seed, &record) < 0)
            return 0;
    return n == h.records;
}

/* Gives out the records of the loaded group; with `damaged`, those that can be found. */
static int group_deliver(struct reader *r, uint64_t offset, const struct group_header *h, const struct scan_sink *sink,
    bool damaged, uint64_t *ret_delivered) {
    uint32_t seed = record_seed(h->salt);
    size_t whole = GROUP_HEADER + (size_t)h->size;
    for (size_t at = GROUP_HEADER; at + RECORD_PREFIX <= whole;) {
        struct record record;
        if (record_parse(r->bytes + at, whole - at, seed, &record) < 0) {
            if (!damaged)
                return -EBADMSG;
            at += 8;
            continue;
        }
        int s = sink->record(sink->context, &record, offset + at);
        if (s < 0)
            return s;
        *ret_delivered += record.padded;
        at += record.padded;
    }
    return 0;
}

/* The next sector from `offset` on where a group of a higher number or the footer begins. 1: group, 2: footer, 0: none. */
static int search(struct reader *r, uint64_t offset, uint64_t number, uint64_t *ret_offset) {
    struct footer footer;
    struct group_header h;
    for (;;) {
        int64_t got = reader_read(r, r->block, BLOCK, offset);
        if (got < 0)
            return (int)got;
        if (got < (int64_t)FOOTER_HEADER)
            return 0;
        for (int64_t at = 0; at + (int64_t)FOOTER_HEADER <= got; at += SECTOR) {
            *ret_offset = offset + (uint64_t)at;
            if (group_parse(r->block + at, r->salt, &h) == 0 && h.number > number)
                return 1;
            if (footer_found(r->block + at, r->salt, *ret_offset, &footer) == 0)
                return 2;
        }
        offset += BLOCK;
    }
}

/* Bytes from `offset` on that are not zero: what a torn tail is said to be long. */
static int64_t written_bytes(struct reader *r, uint64_t offset) {
    uint64_t start = offset, last = offset;
    int64_t got;
    while ((got = reader_read(r, r->block, BLOCK, offset)) > 0) {
        struct group_header h;
        for (int64_t i = 0; i < got; i++)
            if (r->block[i] != 0)
                last = offset + (uint64_t)i + 1;
        if (offset == start && (got < (int64_t)GROUP_HEADER || group_parse(r->block, r->salt, &h) < 0)) {
            /* A file used before has old groups here: only one that is ours can be told to be torn. */
            return MIN((uint64_t)got, (uint64_t)(last - start > 0 ? SECTOR : 0));
        }
        if (offset == start)
            return (int64_t)sector_up(GROUP_HEADER + (uint64_t)h.size);
        offset += (uint64_t)got;
    }
    return got < 0 ? got : (int64_t)(last - start);
}

static int scan_groups(
    struct reader *r, uint64_t offset, uint64_t known_end, const struct scan_sink *sink, struct scan *scan) {
    for (;;) {
        struct group_header h;
        struct footer footer;
        uint64_t next = 0, delivered = 0;
        uint8_t head[FOOTER_HEADER];
        int good = group_load(r, offset, &h);
        if (good < 0)
            return good;
        if (good && h.number > scan->number) {
            int s = group_deliver(r, offset, &h, sink, false, &delivered);
            if (s < 0)
                return s;
            scan->number = h.number;
            scan->durable = MAX(scan->durable, MAX(h.durable, offset));
            scan->last = offset;
            scan->groups++;
            scan->latest_ms = MAX(scan->latest_ms, h.at_ms);
            scan->end = offset = offset + sector_up(GROUP_HEADER + (uint64_t)h.size);
            continue;
        }
        int64_t got = files_read_most(r->files, r->file, head, sizeof(head), offset, &r->unreadable);
        if (got < 0)
            return (int)got;
        if (got == (int64_t)sizeof(head) && footer_found(head, r->salt, offset, &footer) == 0) {
            scan->footer = offset;
            return 0;
        }
        if (known_end != 0 && offset >= known_end)
            return 0;
        int found = search(r, offset + SECTOR, scan->number, &next);
        if (found < 0)
            return found;
        if (found == 0 && known_end == 0) {
            int64_t torn = written_bytes(r, offset);
            scan->torn_bytes = torn > 0 ? (uint64_t)torn : 0;
            return torn < 0 ? (int)torn : 0;
        }
        if (found == 0)
            next = known_end;
        /* Damage: something good, or the promise of the successor, stands behind it. */
        scan->damaged_areas++;
        if (h.size > 0 && h.number > scan->number) {
            int s = group_deliver(r, offset, &h, sink, true, &delivered);
            if (s < 0)
                return s;
        }
        scan->damaged_bytes += next - offset > delivered ? next - offset - delivered : 0;
        scan->end = offset = next;
        scan->durable = MAX(scan->durable, next);
    }
}

int segment_scan(struct files *files, int file, const struct segment_header *header, uint64_t known_end,
    const struct scan_sink *sink, struct scan *ret_scan) {
    struct reader reader = {.files = files, .file = file, .salt = header->salt};
    uint64_t start = segment_start(header->events_max);
    struct scan scan = {.end = start, .durable = start};
    int r;

    reader.limit = known_end != 0 ? known_end : UINT64_MAX;
    reader.block = malloc(BLOCK);
    if (reader.block == NULL)
        return -ENOMEM;
    r = scan_groups(&reader, start, known_end, sink, &scan);
    free(reader.block);
    free(reader.bytes);
    if (reader.unreadable > 0 && scan.damaged_areas == 0) { /* a tail that cannot be read is not a torn one */
        scan.damaged_areas = 1;
        scan.damaged_bytes = reader.unreadable;
    }
    if (r == 0)
        *ret_scan = scan;
    return r;
}
