/* Environments: the way from LAUNCH to a running process. What follows when one ends: exits.c. */
#include "launches.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "jail/image.h"
#include "jail/root.h"
#include "launcher.h"

#define BUCKETS 8192
/* Where in a queue of launches patience is checked. */
#define PATIENCE_TICK_US 500000
/* Of the file system, where no reserve is given; the control plane reckons the same (store/ledger.py). */
#define DISK_SHARE 50
#define DISK_RESERVE_MAX (UINT64_C(512) << 20)

/* What one launch takes, until it is on its way. */
struct takings {
    struct zygote *zygote;
    int tmp, task, opt;
};

#define TAKINGS_INIT                                                                                                   \
    { .tmp = -1, .task = -1, .opt = -1 }

/* What was sent along lives on where it went. */
static void takings_done(struct takings *t) {
    cleanup_close(&t->tmp);
    cleanup_close(&t->task);
    cleanup_close(&t->opt);
}

int launches_init(struct server *server) {
    int r = table_init(&server->launches.table, BUCKETS);
    list_init(&server->launches.all);
    return r < 0 ? r : table_init(&server->launches.serials, BUCKETS);
}

static void send_failed(struct service *service, uint64_t id, int error, const char *step, const char *reason) {
    struct wire_launch_failed message = {
        .retryable = error == -EAGAIN || error == -EDQUOT || error == -ENOMEM || error == -EMFILE,
        .error = (uint32_t)-error,
        .step = link_text(step),
        .reason = link_text(reason),
    };
    LINK_SEND(&service->link, HEADER(id), launch_failed, message, NULL, 0);
}

static void stop_waiting(struct environment *environment) {
    if (environment->phase != ENVIRONMENT_WAITING)
        return;
    list_remove(&environment->queue);
    environment->plan->runtime->n_waiting--;
    environment->server->launches.waiting--;
}

void environment_release(struct environment *environment) {
    struct server *server = environment->server;

    stop_waiting(environment);
    if (table_get(&server->launches.table, environment->id) == &environment->node)
        table_remove(&server->launches.table, &environment->node);
    snapshot_environment_gone(environment);
    if (environment->plan != NULL)
        plan_release(environment->plan);
    environment->plan = NULL;
}

void environment_free(struct environment *environment) {
    struct server *server = environment->server;

    environment_release(environment);
    table_remove(&server->launches.serials, &environment->serial);
    list_remove(&environment->all);
    server->launches.count--;
    if (environment->tmp >= 0)
        pools_give_back_tmp(server, environment->tmp_mb, environment->tmp);
    if (environment->uid != 0)
        zygote_give_uid(environment->zygote, environment->uid);
    free(environment);
}

/* Instead of LAUNCHED. */
static void refuse(struct environment *environment, int error, const char *step, const char *reason) {
    if (!environment->told)
        send_failed(environment->owner, environment->id, error, step, reason);
    environment_free(environment);
}

/* ---- the way to FORK --------------------------------------------------------------------------------------------- */

static int open_code(struct server *server, const struct plan *plan, struct takings *t) {
    int r = root_clone_tree(server->state_dir, plan->package, &t->task);
    if (r == 0 && plan->layer[0] != '\0')
        r = root_clone_tree(server->state_dir, plan->layer, &t->opt);
    return r;
}

static int send_fork(struct environment *environment, const struct takings *t) {
    struct zygote *zygote = environment->zygote;
    const struct plan *plan = environment->plan;
    struct wire_fork fork = {
        .descriptors = WIRE_FORK_ANCHOR | WIRE_FORK_CHANNEL | WIRE_FORK_LOG | WIRE_FORK_TMP | WIRE_FORK_TASK,
        .uid = environment->uid,
        .gid = environment->uid,
        .nofile = plan->descriptors,
        .nproc = plan->pids,
    };
    int directory = cgroup_directory(&environment->server->cgroups, &environment->leaf.cgroup);
    const struct cell *cell = environment->cell;
    int fds[DESCRIPTORS_MAX] = {cell->shell.anchor_pidfd, cell->channel[1], cell->log[1], t->tmp, t->task};
    unsigned n = 5;
    int snapshot;

    if (t->opt >= 0) {
        fork.descriptors |= WIRE_FORK_OPT;
        fds[n++] = t->opt;
    }
    if (directory >= 0) {
        fork.descriptors |= WIRE_FORK_CGROUP;
        fds[n++] = directory;
    }
    fork.snapshot = snapshot_launch(&environment->plan->snapshot, environment, &snapshot);
    if (snapshot >= 0) {
        fork.descriptors |= WIRE_FORK_SNAPSHOT;
        fds[n++] = snapshot;
    }
    LINK_SEND(&zygote->link, HEADER(environment->serial.key), fork, fork, fds, n);
    if (fork.snapshot == WIRE_FORK_SNAPSHOT_TAKE)
        cleanup_close(&snapshot);
    return zygote->link.error;
}

static void send_launched(struct environment *environment) {
    struct leaf *leaf = &environment->leaf;
    struct wire_launched message = {
        .descriptors = WIRE_LAUNCHED_CHANNEL | WIRE_LAUNCHED_LOG,
        .uid = environment->zygote->uid_base + environment->uid,
        .restored = environment->restored,
    };
    struct cell *cell = environment->cell;
    int fds[DESCRIPTORS_MAX] = {cell->channel[0], cell->log[0]};
    unsigned n = 2;

    if (leaf->freeze >= 0) {
        message.descriptors |= WIRE_LAUNCHED_FREEZE;
        fds[n++] = leaf->freeze;
    }
    if (leaf->peak >= 0) {
        message.descriptors |= WIRE_LAUNCHED_PEAK;
        fds[n++] = leaf->peak;
    }
    message.descriptors |= WIRE_LAUNCHED_LISTENER;
    fds[n++] = cell->shell.listener;
    environment_remember(environment, message.descriptors, fds);
    LINK_SEND(&environment->owner->link, HEADER(environment->id), launched, message, fds, n);
    cleanup_close(&leaf->freeze);
    cleanup_close(&leaf->peak);
    cell_close_pipes(cell);
}

/* The environment gets a second mount of the image, ours stays: what it leaves clean is used again. A kernel before 6.15
 * does not copy a mount that is nowhere; there the image itself goes, and ends with the environment. */
static int give_tmp(struct environment *environment, struct takings *t) {
    const uid_t id = environment->zygote->uid_base + environment->uid;
    int r = image_give(&(struct image){.tree = t->tmp}, id, id);
    if (r < 0)
        return r;
    int copy = (int)syscall(SYS_open_tree, t->tmp, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (copy < 0)
        return 0;
    environment->tmp = t->tmp;
    environment->tmp_mb = environment->plan->storage_mb;
    t->tmp = copy;
    return 0;
}

/* Everything is at hand: FORK, limits, LAUNCHED. The zygote forks on another processor while the limits are written. */
static void launch(struct environment *environment, struct takings *t) {
    struct server *server = environment->server;
    struct zygote *zygote = t->zygote;
    int r;

    environment->zygote = zygote;
    environment->incarnation = zygote->incarnation;
    environment->uid = zygote_take_uid(zygote);
    r = environment->uid == 0 ? -EAGAIN : give_tmp(environment, t);
    if (r < 0) {
        refuse(environment, r, "uid", "no id for the environment, or its /tmp cannot be handed over");
        return;
    }
    stop_waiting(environment);
    environment->phase = ENVIRONMENT_FORKING;
    environment->cell = zygote_take_cell(zygote, environment);
    environment->leaf = zygote->leaf;
    leaf_init(&zygote->leaf);
    zygote->seat = server->cgroups.version == 2 ? SEAT_NONE : SEAT_FORKING;
    zygote->runtime->turn = zygote->index + 1;
    zygote->runtime->limits = environment->plan->limits;
    r = send_fork(environment, t);
    if (r < 0)
        environment_fail(environment, "zygote", r);
    else if ((r = leaf_set_limits(server, &environment->leaf, &environment->plan->limits)) < 0)
        environment_fail(environment, "limits", r);
    send_launched(environment);
    if (server->cgroups.version == 2)
        (void)seats_give(server, zygote); /* whoever waits is looked at next */
}

/* False: something is not at hand yet. Otherwise the launch is on its way, or refused. */
static bool try_launch(struct environment *environment) {
    struct server *server = environment->server;
    struct plan *plan = environment->plan;
    struct takings t = TAKINGS_INIT;
    int r;

    t.zygote = runtime_choose(plan->runtime, plan);
    if (t.zygote == NULL)
        return false;
    t.tmp = pools_take_tmp(server, plan->storage_mb);
    if (t.tmp == -EAGAIN)
        return false;
    if (t.tmp < 0) {
        refuse(environment, t.tmp, server->pools.step, "no image for /tmp");
        return true;
    }
    r = open_code(server, plan, &t);
    if (r < 0) {
        pools_give_back_tmp(server, plan->storage_mb, t.tmp);
        t.tmp = -1;
        refuse(environment, r, "package", strerror(-r));
    } else {
        launch(environment, &t);
    }
    takings_done(&t);
    return true;
}

/* ---- the queue --------------------------------------------------------------------------------------------------- */

/* In order, but nobody waits behind those who wait for what it does not need: an image of another size, the one zygote
 * that a snapshot is good for. One of each plan is tried: what it lacks its others lack too. */
void launches_retry(struct runtime *runtime) {
    const uint64_t round = ++runtime->server->launches.round;

    list_for_each_safe(node, &runtime->waiting) {
        struct environment *environment = list_entry(node, struct environment, queue);
        struct plan *plan = environment->plan;
        if (!runtime_is_seated(runtime))
            return;
        if (plan->in_vain != round && !try_launch(environment))
            plan->in_vain = round;
    }
}

void launches_retry_all(struct server *server) {
    if (server->launches.waiting == 0)
        return;
    for (unsigned i = 0; i < server->zygotes.n; i++)
        launches_retry(&server->zygotes.runtimes[i]);
}

static void patience_fire(void *owner) {
    struct server *server = owner;
    const uint64_t now = clock_monotonic_us();

    for (unsigned i = 0; i < server->zygotes.n; i++) {
        struct runtime *runtime = &server->zygotes.runtimes[i];
        const char *reason;
        const bool failed = runtime_state(runtime, &reason) == WIRE_PROGRESS_FAILED;
        list_for_each_safe(node, &runtime->waiting) {
            struct environment *environment = list_entry(node, struct environment, queue);
            if (!failed && now - environment->asked_us < LAUNCHES_PATIENCE_US)
                break;
            refuse(environment, -EAGAIN, "wait", failed ? reason : "no zygote, shell or image in time");
        }
    }
    pools_forget_waiting(server);
    launches_retry_all(server);
    if (server->launches.waiting > 0)
        loop_timer(&server->loop, &server->launches.patience, PATIENCE_TICK_US, patience_fire, server);
}

static void wait_in_line(struct environment *environment) {
    struct server *server = environment->server;
    struct runtime *runtime = environment->plan->runtime;

    list_push_back(&runtime->waiting, &environment->queue);
    runtime->n_waiting++;
    server->launches.waiting++;
    if (!loop_timer_on(&server->launches.patience))
        loop_timer(&server->loop, &server->launches.patience, PATIENCE_TICK_US, patience_fire, server);
}

/* An environment may fill its /tmp, which is a sparse file: that must not take what the database and the logs need. */
static bool disk_has_room(const struct server *server) {
    struct statvfs disk;
    uint64_t reserve = (uint64_t)server->boot.disk_reserve_mb << 20;

    if (fstatvfs(server->state_dir, &disk) < 0)
        return true; /* whoever writes will see */
    if (reserve == 0)
        reserve = MIN((uint64_t)disk.f_blocks * disk.f_frsize / DISK_SHARE, DISK_RESERVE_MAX);
    return (uint64_t)disk.f_bavail * disk.f_frsize >= reserve;
}

static void take_launch(struct service *service, uint64_t id, uint64_t plan_id) {
    struct server *server = service->server;
    struct plan *plan = plans_get(server, plan_id);
    int r;

    if (plan == NULL) {
        send_failed(service, id, -ENOENT, "plan", "no such plan was granted");
        return;
    }
    if (id == 0 || table_get(&server->launches.table, id) != NULL) {
        send_failed(service, id, -EEXIST, "plan", "an environment of that number is there");
        return;
    }
    if (server->phase == PHASE_STOPPING || server->launches.waiting >= LAUNCHES_WAITING_MAX) {
        send_failed(service, id, -EAGAIN, "plan", "too many launches wait");
        return;
    }
    if (!disk_has_room(server)) {
        pools_clear(server);
        send_failed(
            service, id, -ENOSPC, "disk", "the node's disk is nearly full; make room below its state directory");
        return;
    }
    r = plan_redeem(plan, server->supervision.upgrade == UPGRADE_HANDING ? 2 : 1, server->loop.now_us);
    if (r < 0) {
        send_failed(service, id, r, "plan", r == -EDQUOT ? "as many environments as granted" : "faster than granted");
        return;
    }
    struct environment *environment = calloc(1, sizeof(*environment));
    if (environment == NULL) {
        plan_release(plan);
        send_failed(service, id, -ENOMEM, "plan", "out of memory");
        return;
    }
    environment->server = server;
    environment->owner = service;
    environment->id = id;
    environment->plan = plan;
    environment->asked_us = server->loop.now_us;
    environment->tmp = -1;
    leaf_init(&environment->leaf);
    list_push_back(&server->launches.all, &environment->all);
    server->launches.count++;
    table_add(&server->launches.table, &environment->node, id);
    table_add(&server->launches.serials, &environment->serial, ++server->launches.serial);
    zygotes_need(plan->runtime);
    wait_in_line(environment);
    if (!try_launch(environment)) /* whoever waits before it lacks something else, or the same */
        runtime_urge(plan->runtime);
}

struct environment *launches_find(struct service *service, uint64_t id) {
    struct table_node *node = table_get(&service->server->launches.table, id);
    struct environment *environment = node == NULL ? NULL : table_entry(node, struct environment, node);
    return environment != NULL && environment->owner == service ? environment : NULL;
}

int launches_message(struct service *service, const struct wire_header *header, const struct packet *packet) {
    struct wire_header h;
    struct wire_launch launch_message;
    struct wire_arena arena;
    struct wire_end end;

    if (header->type == WIRE_LAUNCH) {
        if (wire_launch_decode(packet->data, packet->size, &h, &launch_message) < 0)
            return -EBADMSG;
        take_launch(service, h.object, launch_message.plan);
        return 0;
    }
    if (header->type == WIRE_ARENA) {
        if (wire_arena_decode(packet->data, packet->size, &h, &arena) < 0)
            return -EBADMSG;
        launches_send_arena(service, h.object);
        return 0;
    }
    if (header->type != WIRE_END || wire_end_decode(packet->data, packet->size, &h, &end) < 0)
        return -EBADMSG;
    struct environment *environment = launches_find(service, h.object);
    if (environment == NULL) /* it ended by itself meanwhile: EXITED is on its way */
        return 0;
    environment->last = end.reason == WIRE_END_REASON_RETIRED;
    if (environment->phase == ENVIRONMENT_WAITING)
        refuse(environment, -ECANCELED, "end", "ended before it began");
    else
        environment_kill(environment);
    return 0;
}
