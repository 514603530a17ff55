/* The stage of fuzz_dispatch.c and fuzz_handover.c: the dispatcher's library, and the launcher, which answers in any
 * order. */
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatcher.h"

#define ACTORS 4
#define LARGE 300000u /* a body that asks for an arena */
#define ARENA_SIZE (RESPONSE_BODY_MAX + 4096u)

struct actor {
    uint64_t environment; /* 0: none */
    int channel, log;     /* our ends; -1: not granted yet, or closed */
    bool granted, initialised, busy, streaming, wants_arena;
    int arena;      /* ours of it; -1: none */
    uint8_t id[16]; /* of the last INVOKE */
};

static const struct actor ABSENT = {.channel = -1, .log = -1, .arena = -1};

struct stage {
    struct dispatch dispatch;
    int launcher, control;
    int callers[2];
    int http; /* a caller over HTTP, which streams */
    struct actor actors[ACTORS];
    uint64_t calls;
    uint8_t packet[WIRE_MESSAGE_MAX];
};

static inline void turn(struct stage *stage) {
    CHECK(dispatch_turn(&stage->dispatch, 0) == 0);
}

static void send_to(int fd, const void *data, int size) {
    if (fd >= 0 && size > 0)
        (void)send(fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- the launcher ---------------------------------------------------------------------------------------------- */

static struct actor *actor_of(struct stage *stage, uint64_t environment) {
    for (size_t i = 0; i < ACTORS; i++)
        if (stage->actors[i].environment == environment)
            return &stage->actors[i];
    return NULL;
}

static void exited(struct stage *stage, struct actor *actor, uint8_t how) {
    struct wire_header header = {.object = actor->environment};
    struct wire_exited message = {.status = how, .oom = how & 1, .peak_kb = how};
    if (how > 200)
        message.step = (struct wire_slice){(const uint8_t *)"mount", 5};
    send_to(stage->launcher, stage->packet, wire_exited_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
    cleanup_close(&actor->channel);
    cleanup_close(&actor->log);
    cleanup_close(&actor->arena);
    *actor = ABSENT;
}

static void refuse(struct stage *stage, uint64_t environment, bool retryable) {
    struct wire_header header = {.object = environment};
    struct wire_launch_failed message = {.retryable = retryable, .error = 11};
    send_to(
        stage->launcher, stage->packet, wire_launch_failed_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
}

/* LAUNCH and END as they come; END is obeyed at once. */
static void obey(struct stage *stage, const struct wire_header *header) {
    struct actor *actor = header->object != 0 ? actor_of(stage, header->object) : NULL;

    if (header->type == WIRE_LAUNCH) {
        CHECK(actor == NULL);
        actor = actor_of(stage, 0);
        if (actor == NULL)
            refuse(stage, header->object, false);
        else
            *actor = (struct actor){.environment = header->object, .channel = -1, .log = -1, .arena = -1};
    } else if (header->type == WIRE_ARENA && actor != NULL) {
        actor->wants_arena = true;
    } else if (header->type == WIRE_END && actor != NULL) {
        if (actor->granted)
            exited(stage, actor, SIGKILL);
        else {
            refuse(stage, header->object, false);
            actor->environment = 0;
        }
    }
}

static inline void hear_launcher(struct stage *stage) {
    struct wire_header header;
    ssize_t n;

    while ((n = recv(stage->launcher, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT)) > 0) {
        CHECK(wire_peek(stage->packet, (size_t)n, &header) == 0);
        obey(stage, &header);
    }
}

/* The n-th that is granted, or that is not yet. */
static inline struct actor *choose(struct stage *stage, bool granted, uint8_t n) {
    for (size_t i = 0; i < ACTORS; i++) {
        struct actor *actor = &stage->actors[(n + i) % ACTORS];
        if (actor->environment != 0 && actor->granted == granted)
            return actor;
    }
    return &stage->actors[n % ACTORS];
}

static inline void grant(struct stage *stage, struct actor *actor, uint8_t how) {
    struct wire_header header = {.object = actor->environment};
    struct wire_launched message = {.descriptors = WIRE_LAUNCHED_CHANNEL | WIRE_LAUNCHED_LOG};
    int pair[2], pipes[2], size;

    if (actor->environment == 0 || actor->granted)
        return;
    if (how > 240) {
        refuse(stage, actor->environment, how & 1);
        actor->environment = 0;
        return;
    }
    CHECK(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0 && pipe2(pipes, O_CLOEXEC | O_NONBLOCK) == 0);
    size = wire_launched_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX);
    CHECK(packet_send(stage->launcher, stage->packet, (size_t)size, (int[]){pair[1], pipes[0]}, 2) == 0);
    close(pair[1]);
    close(pipes[0]);
    actor->channel = pair[0];
    actor->log = pipes[1];
    actor->granted = true;
}

/* What it asked for, or not quite; or memory for some of it. */
static inline void act_arena(struct stage *stage, struct actor *actor, uint8_t how) {
    struct wire_header header = {.object = actor->environment};
    struct wire_arena message = {.size = how < 160 ? ARENA_SIZE : (uint32_t)how << 12};
    static const uint8_t bytes[256 << 12];
    int size, fd;

    if (actor->arena >= 0)
        (void)!pwrite(actor->arena, bytes, (size_t)(how + 1) << 12, 0);
    if (!actor->wants_arena)
        return;
    actor->wants_arena = false;
    fd = memfd_create("arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, ARENA_SIZE) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | (how & 64 ? F_SEAL_SEAL : 0)) == 0);
    size = wire_arena_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX);
    CHECK(packet_send(stage->launcher, stage->packet, (size_t)size, &fd, how < 240) == 0);
    actor->arena = fd;
}

/* ---- environments and callers ---------------------------------------------------------------------------------- */

static void hear_dispatcher(struct stage *stage, struct actor *actor) {
    struct wire_header header;
    struct wire_invoke invoke;
    ssize_t n;
    while (actor->channel >= 0 && (n = recv(actor->channel, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT)) > 0)
        if (wire_invoke_decode(stage->packet, (size_t)n, &header, &invoke) == 0) {
            memcpy(actor->id, invoke.id, 16);
            actor->busy = true;
        }
}

static int connect_caller(struct stage *stage, bool http) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, (http ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK((http ? http_adopt(&stage->dispatch.http, pair[1], HTTP_TRUSTED)
                : transport_adopt(&stage->dispatch.transport, pair[1], 0)) == 0);
    return pair[0];
}

static void hear_answers(struct stage *stage) {
    for (size_t i = 0; i < ARRAY_SIZE(stage->callers); i++)
        while (recv(stage->callers[i], stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT) > 0)
            ;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static void put_tables(struct stage *stage) {
    struct wire_header header = {.generation = 1};
    struct wire_hello hello = {.role = WIRE_ROLE_CONTROL};
    struct wire_sync_begin begin = {0};
    struct wire_sync_end end = {0};
    struct wire_put_target target = dispatcher_target();
    struct wire_put_route route = dispatcher_route();

    send_to(stage->control, stage->packet, wire_hello_encode(&header, &hello, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 1;
    send_to(stage->control, stage->packet, wire_sync_begin_encode(&header, &begin, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 2;
    header.object = 1;
    send_to(stage->control, stage->packet, wire_put_target_encode(&header, &target, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 3;
    send_to(stage->control, stage->packet, wire_put_route_encode(&header, &route, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 4;
    header.object = 2;
    target.function_name.data = (const uint8_t *)"g"; /* its environments speak the Runtime API */
    target.runtime_api = 1;
    send_to(stage->control, stage->packet, wire_put_target_encode(&header, &target, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 5;
    send_to(stage->control, stage->packet, wire_sync_end_encode(&header, &end, stage->packet, WIRE_MESSAGE_MAX));
}

static struct stage *stage_open(void) {
    struct stage *stage = calloc(1, sizeof(*stage));

    CHECK(stage != NULL);
    dispatcher_open(&stage->dispatch, &stage->launcher, &stage->control);
    put_tables(stage);
    dispatcher_synced(&stage->dispatch);
    return stage;
}
