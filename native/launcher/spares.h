/* Spares: sandboxes that are complete but for a function's code, one process of ours in each, parked until a launch takes
 * it. What a cold start waits for is done before anybody waits: clone, mounts, identity, filters, the interpreter's hooks
 * after a fork, the pages that a first invocation writes to.
 *
 *   ahead    a shell out of the zygote's stock that nobody used, a leaf, an image for /tmp, an id; FORK with `ahead` and
 *            without code; the child goes through the whole of jail_enter (so it is closed like any other: no capability,
 *            seccomp, landlock, limits), rehearses, and says READY on its channel, whose other end we hold
 *   checked  from outside, by what the kernel tells of it: id, capabilities, no_new_privs, filter, mount namespace, cgroup
 *   taken    by LAUNCH of a plan that it fits (zygote, /tmp's size, RLIMITs): the plan's limits are written where they
 *            differ, package and layer are moved into its mount namespace, and it is that launch's environment: LAUNCHED
 *            goes out, and what comes next on its channel is START. Neither zygote nor spare is waited for
 *
 * Only the launcher moves the code in, with two moves in the spare's mount namespace, which it leaves at once. There every
 * path is ours: nothing from outside has run in a spare. A spare has no privilege of which to be relieved later.
 *
 * What does not fit, cannot be entered any more, or is not there, goes the ordinary way; a spare that failed is killed,
 * and the next one of that runtime waits, for longer with each until one is taken.
 * All but one may stand in shells that environments of the last plan left clean (recycle.h), which spares the making of
 * shells while one function is started again and again; these are for that plan alone.
 * Plans with snapshots go the ordinary way always. Spares are environments without an owner (launches.all): they are
 * reaped as these, hold the same things and give them back the same way, and end with their zygote, with us, and with
 * their shell. A crash of ours leaves of them what it leaves of environments.
 *
 * Made behind launches, one at a time, while none was asked for in the last milliseconds; ended when fewer are wanted
 * (spare_demand.h) or memory is short. Until taken the memory counts for no function. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "forking.h"
#include "loop.h"
#include "spare_demand.h"

/* Between two in the making. */
#define SPARES_NEXT_US 1000

struct environment;
struct plan;
struct runtime;
struct server;
struct zygote;

/* Of a runtime. */
struct spare_stock {
    struct list ready; /* the oldest first */
    unsigned n;        /* with the one in the making */
    struct spare_demand demand;
    struct plan *plan;  /* of the last launch that could have taken one, while it is there */
    struct shape shape; /* of the last launch that could have taken one; storage_mb 0: none yet */
    uint64_t made, taken, failed;
    bool told;              /* the control plane knows these numbers */
    unsigned failures;      /* since one was taken last */
    uint64_t not_before_us; /* the pause after the last of them */
};

struct spares {
    struct environment *making; /* NULL: none */
    struct watch watch;         /* its channel */
    bool answered;              /* READY was read, FORKED was not yet */
    struct timer limit, refill;
    unsigned n; /* of all runtimes */
    int own_mounts, own_root;
};

int spares_init(struct server *server);
/* A plan was put: of its runtime there may be spares. */
void spares_expect(struct plan *plan);
/* It is deleted, or is another one now. */
void spares_plan_gone(struct plan *plan);
/* LAUNCH came. */
void spares_launched(struct plan *plan);
/* True: a spare took the launch's place; the environment given is gone. */
bool spares_give(struct environment *environment);
/* Its process is known; the pidfd stays the caller's. */
void spares_born(struct environment *environment, int pidfd);
/* It ends, for whatever reason. Nothing happens when it is none. */
void spares_forget(struct environment *environment);
/* Those that were forked from the zygote's process end. */
void spares_zygote_gone(struct zygote *zygote);
/* Looks whether one is to be made, or to end. */
void spares_soon(struct server *server, uint64_t after_us);
/* SPARES to the control plane, of all runtimes. */
void spares_tell(struct server *server);

/* Between spares.c and spare_stock.c. */

/* Is its environment one that can have been a spare? Not the maker of a snapshot, nor what is restored from one. */
bool spare_may_take(const struct plan *plan);
/* One that is ready for that shape and plan (NULL: for any), or NULL. First those that are for the plan alone, then those
 * with the same limits, which need not be written. */
struct environment *spare_find(const struct spare_stock *stock, const struct plan *plan, const struct shape *shape);
/* There is a zygote that forks: one that owes the process of a spare that was given up does not. */
bool spare_has_zygote(const struct runtime *runtime);
/* Begins one. False: something is not at hand. */
bool spare_make(struct runtime *runtime);
/* It is wanted no more. */
void spare_end(struct environment *spare);
