/* What is due when: a hierarchy of wheels of 64 slots, eight levels of milliseconds, 48 bits of time. Adding and passing
 * cost the same however many wait; nothing is scanned. Pure: the time comes in. An item is never handed out early; among
 * those that are due, the order is not promised. Nothing is taken out before it is due: whoever takes an item looks
 * whether it still holds. */
#pragma once

#include <stdint.h>

#define WHEEL_LEVELS 8
#define WHEEL_SLOTS 64

struct timed {
    uint64_t due_ms;
    uint64_t segment;
    uint32_t where, queue, next; /* next: the wheel's */
    uint16_t ordinal;
    uint16_t kind;
};

struct wheel {
    uint64_t at_ms;
    uint64_t occupied[WHEEL_LEVELS]; /* a bit a slot */
    uint32_t slots[WHEEL_LEVELS][WHEEL_SLOTS];
    uint32_t due; /* list of what is due */
    struct timed **blocks;
    uint32_t n_blocks, free, n;
    uint64_t steps; /* items put into a slot, ever: what tests count */
};

void wheel_init(struct wheel *wheel, uint64_t now_ms);
void wheel_done(struct wheel *wheel);
/* -ENOMEM. What is due already is handed out by the next wheel_take. */
int wheel_add(struct wheel *wheel, const struct timed *item);
/* Time went on; earlier than before is no time at all. */
void wheel_advance(struct wheel *wheel, uint64_t now_ms);
/* 1 and an item that is due, or 0. */
int wheel_take(struct wheel *wheel, struct timed *ret_item);
/* When to look again, UINT64_MAX: nothing waits. At most as late as the first item is due. */
uint64_t wheel_next(const struct wheel *wheel);
/* The clock was set: time goes on from `now_ms`, and items of the `kinds` (a bit each) are due at `latest_ms` at the latest. */
void wheel_reset_clock(struct wheel *wheel, uint64_t now_ms, uint32_t kinds, uint64_t latest_ms);
