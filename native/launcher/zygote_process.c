/* One zygote's process, its shellmaker and its stock of shells. The zygote is executed in a jail of its own (root of a
 * mapped user namespace, our code only); when it is ready a shellmaker is started inside its user namespace, and the
 * zygote is seated. Either of the two dying ends both: shells belong to the user namespace they were made in.
 * Environments already forked live on. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/spawn.h"
#include "launcher.h"
#include "programs.h"

/* A zygote imports an interpreter's standard library: some 50 ms; a cold disk may take longer. */
#define READY_LIMIT_US UINT64_C(30000000)
/* Pause before a zygote is started again: doubled with each failure in a row. */
#define RESTART_US 100000u
#define RESTART_MAX_US 10000000u
/* The new environment starts and answers in that time; moving the zygote would take the processor from it. */
#define RESEAT_PAUSE_US 2500

void zygote_init(struct server *server, struct runtime *runtime, unsigned index) {
    struct zygote *zygote = &runtime->zygotes[index];

    zygote->server = server;
    zygote->runtime = runtime;
    zygote->index = index;
    zygote->uid_base = boot_zygote_base(&server->boot, runtime->index, index);
    zygote->pidfd = -1;
    zygote->maker = (struct shellmaker)SHELLMAKER_INIT;
    zygote->maker_watch.fd = -1;
    zygote->next_uid = 1;
    zygote->link.name = "zygote";
    list_init(&zygote->cells);
    leaf_init(&zygote->leaf);
}

static void restart_fire(void *owner) {
    struct zygote *zygote = owner;
    if (plans_need(zygote->server, zygote->runtime))
        zygotes_need(zygote->runtime);
}

static void failed(struct zygote *zygote, const char *why) {
    uint64_t pause = RESTART_US;

    snprintf(zygote->reason, sizeof(zygote->reason), "%s", why);
    for (unsigned i = 0; i < zygote->failures && pause < RESTART_MAX_US; i++)
        pause *= 2;
    zygote->failures++;
    say("zygote %s/%u: %s; again in %u ms", zygote->runtime->name, zygote->index, why,
        (unsigned)(MIN(pause, (uint64_t)RESTART_MAX_US) / 1000));
    loop_timer(&zygote->server->loop, &zygote->restart, MIN(pause, (uint64_t)RESTART_MAX_US), restart_fire, zygote);
    runtime_changed(zygote->runtime);
}

/* Kills what is there; the reaper brings the rest. */
void zygote_kill(struct zygote *zygote) {
    if (zygote->pidfd >= 0)
        (void)pidfd_send_signal(zygote->pidfd, SIGKILL, NULL, 0);
    if (zygote->maker_child.pid != 0)
        shellmaker_stop(&zygote->maker);
    loop_unwatch(&zygote->server->loop, &zygote->maker_watch);
}

static void maker_exited(void *owner, int status) {
    struct zygote *zygote = owner;
    (void)status;
    zygote_kill(zygote);
}

static void zygote_exited(void *owner, int status) {
    struct zygote *zygote = owner;
    struct server *server = zygote->server;
    const bool ours = zygote->state == ZYGOTE_ABSENT;
    char why[64];

    zygote_kill(zygote);
    loop_timer_off(&zygote->limit);
    loop_timer_off(&zygote->reseat);
    link_drain(&zygote->link); /* processes that it told of live on */
    link_close(&zygote->link);
    cleanup_close(&zygote->pidfd);
    list_for_each_safe(node, &zygote->cells) {
        struct cell *cell = list_entry(node, struct cell, node);
        list_remove(&cell->node);
        cell_kill(cell);
    }
    zygote->n_cells = zygote->asked_cells = 0;
    recycle_drop(server, NULL, zygote);
    snapshots_zygote_gone(server, zygote);
    zygote->state = ZYGOTE_ABSENT;
    leaf_drop(server, &zygote->leaf);
    zygote->seat = SEAT_NONE;
    launches_zygote_gone(zygote);
    if (ours || server->phase != PHASE_RUNNING)
        return;
    if (WIFSIGNALED(status))
        snprintf(why, sizeof(why), "killed by signal %d", WTERMSIG(status));
    else
        snprintf(why, sizeof(why), "ended with status %d", WEXITSTATUS(status));
    failed(zygote, why);
    launches_retry(zygote->runtime);
}

void zygote_stop(struct zygote *zygote) {
    loop_timer_off(&zygote->restart);
    if (zygote->state == ZYGOTE_ABSENT)
        return;
    zygote->state = ZYGOTE_ABSENT;
    zygote_kill(zygote);
}

static void give_seat(struct zygote *zygote) {
    loop_timer_off(&zygote->reseat);
    if (seats_give(zygote->server, zygote))
        zygote_seated(zygote, 0);
}

static void reseat_fire(void *owner) {
    struct zygote *zygote = owner;
    if (zygote->state == ZYGOTE_READY && zygote->seat == SEAT_NONE)
        give_seat(zygote);
}

void zygote_reseat(struct zygote *zygote) {
    if (zygote->state != ZYGOTE_READY || zygote->seat == SEAT_ASKED || zygote->seat == SEAT_TAKEN)
        return;
    zygote->seat = SEAT_NONE;
    if (zygote->runtime->n_waiting > 0)
        give_seat(zygote);
    else
        loop_timer(&zygote->server->loop, &zygote->reseat, RESEAT_PAUSE_US, reseat_fire, zygote);
}

/* ---- the zygote -------------------------------------------------------------------------------------------------- */

static int become_ready(struct zygote *zygote) {
    struct server *server = zygote->server;
    struct jail_error error = {0};
    int r = shellmaker_start(zygote->pidfd, &zygote->maker, &error);

    if (r < 0) {
        say("cannot start the shellmaker of %s: %s: %s", zygote->runtime->name, error.step, strerror(-r));
        return r;
    }
    reaper_add(&server->reaper, &zygote->maker_child, zygote->maker.pid, maker_exited, zygote);
    side_be_patient(zygote->maker.pid);
    r = loop_watch(&server->loop, &zygote->maker_watch, zygote->maker.socket, EPOLLIN, zygote_maker_ready, zygote);
    if (r < 0)
        return r;
    zygote->state = ZYGOTE_READY;
    zygote->failures = 0;
    loop_timer_off(&zygote->limit);
    give_seat(zygote);
    zygote_refill(zygote);
    runtime_changed(zygote->runtime);
    spares_soon(server, SPARES_NEXT_US);
    return 0;
}

static void message(void *owner, const struct wire_header *header, struct packet *packet) {
    struct zygote *zygote = owner;
    struct wire_zygote_ready ready;
    int r = 0;

    if (header->type == WIRE_ZYGOTE_READY) {
        r = wire_zygote_ready_decode(packet->data, packet->size, &(struct wire_header){0}, &ready);
        if (r == 0 && zygote->state == ZYGOTE_STARTING)
            r = become_ready(zygote);
    } else if (header->type == WIRE_FORKED || header->type == WIRE_FORK_FAILED) {
        r = launches_zygote_message(zygote, header, packet);
    } else {
        r = -EBADMSG;
    }
    if (r < 0) {
        say("zygote %s/%u: %s: %s", zygote->runtime->name, zygote->index, wire_name(header->type), strerror(-r));
        zygote_kill(zygote);
    }
}

static void closed(void *owner, int error) {
    (void)error;
    zygote_kill(owner);
}

static void limit_fire(void *owner) {
    struct zygote *zygote = owner;
    say("zygote %s/%u: not ready in time", zygote->runtime->name, zygote->index);
    zygote_kill(zygote);
}

static int fill_plan(const struct zygote *zygote, struct jail_plan *plan) {
    const struct boot *boot = &zygote->server->boot;
    const struct boot_interpreter *interpreter = &boot->interpreters[zygote->runtime->index];
    int r = program_fill(boot, interpreter, "zygote.py", plan);

    plan->kind = JAIL_ZYGOTE;
    plan->uid_base = zygote->uid_base;
    plan->group = boot_forkers_group(boot);
    plan->descriptors = 1024;
    return r;
}

static int spawn(struct zygote *zygote, struct jail_error *error) {
    struct server *server = zygote->server;
    _cleanup_jail_plan_ struct jail_plan plan;
    struct jail_io io = JAIL_IO_INIT;
    struct jail_child child = JAIL_CHILD_INIT;
    int pair[2], r;

    jail_plan_init(&plan);
    r = fill_plan(zygote, &plan);
    if (r == 0)
        r = socketpair_seqpacket(pair, 1);
    if (r < 0)
        return jail_fail(error, "plan", -r);
    io.output = io.error = STDERR_FILENO;
    io.descriptors = &pair[1];
    io.n_descriptors = 1;
    /* v1: it is given a seat when it is ready, by the seater; joining a cgroup here might take 15 ms of the loop. */
    if (server->cgroups.version == 2) {
        io.cgroups = &server->cgroups;
        io.cgroup = &server->zygote_cgroup;
    }
    r = jail_spawn(&plan, &io, &child, error);
    close(pair[1]);
    if (r < 0) {
        close(pair[0]);
        return r;
    }
    zygote->pidfd = child.pidfd;
    reaper_add(&server->reaper, &zygote->child, child.pid, zygote_exited, zygote);
    zygote->link.message = message;
    zygote->link.closed = closed;
    zygote->link.owner = zygote;
    r = link_open(&zygote->link, &server->loop, pair[0], zygote->incarnation);
    if (r < 0)
        zygote_kill(zygote);
    return 0;
}

void zygote_start(struct zygote *zygote) {
    struct jail_error error = {0};
    char why[96];

    if (zygote->child.pid != 0 || zygote->maker_child.pid != 0) { /* the last one is not reaped yet */
        loop_timer(&zygote->server->loop, &zygote->restart, RESTART_US, restart_fire, zygote);
        return;
    }
    zygote->incarnation++;
    zygote->seat = SEAT_NONE;
    zygote->state = ZYGOTE_STARTING;
    int r = spawn(zygote, &error);
    if (r < 0) {
        zygote->state = ZYGOTE_ABSENT;
        snprintf(why, sizeof(why), "cannot start: %s: %s", error.step, strerror(-r));
        failed(zygote, why);
        return;
    }
    loop_timer(&zygote->server->loop, &zygote->limit, READY_LIMIT_US, limit_fire, zygote);
}
