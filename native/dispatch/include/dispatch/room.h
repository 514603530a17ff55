/* The node's room for environments: how many there may be over all functions, and whose go when another function needs
 * one. Runs in the loop.
 *
 * Every environment counts from its LAUNCH until its EXITED. When there is no room for one that is needed, the least
 * valuable idle environment (of a loop, each in its turn) ends, whosever it is: by how soon it is likely to be used
 * (worth.h) and by its memory. When none is idle, the next that frees up does, and targets that wait for room get it in
 * turn. While even the least valuable one is likely to be used within seconds (ROOM_HOT_RATE), or none is idle, an invocation
 * whose function has environments at work waits for these, for ROOM_PATIENCE_US at most: two functions do not end each
 * other's environments in turn. Where functions take turns, turn.h says for how
 * long an environment stays with its own: a busy function does not keep others out for ever, and one that is called again at
 * once does not lose its environment in between. (An init repeated inside an invocation is launched while its predecessor ends: one above.)
 *
 * Memory: the control plane looks at it, and says how many environments may stay idle (PUT_PRESSURE); those that are worth
 * least end until there are no more, and whenever one too many falls idle. Provisioned ones neither count nor end. Under
 * some pressure those likely to be used within seconds stay all the same; under full pressure they go too.
 *
 * What it costs: a look at ROOM_CANDIDATES_MAX targets, each by a table (worth.h) that is made anew when an eighth more is
 * known, a few in a look; where more have idle environments, those looked at are others the next time. Measured with 1,000
 * environments of 64 functions: 1 us (best), where it took 19 to reckon each anew; making a table takes 1 us. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/pool.h"
#include "dispatch/timers.h"

#define ROOM_PATIENCE_US 100000u
#define ROOM_HOT_RATE 0.1       /* uses a second */
#define ROOM_LEAST_KB 1024u     /* an environment is taken to have so much memory at least */
#define ROOM_CANDIDATES_MAX 64u /* targets whose environments are weighed against each other */
#define ROOM_TABLES_MAX 2u      /* tables made in a look */
#define ROOM_UNUSED_MAX 16u     /* never used ones of a target that are looked past */

enum room_pressure {
    ROOM_PRESSURE_NONE,
    ROOM_PRESSURE_SOME,
    ROOM_PRESSURE_FULL,
    ROOM_PRESSURES_N,
};

struct dispatch;
struct environment;
struct target;

/* Of all loops. */
struct room_common {
    uint32_t limit;                /* 0: none; this and the next two: changed while all loops but one stand still */
    uint32_t most_idle;            /* environments; UINT32_MAX: any number */
    uint8_t pressure;              /* enum room_pressure */
    _Atomic uint32_t environments; /* from LAUNCH to EXITED */
    _Atomic uint32_t leaving;      /* environments that were told to end and have not */
    _Atomic uint32_t wanted;       /* sum of the targets' missing ones */
    _Atomic uint64_t since_us[LOOPS_MAX]; /* when the first that waits for room arrived, of each loop; 0: nobody does */
};

/* Of one loop. */
struct room {
    struct list idle;        /* environments, idle for the longest time first */
    struct list targets;     /* those with idle environments that may end, and some that had: looked at in turn */
    struct list waiting;     /* targets that miss some, in turn */
    struct timer timer;      /* the turn of an idle one is over, or its moment */
    _Atomic uint32_t n_idle; /* environments in `idle` but for provisioned ones; others look at it */
};

void room_init(struct room *room);
/* May one be launched for the head of the target's queue? Then it counts from now on. */
bool room_claim(struct target *target);
/* Counts one, room or not. */
void room_take(struct dispatch *dispatch);
/* One is gone, or was not launched after all. */
void room_give_back(struct dispatch *dispatch);
/* May any be launched now? */
bool room_is_left(const struct dispatch *dispatch);
/* One has been told to end (+1), or has (-1). */
void room_leaving(struct dispatch *dispatch, int change);
/* An environment falls idle; it is so no more, or about to leave. */
void room_offer(struct environment *environment);
void room_withdraw(struct environment *environment);
/* The one that is worth least, of those that may end; NULL: none. */
struct environment *room_least(struct dispatch *dispatch);
/* What the control plane says of the memory, to each loop. */
void room_press(struct dispatch *dispatch, uint8_t level, uint32_t idle);
/* One has fallen idle: that may be one too many. */
void room_relieve(struct dispatch *dispatch);
/* The target needs so many more than there is room for; 0: none. Ends idle environments of others. */
void room_want(struct target *target, uint32_t missing);
/* May the head of the target's queue, for which there is no room, still wait for one of its own function? */
bool room_can_wait(const struct target *target, uint64_t now);
/* Must this environment, which is free, make room instead of going on? */
bool room_is_owed(const struct environment *environment);
/* An environment is gone. */
void room_freed(struct dispatch *dispatch);
/* There may be room, or none any more. */
void room_changed(struct dispatch *dispatch);
