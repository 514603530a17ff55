/* Seats; see the header. */
#include "seats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "launcher.h"

/* A move by the seater may be as much older than its answer as a scheduler's tick; the kernel's fast path stays open for
 * more than 10 ms. */
#define QUICK_US 3000

static struct zygote *find(struct server *server, uint64_t tag) {
    const unsigned number = (unsigned)(tag >> 32);
    return &server->zygotes.runtimes[number / BOOT_ZYGOTES_MAX].zygotes[number % BOOT_ZYGOTES_MAX];
}

static uint64_t tag_of(const struct zygote *zygote) {
    return (uint64_t)(zygote->runtime->index * BOOT_ZYGOTES_MAX + zygote->index) << 32 | zygote->incarnation;
}

/* The leaf is the zygote's already; what comes next is a launch. */
static void taken(struct server *server, struct zygote *zygote) {
    zygote->seat = SEAT_TAKEN;
    (void)leaf_set_limits(server, &zygote->leaf, &zygote->runtime->limits);
}

static void moved(void *owner, uint64_t tag, int error) {
    struct server *server = owner;
    struct zygote *zygote = find(server, tag);

    server->seats.moved_us = clock_monotonic_us();
    if (zygote->incarnation != (uint32_t)tag || zygote->seat != SEAT_ASKED)
        return;
    if (error == 0)
        taken(server, zygote);
    else
        leaf_drop(server, &zygote->leaf);
    zygote_seated(zygote, error);
}

/* Now where that is quick. */
static int move(struct server *server, struct zygote *zygote) {
    const uint64_t now = clock_monotonic_us();
    int r;

    if (now - server->seats.moved_us >= QUICK_US) {
        zygote->seat = SEAT_ASKED;
        return seater_move(&server->seats.seater, tag_of(zygote), zygote->child.pid, &server->cgroups, &zygote->leaf);
    }
    r = cgroup_attach(&server->cgroups, &zygote->leaf.cgroup, zygote->child.pid);
    server->seats.moved_us = clock_monotonic_us();
    if (r == 0)
        taken(server, zygote);
    return r;
}

bool seats_give(struct server *server, struct zygote *zygote) {
    struct seats *seats = &server->seats;
    int r;

    zygote->seat = SEAT_NONE;
    if (seats->n == 0) { /* zygotes_leaf_came gives it the next one */
        seats_refill(server);
        return false;
    }
    zygote->leaf = seats->stock[--seats->n];
    pools_taken(server, seats->n == 0);
    if (server->cgroups.version == 2) {
        r = cgroup_delegate(&server->cgroups, &zygote->leaf.cgroup, zygote->uid_base);
        if (r == 0)
            taken(server, zygote);
    } else {
        r = move(server, zygote);
    }
    if (r < 0) {
        zygote->seat = SEAT_NONE;
        leaf_drop(server, &zygote->leaf);
        zygote_seated(zygote, r);
    }
    return zygote->seat == SEAT_TAKEN;
}

static void made(void *owner, int error, struct leaf *leaf) {
    struct server *server = owner;
    struct seats *seats = &server->seats;

    seats->asked--;
    if (error < 0) {
        say("cannot make a control group: %s", strerror(-error));
        return; /* asked for again with the next refill */
    }
    if (seats->n == LEAVES_STOCK || server->phase == PHASE_STOPPING) {
        leaf_drop(server, leaf);
        return;
    }
    seats->stock[seats->n++] = *leaf;
    zygotes_leaf_came(server);
    if (seats->n + seats->asked < LEAVES_STOCK)
        pools_taken(server, false);
}

void seats_refill(struct server *server) {
    struct seats *seats = &server->seats;
    while (seats->n + seats->asked < LEAVES_STOCK && seats->asked < LEAVES_ASKED_MAX) {
        if (seater_make(&seats->seater) < 0)
            return;
        seats->asked++;
    }
}

int leaf_set_limits(struct server *server, struct leaf *leaf, const struct cgroup_limits *limits) {
    const struct cgroup_limits *now = &leaf->limits;
    struct cgroup_limits wanted = *limits;

    if (now->memory_mb == limits->memory_mb && now->pids == limits->pids && now->cpu_hard == limits->cpu_hard)
        return 0;
    wanted.fresh = now->memory_mb == 0;
    leaf->limits = *limits;
    return cgroup_set_limits(&server->cgroups, &leaf->cgroup, &wanted);
}

void leaf_drop(struct server *server, struct leaf *leaf) {
    if (leaf_is_there(leaf)) {
        int r = seater_remove(&server->seats.seater, leaf);
        if (r < 0 && r != -EPIPE) /* without a seater: the next one removes it */
            say("cgroup %s is left for the next start to remove", leaf->cgroup.name);
    }
    leaf_close(leaf);
}

/* ---- the seater -------------------------------------------------------------------------------------------------- */

/* The names of all leaves that the launcher knows of, for a new seater: it removes the others. */
static int known_leaves(const struct server *server, struct seater_known *ret) {
    const unsigned zygotes = server->zygotes.n * server->boot.zygotes_per_runtime;
    const size_t most = server->seats.n + zygotes + server->launches.count + TASKS_MAX;
    struct seater_known known = {.names = calloc(most, CGROUP_NAME_MAX)};

    if (known.names == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < server->seats.n; i++)
        memcpy(known.names[known.n++], server->seats.stock[i].cgroup.name, CGROUP_NAME_MAX);
    for (unsigned i = 0; i < zygotes; i++) {
        const struct zygote *zygote = &server->zygotes.runtimes[i / server->boot.zygotes_per_runtime]
                                           .zygotes[i % server->boot.zygotes_per_runtime];
        if (leaf_is_there(&zygote->leaf))
            memcpy(known.names[known.n++], zygote->leaf.cgroup.name, CGROUP_NAME_MAX);
    }
    list_for_each(node, &server->launches.all) {
        const struct environment *environment = list_entry(node, struct environment, all);
        if (leaf_is_there(&environment->leaf))
            memcpy(known.names[known.n++], environment->leaf.cgroup.name, CGROUP_NAME_MAX);
    }
    for (unsigned i = 0; i < TASKS_MAX; i++)
        if (server->tasks.slots[i].task != NULL)
            memcpy(known.names[known.n++], server->tasks.slots[i].cgroup, CGROUP_NAME_MAX);
    *ret = known;
    return 0;
}

static void seater_gone(void *owner, const char *name);

static int start_seater(struct server *server) {
    struct seats *seats = &server->seats;
    struct seater_known known;
    int r = known_leaves(server, &known);

    if (r < 0)
        return r;
    seats->seater.made = made;
    seats->seater.moved = moved;
    seats->seater.owner = server;
    seats->seater.side.gone = seater_gone;
    seats->seater.side.owner = server;
    r = seater_start(&seats->seater, &server->loop, &server->reaper, &server->cgroups, &known);
    free(known.names);
    return r;
}

/* Zygotes that the last seater was to move: wherever they are now, they get another seat. */
static void ask_again(struct server *server) {
    for (unsigned i = 0; i < server->zygotes.n; i++)
        for (unsigned k = 0; k < server->boot.zygotes_per_runtime; k++) {
            struct zygote *zygote = &server->zygotes.runtimes[i].zygotes[k];
            if (zygote->seat != SEAT_ASKED)
                continue;
            leaf_drop(server, &zygote->leaf);
            zygote->seat = SEAT_NONE;
            zygote_reseat(zygote);
        }
}

static void restart_fire(void *owner) {
    struct server *server = owner;

    if (server->phase == PHASE_STOPPING)
        return;
    int r = start_seater(server);
    if (r < 0) {
        say("cannot start the seater: %s", strerror(-r));
        side_restart(&server->seats.seater.side, restart_fire, server);
        return;
    }
    ask_again(server);
    seats_refill(server);
}

static void seater_gone(void *owner, const char *name) {
    struct server *server = owner;

    if (server->phase == PHASE_STOPPING)
        return;
    say("%s ended: it starts again", name);
    server->seats.asked = 0;
    side_restart(&server->seats.seater.side, restart_fire, server);
}

int seats_start(struct server *server) {
    return start_seater(server);
}

void seats_stop(struct server *server) {
    struct seats *seats = &server->seats;
    for (; seats->n > 0; seats->n--)
        leaf_close(&seats->stock[seats->n - 1]);
    side_stop(&seats->seater.side);
}
