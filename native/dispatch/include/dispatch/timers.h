/* Timers of the loop: an intrusive pairing heap, no allocation. Setting a timer later than before, or clearing it,
 * does not touch the heap (the usual case: a time-out that does not happen); the stale entry is looked at when it
 * comes up. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct timer {
    uint64_t deadline_us;                  /* 0: not set */
    uint64_t key_us;                       /* its place in the heap; at or before the deadline */
    struct timer *child, *next, *previous; /* previous: the sibling before, or of a first child its parent */
    bool queued;
    void (*fire)(struct timer *timer, uint64_t now_us);
};

struct timers {
    struct timer *root;
};

void timer_init(struct timer *timer, void (*fire)(struct timer *timer, uint64_t now_us));
void timer_set(struct timers *timers, struct timer *timer, uint64_t deadline_us);
void timer_clear(struct timer *timer);
/* Before its memory goes. */
void timer_drop(struct timers *timers, struct timer *timer);
/* When to look again, UINT64_MAX: never. */
uint64_t timers_next(struct timers *timers);
/* Fires what is due; a timer may set itself or others anew. */
void timers_run(struct timers *timers, uint64_t now_us);
