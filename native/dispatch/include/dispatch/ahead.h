/* Environments that are there ahead of demand, as the control plane wants them (PUT_POOL). Runs in the loop.
 *
 *   provisioned  always so many, launched as such, replaced when they end, ended neither by keep-alive nor for room. They
 *                are used before all others, which serve what comes beyond them
 *   parked       so many idle ones, launched and initialised before anybody asks. The first invocations take them; others
 *                are launched behind, one batch after the other, never while an invocation waits, and never at the cost
 *                of another function's environment
 *   prewarmed    one, from prewarm_ms after the function's last invocation until prewarm_end_ms after it
 *
 * All of them are frozen like any idle environment. One that cannot be made is tried again after a second, then less and
 * less often.
 *
 * With several loops provisioned ones are counted for all together (common.h): any loop launches what is missing, and
 * they go where they are needed like other environments (travel.h). When more are there than wanted, two loops may end
 * one too many, which is then launched anew. Of parked ones each loop keeps its share; each prewarms one by its own last
 * invocation. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/timers.h"

struct dispatch;
struct environment;
struct target;
struct wire_header;
struct wire_put_pool;

#define AHEAD_KEEP_OWN UINT32_MAX /* keep_alive_ms: the target's own */
#define AHEAD_DELAY_US 5000u      /* between a need and a launch, and between two batches */
#define AHEAD_BATCH 4u            /* launches at once */
#define AHEAD_LAUNCHING_MAX 8u    /* none while so many of the node's are on their way */
#define AHEAD_YIELD_US 50000u     /* while somebody else needs the launcher or room */
#define AHEAD_RETRY_US 1000000u
#define AHEAD_RETRY_MAX_US 60000000u

struct ahead {
    uint64_t generation;
    bool active;          /* anything below is wanted */
    uint32_t provisioned; /* of all loops */
    uint32_t parked;      /* this loop's share */
    uint32_t keep_alive_ms, keep_others_ms, prewarm_ms, prewarm_end_ms;

    uint32_t starting, free; /* provisioned ones of this loop that are on the way, and those that are idle */
    uint64_t retry_us;       /* no launch before: somebody else needed the launcher or room */
    uint64_t left_us;        /* when the last invocation was over; 0: none yet, or one is there */
    struct list idle;        /* provisioned ones, most recently used first */
    struct timer timer;
};

void ahead_init(struct target *target);
void ahead_done(struct target *target);
/* 0, or -ENOENT: no such target, -EINVAL: *ret_field is out of range. */
int ahead_put(struct dispatch *dispatch, const struct wire_header *header, const struct wire_put_pool *message,
    const char **ret_field);
/* After everything that may have changed what is missing. */
void ahead_step(struct target *target);
/* An invocation more, or one less. */
void ahead_rise(struct target *target);
void ahead_fall(struct target *target);

/* How long this one is kept idle, in microseconds: now, if it is idle, or if it fell idle now. Another time for the first
 * one, which is used again by whatever comes next, and for the others, which are for what overlaps. */
uint64_t ahead_keep_us(const struct environment *environment);
/* It has fallen idle: there may be another that was the first before. */
void ahead_follow(const struct environment *environment);
/* Is this one, which is idle, there ahead of demand? Then it stays. */
bool ahead_needs(const struct environment *environment);
/* One of the provisioned ones, which are more than are wanted. */
bool ahead_is_excess(const struct environment *environment);
bool ahead_is_provisioned(const struct environment *environment);
/* Into the idle stack where it belongs. */
void ahead_offer(struct environment *environment);

/* An environment goes from one state to another (enum environment_state). */
void ahead_count(struct environment *environment, unsigned before, unsigned next);
/* It came from another dispatcher, idle. */
void ahead_took(struct environment *environment);
/* It left for another loop, or came from there, idle. */
void ahead_left(struct environment *environment);
void ahead_came(struct environment *environment);
/* It is through its init phase. */
void ahead_made(struct environment *environment);
/* The dispatcher knows all that there is. */
void ahead_begin(struct dispatch *dispatch);
