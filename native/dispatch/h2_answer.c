/* From answers to headers, data and trailers; see h2.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/h2.h"
#include "dispatch/random.h"

void h2_put(struct h2_fields *fields, const char *name, const char *value) {
    fields->all[fields->n++] = (nghttp2_nv){
        .name = (uint8_t *)name, .value = (uint8_t *)value, .namelen = strlen(name), .valuelen = strlen(value)};
}

/* ---- an answer with a message ------------------------------------------------------------------------------------- */

static ssize_t read_answer(nghttp2_session *session, int32_t id, uint8_t *into, size_t room, uint32_t *flags,
    nghttp2_data_source *source, void *user) {
    struct h2_stream *stream = source->ptr;
    const uint32_t total = stream->head_size + stream->body_size;
    struct h2_fields trailers = {.n = 0};
    size_t size = 0;
    (void)user;

    if (stream->sent < stream->head_size) {
        size = MIN(room, stream->head_size - stream->sent);
        memcpy(into, stream->head + stream->sent, size);
        stream->sent += (uint32_t)size;
    }
    if (stream->sent >= stream->head_size && size < room) {
        size_t n = MIN(room - size, total - stream->sent);
        if (n > 0)
            memcpy(into + size, stream->body + (stream->sent - stream->head_size), n);
        stream->sent += (uint32_t)n;
        size += n;
    }
    if (pace_took(&stream->pace, size) || stream->sent == total)
        stream->progress_us = h2_dispatch(stream->h2)->loop.now_us;
    h2_stream_arm(stream);
    if (stream->sent == total) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        h2_put(&trailers, "grpc-status", "0");
        if (nghttp2_submit_trailer(session, id, trailers.all, trailers.n) != 0)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return (ssize_t)size;
}

/* Keeps head and body until the peer has taken them. */
static int take_over(struct h2_stream *stream, const uint8_t *head, size_t head_size, struct answer *answer) {
    struct budget *budget = &h2_dispatch(stream->h2)->budget;
    size_t more = head_size + (answer->owned == NULL ? answer->body.size : 0);

    if (!budget_take(budget, more))
        return -ENOBUFS;
    stream->head = malloc(head_size);
    if (stream->head != NULL && answer->owned == NULL && answer->body.size > 0) {
        answer->owned = malloc(answer->body.size);
        if (answer->owned != NULL)
            memcpy(answer->owned, answer->body.data, answer->body.size);
    }
    if (stream->head == NULL || (answer->owned == NULL && answer->body.size > 0)) {
        budget_give_back(budget, more);
        return -ENOMEM;
    }
    memcpy(stream->head, head, head_size);
    stream->head_size = (uint32_t)head_size;
    stream->body = steal_pointer(answer->owned);
    stream->body_size = answer->body.size;
    stream->charged = answer->charged + (uint32_t)more;
    answer->charged = 0;
    return 0;
}

static void request_id(struct h2_stream *stream, const struct answer *answer, char ret_text[37]) {
    uint8_t own[16];
    if (answer->id == NULL)
        random_uuid(&h2_dispatch(stream->h2)->randomness, own);
    uuid_text(answer->id != NULL ? answer->id : own, ret_text);
}

static int submit_result(struct h2_stream *stream, struct answer *answer) {
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_answer};
    struct h2_fields fields = {.n = 0};
    uint8_t head[GRPC_HEAD_MAX];
    char id[37];
    size_t size;
    int r;

    if (answer->status == 204)
        answer->body.size = 0;
    request_id(stream, answer, id);
    size = grpc_write_response(
        &(struct grpc_result){
            .status = answer->status,
            .id = id,
            .version = answer->version != NULL ? answer->version : "$LATEST",
            .failed = answer->outcome == WIRE_OUTCOME_FUNCTION_ERROR,
            .log_tail = answer->log_tail,
            .payload = answer->body.size,
            .duration_us = answer->duration_us,
            .init_us = answer->init_us,
        },
        head);
    r = take_over(stream, head, size, answer);
    if (r < 0)
        return r;
    h2_put(&fields, ":status", "200");
    h2_put(&fields, "content-type", "application/grpc");
    return nghttp2_submit_response(stream->h2->session, stream->id, fields.all, fields.n, &provider);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

/* Trailers only. */
static int submit_refusal(struct h2_stream *stream, const struct answer *answer) {
    enum grpc_status status =
        stream->status >= 0 ? (enum grpc_status)stream->status : grpc_status_of(answer->code, answer->status);
    struct h2_fields fields = {.n = 0};
    char number[12], message[H2_MESSAGE_MAX], id[37];

    if (answer->status == 415) {
        h2_put(&fields, ":status", "415");
        return nghttp2_submit_response(stream->h2->session, stream->id, fields.all, fields.n, NULL);
    }
    snprintf(number, sizeof(number), "%d", (int)status);
    (void)grpc_write_message(message, sizeof(message), answer->message != NULL ? answer->message : "");
    h2_put(&fields, ":status", "200");
    h2_put(&fields, "content-type", "application/grpc");
    h2_put(&fields, "grpc-status", number);
    h2_put(&fields, "grpc-message", message);
    if (status == GRPC_UNIMPLEMENTED)
        h2_put(&fields, "grpc-accept-encoding", "identity");
    if (stream->status < 0) {
        h2_put(&fields, "runtimed-error-code", grpc_code_of(answer->code, answer->status));
        if (answer->reason != NULL)
            h2_put(&fields, "runtimed-error-reason", answer->reason);
        if (answer->id != NULL) {
            uuid_text(answer->id, id);
            h2_put(&fields, "runtimed-request-id", id);
        }
    }
    return nghttp2_submit_response(stream->h2->session, stream->id, fields.all, fields.n, NULL);
}

void h2_answer(struct exchange *exchange, struct answer *answer) {
    struct h2_stream *stream = list_entry(exchange->caller, struct h2_stream, caller);
    struct h2 *h2 = stream->h2;
    struct dispatch *dispatch = h2_dispatch(h2);
    int r = 0;

    stream->exchange = NULL;
    h2_forget_message(stream);
    if (!stream->is_gone && exchange->stream && (exchange->begun || answer->outcome != WIRE_OUTCOME_REFUSED)) {
        h2_end_parts(stream, exchange->begun, answer);
    } else if (!stream->is_gone) {
        stream->phase = H2_ANSWER;
        stream->progress_us = dispatch->loop.now_us;
        h2_stream_arm(stream);
        if (answer->outcome == WIRE_OUTCOME_REFUSED) {
            r = submit_refusal(stream, answer);
        } else {
            r = submit_result(stream, answer);
            if (r == -ENOBUFS || r == -ENOMEM) {
                static const struct answer no_room = {
                    .status = 500, .code = "ServiceException", .message = "The answer found no memory on the node."};
                count_one(&dispatch->counters.node->connections_dropped);
                r = submit_refusal(stream, &no_room);
            }
        }
        if (r != 0)
            (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_INTERNAL_ERROR);
    }
    free(answer->owned);
    budget_give_back(&dispatch->budget, answer->charged);
    if (!stream->is_gone)
        h2_kick(h2);
}
