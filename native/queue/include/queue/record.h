/* What stands in a group of the event log: the codec, pure. All integers are little-endian.
 *
 * A record begins at a multiple of 8 bytes and is padded with zeros to one:
 *
 *     0  u32  crc32c of bytes 4..size, seeded with the segment's salt (record_seed): an offset is written
 *              once in the life of a salt
 *     4  u32  size, without padding
 *     8  u8   kind: 1 ACCEPT, 2 MOVED, 3 CHANGE     9 u8 0     10 u8 attempts     11 u8 phase
 *    12  u32  ordinal: which event of its segment (ACCEPT, MOVED: this one; CHANGE: the one that changes)
 *
 * ACCEPT, an event; MOVED, an event that stood elsewhere (by compaction, by a retry far away, by an outcome with a
 * response) and from now on stands here:
 *
 *    16  16   event id             32  16  queue: the function's uid
 *    48  u64  accepted, ms         56  u64 due, ms of the Unix epoch; 0: at once
 *    64  u64  key of idempotency: hash of function and client's id; 0: none      72  u64  digest of the payload
 *    80  u64  origin's segment; 0: none          88  u32  origin's ordinal
 *    92  u32  size of the head     96  u32  of the payload     100  u32  of the response
 *   104  u8   depth of the chain of functions    105  u8  flags: 1 the response was cut off     106  6 zeros
 *   112       head (the dispatcher's: qualifier, trace, tenant), payload, response
 *
 * CHANGE, of an event that stands in `segment` (RETRY: phase waiting and a due time; HANDLED: a delivering phase; SETTLED):
 *
 *    16  u64  segment    24  u64  due, ms    32  u64  when, ms
 *
 * with ordinal 0xffffffff: that segment and all before it are done with, and about to be removed.
 *
 * Changes merge: the highest attempts and the highest phase hold, in whatever order they are read. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum record_kind { RECORD_ACCEPT = 1, RECORD_MOVED = 2, RECORD_CHANGE = 3 };
enum phase { PHASE_WAITING = 0, PHASE_SUCCEEDED = 1, PHASE_FAILED = 2, PHASE_SETTLED = 3 };

#define RECORD_PREFIX 16u
#define RECORD_EVENT 112u
#define RECORD_CHANGE_SIZE 40u
#define RECORD_MAX (8u << 20)
#define ATTEMPTS_MAX 31u
#define RESPONSE_CUT 1u
#define ORDINAL_ALL UINT32_MAX

/* Where an event stands. */
struct place {
    uint64_t segment; /* from 1 */
    uint32_t ordinal;
};

/* ACCEPT or MOVED; the pointers are borrowed. */
struct record_event {
    uint8_t id[16], queue[16];
    uint64_t accepted_ms, due_ms;
    uint64_t key, digest;
    struct place origin; /* segment 0: none, and the record is an ACCEPT */
    uint8_t attempts, phase, depth, flags;
    const void *head, *payload, *response;
    uint32_t head_size, payload_size, response_size;
};

struct record_change {
    struct place place;
    uint8_t attempts, phase;
    uint64_t due_ms, at_ms;
};

struct record {
    enum record_kind kind;
    uint32_t size, padded;
    uint32_t ordinal;
    union {
        struct record_event event;
        struct record_change change;
    };
};

static inline uint64_t record_padded(uint64_t size) {
    return (size + 7u) & ~(uint64_t)7u;
}

uint32_t record_seed(uint64_t salt);
/* What an event takes, padded; UINT64_MAX when it is over RECORD_MAX. */
uint64_t record_event_padded(const struct record_event *event);
/* Writes all but ordinal and checksum; the buffer has room for the padded size, which is returned. */
size_t record_put_event(uint8_t *ret_bytes, const struct record_event *event);
size_t record_put_change(uint8_t *ret_bytes, const struct record_change *change);
/* The last step, when group and place are known. Events get their ordinal, changes have theirs. */
void record_finish(uint8_t *bytes, uint32_t seed, uint32_t ordinal);
/* The record at the start of `bytes`, its pointers into them. -EBADMSG when there is none that is whole. */
int record_parse(const uint8_t *bytes, size_t left, uint32_t seed, struct record *ret_record);
/* The same without a look at the checksum, for a record that was made a moment ago. */
int record_look(const uint8_t *bytes, size_t left, struct record *ret_record);
