/* The stage of fuzz_launcher.c: the launcher's library with its whole state, and the ends of all its sockets. What it
 * sends is read and judged here: a LAUNCH is answered once, what ends was launched, and FORK and LAUNCHED carry as many
 * descriptors as their flags say. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "control.h"
#include "launcher.h"
#include "launcher_seam.h"

#define RUNTIMES 2
#define ZYGOTES 2
#define FORKS_MAX 32
#define KEPT_MAX 16
#define WATCHED_MAX 64

/* An environment that has a process or soon will, before somebody speaks. */
struct watched {
    uint64_t serial;
    const struct service *owner;
    bool killed;
};

/* A FORK that its zygote has not answered, or has. */
struct forked {
    uint64_t serial;
    pid_t zygote, anchor, child; /* child 0: not made */
};

struct stage {
    struct server server;
    struct forked forks[FORKS_MAX];
    unsigned n_forks;
    int snapshots[KEPT_MAX]; /* pipes that makers write to */
    unsigned n_snapshots;
    int kept[KEPT_MAX]; /* descriptors of environments, as a dispatcher has them */
    uint64_t kept_of[KEPT_MAX];
    unsigned n_kept;
    /* Over the lives of all dispatchers. */
    unsigned asked, granted, refused, exited;
    struct watched watched[WATCHED_MAX];
    unsigned n_watched;
    bool noisy; /* somebody said what nobody counts */
    bool told_started;
    uint8_t packet[WIRE_MESSAGE_MAX];
};

static void end_turn(void *owner) {
    struct stage *stage = owner;
    control_acknowledge(&stage->server);
    stage->server.loop.stop = true;
}

static unsigned bits(unsigned flags) {
    return (unsigned)__builtin_popcount(flags);
}

/* ---- what the launcher says ----------------------------------------------------------------------------------------- */

/* Keeps the n-th descriptor of the packet. */
static void keep(struct stage *stage, struct packet *packet, unsigned n, uint64_t of) {
    unsigned at = stage->n_kept % KEPT_MAX;
    if (stage->n_kept >= KEPT_MAX)
        close(stage->kept[at]);
    stage->kept[at] = steal_fd(&packet->fds[n]);
    stage->kept_of[at] = of;
    stage->n_kept++;
}

static void heard_fork(struct stage *stage, const struct process *zygote, struct packet *packet) {
    struct forked *forked = &stage->forks[stage->n_forks++ % FORKS_MAX];
    struct wire_header header;
    struct wire_fork fork;
    struct stat about;

    CHECK(wire_fork_decode(packet->data, packet->size, &header, &fork) == 0);
    CHECK(packet->n_fds == bits(fork.descriptors) && fstat(packet->fds[0], &about) == 0);
    CHECK(fork.uid > 0 && fork.uid < 65536 && fork.uid == fork.gid);
    *forked = (struct forked){.serial = header.object, .zygote = zygote->pid};
    for (unsigned i = 0; i < PROCESSES_MAX; i++)
        if (seam.processes[i].pid != 0 && seam.processes[i].inode == about.st_ino)
            forked->anchor = seam.processes[i].pid;
    if (fork.snapshot == WIRE_FORK_SNAPSHOT_TAKE && stage->n_snapshots < KEPT_MAX)
        stage->snapshots[stage->n_snapshots++] = steal_fd(&packet->fds[packet->n_fds - 1]);
}

static void heard_launched(struct stage *stage, struct packet *packet) {
    struct wire_header header;
    struct wire_launched launched;

    CHECK(wire_launched_decode(packet->data, packet->size, &header, &launched) == 0);
    CHECK(packet->n_fds == bits(launched.descriptors));
    stage->granted++;
    for (unsigned i = 0; i < packet->n_fds && i < 2; i++)
        keep(stage, packet, i, header.object);
}

static void heard(struct stage *stage, const struct process *process, struct packet *packet) {
    struct wire_header header;

    CHECK(wire_peek(packet->data, packet->size, &header) == 0);
    switch (header.type) {
    case WIRE_FORK:
        CHECK(process->kind == PROCESS_ZYGOTE);
        heard_fork(stage, process, packet);
        break;
    case WIRE_LAUNCHED:
        CHECK(process->kind == PROCESS_DISPATCHER);
        heard_launched(stage, packet);
        break;
    case WIRE_LAUNCH_FAILED:
        stage->refused++;
        break;
    case WIRE_EXITED:
        stage->exited++;
        break;
    case WIRE_TASK_STARTED:
        CHECK(process->kind == PROCESS_CONTROL && packet->n_fds == 2);
        stage->told_started = true;
        break;
    default:
        break;
    }
    CHECK(stage->granted + stage->refused <= stage->asked && stage->exited <= stage->granted);
}

static void hear(struct stage *stage) {
    for (unsigned i = 0; i < PROCESSES_MAX; i++) {
        struct process *process = &seam.processes[i];
        if (process->pid == 0 || process->peer < 0 || process->kind == PROCESS_MAKER || process->kind == PROCESS_TASK)
            continue;
        for (;;) {
            struct packet packet = {.data = stage->packet, .capacity = sizeof(stage->packet)};
            int n = packet_receive(process->peer, &packet, MSG_DONTWAIT);
            if (n <= 0) {
                seam.dispatchers_lost += n == 0 && process->kind == PROCESS_DISPATCHER;
                break;
            }
            heard(stage, process, &packet);
            packet_close_fds(&packet);
        }
    }
}

static void turn(struct stage *stage) {
    seam.now_us += 10;
    for (unsigned i = 0; i < 2; i++) {
        stage->server.loop.stop = false;
        CHECK(loop_run(&stage->server.loop, end_turn, stage) == 0);
        hear(stage);
    }
}

/* As SIGCHLD does it. */
static void reap(struct stage *stage) {
    zygotes_drain(&stage->server);
    reaper_collect(&stage->server.reaper);
}

/* ---- whose environments are whose ------------------------------------------------------------------------------------- */

/* What the dispatcher that speaks next can do nothing to. */
static void watch_others(struct stage *stage, const struct process *speaker) {
    struct server *server = &stage->server;

    stage->n_watched = 0;
    list_for_each(node, &server->launches.all) {
        const struct environment *environment = list_entry(node, struct environment, all);
        if (environment->phase != ENVIRONMENT_WAITING && environment->owner->child.pid != speaker->pid &&
            stage->n_watched < WATCHED_MAX)
            stage->watched[stage->n_watched++] =
                (struct watched){environment->serial.key, environment->owner, environment->killed};
    }
}

/* It neither ended nor gave away what is not its own. */
static void check_others(struct stage *stage) {
    for (unsigned i = 0; i < stage->n_watched; i++) {
        const struct watched *was = &stage->watched[i];
        const struct table_node *node = table_get(&stage->server.launches.serials, was->serial);
        const struct environment *now = node == NULL ? NULL : table_entry(node, struct environment, serial);
        CHECK(now == NULL || (now->owner == was->owner && now->killed == was->killed));
    }
    stage->n_watched = 0;
}

/* ---- opening and closing ------------------------------------------------------------------------------------------- */

static void drain_zygotes(void *owner) {
    zygotes_drain(owner);
}

static void fill_boot(struct boot *boot) {
    static char build[] = "b1", run[] = "/run/r", state[] = "/var/s", libexec[] = "/usr/l", bootstrap[] = "/usr/b",
                name[] = "r", address[] = "", python[] = "/usr/bin/python3", prefix[] = "/usr";

    *boot = (struct boot){.build = build,
        .run_dir = run,
        .state_dir = state,
        .libexec = libexec,
        .bootstrap = bootstrap,
        .cgroup_name = name,
        .uid_base = 1 << 20,
        .dispatch_uid = 1,
        .dispatch_gid = 1,
        .invoke_address = address,
        .n_interpreters = RUNTIMES,
        .zygotes_per_runtime = ZYGOTES,
        .shells = 3,
        .tmp_pool = 2,
        .drain_ms = 5000,
        .hang_ms = 10000,
        .log_level = LOG_LEVEL_ERROR};
    for (unsigned i = 0; i < RUNTIMES; i++)
        boot->interpreters[i] = (struct boot_interpreter){python, prefix};
    jail_plan_init(&boot->control);
}

static struct stage *stage_open(uint8_t how) {
    struct stage *stage = calloc(1, sizeof(*stage));
    CHECK(stage != NULL);
    struct server *server = &stage->server;

    (void)signal(SIGPIPE, SIG_IGN); /* as the launcher does */
    seam = (struct seam){.now_us = 1000000, .last_pair = -1};
    fill_boot(&server->boot);
    server->cgroups = (struct cgroup_tree){.n = 1,
        .controllers = CGROUP_PIDS,
        .version = how & 1 ? 2 : 1,
        .hierarchies[0] = {.fd = seam_file(), .parent = -1, .controllers = CGROUP_PIDS}};
    server->state_dir = seam_file();
    server->run_dir = server->lock = server->listener = server->http = server->http_tcp = server->logs = server->queue =
        -1;
    CHECK(loop_init(&server->loop) == 0 && plans_init(&server->plans) == 0 && launches_init(server) == 0);
    CHECK(recycle_init(server) == 0 && tasks_init(server) == 0 && zygotes_init(server) == 0);
    CHECK(table_init(&server->reaper.children, 64) == 0);
    server->reaper.loop = &server->loop;
    server->reaper.before = drain_zygotes;
    server->reaper.owner = server;
    CHECK(seats_start(server) == 0 && pools_start(server) == 0 && supervise_start(server) == 0);
    turn(stage);
    return stage;
}

static void drop_stock(struct stage *stage) {
    struct server *server = &stage->server;

    plans_mark(server);
    plans_sweep(server);
    CHECK(server->plans.table.count == 0);
    table_free(&server->plans.table);
    table_free(&server->launches.table);
    table_free(&server->launches.serials);
    table_free(&server->reaper.children);
    zygotes_free(server);
    free(server->supervision.control.link.buffer);
    for (unsigned i = 0; i < ARRAY_SIZE(server->supervision.dispatchers); i++) {
        free(server->supervision.dispatchers[i].link.buffer);
        cleanup_close(&server->supervision.dispatchers[i].counters);
    }
    cleanup_close(&server->supervision.counters);
    close(server->recycle.own_ipc);
    close(server->cgroups.hierarchies[0].fd);
    close(server->state_dir);
    loop_free(&server->loop);
    cleanup_close(&seam.last_pair);
    for (unsigned i = 0; i < stage->n_snapshots; i++)
        cleanup_close(&stage->snapshots[i]);
    for (unsigned i = 0; i < MIN(stage->n_kept, KEPT_MAX); i++)
        close(stage->kept[i]);
}

/* The launcher is told to stop, twice: everything ends, and nothing is left. */
static void stage_close(struct stage *stage) {
    struct server *server = &stage->server;

    seam.faults = 0;
    supervise_stop(server);
    turn(stage);
    supervise_stop(server);
    for (unsigned round = 0; server->reaper.children.count > 0; round++) {
        CHECK(round < 400);
        for (unsigned i = 0; i < PROCESSES_MAX; i++) { /* whose socket the launcher has closed leaves */
            struct process *process = &seam.processes[i];
            uint8_t byte;
            if (process->pid != 0 && !process->dead && process->peer >= 0 && process->kind != PROCESS_MAKER &&
                recv(process->peer, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
                seam_die(process, 0);
        }
        seam.now_us += 100000;
        turn(stage);
        reap(stage);
    }
    CHECK(server->launches.count == 0 && server->launches.waiting == 0 && server->recycle.n == 0);
    CHECK(server->tasks.n_waiting == 0);
    for (unsigned i = 0; i < RUNTIMES; i++)
        for (unsigned k = 0; k < ZYGOTES; k++)
            for (unsigned n = 0; n < JAIL_IDS / 8; n++)
                CHECK(server->zygotes.runtimes[i].zygotes[k].uids[n] == 0);
    reap(stage);
    for (unsigned i = 0; i < PROCESSES_MAX; i++)
        CHECK(seam.processes[i].pid == 0 || seam.processes[i].kind == PROCESS_ENVIRONMENT);
    pools_stop(server);
    seats_stop(server);
    drop_stock(stage);
    free(stage);
}
