/* The Runtime API between hostile runtimes and the rest of the dispatcher's library. An input is a programme: each byte
 * picks an act (a call, a connection, a request as it should be or nearly, raw bytes, reading, hanging up, the
 * environment's end), some acts take the bytes that follow. Nobody has to read what is answered, so that sockets run
 * full; one caller wants its responses as they come, and takes them or not. At the end everybody leaves, and nothing may be left: no call, no slot, no byte of payload, no connection. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dispatch/environment.h"
#include "dispatch/runtime_connection.h"
#include "dispatcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX 48
#define ACTORS 2
#define CONNECTIONS (RUNTIME_CONNECTIONS_MAX + 2)
#define EVENT_MAX 60000u
#define ID "00000000-0000-0000-0000-000000000000"
#define PATH "/2018-06-01/runtime/"

struct actor {
    uint64_t environment;  /* 0: none */
    int listener, channel; /* -1: not granted yet, or closed */
    int connections[CONNECTIONS];
    char id[sizeof(ID)]; /* of the last event that was read */
};

struct stage {
    struct dispatch dispatch;
    int launcher, control, caller, streamer; /* caller: of the transport; streamer: of HTTP */
    struct actor actors[ACTORS];
    uint64_t calls;
    uint8_t packet[WIRE_MESSAGE_MAX];
    uint8_t event[EVENT_MAX]; /* a JSON string, of which any length is one */
};

static void turn(struct stage *stage) {
    CHECK(dispatch_turn(&stage->dispatch, 0) == 0);
}

static void send_to(int fd, const void *data, size_t size) {
    if (fd >= 0 && size > 0)
        (void)send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_packet(struct stage *stage, int fd, int size) {
    CHECK(size > 0);
    send_to(fd, stage->packet, (size_t)size);
}

/* ---- the launcher ---------------------------------------------------------------------------------------------- */

static void actor_clear(struct actor *actor) {
    *actor = (struct actor){.listener = -1, .channel = -1, .id = ID};
    for (size_t i = 0; i < CONNECTIONS; i++)
        actor->connections[i] = -1;
}

static struct actor *actor_of(struct stage *stage, uint64_t environment) {
    for (size_t i = 0; i < ACTORS; i++)
        if (stage->actors[i].environment == environment)
            return &stage->actors[i];
    return NULL;
}

static void refuse(struct stage *stage, uint64_t environment) {
    struct wire_header header = {.object = environment};
    struct wire_launch_failed message = {.error = 11};
    send_packet(stage, stage->launcher, wire_launch_failed_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
}

static void exited(struct stage *stage, struct actor *actor, uint8_t how) {
    struct wire_header header = {.object = actor->environment};
    struct wire_exited message = {.status = how};
    send_packet(stage, stage->launcher, wire_exited_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
    cleanup_close(&actor->channel);
    cleanup_close(&actor->listener);
    for (size_t i = 0; i < CONNECTIONS; i++)
        cleanup_close(&actor->connections[i]);
    actor_clear(actor);
}

static void grant(struct stage *stage, uint64_t environment, struct actor *actor) {
    struct wire_header header = {.object = environment};
    struct wire_launched message = {.descriptors = WIRE_LAUNCHED_CHANNEL | WIRE_LAUNCHED_LISTENER};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int pair[2];

    actor->environment = environment;
    actor->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(actor->listener >= 0);
    CHECK(bind(actor->listener, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0); /* a name of the kernel's */
    CHECK(listen(actor->listener, CONNECTIONS) == 0 && socketpair_seqpacket(pair, 3) == 0);
    CHECK(packet_send(stage->launcher, stage->packet,
              (size_t)wire_launched_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX),
              (int[]){pair[1], actor->listener}, 2) == 0);
    close(pair[1]);
    actor->channel = pair[0];
}

/* LAUNCH is granted at once, END is obeyed at once. */
static void hear_launcher(struct stage *stage) {
    struct wire_header header;
    ssize_t n;
    while ((n = recv(stage->launcher, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT)) > 0) {
        CHECK(wire_peek(stage->packet, (size_t)n, &header) == 0);
        struct actor *actor = header.object != 0 ? actor_of(stage, header.object) : NULL;
        if (header.type == WIRE_END && actor != NULL)
            exited(stage, actor, SIGKILL);
        if (header.type != WIRE_LAUNCH)
            continue;
        CHECK(actor == NULL);
        actor = actor_of(stage, 0);
        if (actor == NULL)
            refuse(stage, header.object);
        else
            grant(stage, header.object, actor);
    }
}

/* ---- runtimes -------------------------------------------------------------------------------------------------- */

static void connect_runtime(struct actor *actor, int *fd) {
    struct sockaddr_un address;
    socklen_t size = sizeof(address);

    cleanup_close(fd);
    if (actor->listener < 0)
        return;
    CHECK(getsockname(actor->listener, (struct sockaddr *)&address, &size) == 0);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(*fd >= 0);
    if (connect(*fd, (struct sockaddr *)&address, size) < 0)
        cleanup_close(fd);
}

/* Some of what was answered; the id of an event is kept. */
static void hear(struct stage *stage, struct actor *actor, int *fd, size_t size) {
    static const char name[] = "Aws-Request-Id: ";
    ssize_t n = *fd >= 0 ? recv(*fd, stage->packet, size, MSG_DONTWAIT) : -1;
    const uint8_t *at = n > 0 ? memmem(stage->packet, (size_t)n, name, sizeof(name) - 1) : NULL;

    if (at != NULL && (size_t)(stage->packet + n - at) >= sizeof(name) - 1 + sizeof(ID) - 1)
        memcpy(actor->id, at + sizeof(name) - 1, sizeof(ID) - 1);
    if (n == 0)
        cleanup_close(fd);
}

/* A head as it should be, or nearly; returns how much of a body it promises. */
static size_t write_head(const struct actor *actor, uint8_t what, uint8_t how, char ret_head[512], int *ret_size) {
    static const char *const paths[] = {"invocation/%s/response", "invocation/%s/error", "init/error"};
    static const char *const modes[] = {"", "Lambda-Runtime-Function-Response-Mode: streaming\r\n",
        "Lambda-Runtime-Function-Error-Type: Runtime.Some\r\n", "Connection: close\r\n", "Expect: 100-continue\r\n"};
    static const size_t sizes[] = {0, 1, 40, 5000, 70000, RESPONSE_BODY_MAX, RESPONSE_BODY_MAX + 1, 1u << 31};
    char path[128];

    if (what % 8 < 3) {
        *ret_size = snprintf(
            ret_head, 512, "GET " PATH "invocation/next HTTP/1.1\r\nHost: x\r\n%s\r\n", how > 250 ? modes[3] : "");
        return 0;
    }
    snprintf(path, sizeof(path), paths[what % 8 < 6 ? 0 : what % 8 - 5], how == 255 ? ID : actor->id);
    if (how & 8)
        *ret_size = snprintf(ret_head, 512,
            "POST " PATH "%s HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n", path, modes[how % 5]);
    else
        *ret_size = snprintf(ret_head, 512, "POST " PATH "%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n",
            path, modes[how % 5], sizes[how >> 5]);
    return how & 8 ? 0 : sizes[how >> 5];
}

static void ask(struct stage *stage, struct actor *actor, int fd, struct tape *tape) {
    uint8_t what = take(tape), how = take(tape);
    char head[512];
    int size;
    size_t body = write_head(actor, what, how, head, &size);

    if (what > 240) /* now and then not quite what it should be */
        head[how % (unsigned)size] ^= (char)take(tape);
    send_to(fd, head, (size_t)size);
    if (how & 8)
        send_to(fd, "4\r\n1234\r\n0\r\n\r\n", how & 16 ? 14 : how & 32 ? 9 : how % 14u);
    else if (how & 16)
        send_to(fd, stage->event, MIN(body, EVENT_MAX));
    else
        send_to(fd, "12345", MIN(body, 5));
}

/* Answers that nobody reads. */
static void ask_often(struct stage *stage, int fd, uint8_t how) {
    static const char ping[] = "GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n";
    size_t n = MIN((size_t)how * 8 + 1, WIRE_MESSAGE_MAX / (sizeof(ping) - 1));
    for (size_t i = 0; i < n; i++)
        memcpy(stage->packet + i * (sizeof(ping) - 1), ping, sizeof(ping) - 1);
    send_to(fd, stage->packet, n * (sizeof(ping) - 1));
}

/* Of a body in chunks: a large one, or the last with its trailers. */
static void send_chunk(struct stage *stage, int fd, bool last) {
    static const char end[] = "0\r\nLambda-Runtime-Function-Error-Type: Function.Some\r\n"
                              "Lambda-Runtime-Function-Error-Body: e30=\r\n\r\n";
    if (last) {
        send_to(fd, end, sizeof(end) - 1);
        return;
    }
    memcpy(stage->packet, "ea60\r\n", 6);
    memcpy(stage->packet + 6, stage->event, EVENT_MAX);
    memcpy(stage->packet + 6 + EVENT_MAX, "\r\n", 2);
    send_to(fd, stage->packet, EVENT_MAX + 8);
}

static void raw(int fd, struct tape *tape) {
    size_t size = take(tape), left = (size_t)(tape->end - tape->at);
    size = MIN(size, left);
    send_to(fd, tape->at, size);
    tape->at += size;
}

/* ---- callers --------------------------------------------------------------------------------------------------- */

static void connect_caller(struct stage *stage) {
    int pair[2];
    cleanup_close(&stage->caller);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(transport_adopt(&stage->dispatch.transport, pair[1], 0) == 0);
    stage->caller = pair[0];
}

static void connect_streamer(struct stage *stage) {
    int pair[2];
    cleanup_close(&stage->streamer);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(http_adopt(&stage->dispatch.http, pair[1], HTTP_TRUSTED) == 0);
    stage->streamer = pair[0];
}

static void call_streamed(struct stage *stage) {
    static const char request[] = "POST /2021-11-15/functions/f/response-streaming-invocations HTTP/1.1\r\nHost: x\r\n"
                                  "Content-Length: 2\r\n\r\n{}";
    send_to(stage->streamer, request, sizeof(request) - 1);
}

static void call(struct stage *stage, struct tape *tape) {
    uint8_t how = take(tape);
    struct wire_header header = {.object = ++stage->calls};
    uint32_t size = how > 200 ? EVENT_MAX : how > 100 ? 3000 : 2;
    struct wire_call message = {
        .flags = how & 1, .name = {(const uint8_t *)"f", 1}, .total = size, .body = {stage->event, size}};
    stage->event[size - 1] = '"';
    send_packet(stage, stage->caller, wire_call_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
    stage->event[size - 1] = 'e';
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static void put_tables(struct stage *stage) {
    struct wire_header header = {.generation = 1};
    struct wire_hello hello = {.role = WIRE_ROLE_CONTROL};
    struct wire_sync_begin begin = {0};
    struct wire_sync_end end = {0};
    struct wire_put_target target = dispatcher_target();
    struct wire_put_route route = dispatcher_route();
    uint8_t *packet = stage->packet;

    target.max_environments = ACTORS;
    target.runtime_api = 1;
    send_packet(stage, stage->control, wire_hello_encode(&header, &hello, packet, WIRE_MESSAGE_MAX));
    header.seq++;
    send_packet(stage, stage->control, wire_sync_begin_encode(&header, &begin, packet, WIRE_MESSAGE_MAX));
    header.seq++;
    header.object = 1;
    send_packet(stage, stage->control, wire_put_target_encode(&header, &target, packet, WIRE_MESSAGE_MAX));
    header.seq++;
    send_packet(stage, stage->control, wire_put_route_encode(&header, &route, packet, WIRE_MESSAGE_MAX));
    header.seq++;
    send_packet(stage, stage->control, wire_sync_end_encode(&header, &end, packet, WIRE_MESSAGE_MAX));
}

static struct stage *stage_open(void) {
    struct stage *stage = calloc(1, sizeof(*stage));

    CHECK(stage != NULL);
    dispatcher_open(&stage->dispatch, &stage->launcher, &stage->control);
    memset(stage->event, 'e', EVENT_MAX);
    stage->event[0] = '"';
    stage->caller = stage->streamer = -1;
    put_tables(stage);
    dispatcher_synced(&stage->dispatch);
    return stage;
}

static void act(struct stage *stage, struct tape *tape) {
    uint8_t what = take(tape), which = take(tape);
    struct actor *actor = &stage->actors[which % ACTORS];
    int *fd = &actor->connections[which / ACTORS % CONNECTIONS];

    if (what % 16 > 3 && *fd < 0)
        connect_runtime(actor, fd);
    switch (what % 16) {
    case 0:
    case 1:
        call(stage, tape);
        break;
    case 2:
        if (what > 200)
            connect_caller(stage);
        else if (what > 160)
            connect_streamer(stage);
        else
            call_streamed(stage);
        break;
    case 3:
        if (what > 128)
            (void)recv(stage->streamer, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT);
        else
            connect_runtime(actor, fd);
        break;
    case 4:
        if (what > 128)
            send_chunk(stage, *fd, what > 224);
        else
            ask_often(stage, *fd, take(tape));
        break;
    case 5:
        raw(*fd, tape);
        break;
    case 6:
        if (what > 128)
            cleanup_close(fd);
        else if (*fd >= 0)
            (void)shutdown(*fd, SHUT_WR);
        break;
    case 7:
        if (what > 224 && actor->environment != 0)
            exited(stage, actor, take(tape));
        else if (what > 192)
            cleanup_close(&actor->channel);
        else if (what > 176)
            raw(actor->channel, tape);
        break;
    case 8:
        hear(stage, actor, fd, take(tape) + 1u);
        break;
    case 9:
    case 10:
        hear(stage, actor, fd, WIRE_MESSAGE_MAX);
        break;
    default:
        ask(stage, actor, *fd, tape);
        break;
    }
    turn(stage);
    hear_launcher(stage);
    while (recv(stage->caller, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT) > 0)
        ;
}

static void settle(struct stage *stage) {
    struct counters_node *node = stage->dispatch.counters.node;

    cleanup_close(&stage->caller);
    cleanup_close(&stage->streamer);
    for (unsigned round = 0; node->environments > 0 || node->calls_open > 0 || node->connections > 0; round++) {
        CHECK(round < 100);
        turn(stage);
        hear_launcher(stage);
        for (size_t i = 0; i < ACTORS; i++)
            if (stage->actors[i].environment != 0)
                exited(stage, &stage->actors[i], 9);
    }
    turn(stage);
    CHECK(node->invocations_in_flight == 0 && node->waiting == 0 && node->environments_idle == 0);
    CHECK(node->logic_errors == 0 && stage->dispatch.in_use == 0 && stage->dispatch.budget.used == 0);
    CHECK(stage->dispatch.launcher.launching == 0 && stage->dispatch.in_flight == 0);
    CHECK(list_empty(&stage->dispatch.runtime_closed));
    CHECK(
        node->calls == node->answers_success + node->answers_function_error + node->answers_refused + node->abandoned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct stage *stage;
    struct tape tape = {data, data + size};

    if (stage == NULL)
        stage = stage_open();
    connect_caller(stage);
    connect_streamer(stage);
    for (size_t i = 0; i < ACTORS; i++)
        actor_clear(&stage->actors[i]);
    for (unsigned i = 0; i < ACTS_MAX && tape.at < tape.end; i++)
        act(stage, &tape);
    settle(stage);
    /* What it reports must not fill the socket. */
    while (recv(stage->control, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT) > 0)
        ;
    return 0;
}
