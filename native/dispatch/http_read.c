/* From bytes to exchanges; see http.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/base64.h"
#include "dispatch/dispatch.h"
#include "dispatch/http.h"
#include "dispatch/json.h"
#include "dispatch/reference.h"
#include "dispatch/sigv4.h"

#define OPEN_ENDED_ROOM 4096u
/* Lambda: of the header, before decoding. */
#define CLIENT_CONTEXT_MAX 3583u
#define TENANT_MAX 256u
#define INVALID_PARAMETER "InvalidParameterValueException"

static const struct wire_slice empty_event = {(const uint8_t *)"{}", 2};

/* What a head says, on its way to be a call. */
struct reading {
    struct http_connection *connection;
    const uint8_t *data;
    struct call call;
    struct reference reference;
    uint8_t function[REFERENCE_MAX], qualifier[REFERENCE_QUALIFIER_MAX];
    uint8_t context[CLIENT_CONTEXT_MAX];
};

/* ---- refusing --------------------------------------------------------------------------------------------------- */

void http_refuse_request(struct http_connection *connection, uint16_t status, const char *code, const char *message) {
    struct answer answer = {.status = status, .outcome = WIRE_OUTCOME_REFUSED, .code = code, .message = message};
    struct exchange *exchange = exchange_new(&connection->caller, 0);
    if (exchange == NULL) {
        http_close(connection);
        return;
    }
    connection->exchange = exchange;
    exchange_answer(exchange, &answer);
}

void http_refuse(struct http_connection *connection, uint16_t status, const char *code, const char *message) {
    connection->close = true;
    if (connection->exchange != NULL) {
        exchange_refuse(connection->exchange, status, code, NULL, message);
        return;
    }
    connection->state = HTTP_WAIT;
    http_refuse_request(connection, status, code, message);
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

static bool read_context(struct reading *reading) {
    struct wire_slice text = h1_find(&reading->connection->head, reading->data, "x-amz-client-context");
    int n;

    if (text.size == 0)
        return true;
    n = text.size <= CLIENT_CONTEXT_MAX ? base64_decode(text, reading->context) : -EINVAL;
    if (n < 0 || !json_valid(reading->context, (size_t)n)) {
        http_refuse_request(reading->connection, 400, "InvalidRequestContentException",
            "X-Amz-Client-Context: must be the base64 of a JSON object, at most 3583 characters.");
        return false;
    }
    reading->call.client_context = (struct wire_slice){reading->context, (uint32_t)n};
    return true;
}

/* An event, and the name that its caller gave it. */
static bool read_event(struct reading *reading) {
    reading->call.flags |= WIRE_CALL_EVENT;
    reading->call.event_id = h1_find(&reading->connection->head, reading->data, "x-runtimed-event-id");
    if (reading->call.event_id.size <= WIRE_CALL_EVENT_ID_MAX)
        return true;
    http_refuse_request(
        reading->connection, 400, INVALID_PARAMETER, "X-Runtimed-Event-Id: has at most 128 characters.");
    return false;
}

/* Which kind of invocation; false when it was answered. */
static bool read_type(struct reading *reading) {
    struct http_connection *connection = reading->connection;
    struct wire_slice type = h1_find(&connection->head, reading->data, "x-amz-invocation-type");
    struct wire_slice log = h1_find(&connection->head, reading->data, "x-amz-log-type");

    if (h1_is(type, "dryrun")) {
        reading->call.flags |= WIRE_CALL_DRY_RUN;
    } else if ((reading->call.flags & WIRE_CALL_STREAM) && type.size > 0 && !h1_is(type, "requestresponse")) {
        http_refuse_request(
            connection, 400, INVALID_PARAMETER, "X-Amz-Invocation-Type: must be RequestResponse or DryRun.");
        return false;
    } else if (h1_is(type, "event")) {
        return read_event(reading);
    } else if (type.size > 0 && !h1_is(type, "requestresponse")) {
        http_refuse_request(
            connection, 400, INVALID_PARAMETER, "X-Amz-Invocation-Type: must be RequestResponse, Event or DryRun.");
        return false;
    }
    if (h1_is(log, "tail")) {
        reading->call.flags |= WIRE_CALL_LOG_TAIL;
    } else if (log.size > 0 && !h1_is(log, "none")) {
        http_refuse_request(connection, 400, INVALID_PARAMETER, "X-Amz-Log-Type: must be None or Tail.");
        return false;
    }
    return true;
}

static bool read_texts(struct reading *reading) {
    struct http_connection *connection = reading->connection;
    struct wire_slice trace = h1_find(&connection->head, reading->data, "x-amzn-trace-id");

    if (trace.size > HTTP_TRACE_MAX)
        trace.size = 0; /* as one that is no trace: it is not the caller's fault alone */
    memcpy(connection->trace, trace.data, trace.size);
    connection->trace[trace.size] = '\0';
    reading->call.trace = trace;
    reading->call.tenant = h1_find(&connection->head, reading->data, "x-amz-tenant-id");
    if (reading->call.tenant.size > TENANT_MAX) {
        http_refuse_request(connection, 400, INVALID_PARAMETER, "X-Amz-Tenant-Id: has at most 256 characters.");
        return false;
    }
    return read_type(reading) && read_context(reading);
}

/* ---- the function ------------------------------------------------------------------------------------------------ */

static bool read_function(struct reading *reading, struct wire_slice function, struct wire_slice qualifier) {
    int n = function.size <= 3 * REFERENCE_MAX ? 0 : -EINVAL, m = 0;
    uint8_t name[3 * REFERENCE_MAX], text[3 * REFERENCE_QUALIFIER_MAX];
    enum reference_error error;

    if (n == 0)
        n = percent_decode(function, name);
    m = qualifier.size <= sizeof(text) ? percent_decode(qualifier, text) : -EINVAL;
    if (n < 0 || n > (int)REFERENCE_MAX)
        error = REFERENCE_NO_NAME;
    else if (m < 0 || m > (int)REFERENCE_QUALIFIER_MAX)
        error = REFERENCE_NO_QUALIFIER;
    else {
        memcpy(reading->function, name, (size_t)n);
        memcpy(reading->qualifier, text, (size_t)m);
        error = reference_read((struct wire_slice){reading->function, (uint32_t)n},
            (struct wire_slice){reading->qualifier, (uint32_t)m}, &reading->reference);
    }
    if (error != REFERENCE_GOOD) {
        http_refuse_request(reading->connection, 400, INVALID_PARAMETER, reference_explain(error));
        return false;
    }
    reading->call.name = reading->reference.name;
    reading->call.qualifier = reading->reference.qualifier;
    reading->call.region = reading->reference.region;
    reading->call.account = reading->reference.account;
    return true;
}

/* ---- heads ------------------------------------------------------------------------------------------------------ */

static void start(struct reading *reading) {
    struct http_connection *connection = reading->connection;
    const struct h1_head *head = &connection->head;
    struct exchange *exchange;

    if (head->chunked) {
        reading->call.open_ended = true;
        reading->call.total = OPEN_ENDED_ROOM;
    } else if (head->length == 0) {
        reading->call.body = empty_event;
        reading->call.total = empty_event.size;
    } else {
        reading->call.total = (uint32_t)MIN(head->length, UINT32_MAX);
    }
    exchange = exchange_new(&connection->caller, 0);
    if (exchange == NULL) {
        http_close(connection);
        return;
    }
    connection->exchange = exchange;
    if (exchange_start(exchange, &reading->call) > 0 && connection->body_left == 0 && !head->chunked &&
        http_trust_body(connection)) {
        connection->state = HTTP_WAIT;
        exchange_finish(exchange);
    }
}

/* The head is there. Afterwards the connection is in another state, or was answered. */
static void begin(struct http_connection *connection, const uint8_t *data, size_t size) {
    struct dispatch *dispatch = connection->caller.dispatch;
    const struct h1_head *head = &connection->head;
    struct reading reading = {.connection = connection, .data = data};
    struct wire_slice function, qualifier;
    enum operation operation;

    count_one(&dispatch->counters.node->http_requests);
    connection->close = connection->close || head->close;
    connection->body_left = head->length;
    connection->body_taken = 0;
    connection->body_began_us = dispatch->loop.now_us;
    connection->state = HTTP_BODY;
    if (head->chunked)
        h1_chunks_begin(&connection->chunks);
    if (operation_read(h1_slice(data, head->method), h1_slice(data, head->target), &operation, &function, &qualifier) <
        0) {
        http_refuse_request(connection, 400, INVALID_PARAMETER, "Qualifier: is there twice.");
        return;
    }
    if (operation == OPERATION_OTHER) {
        forward_begin(connection, data, size);
        return;
    }
    if (operation == OPERATION_INVOKE_STREAM)
        reading.call.flags |= WIRE_CALL_STREAM;
    if (!read_function(&reading, function, qualifier) || !read_texts(&reading))
        return;
    if (http_trust_head(connection, data, head->chunked ? REQUEST_BODY_MAX : MIN(head->length, REQUEST_BODY_MAX + 1)))
        start(&reading);
}

/* ---- bodies ----------------------------------------------------------------------------------------------------- */

static void finish_body(struct http_connection *connection) {
    struct exchange *exchange = connection->exchange;
    if (connection->state == HTTP_DISCARD) {
        connection->state = HTTP_WAIT;
        if (list_empty(&connection->unsent))
            http_answered(connection);
        return;
    }
    if (!http_trust_body(connection))
        return;
    if (connection->forward != NULL) {
        forward_finish(connection);
        return;
    }
    connection->state = HTTP_WAIT;
    if (exchange->request->open_ended) {
        /* It has room for so much. */
        if (exchange->request->received == 0)
            (void)exchange_append(exchange, empty_event);
        request_close(exchange->request);
    }
    exchange_finish(exchange);
}

static void take_body(struct http_connection *connection, struct wire_slice part) {
    int r;
    connection->body_taken += part.size;
    if (part.size == 0 || connection->state != HTTP_BODY)
        return;
    if (connection->sigv4 != NULL)
        sigv4_body(connection->sigv4, part.data, part.size);
    if (connection->forward != NULL) {
        forward_append(connection, part);
        return;
    }
    r = exchange_append(connection->exchange, part);
    if (r < 0)
        exchange_refuse_body(connection->exchange, r);
}

/* Returns how many bytes were used up. */
static size_t read_body(struct http_connection *connection, const uint8_t *data, size_t size) {
    struct wire_slice part = {data, (uint32_t)MIN(size, connection->body_left)};
    enum h1_result result;
    size_t taken;

    if (!connection->head.chunked) {
        connection->body_left -= part.size;
        take_body(connection, part);
        if (connection->body_left == 0 && (connection->state == HTTP_BODY || connection->state == HTTP_DISCARD))
            finish_body(connection);
        return part.size;
    }
    result = h1_chunks_read(&connection->chunks, data, size, &taken, &part);
    if (result == H1_WRONG) {
        http_refuse(connection, connection->chunks.status, "InvalidRequestContentException", connection->chunks.reason);
        return taken;
    }
    take_body(connection, part);
    if (result == H1_DONE && (connection->state == HTTP_BODY || connection->state == HTTP_DISCARD))
        finish_body(connection);
    return taken;
}

/* ---- what waits to be read ------------------------------------------------------------------------------------- */

bool http_keep_input(struct http_connection *connection, const uint8_t *data, size_t size) {
    struct budget *budget = &connection->caller.dispatch->budget;
    uint32_t wanted = connection->input_size + (uint32_t)size;

    if (wanted > connection->input_room) {
        uint8_t *more = NULL;
        if (budget_take(budget, wanted - connection->input_room)) {
            more = realloc(connection->input, wanted);
            if (more == NULL)
                budget_give_back(budget, wanted - connection->input_room);
        }
        if (more == NULL) {
            count_one(&connection->caller.dispatch->counters.node->refused_memory);
            return false;
        }
        connection->input = more;
        connection->input_room = wanted;
    }
    memcpy(connection->input + connection->input_size, data, size);
    connection->input_size = wanted;
    return true;
}

uint8_t *http_take_input(struct http_connection *connection, uint32_t *ret_size) {
    *ret_size = connection->input_size;
    budget_give_back(&connection->caller.dispatch->budget, connection->input_room);
    connection->input_size = connection->input_room = 0;
    return steal_pointer(connection->input);
}

void http_forget_input(struct http_connection *connection) {
    uint32_t size;
    free(http_take_input(connection, &size));
}

void http_no_room(struct http_connection *connection) {
    if (connection->h2 != NULL || connection->state != HTTP_HEAD || !list_empty(&connection->unsent)) {
        http_close(connection);
        return;
    }
    http_refuse(connection, 503, "ServiceException", "The node's memory for payloads is in use; try again.");
}

/* ---- all together ------------------------------------------------------------------------------------------------ */

/* Returns how many bytes were used up; 0: more are needed. */
static size_t read_head(struct http_connection *connection, const uint8_t *data, size_t size) {
    enum h1_result result = h1_read(&connection->head, data, size);
    size_t used = connection->head.size;

    if (result == H1_MORE)
        return 0;
    if (result == H1_WRONG) {
        count_one(&connection->caller.dispatch->counters.node->http_malformed);
        http_refuse(connection, connection->head.status, "InvalidRequestContentException", connection->head.reason);
        return size;
    }
    begin(connection, data, size);
    if (connection->state == HTTP_BODY && connection->head.expect_continue && used == size)
        http_say_continue(connection);
    return used;
}

/* The next request is the other dispatcher's, to which its connection is about to go; unless that is too much to take along. */
static bool is_for_another(const struct http_connection *connection, size_t left) {
    const struct handover *handover = &connection->caller.dispatch->handover;
    return connection->state == HTTP_HEAD && handover->giving && !handover->keeping && !connection->close &&
        left <= WIRE_CONNECTION_HANDED_INPUT_MAX;
}

void http_advance(struct http_connection *connection, const uint8_t *data, size_t size) {
    size_t at = 0;

    connection->advancing = true;
    while (!connection->closed && at < size && !http_sending(connection)) {
        size_t used = 0;
        if (is_for_another(connection, size - at))
            break;
        if (connection->state == HTTP_HEAD) {
            used = read_head(connection, data + at, size - at);
        } else if (connection->state == HTTP_BODY || connection->state == HTTP_DISCARD) {
            used = read_body(connection, data + at, size - at);
        }
        at += used;
        if (used == 0)
            break;
    }
    connection->advancing = false;
    if (connection->closed || connection->state == HTTP_LINGER || at == size)
        return;
    if (!http_keep_input(connection, data + at, size - at))
        http_no_room(connection);
}
