/* A segment of the event log: one file, NNNNNNNNNNNNNNNN.log (its sequence in hexadecimal). Layout, in sectors of 512 bytes:
 *
 *     0        header, one sector, and the same again
 *     1024     state area: two copies of each of its sectors, beside each other
 *     start    groups, each beginning at a sector (segment_start)
 *     end      footer, once the segment is sealed
 *
 * Header, written and synced before the segment has its name:
 *     0   8  "RTEVENTS"       8  u32 version, 1        12  u32 crc32c of bytes 16..512
 *    16 u64  salt: random, of this life of the file (files are used again, and what is left from before has another)
 *    24 u64  sequence        32  u64 size: where groups and footer end        40  u32 events at most        44  u32 0
 *    48 u64  oldest segment there was; all from it to this one exist, what is missing was lost
 *            (also in the files called spare and next. Above the sequence: this segment is done with as well, which was
 *            written here for want of room for a record; only the first copy of the header says it)
 *    56 u64  previous segment, 0: none       64  u64 where its groups end: what stands behind was given up
 *    72 u64  created, ms
 *
 * State area: what became of events when there was no room for records. One byte an event: attempts + 32 * phase; 0: as
 * the records say. A sector: 0 u32 crc32c of bytes 4..512; 4 u32 which; 8 u64 salt; 16 u64 generation; 24 488 bytes.
 * The copy with the higher generation holds, the other one is written next.
 *
 * Group: one write and one sync. Header of 48 bytes, then records (record.h), then zeros to a full sector:
 *     0 u32  magic            4  u32 crc32c of bytes 8..48        8  u64 salt       16  u64 number, rising by attempts
 *    24 u64  durable: all before this offset was synced before this group was written
 *    32 u32  bytes of records        36  u32 records      40  u64 when, ms
 * A group is written only when all before it is on the disk. So a bad group with a good one behind it is damage; a bad
 * one with nothing behind it is the torn tail of a group that nobody was told of.
 *
 * Footer: header of 64 bytes, queues, events, changes, sizes as below:
 *     0 u32  magic            4  u32 crc32c of bytes 8..64        8  u64 salt       16  u64 offset of the footer
 *    24 u32  queues          28  u32 events      32  u32 changes      36  u32 crc32c of what follows the header
 *    40 u64  last accept of an event with a key, ms                  48  u64 ordinals there are           56 u64 0
 *  queue:  uid[16], u32 first event, u32 events                  sorted by uid
 *  event:  u64 due (48 bits) and ordinal (16 bits above), u32 offset / 8, u32 size of the record, u64 key
 *                                                               of one queue together, sorted by due
 *  change: u64 due (48 bits), attempts, phase; u64 segment; u32 ordinal; u32 1: the state that a MOVED event came with */
#pragma once

#include <stdint.h>

#include "queue/file.h"
#include "queue/record.h"

#define SEGMENT_NAME_SIZE 21
#define SEGMENT_EVENTS_MAX 65536u
#define STATES_IN_SECTOR 488u
#define GROUP_HEADER 48u
#define FOOTER_HEADER 64u
#define HEADER_SIZE (2 * SECTOR)
#define FOOTER_ITEM 24u
#define DUE_MASK 0xffffffffffffu

struct segment_header {
    uint64_t salt, sequence, size;
    uint32_t events_max;
    uint64_t oldest, previous, previous_end, created_ms;
};

struct group_header {
    uint64_t salt, number, durable, at_ms;
    uint32_t size, records;
};

struct footer_queue {
    uint8_t uid[16];
    uint32_t first, count;
};

struct footer_event {
    uint64_t due_ordinal;
    uint32_t where, size;
    uint64_t key;
};

struct footer_change {
    uint64_t due_attempts_phase;
    uint64_t segment;
    uint32_t ordinal, own; /* own: the state that a MOVED event of this segment came with */
};

struct footer {
    uint32_t n_queues, n_events, n_changes;
    uint64_t keyed_ms;
    uint64_t ordinals;
    struct footer_queue *queues; /* one allocation with the two below */
    struct footer_event *events;
    struct footer_change *changes;
};

static inline uint64_t sector_up(uint64_t offset) {
    return (offset + SECTOR - 1) / SECTOR * SECTOR;
}
static inline uint64_t event_due(const struct footer_event *e) {
    return e->due_ordinal & DUE_MASK;
}
static inline uint32_t event_ordinal(const struct footer_event *e) {
    return (uint32_t)(e->due_ordinal >> 48);
}

void segment_name(char ret_name[SEGMENT_NAME_SIZE], uint64_t sequence);
/* 0 when it is not the name of a segment. */
uint64_t segment_sequence(const char *name);
/* Where groups begin, and the most that a footer takes. */
uint64_t segment_start(uint32_t events_max);
uint64_t segment_footer_max(uint32_t events_max);
/* How many changes a segment may hold: its footer lists them all. */
uint32_t segment_changes_max(uint32_t events_max);

void segment_put_header(uint8_t ret_bytes[HEADER_SIZE], const struct segment_header *header);
/* -EBADMSG when neither copy is good; -EPROTONOSUPPORT for another version. */
int segment_parse_header(const uint8_t bytes[HEADER_SIZE], struct segment_header *ret_header);

/* `bytes` has the records from GROUP_HEADER on, and room to the full sector, which is zeroed. */
void group_finish(uint8_t *bytes, const struct group_header *header);
/* -EBADMSG when no group of that salt begins here. */
int group_parse(const uint8_t *bytes, uint64_t salt, struct group_header *ret_header);

/* Footers: as one buffer to be written at `offset`; read back whole. -EBADMSG when there is none or it is damaged. */
int footer_encode(const struct footer *footer, uint64_t salt, uint64_t offset, uint8_t **ret_bytes, size_t *ret_size);
int footer_found(const uint8_t *bytes, uint64_t salt, uint64_t offset, struct footer *ret_sizes);
int footer_read(struct files *files, int file, uint64_t salt, uint64_t offset, struct footer *ret_footer);
void footer_done(struct footer *footer);

/* Merges `n` bytes of state (attempts + 32 * phase) into the area of an open segment, and syncs it; sectors
 * without any are left. */
int states_write(struct files *files, int file, const struct segment_header *header, const uint8_t *states, uint32_t n);
/* What the area says, merged into `states`. */
int states_read(struct files *files, int file, const struct segment_header *header, uint8_t *states, uint32_t n);

static inline uint8_t state_merged(uint8_t a, uint8_t b) {
    uint8_t attempts = (a & 31u) > (b & 31u) ? (a & 31u) : (b & 31u);
    uint8_t phase = (a & 96u) > (b & 96u) ? (a & 96u) : (b & 96u);
    return (uint8_t)(attempts | phase);
}
static inline uint8_t state_of(uint8_t attempts, uint8_t phase) {
    return (uint8_t)((attempts & 31u) | (phase << 5));
}
static inline uint8_t state_attempts(uint8_t state) {
    return state & 31u;
}
static inline uint8_t state_phase(uint8_t state) {
    return (state >> 5) & 3u;
}
