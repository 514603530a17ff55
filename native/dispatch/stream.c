/* Responses in parts; see the header. */
#include "dispatch/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"

/* Of a response that is kept whole, at first. */
#define RESULT_ROOM 8192u

static struct dispatch *dispatch_of(const struct stream *stream) {
    return stream->invocation->target->dispatch;
}

struct stream_limits stream_limits(uint64_t bytes, uint32_t burst, uint32_t rate) {
    return (struct stream_limits){
        .bytes = bytes != 0 ? bytes : STREAM_BYTES_MAX,
        .burst = burst != 0 ? burst : STREAM_BURST,
        .rate = rate != 0 ? rate : STREAM_RATE,
    };
}

/* ---- speed ------------------------------------------------------------------------------------------------------ */

static void refill(struct stream *stream, uint64_t now) {
    const struct stream_limits *limits = &dispatch_of(stream)->loops->stream_limits;
    uint64_t passed = now - stream->filled_us;

    /* Sooner than it takes to fill the bucket from whatever debt, so that nothing overflows. */
    passed = MIN(passed, UINT64_C(3600000000));
    stream->tokens = MIN(stream->tokens + (int64_t)(passed * limits->rate / 1000000), (int64_t)limits->burst);
    stream->filled_us = now;
}

static void on_timer(struct timer *timer, uint64_t now) {
    struct stream *stream = list_entry(timer, struct stream, timer);
    (void)now;
    stream->slow = false;
    if (!stream->full)
        channel_resume(stream->invocation->environment);
}

static void spend(struct stream *stream, uint32_t size) {
    struct dispatch *dispatch = dispatch_of(stream);
    uint64_t now = clock_monotonic_us(), wait;

    refill(stream, now);
    stream->tokens -= size;
    if (stream->tokens >= 0)
        return;
    wait = (uint64_t)-stream->tokens * 1000000 / dispatch->loops->stream_limits.rate + 1;
    stream->slow = true;
    timer_set(&dispatch->loop.timers, &stream->timer, now + wait);
}

bool stream_waits(const struct environment *environment) {
    const struct invocation *invocation = environment->invocations[0];
    return invocation != NULL && invocation->stream != NULL && (invocation->stream->full || invocation->stream->slow);
}

void stream_resume(struct invocation *invocation) {
    struct stream *stream = invocation->stream;
    if (stream == NULL || !stream->full)
        return;
    stream->full = false;
    if (!stream->slow && invocation->environment != NULL)
        channel_resume(invocation->environment);
}

void stream_free(struct invocation *invocation) {
    struct stream *stream = steal_pointer(invocation->stream);
    if (stream == NULL)
        return;
    timer_drop(&dispatch_of(stream)->loop.timers, &stream->timer);
    free(stream);
}

/* ---- the parts -------------------------------------------------------------------------------------------------- */

static void refuse_memory(struct invocation *invocation) {
    count_one(&invocation->target->dispatch->counters.node->refused_memory);
    invocation->result_discarded = invocation->result_refused = true;
    invocation_refuse(
        invocation, 503, "ServiceException", NULL, "The node's memory for payloads is in use; try again.");
}

int stream_begin(struct invocation *invocation, struct wire_slice content_type) {
    struct dispatch *dispatch = invocation->target->dispatch;
    struct exchange *exchange = invocation->exchange;
    struct stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL) {
        refuse_memory(invocation);
        return -ENOMEM;
    }
    stream->invocation = invocation;
    stream->tokens = (int64_t)dispatch->loops->stream_limits.burst;
    stream->filled_us = clock_monotonic_us();
    timer_init(&stream->timer, on_timer);
    invocation->stream = stream;
    invocation->result_total = invocation->result_size = 0;
    count_one(&dispatch->counters.node->streams);
    if (exchange == NULL)
        stream->over = true;
    else if (exchange->stream)
        (void)exchange_begin(exchange, content_type);
    else
        stream->buffered = true;
    return 0;
}

/* False: read and forgotten from here on. */
static bool make_room(struct invocation *invocation, uint32_t size) {
    struct budget *budget = &invocation->target->dispatch->budget;
    uint32_t need = invocation->result_size + size, room;
    uint8_t *more;

    if (need <= invocation->result_charge)
        return true;
    room = MIN(MAX(MAX(invocation->result_charge * 2, need), RESULT_ROOM), RESPONSE_BODY_MAX);
    if (!budget_take(budget, room - invocation->result_charge))
        return false;
    more = realloc(invocation->result, room);
    if (more == NULL) {
        budget_give_back(budget, room - invocation->result_charge);
        return false;
    }
    invocation->result = more;
    invocation->result_charge = room;
    return true;
}

static void keep(struct invocation *invocation, struct wire_slice data) {
    if (data.size > RESPONSE_BODY_MAX - invocation->result_size) {
        invocation->result_discarded = invocation->stream->over = true;
        invocation_drop_result(invocation);
    } else if (!make_room(invocation, data.size)) {
        invocation->stream->over = true;
        invocation_drop_result(invocation);
        refuse_memory(invocation);
    } else {
        memcpy(invocation->result + invocation->result_size, data.data, data.size);
        invocation->result_size += data.size;
    }
}

void stream_take(struct invocation *invocation, struct wire_slice data) {
    struct stream *stream = invocation->stream;

    if (data.size == 0)
        return;
    stream->bytes += data.size;
    spend(stream, data.size);
    if (stream->over || invocation->exchange == NULL)
        return;
    if (stream->buffered) {
        keep(invocation, data);
    } else if (stream->bytes > dispatch_of(stream)->loops->stream_limits.bytes) {
        stream->over = stream->too_large = true;
        invocation_tell_too_large(invocation);
    } else if (exchange_chunk(invocation->exchange, data) > 0) {
        stream->full = true;
    }
}

void stream_finish(struct invocation *invocation, struct environment_detail *detail) {
    const struct stream *stream = invocation->stream;

    if (stream->buffered && !detail->error && invocation->result != NULL)
        detail->body = (struct wire_slice){invocation->result, invocation->result_size};
    else
        invocation_drop_result(invocation);
}

/* ---- from the channel ------------------------------------------------------------------------------------------- */

const char *stream_head(struct environment *environment, const uint8_t *packet, size_t size) {
    struct invocation *invocation = environment->invocations[0];
    struct wire_header header;
    struct wire_stream_head message;

    if (wire_stream_head_decode(packet, size, &header, &message) < 0)
        return "malformed STREAM_HEAD";
    if (environment->state != ENVIRONMENT_BUSY || memcmp(message.id, invocation->id, 16) != 0)
        return "STREAM_HEAD for an invocation that it does not have";
    if (!channel_sent_all(environment))
        return "STREAM_HEAD out of order";
    if (stream_begin(invocation, message.content_type) < 0)
        return "no memory for its stream";
    environment_handle(environment, EVENT_RESULT_PART, NULL);
    stream_take(invocation, message.data);
    return NULL;
}

static struct invocation *streaming(struct environment *environment) {
    struct invocation *invocation = environment->invocations[0];
    bool streams = environment->state == ENVIRONMENT_REPLYING && invocation != NULL && invocation->stream != NULL;
    return streams ? invocation : NULL;
}

const char *stream_chunk(struct environment *environment, const uint8_t *packet, size_t size) {
    struct invocation *invocation = streaming(environment);
    struct wire_header header;
    struct wire_stream_chunk message;

    if (wire_stream_chunk_decode(packet, size, &header, &message) < 0 || message.data.size == 0)
        return "malformed STREAM_CHUNK";
    if (invocation == NULL)
        return "STREAM_CHUNK outside of a stream";
    stream_take(invocation, message.data);
    return NULL;
}

const char *stream_end(struct environment *environment, const uint8_t *packet, size_t size) {
    struct invocation *invocation = streaming(environment);
    struct wire_header header;
    struct wire_stream_end message;
    struct environment_detail detail = {0};

    if (wire_stream_end_decode(packet, size, &header, &message) < 0)
        return "malformed STREAM_END";
    if (invocation == NULL)
        return "STREAM_END outside of a stream";
    detail.error = message.error != 0;
    if (detail.error) {
        detail.error_type = message.error_type;
        detail.body = message.body;
    }
    stream_finish(invocation, &detail);
    environment_handle(
        environment, header.flags & WIRE_HEADER_READY ? EVENT_BODY_DONE_READY : EVENT_BODY_DONE, &detail);
    return NULL;
}
