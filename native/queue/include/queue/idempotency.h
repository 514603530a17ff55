/* Which events were accepted lately under which name of the client's: a window of time, and of so many names. The key is a
 * hash of function and name that a client cannot steer, the digest one of the payload. Pure.
 *
 * The table stands in parts that grow, and let go of what is too old, each for itself: none of it takes long, nor twice the
 * memory. A million names take 22 MB at most (IDEMPOTENCY_BYTES). */
#pragma once

#include <stdint.h>

struct known {
    uint64_t key; /* 0: free */
    uint32_t digest;
    uint32_t second; /* accepted; PENDING: not on the disk yet */
};

#define IDEMPOTENCY_PARTS 64u

struct idempotency_part {
    struct known *entries;
    uint32_t capacity, n;
    uint32_t made_s; /* when what was too old was last let go */
};

struct idempotency {
    struct idempotency_part parts[IDEMPOTENCY_PARTS];
    uint32_t window_s, most; /* most: of a part */
};

/* What so many names take at most, in bytes: a part takes some more than its share, and is at most four fifths full. */
#define IDEMPOTENCY_BYTES(most) (((uint64_t)(most) / 16 * 17 + 16 * IDEMPOTENCY_PARTS) * 5 / 4 * sizeof(struct known))

enum known_state { KNOWN_NEW, KNOWN_PENDING, KNOWN_DUPLICATE, KNOWN_CONFLICT };

void idempotency_init(struct idempotency *table, uint32_t window_s, uint32_t most);
void idempotency_done(struct idempotency *table);
/* KNOWN_NEW: it is in the table now, pending. -ENOMEM; -ENOBUFS when the window is full of younger names. */
int idempotency_begin(struct idempotency *table, uint64_t key, uint64_t digest, uint64_t now_ms);
/* The fate of what was begun: on the disk, or refused. */
void idempotency_end(struct idempotency *table, uint64_t key, int accepted);
/* From the log at the start. */
int idempotency_restore(
    struct idempotency *table, uint64_t key, uint64_t digest, uint64_t accepted_ms, uint64_t now_ms);
