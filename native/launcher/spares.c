/* Spares; see the header. */
#include "spares.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/mount.h"
#include "launcher.h"
#include "spare_check.h"

/* From FORK to READY, on a machine that is busy with other things. */
#define READY_LIMIT_US UINT64_C(10000000)
/* Shells that were left clean and wait, from which on the only spare may stand in one, too. */
#define CELLS_WAITING_MAX 16
/* After one that failed; doubled with each until one is taken. */
#define FAILED_US UINT64_C(100000)
#define FAILED_MAX_US UINT64_C(10000000)
int spares_init(struct server *server) {
    struct spares *spares = &server->spares;

    spares->watch.fd = -1;
    spares->own_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    spares->own_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return spares->own_mounts < 0 || spares->own_root < 0 ? -errno : 0;
}

/* ---- what a plan may have ---------------------------------------------------------------------------------------- */

bool spare_may_take(const struct plan *plan) {
    return plan->snapshot.mode == WIRE_SNAPSHOT_MODE_OFF || plan->snapshot.refusal != WIRE_SNAPSHOT_REFUSAL_NONE;
}

/* What cannot be changed any more is as the plan wants it. */
static bool fits(const struct environment *spare, const struct shape *shape) {
    return spare->shape.storage_mb == shape->storage_mb && spare->shape.pids == shape->pids &&
        spare->shape.descriptors == shape->descriptors;
}

static bool same_limits(const struct environment *spare, const struct shape *shape) {
    return spare->shape.limits.memory_mb == shape->limits.memory_mb &&
        spare->shape.limits.cpu_hard == shape->limits.cpu_hard;
}

struct environment *spare_find(const struct spare_stock *stock, const struct plan *plan, const struct shape *shape) {
    struct environment *found = NULL;

    list_for_each(node, &stock->ready) {
        struct environment *spare = list_entry(node, struct environment, queue);
        if (!fits(spare, shape) || (spare->bound != NULL && spare->bound != plan))
            continue;
        if (spare->bound != NULL)
            return spare;
        if (found == NULL || !same_limits(found, shape))
            found = spare;
    }
    return found;
}

/* No other of the runtime for a while, whoever starts something meanwhile. */
static void failed(struct runtime *runtime, const char *step, int error) {
    struct spare_stock *stock = &runtime->spares;
    uint64_t pause = FAILED_US;

    if (stock->failures == 0)
        say("a spare of %s failed: %s: %s", runtime->name, step, strerror(-error));
    for (unsigned i = 0; i < stock->failures && pause < FAILED_MAX_US; i++)
        pause *= 2;
    stock->failures++;
    stock->failed++;
    stock->told = false;
    stock->not_before_us = runtime->server->loop.now_us + MIN(pause, FAILED_MAX_US);
    spares_soon(runtime->server, SPARES_NEXT_US);
}

/* ---- taking one -------------------------------------------------------------------------------------------------- */

static void take_out(struct environment *spare) {
    struct server *server = spare->server;
    struct spare_stock *stock = &spare->zygote->runtime->spares;

    if (server->spares.making == spare) {
        server->spares.making = NULL;
        loop_unwatch(&server->loop, &server->spares.watch);
        loop_timer_off(&server->spares.limit);
    } else {
        list_remove(&spare->queue);
    }
    spare->spare = SPARE_NONE;
    stock->n--;
    stock->told = false;
    server->spares.n--;
    cleanup_close(&spare->pidfd);
}

void spare_end(struct environment *spare) {
    take_out(spare);
    environment_kill(spare);
}

/* Our own mounts, root and directory again: nothing that was begun there may go on elsewhere. */
static void go_home(const struct server *server) {
    if (setns(server->spares.own_mounts, CLONE_NEWNS) < 0 || fchdir(server->spares.own_root) < 0 || chroot(".") < 0) {
        say("cannot return to the own mount namespace: %s", strerror(errno));
        abort(); /* everything ends with us and is started anew */
    }
}

/* -ESRCH: it has ended. */
static int put_code(const struct environment *spare, const struct takings *t) {
    int r;

    if (setns(spare->pidfd, CLONE_NEWNS) < 0)
        return -errno;
    r = mount_attach(t->task, "/var/task");
    if (r == 0 && t->opt >= 0)
        r = mount_attach(t->opt, "/opt");
    go_home(spare->server);
    return r;
}

/* The spare is from now on what the launch was. */
static void change_places(struct environment *environment, struct environment *spare) {
    struct server *server = environment->server;

    environment_stop_waiting(environment);
    table_remove(&server->launches.table, &environment->node);
    spare->bound = NULL;
    spare->owner = environment->owner;
    spare->id = environment->id;
    spare->plan = environment->plan;
    spare->asked_us = environment->asked_us;
    spare->last = environment->last;
    spare->told = false;
    table_add(&server->launches.table, &spare->node, spare->id);
    environment->plan = NULL;
    environment->phase = ENVIRONMENT_DYING;
    environment_free(environment);
}

bool spares_give(struct environment *environment) {
    struct server *server = environment->server;
    struct plan *plan = environment->plan;
    struct spare_stock *stock = &plan->runtime->spares;
    const struct shape shape = shape_of(plan);
    struct environment *spare = stock->n > 0 && spare_may_take(plan) ? spare_find(stock, plan, &shape) : NULL;
    struct takings t = TAKINGS_INIT;
    int r;

    if (spare == NULL)
        return false;
    r = forking_open_code(server, plan, &t);
    if (r < 0) { /* the ordinary way tells why */
        takings_done(&t);
        return false;
    }
    r = put_code(spare, &t);
    takings_done(&t);
    if (r < 0) {
        failed(plan->runtime, "code", r);
        spare_end(spare);
        return false;
    }
    take_out(spare);
    stock->taken++;
    stock->failures = 0;
    change_places(environment, spare);
    r = leaf_set_limits(server, &spare->leaf, &plan->limits);
    if (r < 0)
        environment_fail(spare, "limits", r);
    forking_send_launched(spare);
    return true;
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

void spares_forget(struct environment *environment) {
    if (environment->spare == SPARE_NONE)
        return;
    take_out(environment);
    if (environment->server->phase != PHASE_RUNNING || environment->zygote->state != ZYGOTE_READY ||
        environment->zygote->incarnation != environment->incarnation)
        return;
    const bool known = environment->error.error != 0;
    failed(environment->zygote->runtime, known ? environment->error.step : "ended",
        known ? -environment->error.error : -ECHILD);
}

void spares_zygote_gone(struct zygote *zygote) {
    list_for_each_safe(node, &zygote->server->launches.all) {
        struct environment *environment = list_entry(node, struct environment, all);
        if (environment->spare != SPARE_NONE && environment->zygote == zygote &&
            environment->incarnation == zygote->incarnation)
            spare_end(environment);
    }
}

static void limit_fire(void *owner) {
    struct environment *spare = owner;
    environment_fail(spare, "ready", -ETIMEDOUT);
}

/* It has told that it is ready, and its process is known. */
static void become_ready(struct environment *spare) {
    struct server *server = spare->server;
    struct spare_stock *stock = &spare->zygote->runtime->spares;
    const char *what;
    int r = spare_check(spare->child.pid, spare->zygote->uid_base + spare->uid, spare->leaf.cgroup.name, &what);

    if (r < 0) {
        environment_fail(spare, what, r);
        return;
    }
    server->spares.making = NULL;
    loop_timer_off(&server->spares.limit);
    spare->spare = SPARE_READY;
    list_push_back(&stock->ready, &spare->queue);
    stock->made++;
    stock->told = false;
    launches_retry(spare->zygote->runtime);
    if (server->launches.waiting == 0)
        spares_soon(server, SPARES_NEXT_US);
}

static bool says_ready(const struct environment *spare, struct packet *packet) {
    struct wire_header header;
    struct wire_ready ready;
    const bool said = wire_ready_decode(packet->data, packet->size, &header, &ready) == 0 && packet->n_fds == 0 &&
        header.object == spare->serial.key;
    packet_close_fds(packet);
    return said;
}

static void channel_ready(void *owner, uint32_t events) {
    struct environment *spare = owner;
    struct server *server = spare->server;
    uint8_t buffer[256];
    struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
    int r = packet_receive(spare->cell->channel[0], &packet, MSG_DONTWAIT);
    (void)events;

    if (r == -EAGAIN)
        return;
    loop_unwatch(&server->loop, &server->spares.watch);
    if (r == 0) /* it has ended: the reaper brings the rest */
        return;
    if (r < 0 || !says_ready(spare, &packet)) {
        environment_fail(spare, "ready", r < 0 ? r : -EBADMSG);
        return;
    }
    server->spares.answered = true;
    if (spare->pidfd >= 0)
        become_ready(spare);
}

void spares_born(struct environment *environment, int pidfd) {
    struct server *server = environment->server;

    if (server->spares.making != environment)
        return;
    environment->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
    if (environment->pidfd < 0)
        environment_fail(environment, "pidfd", -errno);
    else if (server->spares.answered)
        become_ready(environment);
}

/* The plan in whose shells the next one may stand, or NULL: not before there is one for anybody, or too many shells wait. */
static struct plan *bound_to(struct runtime *runtime) {
    const struct spare_stock *stock = &runtime->spares;

    if (stock->plan == NULL || list_empty(&stock->plan->cells))
        return NULL;
    return spare_find(stock, NULL, &stock->shape) != NULL || runtime->server->recycle.n >= CELLS_WAITING_MAX
        ? stock->plan
        : NULL;
}

/* The process of a spare that was given up, which it has not told of: it hangs, and would collect them. */
static bool owes(const struct zygote *zygote) {
    list_for_each(node, &zygote->server->launches.all) {
        const struct environment *environment = list_entry(node, struct environment, all);
        if (environment->owner == NULL && environment->killed && environment->zygote == zygote &&
            environment->incarnation == zygote->incarnation && environment->child.pid == 0 && !environment->child_gone)
            return true;
    }
    return false;
}

bool spare_has_zygote(const struct runtime *runtime) {
    for (unsigned k = 0; k < runtime->server->boot.zygotes_per_runtime; k++)
        if (runtime->zygotes[k].state == ZYGOTE_READY && !owes(&runtime->zygotes[k]))
            return true;
    return false;
}

static struct zygote *choose(struct runtime *runtime, const struct plan *bound) {
    const unsigned n = runtime->server->boot.zygotes_per_runtime;
    for (unsigned i = 0; i < n; i++) {
        struct zygote *zygote = &runtime->zygotes[(runtime->turn + i) % n];
        if (zygote->state == ZYGOTE_READY && zygote->seat == SEAT_TAKEN &&
            (bound == NULL ? zygote->n_cells > 0 : recycle_has(bound, zygote)) && !owes(zygote))
            return zygote;
    }
    return NULL;
}

bool spare_make(struct runtime *runtime) {
    struct server *server = runtime->server;
    struct plan *bound = bound_to(runtime);
    struct takings t = TAKINGS_INIT;
    int r;

    t.zygote = choose(runtime, bound);
    if (t.zygote == NULL && bound != NULL)
        t.zygote = choose(runtime, bound = NULL);
    if (t.zygote == NULL)
        return false;
    t.tmp = pools_take_spare_tmp(server, runtime->spares.shape.storage_mb);
    if (t.tmp < 0) {
        if (t.tmp != -EAGAIN)
            failed(runtime, server->pools.step, t.tmp);
        return false;
    }
    struct environment *spare = environment_new(server);
    if (spare == NULL) {
        pools_give_back_tmp(server, runtime->spares.shape.storage_mb, steal_fd(&t.tmp));
        return false;
    }
    spare->told = true;
    spare->shape = runtime->spares.shape;
    spare->bound = bound;
    r = forking_prepare(spare, &spare->shape, &t);
    if (r < 0) {
        spare->phase = ENVIRONMENT_DYING; /* it waits in no queue */
        environment_free(spare);
        pools_give_back_tmp(server, runtime->spares.shape.storage_mb, steal_fd(&t.tmp));
        return false;
    }
    spare->spare = SPARE_MAKING;
    server->spares.making = spare;
    server->spares.answered = false;
    server->spares.n++;
    runtime->spares.n++;
    loop_timer(&server->loop, &server->spares.limit, READY_LIMIT_US, limit_fire, spare);
    forking_begin(spare, &spare->shape, &t);
    takings_done(&t);
    if (server->spares.making == spare &&
        loop_watch(&server->loop, &server->spares.watch, spare->cell->channel[0], EPOLLIN, channel_ready, spare) < 0)
        environment_fail(spare, "watch", -ENOMEM);
    cleanup_close(&spare->cell->channel[1]); /* its end is the spare's alone: it shows when that is gone */
    cleanup_close(&spare->cell->log[1]);
    if (server->cgroups.version == 2)
        (void)seats_give(server, t.zygote);
    return true;
}
