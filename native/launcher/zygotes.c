/* Runtimes and zygotes: their table, their states and what they tell; see the header. Their processes: zygote_process.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "launcher.h"

/* A zygote that was killed while it served is a start later what it was; one that cannot start fails again and again. */
#define FAILED_STARTS 3
/* A seat that could not be made is asked for again after this. */
#define SEAT_AGAIN_US 100000

int zygotes_init(struct server *server) {
    struct zygotes *zygotes = &server->zygotes;

    zygotes->runtimes = calloc(MAX(server->boot.n_interpreters, 1u), sizeof(*zygotes->runtimes));
    if (zygotes->runtimes == NULL)
        return -ENOMEM;
    zygotes->n = server->boot.n_interpreters;
    for (unsigned i = 0; i < zygotes->n; i++) {
        struct runtime *runtime = &zygotes->runtimes[i];
        runtime->server = server;
        runtime->index = i;
        list_init(&runtime->waiting);
        list_init(&runtime->spares.ready);
        for (unsigned k = 0; k < server->boot.zygotes_per_runtime; k++)
            zygote_init(server, runtime, k);
    }
    return 0;
}

void zygotes_free(struct server *server) {
    for (unsigned i = 0; i < server->zygotes.n; i++)
        for (unsigned k = 0; k < server->boot.zygotes_per_runtime; k++)
            free(server->zygotes.runtimes[i].zygotes[k].link.buffer);
    free(server->zygotes.runtimes);
    server->zygotes.runtimes = NULL;
    server->zygotes.n = 0;
}

struct runtime *zygotes_find(struct server *server, struct wire_slice name) {
    for (unsigned i = 0; i < server->zygotes.n; i++) {
        struct runtime *runtime = &server->zygotes.runtimes[i];
        if (name.size > 0 && strlen(runtime->name) == name.size && memcmp(runtime->name, name.data, name.size) == 0)
            return runtime;
    }
    return NULL;
}

uint8_t runtime_state(const struct runtime *runtime, const char **ret_reason) {
    uint8_t state = WIRE_PROGRESS_PENDING;
    *ret_reason = "";
    for (unsigned k = 0; k < runtime->server->boot.zygotes_per_runtime; k++) {
        const struct zygote *zygote = &runtime->zygotes[k];
        if (zygote->state == ZYGOTE_READY) {
            *ret_reason = "";
            return WIRE_PROGRESS_READY;
        }
        if (zygote->failures >= FAILED_STARTS) {
            *ret_reason = zygote->reason;
            state = WIRE_PROGRESS_FAILED;
        }
    }
    return state;
}

static void tell(struct runtime *runtime) {
    struct server *server = runtime->server;
    const char *reason;
    struct wire_runtime_state message = {
        .name = link_text(runtime->name), .state = runtime_state(runtime, &reason), .reason = link_text("")};

    if (runtime->name[0] == '\0')
        return;
    message.reason = link_text(reason);
    for (unsigned k = 0; k < server->boot.zygotes_per_runtime && message.pid == 0; k++)
        if (runtime->zygotes[k].state == ZYGOTE_READY)
            message.pid = (uint32_t)runtime->zygotes[k].child.pid;
    runtime->told = message.state;
    LINK_SEND(&server->supervision.control.link, HEADER(runtime->index), runtime_state, message, NULL, 0);
}

static bool is_name(struct wire_slice name) {
    for (uint32_t i = 0; i < name.size; i++) {
        uint8_t c = name.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_'))
            return false;
    }
    return name.size > 0;
}

int zygotes_put(struct server *server, const struct wire_header *header, const struct wire_put_runtime *message,
    const char **ret_reason) {
    struct runtime *other = zygotes_find(server, message->name);

    *ret_reason = "no interpreter of that number is in the boot configuration";
    if (header->object >= server->zygotes.n)
        return -ENOENT;
    struct runtime *runtime = &server->zygotes.runtimes[header->object];
    *ret_reason = "a runtime's name is of a-z, 0-9, '.', '-' and '_'";
    if (!is_name(message->name))
        return -EINVAL;
    if (runtime->name[0] != '\0' && header->generation < runtime->generation)
        return 0;
    *ret_reason = "another interpreter has that name";
    if (other != NULL && other != runtime) {
        if (!other->marked)
            return -EEXIST;
        other->name[0] = '\0';
    }
    link_copy_text(message->name, runtime->name, sizeof(runtime->name));
    runtime->generation = header->generation;
    runtime->marked = false;
    tell(runtime);
    return 0;
}

void zygotes_mark(struct server *server) {
    for (unsigned i = 0; i < server->zygotes.n; i++)
        server->zygotes.runtimes[i].marked = server->zygotes.runtimes[i].name[0] != '\0';
}

void zygotes_sweep(struct server *server) {
    for (unsigned i = 0; i < server->zygotes.n; i++) {
        struct runtime *runtime = &server->zygotes.runtimes[i];
        if (!runtime->marked)
            continue;
        runtime->marked = false;
        runtime->name[0] = '\0';
        if (!plans_need(server, runtime))
            for (unsigned k = 0; k < server->boot.zygotes_per_runtime; k++)
                zygote_stop(&runtime->zygotes[k]);
    }
}

void zygotes_need(struct runtime *runtime) {
    if (runtime->server->phase != PHASE_RUNNING)
        return;
    for (unsigned k = 0; k < runtime->server->boot.zygotes_per_runtime; k++)
        if (runtime->zygotes[k].state == ZYGOTE_ABSENT && !loop_timer_on(&runtime->zygotes[k].restart))
            zygote_start(&runtime->zygotes[k]);
}

void zygotes_tell(struct server *server) {
    for (unsigned i = 0; i < server->zygotes.n; i++)
        tell(&server->zygotes.runtimes[i]);
}

void runtime_changed(struct runtime *runtime) {
    const char *reason;
    if (runtime_state(runtime, &reason) == runtime->told)
        return;
    tell(runtime);
    plans_tell(runtime->server, runtime);
}

void runtime_urge(struct runtime *runtime) {
    for (unsigned k = 0; k < runtime->server->boot.zygotes_per_runtime; k++)
        if (runtime->zygotes[k].seat == SEAT_NONE)
            zygote_reseat(&runtime->zygotes[k]);
    pools_taken(runtime->server, true);
}

static bool is_seated(const struct zygote *zygote) {
    return zygote->state == ZYGOTE_READY && zygote->seat == SEAT_TAKEN;
}

bool runtime_is_seated(const struct runtime *runtime) {
    for (unsigned k = 0; k < runtime->server->boot.zygotes_per_runtime; k++)
        if (is_seated(&runtime->zygotes[k]))
            return true;
    return false;
}

static bool has_cell(const struct zygote *zygote, const struct plan *plan) {
    return zygote->n_cells > 0 || recycle_has(plan, zygote);
}

struct zygote *runtime_choose(struct runtime *runtime, struct plan *plan) {
    const unsigned n = runtime->server->boot.zygotes_per_runtime;
    for (unsigned i = 0; i < n; i++) {
        struct zygote *zygote = &runtime->zygotes[(runtime->turn + i) % n];
        if (is_seated(zygote) && has_cell(zygote, plan) && snapshot_fits(&plan->snapshot, zygote))
            return zygote;
    }
    return NULL;
}

static void seat_again(void *owner) {
    zygote_reseat(owner);
}

void zygote_seated(struct zygote *zygote, int error) {
    if (error == 0) {
        launches_retry(zygote->runtime);
        return;
    }
    if (error != -ESRCH && error != -EPIPE) /* it, or the seater, is dead, which is told elsewhere */
        say("cannot seat a zygote of %s: %s", zygote->runtime->name, strerror(-error));
    zygote->seat = SEAT_NONE;
    loop_timer(&zygote->server->loop, &zygote->reseat, SEAT_AGAIN_US, seat_again, zygote);
}

#define FOR_EACH_ZYGOTE(zygote, server)                                                                                \
    for (unsigned _i = 0; _i < (server)->zygotes.n; _i++)                                                              \
        for (struct zygote *zygote = (server)->zygotes.runtimes[_i].zygotes,                                           \
                           *_end = zygote + (server)->boot.zygotes_per_runtime;                                        \
             zygote != _end; zygote++)

void zygotes_leaf_came(struct server *server) {
    FOR_EACH_ZYGOTE(zygote, server)
    if (zygote->state == ZYGOTE_READY && zygote->seat == SEAT_NONE && !loop_timer_on(&zygote->reseat) &&
        seats_give(server, zygote))
        zygote_seated(zygote, 0);
}

void zygotes_refill(struct server *server) {
    FOR_EACH_ZYGOTE(zygote, server)
    if (zygote->state == ZYGOTE_READY)
        zygote_refill(zygote);
}

void zygotes_drain(struct server *server) {
    FOR_EACH_ZYGOTE(zygote, server) {
        if (zygote->state == ZYGOTE_ABSENT)
            continue;
        zygote_receive_cells(zygote);
        link_drain(&zygote->link);
    }
}

void zygotes_stop(struct server *server) {
    FOR_EACH_ZYGOTE(zygote, server)
    zygote_stop(zygote);
}

uint32_t zygote_take_uid(struct zygote *zygote) {
    for (uint32_t tried = 0; tried < JAIL_IDS; tried++) {
        uint32_t uid = zygote->next_uid++ % JAIL_IDS;
        /* 0 is the zygote, 65534 what unmapped ids look like. */
        if (uid == 0 || uid == 65534 || (zygote->uids[uid / 8] & (1u << (uid % 8))) != 0)
            continue;
        zygote->uids[uid / 8] = (uint8_t)(zygote->uids[uid / 8] | (1u << (uid % 8)));
        return uid;
    }
    return 0;
}

void zygote_give_uid(struct zygote *zygote, uint32_t uid) {
    zygote->uids[uid / 8] = (uint8_t)(zygote->uids[uid / 8] & ~(1u << (uid % 8)));
}
