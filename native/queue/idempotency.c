/* The table of idempotency; see the header. Open addressing, linear probing; what is too old goes when the table is made
 * anew: as it grows, or when it is full. */
#include "queue/idempotency.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define PENDING 0x80000000u
#define FIRST 1024u

void idempotency_init(struct idempotency *t, uint32_t window_s, uint32_t most) {
    *t = (struct idempotency){.window_s = window_s, .most = most};
}

void idempotency_done(struct idempotency *t) {
    free(t->entries);
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

/* Where it stands, or the free place where it would. */
static struct known *probe(const struct idempotency *t, uint64_t key) {
    for (uint64_t at = key * 0x9e3779b97f4a7c15u >> 32;; at++) {
        struct known *known = &t->entries[at & (t->capacity - 1)];
        if (known->key == key || known->key == 0)
            return known;
    }
}

static int make_room(struct idempotency *t, uint32_t now_s) {
    uint32_t young = 0, before = t->capacity;
    struct known *old = t->entries;
    if (before != 0 && t->n < before / 4 * 3)
        return 0;
    for (uint32_t i = 0; i < before; i++)
        young += old[i].key != 0 && !is_old(t, &old[i], now_s);
    if (young >= t->most)
        return -ENOBUFS;
    uint32_t capacity = MAX(FIRST, before);
    while (young >= capacity / 2)
        capacity *= 2;
    t->entries = calloc(capacity, sizeof(*t->entries));
    if (t->entries == NULL) {
        t->entries = old;
        return -ENOMEM;
    }
    t->capacity = capacity;
    t->n = young;
    for (uint32_t i = 0; i < before; i++)
        if (old[i].key != 0 && !is_old(t, &old[i], now_s))
            *probe(t, old[i].key) = old[i];
    free(old);
    return 0;
}

int idempotency_begin(struct idempotency *t, uint64_t key, uint64_t digest, uint64_t now_ms) {
    uint32_t now_s = seconds(now_ms);
    int r = make_room(t, now_s);
    if (r < 0)
        return r;
    struct known *known = probe(t, key);
    if (known->key != 0 && !is_old(t, known, now_s)) {
        if (known->digest != (uint32_t)digest)
            return KNOWN_CONFLICT;
        return (known->second & PENDING) != 0 ? KNOWN_PENDING : KNOWN_DUPLICATE;
    }
    t->n += known->key == 0;
    *known = (struct known){.key = key, .digest = (uint32_t)digest, .second = now_s | PENDING};
    return KNOWN_NEW;
}

void idempotency_end(struct idempotency *t, uint64_t key, int accepted) {
    struct known *known = t->capacity > 0 ? probe(t, key) : NULL;
    if (known == NULL || known->key != key)
        return;
    /* Refused: as old as can be, since a place in the middle of a chain cannot be freed. */
    known->second = accepted ? known->second & ~PENDING : 0;
}

int idempotency_restore(struct idempotency *t, uint64_t key, uint64_t digest, uint64_t accepted_ms, uint64_t now_ms) {
    int r = make_room(t, seconds(now_ms));
    if (r < 0)
        return r;
    struct known *known = probe(t, key);
    t->n += known->key == 0;
    *known = (struct known){.key = key, .digest = (uint32_t)digest, .second = seconds(accepted_ms)};
    return 0;
}
