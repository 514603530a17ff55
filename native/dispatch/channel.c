/* The environment's channel; see the header. Everything read here was written by the function. */
#include "dispatch/channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/packet.h"
#include "dispatch/perform.h"
#include "dispatch/runtime_connection.h"
#include "dispatch/stream.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* ---- out ------------------------------------------------------------------------------------------------------- */

static struct wire_slice text(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

int channel_start(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    const struct target *target = environment->target;
    struct wire_header header = {.object = environment->id, .flags = environment->ahead ? WIRE_HEADER_AHEAD : 0};
    char stream[96];
    struct wire_start start = {
        .init_type = environment->init_type,
        .log_format = target->log_format,
        .configuration = {target->configuration, target->configuration_size},
    };
    int size;

    log_stream_name(environment->id, target->version, stream, sizeof(stream));
    start.log_stream = text(stream);
    size = wire_start_encode(&header, &start, dispatch->packet_out, WIRE_MESSAGE_MAX);
    size = packet_send_plain(environment->channel.fd, dispatch->packet_out, size);
    return size >= 0 && target->runtime_api ? runtime_open(environment) : size;
}

static int send_head(struct environment *environment, const struct invocation *invocation) {
    struct dispatch *dispatch = environment->dispatch;
    const struct request *request = invocation->request;
    struct wire_header header = {
        .object = environment->id, .flags = arena_is_offered(environment) ? WIRE_HEADER_ARENA : 0};
    char arn[WIRE_INVOKE_ARN_MAX + 1];
    uint64_t now = clock_monotonic_us();
    uint64_t left = invocation->deadline_us > now ? invocation->deadline_us - now : 0;
    struct wire_invoke invoke = {
        .deadline_ms = (clock_real_us() + left) / 1000,
        .trace = request->trace,
        .client_context = request->client_context,
        .cognito_identity = request->cognito_identity,
        .tenant = request->tenant,
        .total = request->total,
        .body = {request->body, environment->body_in_arena ? 0 : MIN(request->total, WIRE_INVOKE_BODY_MAX)},
    };
    int size;

    invocation_arn(invocation, arn, sizeof(arn));
    invoke.arn = text(arn);
    memcpy(invoke.id, invocation->id, 16);
    size = wire_invoke_encode(&header, &invoke, dispatch->packet_out, WIRE_MESSAGE_MAX);
    return packet_send_plain(environment->channel.fd, dispatch->packet_out, size);
}

static void want_writing(struct environment *environment, bool writing) {
    if (environment->channel_writing == writing)
        return;
    environment->channel_writing = writing;
    (void)loop_change(&environment->dispatch->loop, &environment->channel, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* 0 when all is sent, 1 when the socket is full, or a negative errno. */
static int send_more(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    const struct invocation *invocation = environment->invocations[0];
    const struct request *request = invocation->request;
    int r = 0;

    if (environment->sending_head) {
        r = send_head(environment, invocation);
        if (r >= 0) {
            environment->sending_head = false;
            environment->sent = environment->body_in_arena ? request->total : MIN(request->total, WIRE_INVOKE_BODY_MAX);
        }
    }
    while (r >= 0 && environment->sent < request->total) {
        struct wire_header header = {.object = environment->id};
        struct wire_chunk chunk = {
            .data = {request->body + environment->sent, MIN(request->total - environment->sent, WIRE_CHUNK_DATA_MAX)}};
        int size = wire_chunk_encode(&header, &chunk, dispatch->packet_out, WIRE_MESSAGE_MAX);
        r = packet_send_plain(environment->channel.fd, dispatch->packet_out, size);
        if (r >= 0)
            environment->sent += chunk.data.size;
    }
    want_writing(environment, r == -EAGAIN);
    return r == -EAGAIN ? 1 : r;
}

bool channel_sent_all(const struct environment *environment) {
    const struct invocation *invocation = environment->invocations[0];
    return invocation != NULL && !environment->sending_head && environment->sent == invocation->request->total;
}

/* Into the arena, when it is large and the environment has one that holds it. */
static int place_body(struct environment *environment) {
    const struct request *request = environment->invocations[0]->request;
    bool large = request->total > ARENA_LEAST;
    int r = arena_prepare(environment, request->total);

    environment->body_in_arena = large && arena_holds(environment, request->total);
    if (environment->body_in_arena) {
        memcpy(environment->arena.memory, request->body, request->total);
        count_one(&environment->dispatch->counters.node->arena_payloads);
    } else if (large) {
        arena_want(environment);
    }
    return r;
}

int channel_invoke(struct environment *environment) {
    int r;
    ration_grant(environment);
    if (environment->runtime != NULL)
        return runtime_invoke(environment);
    environment->sending_head = true;
    environment->sent = 0;
    r = place_body(environment);
    return r < 0 ? r : send_more(environment);
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

static void violate(struct environment *environment, const char *what) {
    struct environment_detail detail = {.what = what};
    environment_handle(environment, EVENT_VIOLATION, &detail);
}

static void on_init_error(struct environment *environment, const uint8_t *data, size_t size) {
    struct wire_header header;
    struct wire_init_error message;
    struct environment_detail detail = {.error = true};

    if (wire_init_error_decode(data, size, &header, &message) < 0) {
        violate(environment, "malformed INIT_ERROR");
        return;
    }
    detail.body = message.body;
    detail.error_type = message.error_type;
    environment_handle(environment, EVENT_INIT_ERROR, &detail);
}

/* Makes ready for the rest of a body. False: there is no memory for it; it is read and forgotten. */
static bool expect_rest(struct invocation *invocation, uint32_t total) {
    struct dispatch *dispatch = invocation->target->dispatch;
    if (!budget_take(&dispatch->budget, total))
        return false;
    invocation->result_charge = total;
    invocation->result = malloc(total);
    return invocation->result != NULL;
}

/* The caller is told already; what the environment sends is read and forgotten. */
static void refuse_result(struct invocation *invocation) {
    count_one(&invocation->target->dispatch->counters.node->refused_memory);
    invocation_refuse(
        invocation, 503, "ServiceException", NULL, "The node's memory for payloads is in use; try again.");
    invocation->result_discarded = invocation->result_refused = true;
}

/* The body lies in the arena; it is sent from there, and what its caller does not take at once is copied. */
static void take_from_arena(struct environment *environment, uint32_t total, struct environment_detail *detail) {
    struct invocation *invocation = environment->invocations[0];

    if (!invocation->result_discarded && !budget_has(&environment->dispatch->budget, total))
        refuse_result(invocation); /* there would be no room for a copy */
    detail->body = (struct wire_slice){environment->arena.memory, total};
    count_one(&environment->dispatch->counters.node->arena_payloads);
}

static bool is_result_in_order(
    struct environment *environment, const struct wire_header *header, const struct wire_result *message) {
    if (!channel_sent_all(environment) || message->body.size > message->total)
        return false;
    if (header->flags & WIRE_HEADER_ARENA)
        return message->total > 0 && message->body.size == 0 && arena_holds(environment, message->total);
    return message->total == 0 || message->body.size > 0;
}

static void on_result(struct environment *environment, const uint8_t *data, size_t size) {
    struct invocation *invocation = environment->invocations[0];
    struct wire_header header;
    struct wire_result message;
    struct environment_detail detail = {0};

    if (wire_result_decode(data, size, &header, &message) < 0) {
        violate(environment, "malformed RESULT");
        return;
    }
    if (environment->state != ENVIRONMENT_BUSY || memcmp(message.id, invocation->id, 16) != 0) {
        violate(environment, "RESULT for an invocation that it does not have");
        return;
    }
    if (!is_result_in_order(environment, &header, &message)) {
        violate(environment, "RESULT out of order");
        return;
    }
    detail.body = message.body;
    detail.error = message.error != 0;
    detail.error_type = message.error_type;
    invocation->result_discarded = message.total > RESPONSE_BODY_MAX;
    if (header.flags & WIRE_HEADER_ARENA)
        take_from_arena(environment, message.total, &detail);
    if (detail.body.size == message.total) {
        environment_handle(environment, header.flags & WIRE_HEADER_READY ? EVENT_RESULT_READY : EVENT_RESULT, &detail);
        return;
    }
    invocation->result_total = message.total;
    invocation->result_error = detail.error;
    invocation->result_ready = (header.flags & WIRE_HEADER_READY) != 0;
    snprintf(invocation->error_type, sizeof(invocation->error_type), "%.*s", (int)message.error_type.size,
        (const char *)message.error_type.data);
    if (!invocation->result_discarded && !expect_rest(invocation, message.total))
        refuse_result(invocation);
    if (message.total > ARENA_LEAST)
        arena_want(environment);
    if (!invocation->result_discarded)
        memcpy(invocation->result, message.body.data, message.body.size);
    invocation->result_size = message.body.size;
    environment_handle(environment, EVENT_RESULT_PART, NULL);
}

static void on_chunk(struct environment *environment, const uint8_t *data, size_t size) {
    struct invocation *invocation = environment->invocations[0];
    struct wire_header header;
    struct wire_chunk message;
    struct environment_detail detail;

    if (wire_chunk_decode(data, size, &header, &message) < 0) {
        violate(environment, "malformed CHUNK");
        return;
    }
    if (environment->state != ENVIRONMENT_REPLYING || invocation->stream != NULL || message.data.size == 0 ||
        message.data.size > invocation->result_total - invocation->result_size) {
        violate(environment, "CHUNK beyond what was announced");
        return;
    }
    if (!invocation->result_discarded)
        memcpy(invocation->result + invocation->result_size, message.data.data, message.data.size);
    invocation->result_size += message.data.size;
    if (invocation->result_size < invocation->result_total)
        return;
    detail = (struct environment_detail){
        .body = {invocation->result, invocation->result != NULL ? invocation->result_total : 0},
        .error = invocation->result_error,
        .error_type = text(invocation->error_type),
    };
    environment_handle(environment, invocation->result_ready ? EVENT_BODY_DONE_READY : EVENT_BODY_DONE, &detail);
}

/* Of a response that comes in parts. */
static void on_stream(struct environment *environment, uint16_t type, const uint8_t *data, size_t size) {
    const char *wrong = type == WIRE_STREAM_HEAD ? stream_head(environment, data, size)
        : type == WIRE_STREAM_CHUNK              ? stream_chunk(environment, data, size)
                                                 : stream_end(environment, data, size);
    if (wrong != NULL)
        violate(environment, wrong);
}

static void on_packet(struct environment *environment, const uint8_t *data, size_t size) {
    struct wire_header header;
    struct wire_init_done init_done;
    struct wire_ready ready;
    struct wire_attached attached;

    if (wire_peek(data, size, &header) < 0) {
        violate(environment, "malformed header");
        return;
    }
    if (environment->runtime != NULL && header.type != WIRE_INIT_ERROR) {
        violate(environment, "a message where the Runtime API is spoken");
        return;
    }
    switch (header.type) {
    case WIRE_INIT_DONE:
        if (wire_init_done_decode(data, size, &header, &init_done) < 0)
            violate(environment, "malformed INIT_DONE");
        else
            environment_handle(environment, EVENT_INIT_DONE, NULL);
        return;
    case WIRE_INIT_ERROR:
        on_init_error(environment, data, size);
        return;
    case WIRE_RESULT:
        on_result(environment, data, size);
        return;
    case WIRE_CHUNK:
        on_chunk(environment, data, size);
        return;
    case WIRE_ATTACHED:
        if (wire_attached_decode(data, size, &header, &attached) < 0)
            violate(environment, "malformed ATTACHED");
        else if (arena_attached(environment, attached.error) < 0)
            violate(environment, "ATTACHED out of order, or an arena with seals of its own");
        return;
    case WIRE_STREAM_HEAD:
    case WIRE_STREAM_CHUNK:
    case WIRE_STREAM_END:
        on_stream(environment, header.type, data, size);
        return;
    case WIRE_READY:
        if (wire_ready_decode(data, size, &header, &ready) < 0)
            violate(environment, "malformed READY");
        else
            environment_handle(environment, EVENT_READY, NULL);
        return;
    default:
        violate(environment, "a message that environments do not send");
        return;
    }
}

static void close_channel(struct environment *environment) {
    loop_remove(&environment->dispatch->loop, &environment->channel);
    cleanup_close(&environment->channel.fd);
    environment->channel_paused = false;
}

/* Not watched at all: a closed end would be told again and again, and its exit is told by the launcher. */
static void pause_channel(struct environment *environment) {
    loop_remove(&environment->dispatch->loop, &environment->channel);
    environment->channel_paused = true;
}

void channel_resume(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    if (environment->runtime != NULL)
        runtime_stream_resume(environment);
    if (!environment->channel_paused || ration_rests(environment))
        return;
    if (loop_add(&dispatch->loop, &environment->channel, EPOLLIN) == 0)
        environment->channel_paused = false;
    else
        ration_retry(environment);
}

/* A socket whose other end went away with packets unread says ECONNRESET, and one that takes no more EPIPE: no handler is
 * called before all of an event is read. Who does it again and again is not tried for ever. */
enum environment_event channel_end(const struct environment *environment, int error) {
    const struct invocation *invocation = environment->invocations[0];
    const bool unread =
        environment->runtime != NULL ? runtime_is_unread(environment) : error == -ECONNRESET || error == -EPIPE;
    if (unread && environment->state == ENVIRONMENT_BUSY && invocation->returned < INVOCATION_RETURNS_MAX)
        return EVENT_UNREAD;
    return EVENT_HANGUP;
}

/* Reads one packet. False: nothing more to read now, or no channel any more. */
static bool read_one(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    int n = packet_receive_plain(environment->channel.fd, dispatch->packet_in, WIRE_MESSAGE_MAX);

    if (n == -EAGAIN)
        return false;
    if (n == -EMSGSIZE)
        violate(environment, "a packet above the largest message");
    else if (n <= 0 && environment->runtime != NULL)
        close_channel(environment); /* it executes the runtime; should it end instead, the launcher tells */
    else if (n <= 0)
        environment_handle(environment, channel_end(environment, n), NULL);
    else
        on_packet(environment, dispatch->packet_in, (size_t)n);
    return environment->channel.fd >= 0;
}

void channel_read(struct environment *environment) {
    while (environment->channel.fd >= 0 && read_one(environment))
        ;
    runtime_drain(environment);
}

static void on_ready(struct watch *watch, uint32_t events) {
    struct environment *environment = list_entry(watch, struct environment, channel);

    if ((events & EPOLLOUT) && environment->channel_writing && send_more(environment) < 0) {
        environment_handle(environment, channel_end(environment, -EPIPE), NULL);
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0)
        return;
    /* One packet is the usual; only of a body that comes in parts, more are read at once. */
    for (unsigned i = 0; i < CHANNEL_BATCH && read_one(environment); i++) {
        if (environment->state != ENVIRONMENT_REPLYING)
            return;
        ration_spend(environment, RATION_PART, 0);
        if (stream_waits(environment) || ration_rests(environment)) {
            pause_channel(environment);
            return;
        }
    }
}

int channel_attach(struct environment *environment, int fd) {
    static const int off;
    environment->channel = (struct watch){.fd = fd, .ready = on_ready};
    environment->channel_writing = environment->channel_paused = false;
    if (fd < 0)
        return -EBADF;
    /* Older kernels do not know it: a descriptor that is sent all the same is dropped unseen. */
    (void)setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
    if (fd_set_nonblocking(fd, 1) < 0)
        return -EBADF;
    return loop_add(&environment->dispatch->loop, &environment->channel, EPOLLIN);
}

void channel_detach(struct environment *environment) {
    close_channel(environment);
    runtime_close(environment);
}

void channel_leave(struct environment *environment) {
    loop_remove(&environment->dispatch->loop, &environment->channel);
    runtime_leave(environment);
}

int channel_settle_in(struct environment *environment) {
    environment->channel_writing = environment->channel_paused = false; /* idle: nothing is owed either way */
    int r = environment->channel.fd >= 0 ? loop_add(&environment->dispatch->loop, &environment->channel, EPOLLIN) : 0;
    return r >= 0 ? runtime_settle_in(environment) : r;
}
