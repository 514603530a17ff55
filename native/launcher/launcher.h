/* All state of the launcher, the one privileged process: parent and only reaper of everything else. Single-threaded.
 * The flow is one way:
 *
 *   boot -> main -> supervise -> control  (what may be launched: runtimes, plans, tasks)
 *                             -> launches (LAUNCH: plan + zygote + shell + seat + /tmp -> FORK; EXITED)
 *                   launches  -> spares (ahead of LAUNCH, the same without a plan)
 *                   launches  -> zygotes, pools -> seater, imager (side processes that may block)
 *
 * What must hold: the loop never waits for the kernel's slow paths (moving a process between cgroups, attaching a loop
 * device: the side processes do that); every descriptor that leaves was opened here, below directories that no
 * function can write, or is passed on unused from a dispatcher to the one that replaces it; nothing that a function could
 * have written is parsed.
 *
 * A crash ends every process (parent-death signals; anchors take their sandboxes along) and leaves cgroups, sockets and
 * the pid file, which the next start removes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "boot.h"
#include "jail/cgroup.h"
#include "launches.h"
#include "links.h"
#include "loop.h"
#include "plans.h"
#include "pools.h"
#include "reap.h"
#include "recycle.h"
#include "seats.h"
#include "spares.h"
#include "supervise.h"
#include "tasks.h"
#include "zygotes.h"

enum phase {
    PHASE_RUNNING,
    PHASE_DRAINING, /* SIGTERM came: what is in flight finishes */
    PHASE_STOPPING, /* everything is killed and reaped */
};

struct server {
    struct boot boot;
    struct loop loop;
    struct reaper reaper;
    struct cgroup_tree cgroups;
    struct cgroup zygote_cgroup; /* v2: where zygotes sit */
    struct cgroup dispatch_cgroup;
    int state_dir;
    int run_dir;
    int lock;
    int listener; /* RUN/dispatch.sock: stays open over restarts of the dispatcher */
    int http;     /* RUN/invoke.sock, likewise */
    int http_tcp; /* the port for invocations, likewise; -1: none */
    int logs;     /* STATE/logs */
    int queue;    /* STATE/queue */
    enum phase phase;
    int exit_status;
    struct supervision supervision;
    struct plans plans;
    struct zygotes zygotes;
    struct seats seats;
    struct pools pools;
    struct recycle recycle;
    struct launches launches;
    struct spares spares;
    uint64_t snapshots_size; /* of all that there are, those too that only environments still have in their memory */
    struct tasks tasks;
};

/* One line on standard error, which the journal keeps: "runtimed-launcher: ...". */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for what is as it should be: only where the settings ask for it (log_level info or debug). */
void mention(const struct server *server, const char *format, ...) __attribute__((format(printf, 2, 3)));
