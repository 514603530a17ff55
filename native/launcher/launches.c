/* Environments: from LAUNCH until a zygote is asked for a process, or a spare was found. What they are made of and FORK
 * itself: forking.c. What follows when one ends: exits.c. */
#include "launches.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "forking.h"
#include "launcher.h"

#define BUCKETS 8192
/* Where in a queue of launches patience is checked. */
#define PATIENCE_TICK_US 500000
/* Of the file system, where no reserve is given; the control plane reckons the same (store/ledger.py). */
#define DISK_SHARE 50
#define DISK_RESERVE_MAX (UINT64_C(512) << 20)

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

void environment_stop_waiting(struct environment *environment) {
    if (environment->phase != ENVIRONMENT_WAITING)
        return;
    list_remove(&environment->queue);
    environment->plan->runtime->n_waiting--;
    environment->server->launches.waiting--;
}

void environment_release(struct environment *environment) {
    struct server *server = environment->server;

    environment_stop_waiting(environment);
    if (table_get(&server->launches.table, environment->id) == &environment->node)
        table_remove(&server->launches.table, &environment->node);
    spares_forget(environment);
    snapshot_environment_gone(environment);
    if (environment->plan != NULL)
        plan_release(environment->plan);
    environment->plan = NULL;
}

struct environment *environment_new(struct server *server) {
    struct environment *environment = calloc(1, sizeof(*environment));

    if (environment == NULL)
        return NULL;
    environment->server = server;
    environment->asked_us = server->loop.now_us;
    environment->tmp = environment->pidfd = -1;
    leaf_init(&environment->leaf);
    list_push_back(&server->launches.all, &environment->all);
    server->launches.count++;
    table_add(&server->launches.serials, &environment->serial, ++server->launches.serial);
    return environment;
}

void environment_free(struct environment *environment) {
    struct server *server = environment->server;

    environment_release(environment);
    snapshot_let_go(environment);
    table_remove(&server->launches.serials, &environment->serial);
    list_remove(&environment->all);
    server->launches.count--;
    cleanup_close(&environment->pidfd);
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

/* ---- on its way --------------------------------------------------------------------------------------------------- */

/* Everything is at hand: FORK, limits, LAUNCHED. The zygote forks on another processor while the limits are written. */
static void launch(struct environment *environment, struct takings *t) {
    struct server *server = environment->server;
    struct zygote *zygote = t->zygote;
    const struct shape shape = shape_of(environment->plan);
    int r = forking_prepare(environment, &shape, t);

    if (r < 0) {
        refuse(environment, r, "uid", "no id for the environment, or its /tmp cannot be handed over");
        return;
    }
    environment_stop_waiting(environment);
    forking_begin(environment, &shape, t);
    forking_send_launched(environment);
    if (server->cgroups.version == 2)
        (void)seats_give(server, zygote); /* whoever waits is looked at next */
}

/* False: something is not at hand yet. Otherwise the launch is on its way, or refused. */
static bool try_launch(struct environment *environment) {
    struct server *server = environment->server;
    struct plan *plan = environment->plan;
    struct takings t = TAKINGS_INIT;
    int r;

    if (spares_give(environment))
        return true;
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
    r = forking_open_code(server, plan, &t);
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
        if (!runtime_is_seated(runtime) && list_empty(&runtime->spares.ready))
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
bool launches_disk_has_room(const struct server *server) {
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
    if (!launches_disk_has_room(server)) {
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
    struct environment *environment = environment_new(server);
    if (environment == NULL) {
        plan_release(plan);
        send_failed(service, id, -ENOMEM, "plan", "out of memory");
        return;
    }
    environment->owner = service;
    environment->id = id;
    environment->plan = plan;
    table_add(&server->launches.table, &environment->node, id);
    spares_launched(plan);
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
