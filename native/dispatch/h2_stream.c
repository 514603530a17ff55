/* From headers and a message to an exchange; see h2.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/base64.h"
#include "dispatch/dispatch.h"
#include "dispatch/h2.h"
#include "dispatch/json.h"
#include "dispatch/reference.h"

#define MESSAGE_ROOM_MIN 1024u
#define FIELD_OVERHEAD 32u /* RFC 9113, 6.5.2 */
#define CONTEXT_MAX 3583u  /* Lambda: before decoding */
#define TENANT_MAX 256u
#define CONTENT_TYPE "application/grpc"
#define BEARER "bearer "
#define INVALID_PARAMETER "InvalidParameterValueException"

static struct dispatch *dispatch_of(const struct h2_stream *stream) {
    return h2_dispatch(stream->h2);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void on_timer(struct timer *timer, uint64_t now) {
    struct h2_stream *stream = list_entry(timer, struct h2_stream, timer);
    struct h2 *h2 = stream->h2;
    struct counters_node *node = dispatch_of(stream)->counters.node;

    if (stream->exchange != NULL && stream->deadline_us != 0 && now >= stream->deadline_us) {
        stream->status = GRPC_DEADLINE_EXCEEDED;
        exchange_cancel(stream->exchange);
    } else if (stream->exchange != NULL && stream->phase == H2_MESSAGE) {
        count_one(&node->http_slow);
        exchange_refuse(stream->exchange, 408, "RequestTimeoutException", NULL, "The request took too long to arrive.");
    } else if (stream->phase == H2_ANSWER) {
        count_one(&node->connections_dropped);
        (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
    }
    h2_kick(h2);
}

/* By what is going on now. */
void h2_stream_arm(struct h2_stream *stream) {
    struct timers *timers = &dispatch_of(stream)->loop.timers;
    uint64_t deadline = stream->deadline_us != 0 ? stream->deadline_us : UINT64_MAX;

    if (stream->phase == H2_ANSWER && stream->parts != NULL && !h2_parts_idle(stream))
        deadline = MIN(deadline, stream->progress_us + dispatch_of(stream)->loops->stall_us);
    else if (stream->phase == H2_ANSWER && stream->parts == NULL)
        deadline = stream->progress_us + dispatch_of(stream)->loops->stall_us;
    else if (stream->phase == H2_MESSAGE)
        deadline = MIN(deadline, stream->began_us + HTTP_BODY_US + stream->taken * 1000000 / HTTP_BODY_RATE);
    if (deadline == UINT64_MAX)
        timer_clear(&stream->timer);
    else
        timer_set(timers, &stream->timer, deadline);
}

struct h2_stream *h2_stream_new(struct h2 *h2, int32_t id) {
    struct h2_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return NULL;
    caller_init(&stream->caller, h2_dispatch(h2), h2_answer);
    stream->caller.begin = h2_begin_parts;
    stream->caller.chunk = h2_put_chunk;
    stream->caller.load = h2->load;
    stream->h2 = h2;
    stream->id = id;
    stream->status = -1;
    timer_init(&stream->timer, on_timer);
    list_push_back(&h2->streams, &stream->node);
    h2->n_streams++;
    h2->used_us = h2_dispatch(h2)->loop.now_us;
    return stream;
}

void h2_forget_message(struct h2_stream *stream) {
    free(stream->message);
    stream->message = NULL;
    budget_give_back(&dispatch_of(stream)->budget, stream->message_room);
    stream->message_room = 0;
}

void h2_stream_free(struct h2_stream *stream) {
    struct h2 *h2 = stream->h2;
    h2_forget_message(stream);
    timer_drop(&dispatch_of(stream)->loop.timers, &stream->timer);
    budget_give_back(&dispatch_of(stream)->budget, stream->charged);
    free(stream->head);
    free(stream->body);
    h2_parts_free(stream);
    list_remove(&stream->node);
    h2->n_streams--;
    h2->used_us = dispatch_of(stream)->loop.now_us;
    free(stream);
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

static bool equals(struct wire_slice text, const char *literal) {
    return text.size == strlen(literal) && memcmp(text.data, literal, text.size) == 0;
}

/* application/grpc and application/grpc+proto, with whatever parameters. */
static bool is_content_type(struct wire_slice value) {
    const size_t n = sizeof(CONTENT_TYPE) - 1, m = sizeof("+proto") - 1;
    size_t at = n;
    if (value.size < n || memcmp(value.data, CONTENT_TYPE, n) != 0)
        return false;
    if (value.size >= n + m && memcmp(value.data + n, "+proto", m) == 0)
        at += m;
    return value.size == at || value.data[at] == ';' || value.data[at] == ' ';
}

void h2_stream_header(struct h2_stream *stream, struct wire_slice name, struct wire_slice value) {
    const struct dispatch *dispatch = dispatch_of(stream);
    uint64_t timeout;

    if (stream->headers_size > H2_HEADERS_MAX)
        return;
    stream->headers_size += name.size + value.size + FIELD_OVERHEAD;
    if (equals(name, ":method")) {
        stream->is_post = equals(value, "POST");
    } else if (equals(name, ":path")) {
        stream->is_stream = equals(value, GRPC_STREAM_PATH);
        stream->is_invoke = stream->is_stream || equals(value, GRPC_PATH);
    } else if (equals(name, "content-type")) {
        stream->is_grpc = is_content_type(value);
    } else if (equals(name, "grpc-encoding")) {
        stream->is_encoded = !equals(value, "identity");
    } else if (equals(name, "grpc-timeout")) {
        if (grpc_read_timeout(value, &timeout) < 0)
            stream->is_malformed = true;
        else
            stream->deadline_us = MAX(dispatch->loop.now_us + timeout, 1u);
    } else if (equals(name, "authorization") && stream->h2->connection->trust == HTTP_KEYED) {
        size_t n = sizeof(BEARER) - 1;
        stream->has_key = h1_is((struct wire_slice){value.data, MIN(value.size, n)}, BEARER);
        stream->is_known = stream->has_key &&
            principals_by_token(&dispatch->principals, (struct wire_slice){value.data + n, value.size - n}) != NULL;
    }
}

void h2_refuse(struct h2_stream *stream, enum grpc_status status, const char *message) {
    stream->status = (int)status;
    exchange_refuse(stream->exchange, 500, "", NULL, message);
}

static bool deny(struct h2_stream *stream, const char *code, const char *message) {
    count_one(&dispatch_of(stream)->counters.node->http_denied);
    exchange_refuse(stream->exchange, 403, code, NULL, message);
    return false;
}

static bool is_trusted(struct h2_stream *stream) {
    switch (stream->h2->connection->trust) {
    case HTTP_TRUSTED:
        return true;
    case HTTP_REFUSED:
        return deny(stream, "AccessDeniedException", "This socket is for root and the members of the node's group.");
    default:
        break;
    }
    if (stream->is_known)
        return true;
    return deny(stream, "UnrecognizedClientException",
        stream->has_key
            ? "The key is not known to this node, or was revoked: `runtimectl keys list` shows those that are valid."
            : "Callers need a key here: send `authorization: Bearer TOKEN`. `runtimectl keys create` makes one.");
}

/* Can this be an invoke? Answers when not. */
static bool is_acceptable(struct h2_stream *stream) {
    if (stream->headers_size > H2_HEADERS_MAX) {
        h2_refuse(stream, GRPC_RESOURCE_EXHAUSTED, "The request's metadata is larger than 65536 bytes.");
        return false;
    }
    if (!stream->is_post || !stream->is_grpc) {
        exchange_refuse(stream->exchange, 415, "UnsupportedMediaTypeException", NULL,
            "HTTP/2 is for gRPC here: POST with content-type application/grpc. Lambda's API is served over HTTP/1.1.");
        return false;
    }
    if (!is_trusted(stream))
        return false;
    if (!stream->is_invoke) {
        h2_refuse(stream, GRPC_UNIMPLEMENTED,
            "No such method here: this port serves " GRPC_PATH " and " GRPC_STREAM_PATH ".");
        return false;
    }
    if (stream->is_encoded) {
        h2_refuse(stream, GRPC_UNIMPLEMENTED, "Messages are not compressed here: send identity.");
        return false;
    }
    if (stream->is_malformed) {
        h2_refuse(stream, GRPC_INTERNAL, "grpc-timeout cannot be read.");
        return false;
    }
    return true;
}

void h2_stream_begin(struct h2_stream *stream) {
    struct h2 *h2 = stream->h2;

    stream->phase = H2_MESSAGE;
    stream->began_us = dispatch_of(stream)->loop.now_us;
    count_one(&dispatch_of(stream)->counters.node->http_requests);
    if (h2->load->running >= H2_STREAMS_MAX) {
        /* Before anything was done: it may be tried again. */
        stream->phase = H2_ANSWER;
        (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_REFUSED_STREAM);
        return;
    }
    stream->exchange = exchange_new(&stream->caller, (uint64_t)stream->id);
    if (stream->exchange == NULL) {
        stream->phase = H2_ANSWER;
        (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    if (is_acceptable(stream))
        h2_stream_arm(stream);
}

/* ---- the message ------------------------------------------------------------------------------------------------- */

/* More room as more comes: what is announced costs nothing. */
static bool make_room(struct h2_stream *stream, size_t size) {
    struct budget *budget = &dispatch_of(stream)->budget;
    size_t room = MIN(MAX(MAX((size_t)stream->message_room * 2, stream->message_size + size), (size_t)MESSAGE_ROOM_MIN),
        (size_t)stream->message_total);
    uint8_t *message;

    if (stream->message_size + size <= stream->message_room)
        return true;
    if (!budget_take(budget, room - stream->message_room))
        return false;
    message = realloc(stream->message, room);
    if (message == NULL) {
        budget_give_back(budget, room - stream->message_room);
        return false;
    }
    stream->message = message;
    stream->message_room = (uint32_t)room;
    return true;
}

static void refuse_memory(struct h2_stream *stream) {
    count_one(&dispatch_of(stream)->counters.node->refused_memory);
    exchange_refuse(
        stream->exchange, 503, "ServiceException", NULL, "The node's memory for payloads is in use; try again.");
}

/* Of the five bytes. Answers when the message cannot be taken. */
static void read_prefix(struct h2_stream *stream) {
    char text[160];

    stream->message_total = (uint32_t)stream->prefix[1] << 24 | (uint32_t)stream->prefix[2] << 16 |
        (uint32_t)stream->prefix[3] << 8 | stream->prefix[4];
    if (stream->prefix[0] == 1) {
        h2_refuse(stream, GRPC_UNIMPLEMENTED, "Messages are not compressed here: send identity.");
    } else if (stream->prefix[0] != 0) {
        h2_refuse(stream, GRPC_INTERNAL, "The message's frame cannot be read.");
    } else if (stream->message_total > GRPC_MESSAGE_MAX) {
        snprintf(text, sizeof(text), "A payload has at most %u bytes; the message has %u.", REQUEST_BODY_MAX,
            stream->message_total);
        count_one(&dispatch_of(stream)->counters.node->refused_too_large);
        exchange_refuse(stream->exchange, 413, "RequestTooLargeException", NULL, text);
    }
}

void h2_stream_data(struct h2_stream *stream, const uint8_t *data, size_t size) {
    stream->taken += size;
    while (size > 0 && stream->exchange != NULL && stream->phase == H2_MESSAGE) {
        size_t n;
        if (stream->n_prefix < GRPC_PREFIX) {
            stream->prefix[stream->n_prefix++] = *data++;
            size--;
            if (stream->n_prefix == GRPC_PREFIX)
                read_prefix(stream);
            continue;
        }
        n = MIN(size, stream->message_total - stream->message_size);
        if (n == 0) {
            h2_refuse(stream, GRPC_INTERNAL, "Invoke takes one message.");
            return;
        }
        if (!make_room(stream, n)) {
            refuse_memory(stream);
            return;
        }
        memcpy(stream->message + stream->message_size, data, n);
        stream->message_size += (uint32_t)n;
        data += n;
        size -= n;
    }
    if (stream->phase == H2_MESSAGE)
        h2_stream_arm(stream);
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */

static const char *name_function(const struct grpc_invoke *invoke, struct reference *ret_reference) {
    struct wire_slice name = invoke->function, qualifier = invoke->qualifier;
    enum reference_error error = name.size > REFERENCE_MAX ? REFERENCE_NO_NAME
        : qualifier.size > REFERENCE_QUALIFIER_MAX         ? REFERENCE_NO_QUALIFIER
                                                           : reference_read(name, qualifier, ret_reference);
    return error != REFERENCE_GOOD ? reference_explain(error) : NULL;
}

/* The sentence that refuses it, or NULL. */
static const char *check(const struct grpc_invoke *invoke, bool is_stream) {
    if (invoke->type < 0 || invoke->type > GRPC_TYPE_DRY_RUN)
        return "InvocationType: must be RequestResponse, Event or DryRun.";
    if (invoke->type == GRPC_TYPE_EVENT && is_stream)
        return "InvocationType: an event has no response. Use Invoke.";
    if (invoke->event_id.size > 0 && invoke->type != GRPC_TYPE_EVENT)
        return "EventId: is for the invocation type Event.";
    if (invoke->event_id.size > WIRE_CALL_EVENT_ID_MAX)
        return "EventId: has at most 128 characters.";
    if (invoke->log < 0 || invoke->log > GRPC_LOG_TAIL)
        return "LogType: must be None or Tail.";
    if (invoke->tenant.size > TENANT_MAX)
        return "TenantId: has at most 256 characters.";
    if (invoke->trace.size > WIRE_CALL_TRACE_MAX)
        return "TraceId: has at most 512 characters.";
    return NULL;
}

/* Exchange_start copies all of it. */
static void call(struct h2_stream *stream, const struct grpc_invoke *invoke) {
    struct exchange *exchange = stream->exchange;
    struct reference reference = {0};
    struct call call = {.trace = invoke->trace, .tenant = invoke->tenant, .body = invoke->payload};
    const char *code = INVALID_PARAMETER, *wrong = check(invoke, stream->is_stream);
    uint8_t context[CONTEXT_MAX];
    int n = 0;

    if (wrong == NULL)
        wrong = name_function(invoke, &reference);
    if (wrong == NULL && invoke->client_context.size > 0) {
        n = invoke->client_context.size <= CONTEXT_MAX ? base64_decode(invoke->client_context, context) : -EINVAL;
        if (n < 0 || !json_valid(context, (size_t)n) || context[0] == '[') {
            code = "InvalidRequestContentException";
            wrong = "ClientContext: must be the base64 of a JSON object.";
        }
    }
    if (wrong != NULL) {
        exchange_refuse(exchange, 400, code, NULL, wrong);
        return;
    }
    if (call.body.size == 0)
        call.body = (struct wire_slice){(const uint8_t *)"{}", 2};
    call.total = call.body.size;
    call.name = reference.name;
    call.event_id = invoke->event_id;
    call.qualifier = reference.qualifier;
    call.region = reference.region;
    call.account = reference.account;
    call.client_context = (struct wire_slice){context, (uint32_t)n};
    call.flags = (uint8_t)((stream->is_stream ? WIRE_CALL_STREAM : 0) |
        (invoke->type == GRPC_TYPE_DRY_RUN ? WIRE_CALL_DRY_RUN : 0) |
        (invoke->type == GRPC_TYPE_EVENT ? WIRE_CALL_EVENT : 0) |
        (invoke->log == GRPC_LOG_TAIL ? WIRE_CALL_LOG_TAIL : 0));
    stream->phase = H2_WAIT;
    h2_stream_arm(stream);
    if (exchange_start(exchange, &call) > 0) {
        h2_forget_message(stream);
        exchange_finish(exchange);
    }
}

void h2_stream_finish(struct h2_stream *stream) {
    struct budget *budget = &dispatch_of(stream)->budget;
    struct grpc_invoke invoke;

    stream->ended = true;
    if (stream->exchange == NULL || stream->phase != H2_MESSAGE)
        return;
    if (stream->n_prefix < GRPC_PREFIX || stream->message_size < stream->message_total) {
        h2_refuse(stream, GRPC_INTERNAL, "The call ended within its message.");
        return;
    }
    if (grpc_read_invoke(stream->message, stream->message_size, &invoke) < 0) {
        exchange_refuse(stream->exchange, 400, INVALID_PARAMETER, NULL,
            "The request is not the message that this method takes. Use the proto of this version.");
        return;
    }
    /* The request takes its place: a payload is there twice for the time of a copy. */
    budget_give_back(budget, stream->message_room);
    stream->message_room = 0;
    call(stream, &invoke);
}
