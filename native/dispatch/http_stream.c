/* Responses that come in parts, over HTTP/1.1: one chunked body whose data is an event stream (eventstream.h); see
 * http.h. To a caller of HTTP/1.0 the same without chunks, up to the connection's end.
 *
 * What the socket does not take waits in the connection; above STREAM_BUFFER the stream is told so. A body that cannot
 * be finished is left without its last chunk: nobody can take it for whole. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/eventstream.h"
#include "dispatch/http.h"
#include "dispatch/outflow.h"

#define CHUNK_HEAD_MAX 12u
#define CHUNK_END "\r\n"
#define LAST_CHUNK "0\r\n\r\n"

struct http_stream {
    struct outflow out;
    bool chunked;
    bool ended; /* all of it is in `out` */
};

void http_stream_free(struct http_connection *connection) {
    struct http_stream *stream = steal_pointer(connection->stream);
    if (stream == NULL)
        return;
    outflow_done(&stream->out);
    free(stream);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

static ssize_t send_some(int fd, const struct outflow *out) {
    ssize_t n;
    do
        n = send(fd, out->data + out->at, out->size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n >= 0 ? n : errno == EAGAIN ? 0 : -errno;
}

int http_stream_send(struct http_connection *connection) {
    struct dispatch *dispatch = connection->caller.dispatch;
    struct http_stream *stream = connection->stream;
    struct outflow *out = &stream->out;
    bool progress = false;

    while (out->size > 0) {
        ssize_t n = send_some(connection->watch.fd, out);
        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        outflow_taken(out, (size_t)n);
        progress = pace_took(&connection->pace, (size_t)n) || progress;
    }
    http_want_writing(connection, out->size > 0);
    if (out->size == 0)
        timer_clear(&connection->timer);
    else if (progress || connection->timer.deadline_us == 0)
        timer_set(&dispatch->loop.timers, &connection->timer, dispatch->loop.now_us + dispatch->loops->stall_us);
    if (stream->ended && out->size == 0) {
        http_stream_free(connection);
        http_answered(connection);
    } else if (out->size <= STREAM_BUFFER / 2 && connection->exchange != NULL) {
        exchange_more(connection->exchange);
    }
    return 0;
}

/* The bytes are there, or the connection cannot go on. */
static int go_on(struct http_connection *connection, int r) {
    struct dispatch *dispatch = connection->caller.dispatch;

    if (r == -ENOBUFS || r == -ENOMEM)
        count_one(&dispatch->counters.node->connections_dropped);
    if (r >= 0)
        r = http_stream_send(connection);
    if (r < 0) {
        http_close(connection);
        return r;
    }
    return connection->stream != NULL && connection->stream->out.size > STREAM_BUFFER;
}

/* ---- parts ------------------------------------------------------------------------------------------------------ */

/* A chunk of so many bytes begins. */
static int put_size(struct http_stream *stream, size_t size) {
    char head[CHUNK_HEAD_MAX];
    int n = snprintf(head, sizeof(head), "%zx\r\n", size);
    return stream->chunked ? outflow_add(&stream->out, head, (size_t)n) : 0;
}

static int put_end(struct http_stream *stream, const char *end) {
    return stream->chunked ? outflow_add(&stream->out, end, strlen(end)) : 0;
}

static int put_payload(struct http_stream *stream, struct wire_slice data) {
    uint8_t head[EVENTSTREAM_HEAD_MAX], tail[EVENTSTREAM_TAIL];
    size_t size = eventstream_chunk_head(data.size, head);
    int r = put_size(stream, size + data.size + sizeof(tail));

    if (r >= 0)
        r = outflow_add(&stream->out, head, size);
    if (r >= 0)
        r = outflow_add(&stream->out, data.data, data.size);
    if (r < 0)
        return r;
    /* Over the copy: in an arena the data may change meanwhile. */
    data.data = stream->out.data + stream->out.at + stream->out.size - data.size;
    eventstream_tail(head, size, data, tail);
    if (r >= 0)
        r = outflow_add(&stream->out, tail, sizeof(tail));
    return r >= 0 ? put_end(stream, CHUNK_END) : r;
}

static struct wire_slice text(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, text != NULL ? (uint32_t)strlen(text) : 0};
}

static int put_complete(struct http_stream *stream, const struct answer *answer) {
    struct eventstream_complete complete = {.log = answer->log_tail};
    _cleanup_free_ uint8_t *packed = NULL;
    size_t size;
    int r;

    if (answer->outcome == WIRE_OUTCOME_REFUSED) {
        complete.error_code = text(answer->code);
        complete.error_details = text(answer->message);
    } else if (answer->outcome == WIRE_OUTCOME_FUNCTION_ERROR) {
        complete.error_code =
            text(answer->error_type != NULL && answer->error_type[0] != '\0' ? answer->error_type : "Unhandled");
        complete.error_details = answer->body;
    }
    packed = malloc(eventstream_complete_max(&complete));
    if (packed == NULL)
        return -ENOMEM;
    size = eventstream_write_complete(&complete, packed);
    r = put_size(stream, size);
    if (r >= 0)
        r = outflow_add(&stream->out, packed, size);
    if (r >= 0)
        r = put_end(stream, CHUNK_END LAST_CHUNK);
    stream->ended = true;
    return r;
}

static int open_stream(struct http_connection *connection, const struct answer *head) {
    struct http_stream *stream = calloc(1, sizeof(*stream));
    char text[HTTP_ANSWER_HEAD_MAX];

    if (stream == NULL)
        return -ENOMEM;
    stream->out.budget = &connection->caller.dispatch->budget;
    stream->chunked = connection->head.minor != 0;
    if (!stream->chunked)
        connection->close = true;
    connection->stream = stream;
    return outflow_add(&stream->out, text, http_render_stream_head(connection, head, text));
}

/* ---- of the connection's caller --------------------------------------------------------------------------------- */

int http_begin_stream(struct exchange *exchange, const struct answer *head) {
    struct http_connection *connection = list_entry(exchange->caller, struct http_connection, caller);
    return go_on(connection, open_stream(connection, head));
}

int http_put_chunk(struct exchange *exchange, struct wire_slice data) {
    struct http_connection *connection = list_entry(exchange->caller, struct http_connection, caller);
    return go_on(connection, put_payload(connection->stream, data));
}

void http_end_stream(struct http_connection *connection, bool begun, const struct answer *answer) {
    int r = 0;

    if (!begun) {
        r = open_stream(connection, answer);
        if (r >= 0 && answer->outcome == WIRE_OUTCOME_SUCCESS && answer->body.size > 0)
            r = put_payload(connection->stream, answer->body);
    }
    if (r >= 0)
        r = put_complete(connection->stream, answer);
    (void)go_on(connection, r);
}
