/* The calls of the Runtime API, carried out: what runtime_api.h allows becomes events of the environment. Runs in the
 * loop. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/json.h"
#include "dispatch/perform.h"
#include "dispatch/runtime_connection.h"

/* Room for a body of unknown length at first. */
#define BODY_ROOM 8192u

static struct wire_slice text(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static const struct wire_slice nothing = {(const uint8_t *)"", 0};

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void answer(struct runtime_connection *connection, unsigned status, const char *reason, const char *body) {
    char head[192];
    snprintf(head, sizeof(head), "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n",
        status, reason, strlen(body), connection->close ? "Connection: close\r\n" : "");
    runtime_send(connection, text(head), text(body));
}

static const char *reason_of(unsigned status) {
    switch (status) {
    case 400:
        return "Bad Request";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Content Too Large";
    case 500:
        return "Internal Server Error";
    default:
        return "Error";
    }
}

void runtime_call_refuse(
    struct runtime_connection *connection, uint16_t status, const char *type, const char *message) {
    char escaped[512], body[640];
    json_escape(escaped, sizeof(escaped), message, strlen(message));
    snprintf(body, sizeof(body), "{\"errorMessage\":\"%s\",\"errorType\":\"%s\"}", escaped, type);
    answer(connection, status, reason_of(status), body);
}

static void accepted(struct runtime_connection *connection) {
    answer(connection, 202, "Accepted", "{\"status\":\"OK\"}\n");
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

/* A header line, when there is a value. What came from a caller has no line ends: they become blanks, as in JSON. */
static void put_header(char **at, const char *end, const char *name, struct wire_slice value) {
    size_t room = (size_t)(end - *at), need = strlen(name) + value.size + 4;
    if (value.size == 0 || need >= room)
        return;
    *at += sprintf(*at, "%s: ", name);
    for (uint32_t i = 0; i < value.size; i++) {
        uint8_t c = value.data[i];
        *(*at)++ = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    memcpy(*at, "\r\n", 2);
    *at += 2;
}

static void deliver(struct runtime_connection *connection, const struct invocation *invocation) {
    struct dispatch *dispatch = connection->dispatch;
    const struct request *request = invocation->request;
    uint64_t now = clock_monotonic_us();
    uint64_t left = invocation->deadline_us > now ? invocation->deadline_us - now : 0;
    char *head = (char *)dispatch->packet_out, *at = head;
    const char *end = head + WIRE_MESSAGE_MAX - 64;
    char id[37], arn[WIRE_INVOKE_ARN_MAX + 1];

    uuid_text(invocation->id, id);
    invocation_arn(invocation, arn, sizeof(arn));
    at += sprintf(at,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %u\r\n"
        "Lambda-Runtime-Deadline-Ms: %" PRIu64 "\r\n",
        request->total, (clock_real_us() + left) / 1000);
    put_header(&at, end, "Lambda-Runtime-Aws-Request-Id", text(id));
    put_header(&at, end, "Lambda-Runtime-Invoked-Function-Arn", text(arn));
    put_header(&at, end, "Lambda-Runtime-Trace-Id", request->trace);
    put_header(&at, end, "Lambda-Runtime-Client-Context", request->client_context);
    put_header(&at, end, "Lambda-Runtime-Cognito-Identity", request->cognito_identity);
    put_header(&at, end, "Lambda-Runtime-Aws-Tenant-Id", request->tenant);
    at += sprintf(at, "%s\r\n", connection->close ? "Connection: close\r\n" : "");
    connection->reading = RUNTIME_HEAD;
    connection->runtime->bearer = connection;
    connection->runtime->unread = false;
    runtime_send(connection, (struct wire_slice){(uint8_t *)head, (uint32_t)(at - head)},
        request->total > 0 ? (struct wire_slice){request->body, request->total} : nothing);
}

static void deliver_waiting(struct runtime *runtime) {
    struct runtime_connection *connection = steal_pointer(runtime->waiting);
    if (connection != NULL)
        deliver(connection, runtime->environment->invocations[0]);
}

int runtime_invoke(struct environment *environment) {
    struct runtime *runtime = environment->runtime;
    struct runtime_transition transition;
    if (runtime_next(runtime->state, RUNTIME_CALL_ASSIGN, &transition) < 0)
        return -EPROTO;
    runtime->state = transition.next;
    runtime->bearer = NULL;
    runtime->unread = true;
    deliver_waiting(runtime);
    return 0;
}

bool runtime_is_unread(const struct environment *environment) {
    return environment->runtime != NULL && environment->runtime->unread;
}

/* ---- may it? ---------------------------------------------------------------------------------------------------- */

static void refusal_set(struct runtime_connection *connection, uint16_t status, const char *type, const char *message) {
    connection->refusal = (struct runtime_refusal){.status = status, .type = type};
    snprintf(connection->refusal.message, sizeof(connection->refusal.message), "%s", message);
}

/* False: the refusal says why not. The id comes before the state. */
static bool judge(struct runtime_connection *connection, struct runtime_transition *ret_transition) {
    const struct runtime *runtime = connection->runtime;
    const struct invocation *invocation = runtime->environment->invocations[0];
    enum runtime_call call = connection->call;
    char id[37], message[160];

    if (call == RUNTIME_CALL_RESPONSE || call == RUNTIME_CALL_ERROR) {
        if (invocation != NULL)
            uuid_text(invocation->id, id);
        if (invocation == NULL || connection->id.size != 36 || memcmp(connection->id.data, id, 36) != 0) {
            refusal_set(connection, 400, "InvalidRequestID", "Invalid request ID");
            return false;
        }
    }
    if (runtime_next(runtime->state, call, ret_transition) == 0 &&
        (call != RUNTIME_CALL_NEXT || runtime->waiting == NULL))
        return true;
    snprintf(message, sizeof(message),
        "State transition from %s to %s failed for runtime. Error: State transition is not allowed",
        runtime_state_name(runtime->state), runtime_call_name(call));
    refusal_set(connection, 403, "InvalidStateTransition", message);
    return false;
}

/* ---- next ------------------------------------------------------------------------------------------------------- */

static void next(struct runtime_connection *connection) {
    struct runtime *runtime = connection->runtime;
    struct environment *environment = runtime->environment;
    struct runtime_transition transition;

    if (runtime->gone) {
        runtime_connection_close(connection);
        return;
    }
    if (!judge(connection, &transition)) {
        runtime_call_refuse(
            connection, connection->refusal.status, connection->refusal.type, connection->refusal.message);
        return;
    }
    runtime->state = transition.next;
    runtime->waiting = connection;
    connection->reading = RUNTIME_WAIT;
    if (transition.actions & RUNTIME_DELIVER)
        deliver_waiting(runtime);
    if (transition.actions & RUNTIME_INITIALIZED)
        environment_handle(environment, EVENT_INIT_DONE, NULL);
    if (transition.actions & RUNTIME_SETTLED)
        environment_handle(environment, EVENT_READY, NULL);
}

/* ---- bodies ----------------------------------------------------------------------------------------------------- */

bool runtime_hold(struct runtime_connection *connection, uint32_t size) {
    struct runtime *runtime = connection->runtime;
    if (size > RUNTIME_HELD_MAX - runtime->held || !budget_take(&connection->dispatch->budget, size))
        return false;
    runtime->held += size;
    return true;
}

void runtime_let_go(struct runtime_connection *connection, uint32_t size) {
    budget_give_back(&connection->dispatch->budget, size);
    if (!connection->closed)
        connection->runtime->held -= size;
}

void runtime_body_drop(struct runtime_connection *connection) {
    free(connection->body);
    runtime_let_go(connection, connection->body_room);
    connection->body = NULL;
    connection->body_size = connection->body_room = 0;
}

/* Room for `size` bytes altogether. False: read and forgotten from here on. */
static bool make_room(struct runtime_connection *connection, uint64_t size) {
    uint32_t room = connection->body_room;
    uint8_t *more;

    if (connection->too_large || connection->no_memory)
        return false;
    if (size > RESPONSE_BODY_MAX) {
        connection->too_large = true;
    } else if (size > room) {
        room = MIN(MAX((uint32_t)size, connection->head.chunked ? MAX(room * 2, BODY_ROOM) : 0), RESPONSE_BODY_MAX);
        if (runtime_hold(connection, room - connection->body_room)) {
            more = realloc(connection->body, room);
            if (more != NULL) {
                connection->body = more;
                connection->body_room = room;
                return true;
            }
            runtime_let_go(connection, room - connection->body_room);
        }
        connection->no_memory = true;
    }
    if (connection->too_large || connection->no_memory)
        runtime_body_drop(connection);
    return connection->body != NULL;
}

void runtime_call_body(struct runtime_connection *connection, struct wire_slice part) {
    if (connection->streaming) {
        runtime_stream_body(connection, part);
        return;
    }
    if (part.size == 0 || connection->refusal.status != 0 ||
        !make_room(connection, (uint64_t)connection->body_size + part.size))
        return;
    memcpy(connection->body + connection->body_size, part.data, part.size);
    connection->body_size += part.size;
}

/* ---- begin ------------------------------------------------------------------------------------------------------ */

static void not_found(struct runtime_connection *connection, enum runtime_path path) {
    if (path == RUNTIME_PATH_METHOD)
        refusal_set(connection, 405, "MethodNotAllowed", "This path has another method.");
    else
        refusal_set(connection, 404, "NotFound", "The Runtime API has no such path. Extensions are not served here.");
}

/* The mode that a response asks for. */
static void check_mode(struct runtime_connection *connection, const uint8_t *data) {
    struct wire_slice mode = h1_find(&connection->head, data, "lambda-runtime-function-response-mode");
    connection->wants_stream = false;
    if (connection->call != RUNTIME_CALL_RESPONSE || connection->refusal.status != 0 || mode.size == 0 ||
        h1_is(mode, "buffered"))
        return;
    connection->wants_stream = h1_is(mode, "streaming");
    if (!connection->wants_stream)
        refusal_set(connection, 400, "InvalidFunctionResponseMode",
            "The response mode is not known: it is streaming or buffered.");
}

void runtime_call_begin(struct runtime_connection *connection, const uint8_t *data) {
    const struct h1_head *head = &connection->head;
    struct runtime_transition transition;
    struct wire_slice id;
    enum runtime_path path =
        runtime_path_read(h1_slice(data, head->method), h1_slice(data, head->target), &connection->call, &id);
    bool bodiless = !head->chunked && head->length == 0;

    ration_spend(connection->runtime->environment, RATION_CALL, 0);
    connection->reading = RUNTIME_BODY;
    connection->refusal.status = 0;
    connection->too_large = connection->no_memory = false;
    if (path == RUNTIME_PATH_PING && bodiless) {
        answer(connection, 200, "OK", "pong");
        return;
    }
    if (path != RUNTIME_PATH_CALL) {
        not_found(connection, path);
        return;
    }
    if (connection->call == RUNTIME_CALL_NEXT) {
        if (bodiless)
            next(connection);
        else
            refusal_set(connection, 400, "InvalidRequestFormat", "This call has no body.");
        return;
    }
    connection->id = (struct wire_slice){connection->id_text, MIN(id.size, RUNTIME_ID_MAX)};
    memcpy(connection->id_text, id.data, connection->id.size);
    runtime_error_type(h1_find(head, data, "lambda-runtime-function-error-type"), connection->error_type);
    (void)judge(connection, &transition);
    check_mode(connection, data);
    if (connection->refusal.status == 0 && connection->wants_stream)
        runtime_stream_begin(connection, data);
    else if (connection->refusal.status == 0 && head->length > 0)
        (void)make_room(connection, head->length);
}

/* ---- finish ----------------------------------------------------------------------------------------------------- */

/* The caller gets its answer: what was sent, or what became of it. */
static void result(struct runtime_connection *connection, const struct environment_detail *given) {
    struct environment *environment = connection->runtime->environment;
    struct invocation *invocation = environment->invocations[0];
    struct environment_detail detail = *given;

    if (connection->no_memory) {
        count_one(&connection->dispatch->counters.node->refused_memory);
        invocation_refuse(
            invocation, 503, "ServiceException", NULL, "The node's memory for payloads is in use; try again.");
    }
    invocation->result_discarded = connection->too_large || connection->no_memory;
    invocation->result_refused = connection->no_memory;
    if (connection->body != NULL && detail.body.data == connection->body) {
        invocation->result = steal_pointer(connection->body);
        invocation->result_charge = connection->body_room;
        if (!connection->closed)
            connection->runtime->held -= connection->body_room;
        connection->body_room = 0;
    }
    connection->runtime->state = RUNTIME_ANSWERED;
    environment_handle(environment, EVENT_RESULT, &detail);
}

static void fail_init(struct runtime_connection *connection) {
    struct environment_detail detail = {
        .error = true,
        .body = {connection->body, connection->body_size},
        .error_type = text(connection->error_type),
    };
    if (connection->body == NULL)
        detail.body = text("{}");
    connection->runtime->state = RUNTIME_INIT_FAILED;
    /* This is the environment's end, so its answer goes first. */
    accepted(connection);
    environment_handle(connection->runtime->environment, EVENT_INIT_ERROR, &detail);
}

static void refuse_now(struct runtime_connection *connection) {
    struct runtime_refusal refusal = connection->refusal;
    runtime_body_drop(connection);
    runtime_call_refuse(connection, refusal.status, refusal.type, refusal.message);
}

/* A made-up error for the caller. */
static void result_failed(struct runtime_connection *connection, const char *type, const char *message) {
    char body[256];
    struct environment_detail detail = {.error = true, .error_type = text(type)};
    snprintf(body, sizeof(body), "{\"errorType\":\"%s\",\"errorMessage\":\"%s\"}", type, message);
    detail.body = text(body);
    result(connection, &detail);
}

/* Is this the report that the invocation waits for, however bad it is? */
static bool is_awaited(struct runtime_connection *connection) {
    struct runtime_refusal before = connection->refusal;
    struct runtime_transition transition;
    bool awaited = connection->call == RUNTIME_CALL_RESPONSE && connection->id.size > 0 &&
        judge(connection, &transition) && (transition.actions & RUNTIME_ANSWER);
    connection->refusal = before;
    return awaited;
}

void runtime_call_finish(struct runtime_connection *connection) {
    struct environment_detail detail = {
        .body = {connection->body, connection->body_size},
        .error = connection->call == RUNTIME_CALL_ERROR,
        .error_type = text(connection->call == RUNTIME_CALL_ERROR ? connection->error_type : ""),
    };
    struct runtime_transition transition;
    bool too_large = connection->too_large;
    char message[96];

    if (connection->streaming) {
        runtime_stream_finish(connection);
        if (!connection->closed)
            accepted(connection);
        return;
    }
    /* While the body came, another connection may have answered. */
    if (connection->refusal.status == 0)
        (void)judge(connection, &transition);
    if (connection->refusal.status != 0) {
        if (connection->refusal.type != NULL && strcmp(connection->refusal.type, "InvalidFunctionResponseMode") == 0 &&
            is_awaited(connection))
            result_failed(connection, "Runtime.InvalidResponseModeHeader", "The response mode cannot be served");
        if (!connection->closed)
            refuse_now(connection);
        return;
    }
    if (connection->call == RUNTIME_CALL_INIT_ERROR) {
        fail_init(connection);
        return;
    }
    result(connection, &detail);
    runtime_body_drop(connection);
    if (connection->closed)
        return;
    if (too_large) {
        snprintf(message, sizeof(message), "Exceeded maximum allowed payload size (%u bytes).", RESPONSE_BODY_MAX);
        runtime_call_refuse(connection, 413, "RequestEntityTooLarge", message);
    } else {
        accepted(connection);
    }
}

void runtime_call_cut_short(struct runtime_connection *connection) {
    runtime_body_drop(connection);
    if (connection->streaming) {
        runtime_stream_cut_short(connection);
    } else if (connection->refusal.status == 0 && is_awaited(connection)) {
        connection->too_large = connection->no_memory = false;
        result_failed(connection, "Runtime.TruncatedResponse", "The runtime's response was cut short");
    }
    if (!connection->closed)
        runtime_call_refuse(connection, 400, "TruncatedHTTPRequest", "The request's body was cut short");
}
