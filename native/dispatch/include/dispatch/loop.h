/* The event loop: epoll, timers, and the rule when to spin. One thread; a whole batch is handled before sleeping.
 *
 * Spinning: waking an idle core costs about 40 us, so the loop polls for at most LOOP_SPIN_US before it sleeps, but
 * only when that is likely to pay: the moving average of the gaps between events is below LOOP_SPIN_US, and the
 * caller says that at most one invocation is in flight. Who is waited for may be on this very core, and cannot come as long
 * as the loop spins: a spin in vain is followed by turns without, twice as many each time up to LOOP_SKIP_MAX, until one is
 * not in vain. An environment and a caller are waited for in turn, so each has its own count. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "dispatch/timers.h"

#define LOOP_BATCH 128
#define LOOP_SPIN_US 50u
#define LOOP_SKIP_MAX 32u

struct watch {
    int fd;
    void (*ready)(struct watch *watch, uint32_t events);
};

struct spin {
    uint32_t skip; /* turns without, from now on */
    uint32_t last; /* how many there were after the last one in vain */
};

struct loop {
    int epoll;
    struct spin spinning[2];
    bool at_work; /* an invocation is in flight: says which of them counts; the caller's */
    struct timers timers;
    uint64_t now_us;  /* monotonic; when the batch began */
    uint64_t last_us; /* when the last batch with events began */
    uint64_t gap_us;  /* moving average */
    uint64_t turns, spins;
    uint64_t spun_us; /* spent in spinning, to the last poll before something came */
    struct epoll_event batch[LOOP_BATCH];
    int n_batch, at;
};

int loop_open(struct loop *loop);
void loop_close(struct loop *loop);
int loop_add(struct loop *loop, struct watch *watch, uint32_t events);
int loop_change(struct loop *loop, struct watch *watch, uint32_t events);
/* Also takes its events out of the batch under way. Closes nothing. Harmless when fd is -1. */
void loop_remove(struct loop *loop, struct watch *watch);
/* One batch: waits (spinning first when `calm`), handles events, then timers. `patience_us`: at most so long.
 * 0 or a negative errno. */
int loop_turn(struct loop *loop, bool calm, uint64_t patience_us);
