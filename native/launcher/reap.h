/* The one reaper. Every process of ours is a child of the launcher; what is not in the table was cloned by a zygote that
 * has not told of it yet (its status is kept for a while), or by one that died in between. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "loop.h"
#include "table.h"

struct child {
    struct table_node node; /* by pid */
    pid_t pid;              /* 0: not running, not in the table */
    void (*exited)(void *owner, int status);
    void *owner;
};

#define REAP_EARLY 256

struct reaper {
    struct loop *loop;
    struct table children;
    struct watch watch; /* signalfd: SIGCHLD and the signals that stop the daemon */
    struct {
        pid_t pid;
        int status;
    } early[REAP_EARLY]; /* a ring of statuses of children that nobody has claimed */
    unsigned early_at;
    struct timer sweep;
    void (*before)(void *owner); /* before any status is collected: what the dead said last is read first */
    void (*stop)(void *owner);   /* SIGTERM, SIGINT */
    void (*reload)(void *owner); /* SIGHUP */
    void *owner;
};

/* Blocks the signals and watches for them. */
int reaper_start(struct reaper *reaper, struct loop *loop);
void reaper_free(struct reaper *reaper);
void reaper_add(struct reaper *reaper, struct child *child, pid_t pid, void (*exited)(void *, int), void *owner);
/* Is the pid one that the table knows? */
bool reaper_knows(const struct reaper *reaper, pid_t pid);
/* The status of an unclaimed child that ended already. */
bool reaper_claim_early(struct reaper *reaper, pid_t pid, int *ret_status);
/* Collects whatever has ended. */
void reaper_collect(struct reaper *reaper);
