/* Snapshots; see the header. */
#include "snapshots.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"
#include "zygote/snapshot.h"

_Static_assert(SNAPSHOT_THREADS == (int)WIRE_SNAPSHOT_REFUSAL_THREADS &&
        SNAPSHOT_TOO_LARGE == (int)WIRE_SNAPSHOT_REFUSAL_TOO_LARGE &&
        SNAPSHOT_FAILED == (int)WIRE_SNAPSHOT_REFUSAL_FAILED && SNAPSHOT_REFUSALS == SNAPSHOT_FAILED + 1,
    "what environments write is what the control plane is told");

/* Moved from the pipe into the file in one turn of the loop. */
#define TURN (1u << 20)
/* And by so many calls: who writes a byte at a time while it is read would have us stay here for each of them. */
#define TURN_CALLS 16
/* A turn that brought less is followed by a rest, in which more gathers. */
#define LITTLE (64u << 10)
#define REST_US UINT64_C(1000)
/* A pipe that holds as much costs the maker fewer waits. */
#define PIPE_SIZE (1 << 20)
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

void snapshot_init(struct snapshot *snapshot, struct server *server, struct plan *plan) {
    *snapshot = (struct snapshot){.server = server, .plan = plan};
    snapshot->ready.file = snapshot->making.pipe = snapshot->making.file = snapshot->making.watch.fd = -1;
}

static void let_go(struct footprint **footprint) {
    if (*footprint != NULL && --(*footprint)->users == 0) {
        (*footprint)->server->snapshots_size -= (*footprint)->size;
        free(*footprint);
    }
    *footprint = NULL;
}

void snapshot_let_go(struct environment *environment) {
    let_go(&environment->footprint);
}

static void drop_ready(struct snapshot *snapshot) {
    cleanup_close(&snapshot->ready.file);
    let_go(&snapshot->ready.footprint);
    snapshot->ready.zygote = NULL;
}

static void stop_making(struct snapshot *snapshot) {
    loop_unwatch(&snapshot->server->loop, &snapshot->making.watch);
    loop_timer_off(&snapshot->making.limit);
    loop_timer_off(&snapshot->making.rest);
    cleanup_close(&snapshot->making.pipe);
    cleanup_close(&snapshot->making.file);
    snapshot->making.environment = NULL;
}

void snapshot_free(struct snapshot *snapshot) {
    stop_making(snapshot);
    drop_ready(snapshot);
}

void snapshot_put(struct snapshot *snapshot, uint8_t mode, bool fresh) {
    snapshot->mode = mode;
    if (!fresh && mode != WIRE_SNAPSHOT_MODE_OFF)
        return;
    snapshot_free(snapshot);
    snapshot->refusal = WIRE_SNAPSHOT_REFUSAL_NONE;
    snapshot->failures = 0;
    snapshot->making.after_us = 0;
    snapshot->asked = false;
}

uint8_t snapshot_state(const struct snapshot *snapshot) {
    if (snapshot->ready.file >= 0)
        return WIRE_SNAPSHOT_STATE_READY;
    if (snapshot->refusal != WIRE_SNAPSHOT_REFUSAL_NONE)
        return WIRE_SNAPSHOT_STATE_REFUSED;
    return snapshot->making.environment != NULL ? WIRE_SNAPSHOT_STATE_MAKING : WIRE_SNAPSHOT_STATE_NONE;
}

static bool is_of(const struct snapshot *snapshot, const struct zygote *zygote) {
    return snapshot->ready.file >= 0 && snapshot->ready.zygote == zygote &&
        snapshot->ready.incarnation == zygote->incarnation;
}

/* Between a zygote's death and its next start its incarnation is still the old one. */
static bool lives(const struct zygote *zygote, uint32_t incarnation) {
    return zygote->incarnation == incarnation && zygote->state == ZYGOTE_READY;
}

bool snapshot_fits(const struct snapshot *snapshot, const struct zygote *zygote) {
    return snapshot->ready.file < 0 || is_of(snapshot, zygote) ||
        !lives(snapshot->ready.zygote, snapshot->ready.incarnation);
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

static void refuse(struct snapshot *snapshot, uint8_t refusal) {
    stop_making(snapshot);
    drop_ready(snapshot);
    snapshot->refusal = refusal;
    plan_tell(snapshot->server, snapshot->plan);
}

static uint64_t share(const struct server *server) {
    if (server->boot.snapshots_memory_mb != 0)
        return (uint64_t)server->boot.snapshots_memory_mb << 20;
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / SNAPSHOT_SHARE;
}

/* Of those whose memory is free when they go: the one that was used longest ago, and how large all are. */
static struct snapshot *oldest(struct server *server, uint64_t *ret_size) {
    struct snapshot *found = NULL;

    *ret_size = 0;
    table_for_each(node, &server->plans.table) {
        struct snapshot *snapshot = &table_entry(node, struct plan, node)->snapshot;
        if (snapshot->ready.file < 0 || snapshot->ready.footprint->users > 1)
            continue;
        *ret_size += snapshot->ready.footprint->size;
        if (found == NULL || snapshot->ready.last_us < found->ready.last_us)
            found = snapshot;
    }
    return found;
}

/* For one of that size; nothing goes in vain. */
static bool make_room(struct server *server, uint64_t size) {
    const uint64_t most = share(server);
    struct snapshot *snapshot;
    uint64_t idle;

    snapshot = oldest(server, &idle);
    if (server->snapshots_size - idle + size > most)
        return false;
    for (; snapshot != NULL && server->snapshots_size + size > most; snapshot = oldest(server, &idle)) {
        drop_ready(snapshot);
        plan_tell(server, snapshot->plan);
    }
    return true;
}

/* An init phase that fails, or is ended, is the function's own matter: the next launch makes another attempt. So it does
 * when the snapshot breaks off, but not for ever. */
static void broke_off(struct snapshot *snapshot) {
    if (snapshot->making.size > 0 && ++snapshot->failures >= SNAPSHOT_FAILURES) {
        refuse(snapshot, WIRE_SNAPSHOT_REFUSAL_FAILED);
        return;
    }
    stop_making(snapshot);
    plan_tell(snapshot->server, snapshot->plan);
}

/* There is no room for it beside others: it is nobody's failure. */
static void put_off(struct snapshot *snapshot) {
    snapshot->making.after_us = snapshot->server->loop.now_us + SNAPSHOT_PAUSE_US;
    stop_making(snapshot);
    plan_tell(snapshot->server, snapshot->plan);
}

static void limit_fire(void *owner) {
    broke_off(owner);
}

/* Of those that are being made, and how large all are. */
static struct snapshot *largest(struct server *server, uint64_t *ret_size) {
    struct snapshot *found = NULL;

    *ret_size = 0;
    table_for_each(node, &server->plans.table) {
        struct snapshot *snapshot = &table_entry(node, struct plan, node)->snapshot;
        if (snapshot->making.environment == NULL)
            continue;
        *ret_size += snapshot->making.size;
        if (found == NULL || snapshot->making.size > found->making.size)
            found = snapshot;
    }
    return found;
}

/* However many begin at once, and however much each writes. */
static void make_room_in_the_making(struct server *server) {
    const uint64_t most = share(server);
    uint64_t size;

    for (struct snapshot *snapshot; (snapshot = largest(server, &size)) != NULL && size > most;) {
        if (snapshot->making.size > most) {
            refuse(snapshot, WIRE_SNAPSHOT_REFUSAL_TOO_LARGE);
            continue;
        }
        put_off(snapshot);
    }
}

/* All of it is here, or its writer is gone. */
static void finish(struct snapshot *snapshot) {
    struct server *server = snapshot->server;
    struct zygote *zygote = snapshot->making.environment->zygote;
    const uint64_t size = snapshot->making.size;
    struct footprint *footprint;
    uint64_t end = 0;

    if (size > share(server)) {
        refuse(snapshot, WIRE_SNAPSHOT_REFUSAL_TOO_LARGE);
        return;
    }
    if (size < sizeof(end) ||
        pread(snapshot->making.file, &end, sizeof(end), (off_t)(size - sizeof(end))) != sizeof(end) ||
        end != SNAPSHOT_END || fcntl(snapshot->making.file, F_ADD_SEALS, SEALS) < 0) {
        broke_off(snapshot);
        return;
    }
    footprint = make_room(server, size) ? malloc(sizeof(*footprint)) : NULL;
    if (footprint == NULL) {
        put_off(snapshot);
        return;
    }
    drop_ready(snapshot);
    *footprint = (struct footprint){.server = server, .size = size, .users = 1};
    server->snapshots_size += size;
    snapshot->ready.footprint = footprint;
    snapshot->ready.file = steal_fd(&snapshot->making.file);
    snapshot->ready.zygote = zygote;
    snapshot->ready.incarnation = snapshot->making.environment->incarnation;
    snapshot->ready.used = 0;
    snapshot->failures = 0;
    snapshot->ready.since_us = snapshot->ready.last_us = server->loop.now_us;
    stop_making(snapshot);
    if (!lives(zygote, snapshot->ready.incarnation)) /* it died meanwhile */
        drop_ready(snapshot);
    plan_tell(server, snapshot->plan);
}

/* A single byte says why there will be none. The writer may still hold the pipe: its children can. */
static bool take_refusal(struct snapshot *snapshot) {
    uint8_t byte = 0;

    if (snapshot->making.size != 1 || pread(snapshot->making.file, &byte, 1, 0) != 1)
        return false;
    refuse(snapshot,
        byte > WIRE_SNAPSHOT_REFUSAL_NONE && byte <= WIRE_SNAPSHOT_REFUSAL_FAILED ? byte
                                                                                  : WIRE_SNAPSHOT_REFUSAL_FAILED);
    return true;
}

static void rest_fire(void *owner) {
    struct snapshot *snapshot = owner;
    (void)loop_rewatch(&snapshot->server->loop, &snapshot->making.watch, EPOLLIN);
}

/* That nobody writes any more is heard all the same. */
static void rest(struct snapshot *snapshot) {
    if (loop_rewatch(&snapshot->server->loop, &snapshot->making.watch, 0) >= 0)
        loop_timer(&snapshot->server->loop, &snapshot->making.rest, REST_US, rest_fire, snapshot);
}

static void pipe_ready(void *owner, uint32_t events) {
    struct snapshot *snapshot = owner;
    const uint64_t most = ((uint64_t)snapshot->plan->limits.memory_mb << 20) + SNAPSHOT_EXTRA;
    loff_t at = (loff_t)snapshot->making.size;
    size_t moved = 0;
    (void)events;

    for (unsigned calls = 0; moved < TURN && calls < TURN_CALLS; calls++) {
        ssize_t n = splice(snapshot->making.pipe, NULL, snapshot->making.file, &at, TURN - moved, SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EAGAIN)
            break; /* who writes slowly is counted too */
        if (n < 0) {
            refuse(snapshot, WIRE_SNAPSHOT_REFUSAL_FAILED);
            return;
        }
        if (n == 0) {
            finish(snapshot);
            return;
        }
        moved += (size_t)n;
        if (snapshot->making.size == 0)
            loop_timer(&snapshot->server->loop, &snapshot->making.limit,
                (uint64_t)snapshot->server->boot.snapshots_making_ms * 1000, limit_fire, snapshot);
        snapshot->making.size = (uint64_t)at;
        if (snapshot->making.size > most) {
            refuse(snapshot, WIRE_SNAPSHOT_REFUSAL_TOO_LARGE);
            return;
        }
        if (take_refusal(snapshot))
            return;
    }
    if (moved < LITTLE)
        rest(snapshot);
    make_room_in_the_making(snapshot->server);
}

static int make(struct snapshot *snapshot, struct environment *environment) {
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    (void)fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE);
    snapshot->making.pipe = ends[0];
    snapshot->making.size = 0;
    snapshot->making.environment = environment;
    snapshot->making.file = memfd_create("snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (snapshot->making.file < 0 || fd_set_nonblocking(ends[0], 1) < 0 ||
        loop_watch(&snapshot->server->loop, &snapshot->making.watch, ends[0], EPOLLIN, pipe_ready, snapshot) < 0) {
        stop_making(snapshot);
        close(ends[1]);
        return -EMFILE;
    }
    plan_tell(snapshot->server, snapshot->plan);
    return ends[1];
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

static bool may_make(const struct snapshot *snapshot) {
    return snapshot->making.environment == NULL && snapshot->server->loop.now_us >= snapshot->making.after_us;
}

static bool is_old(const struct snapshot *snapshot) {
    const struct boot *boot = &snapshot->server->boot;
    return snapshot->ready.used >= boot->snapshots_uses ||
        snapshot->server->loop.now_us - snapshot->ready.since_us >= (uint64_t)boot->snapshots_age_ms * 1000;
}

uint8_t snapshot_launch(struct snapshot *snapshot, struct environment *environment, int *ret_fd) {
    const bool first = !snapshot->asked;

    *ret_fd = -1;
    if (snapshot->mode == WIRE_SNAPSHOT_MODE_OFF || snapshot->refusal != WIRE_SNAPSHOT_REFUSAL_NONE ||
        snapshot->plan->retired) /* what it has would not be freed again */
        return WIRE_FORK_SNAPSHOT_NONE;
    snapshot->asked = true;
    if (is_of(snapshot, environment->zygote) && (!is_old(snapshot) || !may_make(snapshot))) {
        snapshot->ready.used++;
        snapshot->ready.footprint->users++;
        environment->footprint = snapshot->ready.footprint;
        snapshot->ready.last_us = snapshot->server->loop.now_us;
        environment->restored = true;
        *ret_fd = snapshot->ready.file;
        return WIRE_FORK_SNAPSHOT_RESTORE;
    }
    if (!may_make(snapshot) || (first && snapshot->mode == WIRE_SNAPSHOT_MODE_AUTOMATIC))
        return WIRE_FORK_SNAPSHOT_NONE;
    *ret_fd = make(snapshot, environment);
    return *ret_fd < 0 ? WIRE_FORK_SNAPSHOT_NONE : WIRE_FORK_SNAPSHOT_TAKE;
}

/* A copy that ends at once would not have been made of a process that is good to be copied. */
void snapshot_environment_gone(struct environment *environment) {
    struct plan *plan = environment->plan;
    struct snapshot *snapshot = plan == NULL ? NULL : &plan->snapshot;

    if (snapshot == NULL)
        return;
    if (snapshot->making.environment == environment) {
        pipe_ready(snapshot, EPOLLHUP); /* what it said last */
        if (snapshot->making.environment == environment)
            broke_off(snapshot);
        return;
    }
    if (!environment->restored || environment->killed)
        return;
    if (WIFEXITED(environment->status) && WEXITSTATUS(environment->status) == 0)
        return;
    if (snapshot->server->loop.now_us - environment->asked_us >= SNAPSHOT_EARLY_US &&
        !(WIFEXITED(environment->status) && WEXITSTATUS(environment->status) == SNAPSHOT_EXIT))
        snapshot->failures = 0;
    else if (++snapshot->failures >= SNAPSHOT_FAILURES && snapshot->ready.file >= 0)
        refuse(snapshot, WIRE_SNAPSHOT_REFUSAL_FAILED);
}

void snapshots_zygote_gone(struct server *server, const struct zygote *zygote) {
    table_for_each(node, &server->plans.table) {
        struct plan *plan = table_entry(node, struct plan, node);
        if (plan->snapshot.ready.file < 0 || plan->snapshot.ready.zygote != zygote)
            continue;
        drop_ready(&plan->snapshot);
        plan_tell(server, plan);
    }
}
