/* Responses that a runtime of the function's own streams: a POST of response with the header
 * Lambda-Runtime-Function-Response-Mode: streaming. Its body goes on as it comes (stream.h); when it fails in the
 * middle, the runtime says so in the trailers Lambda-Runtime-Function-Error-Type and -Body (base64 of the error
 * object). See runtime_connection.h.
 *
 * While the stream has to wait, the connection is neither read nor watched: a runtime that resets it then would be told
 * of again and again. What the socket holds meanwhile is bounded (RECEIVE_MAX). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "dispatch/base64.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/json.h"
#include "dispatch/perform.h"
#include "dispatch/runtime_connection.h"

#define RECEIVE_MAX (128 << 10) /* the kernel doubles it */
/* An error object as large as the channel takes one, in base64, and its neighbours. */
#define TRAILERS_MAX (WIRE_STREAM_END_BODY_MAX / 3 * 4 + 4096u)

static struct wire_slice text(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

bool runtime_stream_waits(const struct runtime_connection *connection) {
    const struct runtime *runtime = connection->runtime;
    return connection->streaming && !runtime->gone && stream_waits(runtime->environment);
}

void runtime_stream_resume(struct environment *environment) {
    struct runtime_connection *connection = environment->runtime->streamer;
    if (connection != NULL)
        runtime_watch(connection);
}

static void over(struct runtime_connection *connection) {
    connection->streaming = false;
    connection->runtime->streamer = NULL;
    connection->runtime->state = RUNTIME_ANSWERED;
    runtime_stream_drop(connection);
}

void runtime_stream_drop(struct runtime_connection *connection) {
    if (connection->trailers == NULL)
        return;
    free(steal_pointer(connection->trailers));
    runtime_let_go(connection, TRAILERS_MAX);
}

void runtime_stream_begin(struct runtime_connection *connection, const uint8_t *data) {
    struct environment *environment = connection->runtime->environment;
    struct invocation *invocation = environment->invocations[0];
    struct wire_slice type = h1_find(&connection->head, data, "content-type");
    const int room = RECEIVE_MAX;

    if (runtime_hold(connection, TRAILERS_MAX)) {
        connection->trailers = malloc(TRAILERS_MAX);
        if (connection->trailers == NULL)
            runtime_let_go(connection, TRAILERS_MAX);
    }
    type.size = MIN(type.size, WIRE_STREAM_HEAD_CONTENT_TYPE_MAX);
    /* Without room for its trailers an end that is none could not be told from one. */
    if (connection->trailers == NULL || stream_begin(invocation, type) < 0) {
        runtime_stream_drop(connection);
        connection->no_memory = true;
        return;
    }
    h1_chunks_keep(&connection->chunks, connection->trailers, TRAILERS_MAX);
    (void)setsockopt(connection->watch.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    connection->streaming = true;
    connection->runtime->streamer = connection;
    connection->runtime->state = RUNTIME_STREAMING;
    environment_handle(environment, EVENT_RESULT_PART, NULL);
}

void runtime_stream_body(struct runtime_connection *connection, struct wire_slice part) {
    stream_take(connection->runtime->environment->invocations[0], part);
}

/* The error object, of the trailer or made from its type. */
static struct wire_slice error_body(struct wire_slice given, const char *type, uint8_t *into, size_t size) {
    char escaped[2 * WIRE_RESULT_ERROR_TYPE_MAX + 1];
    int n = given.size / 4 * 3 <= size ? base64_decode(given, into) : -EINVAL;

    if (n > 0 && json_valid(into, (size_t)n))
        return (struct wire_slice){into, (uint32_t)n};
    (void)json_escape(escaped, sizeof(escaped), type, strlen(type));
    n = snprintf((char *)into, size, "{\"errorType\":\"%s\"}", escaped);
    return (struct wire_slice){into, (uint32_t)n};
}

static void end(struct runtime_connection *connection, struct environment_detail *detail) {
    struct environment *environment = connection->runtime->environment;
    over(connection);
    stream_finish(environment->invocations[0], detail);
    environment_handle(environment, EVENT_BODY_DONE, detail);
}

void runtime_stream_finish(struct runtime_connection *connection) {
    struct wire_slice trailers = {connection->trailers, connection->head.chunked ? connection->chunks.kept : 0};
    struct wire_slice type = h1_trailer(trailers, "lambda-runtime-function-error-type");
    struct wire_slice body = h1_trailer(trailers, "lambda-runtime-function-error-body");
    struct environment_detail detail = {.error = type.size > 0 || body.size > 0};
    _cleanup_free_ uint8_t *object = NULL;
    size_t room = body.size / 4 * 3 + 4 * WIRE_RESULT_ERROR_TYPE_MAX;

    if (detail.error) {
        runtime_error_type(type, connection->error_type);
        detail.error_type = text(connection->error_type);
        object = malloc(room);
        if (object != NULL)
            detail.body = error_body(body, connection->error_type, object, room);
    }
    end(connection, &detail);
}

void runtime_stream_cut_short(struct runtime_connection *connection) {
    static const char body[] =
        "{\"errorType\":\"Runtime.TruncatedResponse\",\"errorMessage\":\"The runtime's response was cut short\"}";
    struct environment_detail detail = {
        .error = true, .error_type = text("Runtime.TruncatedResponse"), .body = text(body)};
    end(connection, &detail);
}
