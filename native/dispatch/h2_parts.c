/* Responses that come in parts, over gRPC: InvokeStream's messages as data under the peer's window, then trailers; see
 * h2.h. The messages wait in the stream's own memory; above STREAM_BUFFER their source is told so. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/h2.h"
#include "dispatch/random.h"

struct h2_parts {
    struct outflow out;
    bool ended; /* all of it is in `out` */
    bool refused;
    char status[12], code[64], message[H2_MESSAGE_MAX]; /* of a refusal in the middle */
};

void h2_parts_free(struct h2_stream *stream) {
    struct h2_parts *parts = steal_pointer(stream->parts);
    if (parts == NULL)
        return;
    outflow_done(&parts->out);
    free(parts);
}

/* Is nothing of it left to be sent for now? */
bool h2_parts_idle(const struct h2_stream *stream) {
    return stream->parts != NULL && stream->parts->out.size == 0 && !stream->parts->ended;
}

static int submit_trailers(const struct h2_stream *stream, const struct h2_parts *parts) {
    struct h2_fields fields = {.n = 0};
    h2_put(&fields, "grpc-status", parts->refused ? parts->status : "0");
    if (parts->refused) {
        h2_put(&fields, "grpc-message", parts->message);
        if (parts->code[0] != '\0')
            h2_put(&fields, "runtimed-error-code", parts->code);
    }
    return nghttp2_submit_trailer(stream->h2->session, stream->id, fields.all, fields.n);
}

static ssize_t read_parts(nghttp2_session *session, int32_t id, uint8_t *into, size_t room, uint32_t *flags,
    nghttp2_data_source *source, void *user) {
    struct h2_stream *stream = source->ptr;
    struct h2_parts *parts = stream->parts;
    size_t size = MIN(room, parts->out.size);
    (void)session;
    (void)id;
    (void)user;

    if (size == 0 && !parts->ended)
        return NGHTTP2_ERR_DEFERRED;
    if (size > 0) {
        memcpy(into, parts->out.data + parts->out.at, size);
        outflow_taken(&parts->out, size);
    }
    if (pace_took(&stream->pace, size) || parts->out.size == 0)
        stream->progress_us = h2_dispatch(stream->h2)->loop.now_us;
    h2_stream_arm(stream);
    if (parts->out.size == 0 && parts->ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (submit_trailers(stream, parts) != 0)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (parts->out.size <= STREAM_BUFFER / 2 && stream->exchange != NULL)
        exchange_more(stream->exchange);
    return (ssize_t)size;
}

/* The bytes are there: sends what may be sent. Or there is no memory for them: an end that nobody takes for one. */
static int go_on(struct h2_stream *stream, int r) {
    struct h2 *h2 = stream->h2;

    if (r < 0) {
        count_one(&h2_dispatch(h2)->counters.node->connections_dropped);
        (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_INTERNAL_ERROR);
    } else {
        (void)nghttp2_session_resume_data(h2->session, stream->id);
    }
    h2_stream_arm(stream);
    h2_kick(h2);
    return r < 0 ? r : stream->parts->out.size > STREAM_BUFFER;
}

static void request_id(const struct h2_stream *stream, const struct answer *answer, char ret_text[37]) {
    uint8_t own[16];
    if (answer->id == NULL)
        random_uuid(&h2_dispatch(stream->h2)->randomness, own);
    uuid_text(answer->id != NULL ? answer->id : own, ret_text);
}

static int open_parts(struct h2_stream *stream) {
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_parts};
    struct h2_fields fields = {.n = 0};

    stream->parts = calloc(1, sizeof(*stream->parts));
    if (stream->parts == NULL)
        return -ENOMEM;
    stream->parts->out.budget = &h2_dispatch(stream->h2)->budget;
    stream->phase = H2_ANSWER;
    stream->progress_us = h2_dispatch(stream->h2)->loop.now_us;
    h2_put(&fields, ":status", "200");
    h2_put(&fields, "content-type", "application/grpc");
    return nghttp2_submit_response(stream->h2->session, stream->id, fields.all, fields.n, &provider) == 0 ? 0 : -ENOMEM;
}

static int put_start(struct h2_stream *stream, const struct answer *head) {
    uint8_t message[GRPC_START_MAX];
    char id[37];
    request_id(stream, head, id);
    return outflow_add(&stream->parts->out, message,
        grpc_write_start(id, head->version != NULL ? head->version : "$LATEST", head->content_type, message));
}

/* Nothing waited for the peer until now: its time begins. */
static void begin_again(struct h2_stream *stream) {
    if (stream->parts->out.size > 0)
        return;
    stream->progress_us = h2_dispatch(stream->h2)->loop.now_us;
    stream->pace.taken = 0;
}

static int put_chunk(struct h2_stream *stream, struct wire_slice data) {
    uint8_t head[GRPC_CHUNK_HEAD_MAX];
    struct outflow *out = &stream->parts->out;
    int r;

    begin_again(stream);
    r = outflow_add(out, head, grpc_write_chunk(data.size, head));
    return r >= 0 ? outflow_add(out, data.data, data.size) : r;
}

static int put_complete(struct h2_stream *stream, const struct answer *answer) {
    static const struct wire_slice unhandled = {(const uint8_t *)"Unhandled", 9};
    struct grpc_complete complete = {.status = answer->status,
        .log_tail = answer->log_tail,
        .duration_us = answer->duration_us,
        .init_us = answer->init_us};
    uint8_t head[GRPC_HEAD_MAX];
    int r;

    if (answer->outcome == WIRE_OUTCOME_FUNCTION_ERROR) {
        complete.error_code = unhandled;
        if (answer->error_type != NULL && answer->error_type[0] != '\0')
            complete.error_code =
                (struct wire_slice){(const uint8_t *)answer->error_type, (uint32_t)strlen(answer->error_type)};
        complete.details = answer->body.size;
    }
    begin_again(stream);
    r = outflow_add(&stream->parts->out, head, grpc_write_complete(&complete, head));
    return r >= 0 && complete.details > 0 ? outflow_add(&stream->parts->out, answer->body.data, answer->body.size) : r;
}

/* In the middle: what came is told, and that it is not all. */
static void refuse(struct h2_stream *stream, const struct answer *answer) {
    struct h2_parts *parts = stream->parts;
    enum grpc_status status =
        stream->status >= 0 ? (enum grpc_status)stream->status : grpc_status_of(answer->code, answer->status);

    parts->refused = true;
    snprintf(parts->status, sizeof(parts->status), "%d", (int)status);
    (void)grpc_write_message(parts->message, sizeof(parts->message), answer->message != NULL ? answer->message : "");
    if (stream->status < 0)
        snprintf(parts->code, sizeof(parts->code), "%s", grpc_code_of(answer->code, answer->status));
}

/* ---- of the stream's caller ------------------------------------------------------------------------------------- */

int h2_begin_parts(struct exchange *exchange, const struct answer *head) {
    struct h2_stream *stream = list_entry(exchange->caller, struct h2_stream, caller);
    int r;

    if (stream->is_gone)
        return -EPIPE;
    h2_forget_message(stream);
    r = open_parts(stream);
    return go_on(stream, r >= 0 ? put_start(stream, head) : r);
}

int h2_put_chunk(struct exchange *exchange, struct wire_slice data) {
    struct h2_stream *stream = list_entry(exchange->caller, struct h2_stream, caller);
    if (stream->is_gone || stream->parts == NULL)
        return -EPIPE;
    return go_on(stream, put_chunk(stream, data));
}

void h2_end_parts(struct h2_stream *stream, bool begun, const struct answer *answer) {
    int r = 0;

    if (!begun) {
        r = open_parts(stream);
        if (r >= 0 && answer->status != 204)
            r = put_start(stream, answer);
        if (r >= 0 && answer->outcome == WIRE_OUTCOME_SUCCESS && answer->status != 204 && answer->body.size > 0)
            r = put_chunk(stream, answer->body);
    }
    if (r >= 0 && stream->parts == NULL)
        r = -ENOMEM;
    if (r >= 0 && answer->outcome == WIRE_OUTCOME_REFUSED)
        refuse(stream, answer);
    else if (r >= 0)
        r = put_complete(stream, answer);
    if (r >= 0)
        stream->parts->ended = true;
    (void)go_on(stream, r);
}
