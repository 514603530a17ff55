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

#include "dispatch_stage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX 40

/* ---- environments ---------------------------------------------------------------------------------------------- */

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

/* An answer of which much follows, or not. */
static void say_large(struct stage *stage, struct actor *actor, uint8_t how) {
    static const uint8_t bytes[WIRE_CHUNK_DATA_MAX];
    struct wire_header header = {.flags = how & 1};
    struct wire_result result = {.total = LARGE, .body = {bytes, 1000}};

    memcpy(result.id, actor->id, 16);
    actor->busy = false;
    send_to(actor->channel, stage->packet, wire_result_encode(&header, &result, stage->packet, WIRE_MESSAGE_MAX));
    for (uint32_t sent = 1000; sent < LARGE && how < 200; turn(stage)) {
        struct wire_chunk chunk = {.data = {bytes, MIN(LARGE - sent, WIRE_CHUNK_DATA_MAX)}};
        send_to(actor->channel, stage->packet, wire_chunk_encode(&header, &chunk, stage->packet, WIRE_MESSAGE_MAX));
        sent += chunk.data.size;
    }
}

static void say(struct stage *stage, struct actor *actor, struct tape *tape) {
    uint8_t what = take(tape), how = take(tape);
    struct wire_header header = {.flags = how & 1};
    struct wire_init_done init_done = {0};
    struct wire_init_error init_error = {.body = {(const uint8_t *)"{}", 2}};
    struct wire_ready ready = {0};
    struct wire_attached attached = {.error = how > 200};
    struct wire_result result = {
        .error = (how >> 1) & 1, .total = how >> 2, .body = {stage->dispatch.randomness.pool, how >> 3}};
    struct wire_chunk chunk = {.data = {stage->dispatch.randomness.pool, how >> 3}};
    int size = 0;

    hear_dispatcher(stage, actor);
    memcpy(result.id, actor->id, 16);
    uint8_t kind = what < 160 ? fitting(actor, how) : what % 14;
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
    case 11:
        size = wire_attached_encode(&header, &attached, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 12: /* in the arena */
        header.flags |= WIRE_HEADER_ARENA;
        actor->busy = false;
        result.total = (uint32_t)how << 11;
        result.body.size = 0;
        size = wire_result_encode(&header, &result, stage->packet, WIRE_MESSAGE_MAX);
        break;
    case 13:
        say_large(stage, actor, how);
        return;
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

/* Its body is blanks between brackets. */
static void call_large(struct stage *stage, int caller) {
    static uint8_t bytes[WIRE_CALL_CHUNK_DATA_MAX];
    struct wire_header header = {.object = ++stage->calls + 1000};
    struct wire_call message = {.name = {(const uint8_t *)"f", 1}, .total = LARGE, .body = {(const uint8_t *)"{", 1}};

    send_to(caller, stage->packet, wire_call_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
    memset(bytes, ' ', sizeof(bytes));
    for (uint32_t sent = 1; sent < LARGE; turn(stage)) {
        struct wire_call_chunk chunk = {.data = {bytes, MIN(LARGE - sent, WIRE_CALL_CHUNK_DATA_MAX)}};
        sent += chunk.data.size;
        bytes[chunk.data.size - 1] = sent == LARGE ? '}' : ' ';
        send_to(caller, stage->packet, wire_call_chunk_encode(&header, &chunk, stage->packet, WIRE_MESSAGE_MAX));
    }
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

/* ---- the whole ------------------------------------------------------------------------------------------------- */

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
        else
            call_large(stage, caller);
        /* More than a socket holds. */
        for (unsigned i = 0; what <= 224 && i < ACTORS * 4; i++, turn(stage))
            hear_dispatcher(stage, &stage->actors[i % ACTORS]);
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
        if (what % 16 == 15 && what < 192)
            act_arena(stage, actor, take(tape));
        else
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
    CHECK(node->arenas == 0);
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
        stage->actors[i] = ABSENT;
    for (unsigned i = 0; i < ACTS_MAX && tape.at < tape.end; i++)
        act(stage, &tape);
    settle(stage);
    /* What it reports must not fill the socket. */
    while (recv(stage->control, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT) > 0)
        ;
    return 0;
}
