/* The wheel; see the header. An item stands at the level of the highest digit (of six bits) in which its time differs from
 * the wheel's, in the slot of that digit: so it is always ahead of the wheel there, and comes down a level or more when
 * the wheel reaches its slot. */
#include "queue/wheel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define BLOCK 1024u
#define NONE UINT32_MAX
#define HORIZON ((1ull << 48) - 1)

static struct timed *item_at(const struct wheel *w, uint32_t index) {
    return &w->blocks[index / BLOCK][index % BLOCK];
}

void wheel_init(struct wheel *w, uint64_t now_ms) {
    *w = (struct wheel){.at_ms = MIN(now_ms, HORIZON), .due = NONE, .free = NONE};
    memset(w->slots, 0xff, sizeof(w->slots));
}

void wheel_done(struct wheel *w) {
    for (uint32_t i = 0; i < w->n_blocks; i++)
        free(w->blocks[i]);
    free(w->blocks);
    *w = (struct wheel){0};
}

static void place(struct wheel *w, uint32_t index) {
    struct timed *item = item_at(w, index);
    w->steps++;
    if (item->due_ms <= w->at_ms) {
        item->next = w->due;
        w->due = index;
        return;
    }
    unsigned level = (63u - (unsigned)__builtin_clzll(item->due_ms ^ w->at_ms)) / 6;
    unsigned slot = (item->due_ms >> (6 * level)) & (WHEEL_SLOTS - 1);
    item->next = w->slots[level][slot];
    w->slots[level][slot] = index;
    w->occupied[level] |= 1ull << slot;
}

int wheel_add(struct wheel *w, const struct timed *item) {
    if (w->free == NONE) {
        struct timed **blocks = realloc(w->blocks, (w->n_blocks + 1) * sizeof(*blocks));
        struct timed *block;
        if (blocks == NULL)
            return -ENOMEM;
        w->blocks = blocks;
        block = malloc(BLOCK * sizeof(*block));
        if (block == NULL)
            return -ENOMEM;
        w->blocks[w->n_blocks++] = block;
        for (uint32_t i = BLOCK; i-- > 0;) {
            block[i].next = w->free;
            w->free = (w->n_blocks - 1) * BLOCK + i;
        }
    }
    uint32_t index = w->free;
    w->free = item_at(w, index)->next;
    *item_at(w, index) = *item;
    item_at(w, index)->due_ms = MIN(item->due_ms, HORIZON);
    place(w, index);
    w->n++;
    return 0;
}

/* Takes the slots of a level whose bits are set, and puts their items anew. */
static void replace(struct wheel *w, unsigned level, uint64_t slots, uint32_t *todo) {
    for (slots &= w->occupied[level]; slots != 0; slots &= slots - 1) {
        unsigned slot = (unsigned)__builtin_ctzll(slots);
        uint32_t index = w->slots[level][slot];
        w->slots[level][slot] = NONE;
        w->occupied[level] &= ~(1ull << slot);
        while (index != NONE) {
            uint32_t next = item_at(w, index)->next;
            item_at(w, index)->next = *todo;
            *todo = index;
            index = next;
        }
    }
}

static void place_all(struct wheel *w, uint32_t todo) {
    while (todo != NONE) {
        uint32_t next = item_at(w, todo)->next;
        place(w, todo);
        todo = next;
    }
}

void wheel_advance(struct wheel *w, uint64_t now_ms) {
    uint32_t todo = NONE;
    now_ms = MIN(now_ms, HORIZON);
    if (now_ms <= w->at_ms)
        return;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        uint64_t from = w->at_ms >> (6 * level), to = now_ms >> (6 * level);
        if (from >> 6 == to >> 6) { /* the same turn of this level: what lies behind `from`, up to `to` */
            uint64_t upto = (to & 63) == 63 ? UINT64_MAX : (1ull << ((to & 63) + 1)) - 1;
            replace(w, level, upto & ~((2ull << (from & 63)) - 1), &todo);
            break;
        }
        replace(w, level, UINT64_MAX, &todo);
    }
    w->at_ms = now_ms;
    place_all(w, todo);
}

int wheel_take(struct wheel *w, struct timed *ret_item) {
    uint32_t index = w->due;
    if (index == NONE)
        return 0;
    *ret_item = *item_at(w, index);
    w->due = ret_item->next;
    item_at(w, index)->next = w->free;
    w->free = index;
    w->n--;
    return 1;
}

uint64_t wheel_next(const struct wheel *w) {
    if (w->due != NONE)
        return w->at_ms;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++)
        if (w->occupied[level] != 0) {
            uint64_t slot = (uint64_t)__builtin_ctzll(w->occupied[level]);
            uint64_t turn = level == WHEEL_LEVELS - 1 ? 0 : w->at_ms >> (6 * level + 6) << (6 * level + 6);
            return turn | slot << (6 * level);
        }
    return UINT64_MAX;
}

void wheel_reset_clock(struct wheel *w, uint64_t now_ms, uint32_t kinds, uint64_t latest_ms) {
    uint32_t todo = w->due;
    w->due = NONE;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++)
        replace(w, level, UINT64_MAX, &todo);
    w->at_ms = MIN(now_ms, HORIZON);
    for (uint32_t index = todo; index != NONE; index = item_at(w, index)->next)
        if ((kinds >> item_at(w, index)->kind & 1) != 0 && item_at(w, index)->due_ms > latest_ms)
            item_at(w, index)->due_ms = MIN(latest_ms, HORIZON);
    place_all(w, todo);
}
