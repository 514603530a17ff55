/* What a sandbox is made of, and FORK: between launches.c, which knows for whom, and spares.c, which does not yet.
 * Runs in the launcher. */
#pragma once

#include <stdint.h>

#include "jail/cgroup.h"

struct environment;
struct plan;
struct server;
struct zygote;

/* What of a plan is fixed when the sandbox is made; its code can be put in later. */
struct shape {
    uint32_t storage_mb, pids, descriptors; /* of /tmp, and RLIMITs: cannot be changed in a sandbox that is closed */
    struct cgroup_limits limits;            /* can be written at any time */
};

/* What one launch takes, until it is on its way. */
struct takings {
    struct zygote *zygote;
    int tmp, task, opt;
};

#define TAKINGS_INIT                                                                                                   \
    { .tmp = -1, .task = -1, .opt = -1 }

/* Closes what was not handed over: what was sent along lives on where it went. */
void takings_done(struct takings *t);
struct shape shape_of(const struct plan *plan);
/* The plan's package and layer, as mounts that are nowhere yet. */
int forking_open_code(struct server *server, const struct plan *plan, struct takings *t);
/* An id of the zygote's and the image for /tmp. -EAGAIN: no id is left. What it took goes back with environment_free. */
int forking_prepare(struct environment *environment, const struct shape *shape, struct takings *t);
/* FORK, and the limits while the zygote clones; what fails ends the environment, which is told as for any that began.
 * The zygote must have a seat and a shell (runtime_choose). */
void forking_begin(struct environment *environment, const struct shape *shape, const struct takings *t);
/* LAUNCHED to the dispatcher whose environment it is, with everything that is the dispatcher's. */
void forking_send_launched(struct environment *environment);
