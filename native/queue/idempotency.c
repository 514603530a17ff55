/* The table of idempotency; see the header. Open addressing, linear probing; what is too old goes when a part is made
 * anew: as it grows, or when it is full. */
#include "queue/idempotency.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define PENDING 0x80000000u
#define FIRST 16u

void idempotency_init(struct idempotency *t, uint32_t window_s, uint32_t most) {
    *t = (struct idempotency){.window_s = window_s, .most = most / IDEMPOTENCY_PARTS / 16 * 17 + 16};
}

void idempotency_done(struct idempotency *t) {
    for (unsigned i = 0; i < IDEMPOTENCY_PARTS; i++)
        free(t->parts[i].entries);
    *t = (struct idempotency){0};
}

static uint32_t seconds(uint64_t ms) {
    return (uint32_t)(ms / 1000) & ~PENDING;
}

/* What was accepted far in the future was so before the clock was set back: its window is over, whenever it was. */
static bool is_old(const struct idempotency *t, const struct known *known, uint32_t now_s) {
    return (known->second & PENDING) == 0 &&
        (known->second + t->window_s < now_s || known->second > now_s + t->window_s);
}

static uint64_t spread(uint64_t key) {
    return key * 0x9e3779b97f4a7c15u;
}

static struct idempotency_part *part_of(struct idempotency *t, uint64_t key) {
    return &t->parts[spread(key) >> 58];
}

/* Where it stands, or the free place where it would. */
static struct known *probe(const struct idempotency_part *part, uint64_t key) {
    uint64_t at = (spread(key) >> 26 & UINT32_MAX) * part->capacity >> 32;
    for (;; at = at + 1 < part->capacity ? at + 1 : 0) {
        struct known *known = &part->entries[at];
        if (known->key == key || known->key == 0)
            return known;
    }
}

static int make_room(const struct idempotency *t, struct idempotency_part *part, uint32_t now_s) {
    struct idempotency_part anew = {0};
    uint32_t young = 0;
    if ((uint64_t)(part->n + 1) * 5 <= (uint64_t)part->capacity * 4)
        return 0;
    if (part->n > 0 && part->made_s == now_s && part->n >= t->most)
        return -ENOBUFS; /* nothing became old within a second */
    for (uint32_t i = 0; i < part->capacity; i++)
        young += part->entries[i].key != 0 && !is_old(t, &part->entries[i], now_s);
    part->made_s = now_s;
    if (young >= t->most)
        return -ENOBUFS;
    anew.made_s = now_s;
    anew.capacity = MIN(young + young / 2 + FIRST, t->most + t->most / 4 + 1);
    anew.n = young;
    anew.entries = calloc(anew.capacity, sizeof(*anew.entries));
    if (anew.entries == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < part->capacity; i++)
        if (part->entries[i].key != 0 && !is_old(t, &part->entries[i], now_s))
            *probe(&anew, part->entries[i].key) = part->entries[i];
    free(part->entries);
    *part = anew;
    return 0;
}

int idempotency_begin(struct idempotency *t, uint64_t key, uint64_t digest, uint64_t now_ms) {
    struct idempotency_part *part = part_of(t, key);
    uint32_t now_s = seconds(now_ms);
    struct known *known = part->capacity > 0 ? probe(part, key) : NULL;
    if (known != NULL && known->key != 0 && !is_old(t, known, now_s)) {
        if (known->digest != (uint32_t)digest)
            return KNOWN_CONFLICT;
        return (known->second & PENDING) != 0 ? KNOWN_PENDING : KNOWN_DUPLICATE;
    }
    int r = make_room(t, part, now_s);
    if (r < 0)
        return r;
    known = probe(part, key);
    part->n += known->key == 0;
    *known = (struct known){.key = key, .digest = (uint32_t)digest, .second = now_s | PENDING};
    return KNOWN_NEW;
}

void idempotency_end(struct idempotency *t, uint64_t key, int accepted) {
    const struct idempotency_part *part = part_of(t, key);
    struct known *known = part->capacity > 0 ? probe(part, key) : NULL;
    if (known == NULL || known->key != key)
        return;
    /* Refused: as old as can be, since a place in the middle of a chain cannot be freed. */
    known->second = accepted ? known->second & ~PENDING : 0;
}

int idempotency_restore(struct idempotency *t, uint64_t key, uint64_t digest, uint64_t accepted_ms, uint64_t now_ms) {
    struct idempotency_part *part = part_of(t, key);
    int r = make_room(t, part, seconds(now_ms));
    if (r < 0)
        return r;
    struct known *known = probe(part, key);
    part->n += known->key == 0;
    *known = (struct known){.key = key, .digest = (uint32_t)digest, .second = seconds(accepted_ms)};
    return 0;
}
