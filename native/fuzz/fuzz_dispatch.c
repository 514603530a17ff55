/* The dispatcher's library between hostile environments, callers that break the protocol and a launcher that answers
 * in any order. An input is a programme: each byte picks an act, some acts take the bytes that follow as a packet. At
 * the end everybody leaves, and nothing may be left: no call, no slot, no byte of payload, no environment. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX 40
#define ACTORS 4

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

struct actor {
    uint64_t environment; /* 0: none */
    int channel, log;     /* our ends; -1: not granted yet, or closed */
    bool granted, initialised, busy, streaming;
    uint8_t id[16]; /* of the last INVOKE */
};

struct stage {
    struct dispatch dispatch;
    int launcher, control;
    int callers[2];
    int http; /* a caller over HTTP, which streams */
    struct actor actors[ACTORS];
    uint64_t calls;
    uint8_t packet[WIRE_MESSAGE_MAX];
};

struct tape {
    const uint8_t *at, *end;
};

static uint8_t take(struct tape *tape) {
    return tape->at < tape->end ? *tape->at++ : 0;
}

static void turn(struct stage *stage) {
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
    *actor = (struct actor){.channel = -1, .log = -1};
}

static void refuse(struct stage *stage, uint64_t environment, bool retryable) {
    struct wire_header header = {.object = environment};
    struct wire_launch_failed message = {.retryable = retryable, .error = 11};
    send_to(
        stage->launcher, stage->packet, wire_launch_failed_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
}

/* LAUNCH and END as they come; END is obeyed at once. */
static void hear_launcher(struct stage *stage) {
    for (;;) {
        struct wire_header header;
        ssize_t n = recv(stage->launcher, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT);
        if (n <= 0)
            return;
        CHECK(wire_peek(stage->packet, (size_t)n, &header) == 0);
        struct actor *actor = header.object != 0 ? actor_of(stage, header.object) : NULL;
        if (header.type == WIRE_LAUNCH) {
            CHECK(actor == NULL);
            actor = actor_of(stage, 0);
            if (actor == NULL)
                refuse(stage, header.object, false);
            else
                *actor = (struct actor){.environment = header.object, .channel = -1, .log = -1};
        } else if (header.type == WIRE_END && actor != NULL) {
            if (actor->granted)
                exited(stage, actor, SIGKILL);
            else {
                refuse(stage, header.object, false);
                actor->environment = 0;
            }
        }
    }
}

/* The n-th that is granted, or that is not yet. */
static struct actor *choose(struct stage *stage, bool granted, uint8_t n) {
    for (size_t i = 0; i < ACTORS; i++) {
        struct actor *actor = &stage->actors[(n + i) % ACTORS];
        if (actor->environment != 0 && actor->granted == granted)
            return actor;
    }
    return &stage->actors[n % ACTORS];
}

static void grant(struct stage *stage, struct actor *actor, uint8_t how) {
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

/* ---- environments ---------------------------------------------------------------------------------------------- */

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

/* What a well-behaved one would say now: kinds as in say(). */
static uint8_t fitting(const struct actor *actor, uint8_t how) {
    if (actor->streaming)
        return how & 6 ? 9 : 10;
    return !actor->initialised ? 0 : actor->busy ? how & 128 ? 8 : 2 : 7;
}

/* A response in parts: 8 its head, 9 a part, else its end. */
static int say_part(struct stage *stage, struct actor *actor, uint8_t what, uint8_t how) {
    static const uint8_t bytes[WIRE_STREAM_CHUNK_DATA_MAX];
    struct wire_header header = {.flags = how & 1};
    struct wire_slice data = {bytes, how > 200 ? WIRE_STREAM_CHUNK_DATA_MAX : how};
    struct wire_stream_head head = {.content_type = {(const uint8_t *)"a/b\r\n", how % 6}, .data = data};
    struct wire_stream_chunk chunk = {.data = data};
    struct wire_stream_end end = {.error = how >> 1 & 1, .error_type = {(const uint8_t *)"E", 1}, .body = data};

    memcpy(head.id, actor->id, 16);
    actor->streaming = what != 10;
    actor->busy = actor->busy && what != 10;
    return what == 8 ? wire_stream_head_encode(&header, &head, stage->packet, WIRE_MESSAGE_MAX)
        : what == 9  ? wire_stream_chunk_encode(&header, &chunk, stage->packet, WIRE_MESSAGE_MAX)
                     : wire_stream_end_encode(&header, &end, stage->packet, WIRE_MESSAGE_MAX);
}

static void say(struct stage *stage, struct actor *actor, struct tape *tape) {
    uint8_t what = take(tape), how = take(tape);
    struct wire_header header = {.flags = how & 1};
    struct wire_init_done init_done = {0};
    struct wire_init_error init_error = {.body = {(const uint8_t *)"{}", 2}};
    struct wire_ready ready = {0};
    struct wire_result result = {
        .error = (how >> 1) & 1, .total = how >> 2, .body = {stage->dispatch.randomness.pool, how >> 3}};
    struct wire_chunk chunk = {.data = {stage->dispatch.randomness.pool, how >> 3}};
    int size = 0;

    hear_dispatcher(stage, actor);
    memcpy(result.id, actor->id, 16);
    uint8_t kind = what < 160 ? fitting(actor, how) : what % 11;
    switch (kind) {
    case 0:
        actor->initialised = true;
        size = wire_init_done_encode(&header, &init_done, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 1:
        size = wire_init_error_encode(&header, &init_error, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 2 ... 3:
        actor->busy = false;
        result.body.size = result.total;
        size = wire_result_encode(&header, &result, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 4:
        size = wire_result_encode(&header, &result, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 5:
        size = wire_ready_encode(&header, &ready, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 6:
        size = wire_chunk_encode(&header, &chunk, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 8 ... 10:
        size = say_part(stage, actor, kind, how);
        break;
    default:
        if (actor->log >= 0)
            (void)!write(actor->log, "line\nrest", how % 10);
        return;
    }
    /* Now and then not quite what it should be. */
    if (what > 240 && size > 0)
        stage->packet[how % (unsigned)size] ^= take(tape);
    send_to(actor->channel, stage->packet, size);
}

/* ---- callers --------------------------------------------------------------------------------------------------- */

static int connect_caller(struct stage *stage, bool http) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, (http ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK((http ? http_adopt(&stage->dispatch.http, pair[1], HTTP_TRUSTED)
                : transport_adopt(&stage->dispatch.transport, pair[1], 0)) == 0);
    return pair[0];
}

/* Asks for a stream, reads some of one, or leaves. */
static void act_http(struct stage *stage, uint8_t how) {
    static const char request[] =
        "POST /2021-11-15/functions/f/response-streaming-invocations HTTP/1.1\r\nHost: h\r\n\r\n";
    if (how < 128)
        send_to(stage->http, request, sizeof(request) - 1);
    else if (how < 240)
        (void)recv(stage->http, stage->packet, 1 + how * 256u, MSG_DONTWAIT);
    else {
        cleanup_close(&stage->http);
        stage->http = connect_caller(stage, true);
    }
}

static void call(struct stage *stage, int caller, struct tape *tape) {
    uint8_t how = take(tape);
    struct wire_header header = {.object = how > 200 ? how : ++stage->calls + 1000};
    struct wire_call message = {.flags = how & 7,
        .name = {(const uint8_t *)"f", 1},
        .total = how & 4 ? how : 2,
        .body = {(const uint8_t *)"{}", 2}};
    send_to(caller, stage->packet, wire_call_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
}

static void call_more(struct stage *stage, int caller, struct tape *tape) {
    struct wire_header header = {.object = stage->calls + 1000 - take(tape) % 3};
    struct wire_call_chunk chunk = {.data = {(const uint8_t *)"                                ", take(tape) % 32}};
    send_to(caller, stage->packet, wire_call_chunk_encode(&header, &chunk, stage->packet, WIRE_MESSAGE_MAX));
}

static void cancel(struct stage *stage, int caller, struct tape *tape) {
    struct wire_header header = {.object = stage->calls + 1000 - take(tape) % 3};
    struct wire_cancel message = {0};
    send_to(caller, stage->packet, wire_cancel_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
}

static void raw(int fd, struct tape *tape) {
    size_t size = take(tape), left = (size_t)(tape->end - tape->at);
    size = MIN(size, left);
    send_to(fd, tape->at, (int)size);
    tape->at += size;
}

static void hear_answers(struct stage *stage) {
    for (size_t i = 0; i < ARRAY_SIZE(stage->callers); i++)
        while (recv(stage->callers[i], stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT) > 0)
            ;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static void put_tables(struct stage *stage) {
    struct wire_header header = {.generation = 1};
    struct wire_hello hello = {.role = WIRE_ROLE_CONTROL};
    struct wire_sync_begin begin = {0};
    struct wire_sync_end end = {0};
    struct wire_put_target target = {
        .function_name = {(const uint8_t *)"f", 1},
        .function_version = {(const uint8_t *)"1", 1},
        .memory_mb = 128,
        .timeout_ms = 60000,
        .init_timeout_ms = 60000,
        .max_environments = 3,
        .max_concurrency = 4,
        .max_waiting = 2,
        .keep_alive_ms = 60000,
    };
    struct wire_put_route route = {
        .name = {(const uint8_t *)"f", 1}, .qualifier = {(const uint8_t *)"$LATEST", 7}, .target = 1};

    send_to(stage->control, stage->packet, wire_hello_encode(&header, &hello, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 1;
    send_to(stage->control, stage->packet, wire_sync_begin_encode(&header, &begin, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 2;
    header.object = 1;
    send_to(stage->control, stage->packet, wire_put_target_encode(&header, &target, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 3;
    send_to(stage->control, stage->packet, wire_put_route_encode(&header, &route, stage->packet, WIRE_MESSAGE_MAX));
    header.seq = 4;
    send_to(stage->control, stage->packet, wire_sync_end_encode(&header, &end, stage->packet, WIRE_MESSAGE_MAX));
}

static struct stage *stage_open(void) {
    static char directory[] = "/tmp/fuzz-dispatch-XXXXXX";
    struct stage *stage = calloc(1, sizeof(*stage));
    int launcher[2], control[2];

    CHECK(stage != NULL && mkdtemp(directory) != NULL);
    CHECK(socketpair_seqpacket(launcher, 3) == 0 && socketpair_seqpacket(control, 3) == 0);
    struct dispatch_options options = {.launcher = launcher[1],
        .listener = -1,
        .http = -1,
        .http_tcp = -1,
        .logs = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    CHECK(dispatch_open(&stage->dispatch, &options) == 0);
    /* The writer holds the directory open: what it writes goes when we do. */
    rmdir(directory);
    stage->launcher = launcher[0];
    stage->control = control[0];
    control_adopt(&stage->dispatch.control, control[1], 1);
    put_tables(stage);
    for (unsigned i = 0; i < 4; i++)
        turn(stage);
    CHECK(stage->dispatch.synced);
    return stage;
}

static void act(struct stage *stage, struct tape *tape) {
    uint8_t what = take(tape);
    struct actor *actor = choose(stage, what % 16 != 6, what / 16);
    int caller = stage->callers[what / 16 % 2];

    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        call(stage, caller, tape);
        break;
    case 3:
        call_more(stage, caller, tape);
        break;
    case 4:
        cancel(stage, caller, tape);
        break;
    case 5:
        if (what > 224)
            raw(caller, tape);
        break;
    case 6:
        grant(stage, actor, take(tape));
        break;
    case 7:
        if (what > 200)
            raw(actor->channel, tape);
        else if (what > 150 && actor->granted)
            exited(stage, actor, take(tape));
        else if (what > 140)
            cleanup_close(&actor->channel);
        break;
    case 8:
    case 9:
    case 10:
    case 11:
    case 12:
    case 13:
        say(stage, actor, tape);
        break;
    default:
        act_http(stage, take(tape));
        break;
    }
    turn(stage);
    hear_launcher(stage);
    hear_answers(stage);
}

static void settle(struct stage *stage) {
    struct counters_node *node = stage->dispatch.counters.node;

    for (size_t i = 0; i < ARRAY_SIZE(stage->callers); i++)
        cleanup_close(&stage->callers[i]);
    cleanup_close(&stage->http);
    for (unsigned round = 0; node->environments > 0 || node->calls_open > 0; round++) {
        CHECK(round < 100);
        turn(stage);
        hear_launcher(stage);
        for (size_t i = 0; i < ACTORS; i++)
            if (stage->actors[i].granted) {
                exited(stage, &stage->actors[i], 9);
            } else if (stage->actors[i].environment != 0) {
                refuse(stage, stage->actors[i].environment, false);
                stage->actors[i].environment = 0;
            }
    }
    turn(stage);
    CHECK(node->invocations_in_flight == 0 && node->waiting == 0 && node->environments_idle == 0);
    CHECK(node->logic_errors == 0 && stage->dispatch.in_use == 0 && stage->dispatch.budget.used == 0);
    CHECK(stage->dispatch.launcher.launching == 0 && stage->dispatch.in_flight == 0);
    CHECK(
        node->calls == node->answers_success + node->answers_function_error + node->answers_refused + node->abandoned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct stage *stage;
    struct tape tape = {data, data + size};

    if (stage == NULL)
        stage = stage_open();
    for (size_t i = 0; i < ARRAY_SIZE(stage->callers); i++)
        stage->callers[i] = connect_caller(stage, false);
    stage->http = connect_caller(stage, true);
    for (size_t i = 0; i < ACTORS; i++)
        stage->actors[i] = (struct actor){.channel = -1, .log = -1};
    for (unsigned i = 0; i < ACTS_MAX && tape.at < tape.end; i++)
        act(stage, &tape);
    settle(stage);
    /* What it reports must not fill the socket. */
    while (recv(stage->control, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT) > 0)
        ;
    return 0;
}
