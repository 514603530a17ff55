/* From answers to bytes; see http.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/base64.h"
#include "dispatch/dispatch.h"
#include "dispatch/eventstream.h"
#include "dispatch/http.h"
#include "dispatch/json.h"
#include "dispatch/render.h"

#define ERROR_MAX 1536u

/* Bytes that the socket did not take. */
struct http_outgoing {
    struct list node;
    uint32_t head_size, sent, total; /* total: head and body */
    uint8_t *body;                   /* own memory */
    uint32_t charged;                /* of the budget */
    uint8_t head[];
};

/* ---- the head ---------------------------------------------------------------------------------------------------- */

static const char *phrase(uint16_t status) {
    static const struct {
        uint16_t status;
        const char *phrase;
    } phrases[] = {
        {200, "OK"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(phrases); i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "Unknown";
}

static const char *date(struct http *http) {
    uint64_t now = clock_real_us() / 1000000;
    time_t seconds = (time_t)now;
    struct tm tm;
    if (now != http->date_s) {
        http->date_s = now;
        (void)strftime(http->date, sizeof(http->date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&seconds, &tm));
    }
    return http->date;
}

struct text {
    char *at, *end;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *text, const char *format, ...) {
    va_list arguments;
    int n;
    va_start(arguments, format);
    n = vsnprintf(text->at, (size_t)(text->end - text->at), format, arguments);
    va_end(arguments);
    if (n > 0)
        text->at += MIN(n, (int)(text->end - text->at));
}

static void put_bytes(struct text *text, const char *bytes, size_t size) {
    size = MIN(size, (size_t)(text->end - text->at));
    memcpy(text->at, bytes, size);
    text->at += size;
}

/* What every answer has goes without a format, which would cost more than all else of it. */
#define PUT(text, literal) put_bytes(text, "" literal, sizeof(literal) - 1)

static void put_number(struct text *text, size_t number) {
    char digits[20], *at = digits + sizeof(digits);
    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    put_bytes(text, at, (size_t)(digits + sizeof(digits) - at));
}

static void put_field(struct text *text, const char *value) {
    put_bytes(text, value, strlen(value));
    PUT(text, "\r\n");
}

/* Every answer that the service sends has an id. */
static void put_id(struct text *text, struct http_connection *connection, const struct answer *answer) {
    uint8_t own[16];
    char id[37];
    if (answer->id == NULL)
        random_uuid(&connection->caller.dispatch->randomness, own);
    uuid_text(answer->id != NULL ? answer->id : own, id);
    PUT(text, "x-amzn-RequestId: ");
    put_field(text, id);
}

static void put_end(struct text *text, const struct http_connection *connection) {
    if (connection->trace[0] != '\0') {
        PUT(text, "X-Amzn-Trace-Id: ");
        put_field(text, connection->trace);
    }
    if (connection->close)
        PUT(text, "Connection: close\r\n");
    else if (connection->head.minor == 0)
        PUT(text, "Connection: keep-alive\r\n");
    PUT(text, "\r\n");
}

static void put_version(struct text *text, const struct answer *answer) {
    PUT(text, "X-Amz-Executed-Version: ");
    put_field(text, answer->version != NULL ? answer->version : "$LATEST");
}

/* A function's own value for a field: what it may not have becomes a blank. */
static void put_value(struct text *text, struct wire_slice value) {
    for (uint32_t i = 0; i < value.size && text->at < text->end; i++) {
        uint8_t c = value.data[i];
        *text->at++ = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
}

size_t http_render_stream_head(
    struct http_connection *connection, const struct answer *head, char ret_head[HTTP_ANSWER_HEAD_MAX]) {
    static const struct wire_slice plain = {(const uint8_t *)EVENTSTREAM_TYPE, sizeof(EVENTSTREAM_TYPE) - 1};
    struct text text = {ret_head, ret_head + HTTP_ANSWER_HEAD_MAX};

    PUT(&text, "HTTP/1.1 200 OK\r\nDate: ");
    put_field(&text, date(http_of(connection)));
    PUT(&text, "Content-Type: ");
    put_value(&text, head->content_type.size > 0 ? head->content_type : plain);
    put_field(&text, connection->head.minor != 0 ? "\r\nTransfer-Encoding: chunked" : "");
    put_id(&text, connection, head);
    put_version(&text, head);
    put_end(&text, connection);
    return (size_t)(text.at - ret_head);
}

static size_t render_head(struct http_connection *connection, const struct answer *answer, size_t body_size,
    char ret_head[HTTP_ANSWER_HEAD_MAX]) {
    struct text text = {ret_head, ret_head + HTTP_ANSWER_HEAD_MAX};

    PUT(&text, "HTTP/1.1 ");
    put_number(&text, answer->status);
    PUT(&text, " ");
    put_field(&text, phrase(answer->status));
    PUT(&text, "Date: ");
    put_field(&text, date(http_of(connection)));
    if (answer->status != 204) {
        PUT(&text, "Content-Type: application/json\r\nContent-Length: ");
        put_number(&text, body_size);
        PUT(&text, "\r\n");
    }
    put_id(&text, connection, answer);
    if (answer->outcome == WIRE_OUTCOME_REFUSED) {
        PUT(&text, "x-amzn-ErrorType: ");
        put_field(&text, answer->code);
    } else if (answer->status != 202) {
        put_version(&text, answer);
    }
    if (answer->status == 200)
        PUT(&text, "x-amzn-Remapped-Content-Length: 0\r\n");
    if (answer->status == 429 || answer->status == 503)
        PUT(&text, "Retry-After: 1\r\n");
    if (answer->outcome == WIRE_OUTCOME_FUNCTION_ERROR)
        PUT(&text, "X-Amz-Function-Error: Unhandled\r\n");
    if (answer->log_tail.size > 0) {
        PUT(&text, "X-Amz-Log-Result: ");
        text.at += base64_encode(answer->log_tail.data, MIN(answer->log_tail.size, LOG_TAIL_MAX), text.at);
        PUT(&text, "\r\n");
    }
    put_end(&text, connection);
    return (size_t)(text.at - ret_head);
}

/* The members as the service's own model has them: two errors write Message with a capital. */
static size_t render_error(const struct answer *answer, char ret_body[ERROR_MAX]) {
    const char *message = answer->message != NULL ? answer->message : "";
    bool capital =
        strcmp(answer->code, "ResourceNotFoundException") == 0 || strcmp(answer->code, "ServiceException") == 0;
    struct text text = {ret_body, ret_body + ERROR_MAX};
    char escaped[1024];

    (void)json_escape(escaped, sizeof(escaped), message, strlen(message));
    put(&text, "{\"Type\":\"%s\",", answer->status >= 500 ? "Service" : "User");
    if (answer->reason != NULL)
        put(&text, "\"Reason\":\"%s\",", answer->reason);
    put(&text, "\"%s\":\"%s\"}", capital ? "Message" : "message", escaped);
    return (size_t)(text.at - ret_body);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

void http_want_writing(struct http_connection *connection, bool writing) {
    if (connection->writing == writing)
        return;
    connection->writing = writing;
    (void)loop_change(&connection->caller.dispatch->loop, &connection->watch,
        (connection->paused ? 0u : EPOLLIN) | (writing ? EPOLLOUT : 0u));
}

/* Returns how many bytes went, from `sent` on; or a negative errno other than -EAGAIN. */
static ssize_t send_parts(
    int fd, const uint8_t *head, size_t head_size, const uint8_t *body, size_t total, size_t sent) {
    struct iovec parts[2];
    struct msghdr message = {.msg_iov = parts};
    ssize_t n;

    if (sent < head_size)
        parts[message.msg_iovlen++] = (struct iovec){(uint8_t *)head + sent, head_size - sent};
    if (total > head_size) {
        size_t skip = sent > head_size ? sent - head_size : 0;
        parts[message.msg_iovlen++] = (struct iovec){(uint8_t *)body + skip, total - head_size - skip};
    }
    do
        n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    return n;
}

static void outgoing_free(struct http_connection *connection, struct http_outgoing *outgoing) {
    budget_give_back(&connection->caller.dispatch->budget, outgoing->charged);
    list_remove(&outgoing->node);
    free(outgoing->body);
    free(outgoing);
}

void http_forget_unsent(struct http_connection *connection) {
    while (!list_empty(&connection->unsent))
        outgoing_free(connection, list_entry(connection->unsent.next, struct http_outgoing, node));
}

/* Keeps what was not sent; the environment is free meanwhile. */
static int postpone(struct http_connection *connection, const char *head, size_t head_size, struct answer *answer,
    size_t body_size, size_t sent) {
    struct dispatch *dispatch = connection->caller.dispatch;
    size_t more = head_size + (answer->owned == NULL ? body_size : 0);
    struct http_outgoing *outgoing;

    if (!budget_take(&dispatch->budget, more))
        return -ENOBUFS;
    outgoing = malloc(sizeof(*outgoing) + head_size);
    if (outgoing != NULL && answer->owned == NULL && body_size > 0) {
        answer->owned = malloc(body_size);
        if (answer->owned != NULL)
            memcpy(answer->owned, answer->body.data, body_size);
    }
    if (outgoing == NULL || (answer->owned == NULL && body_size > 0)) {
        free(outgoing);
        budget_give_back(&dispatch->budget, more);
        return -ENOMEM;
    }
    *outgoing = (struct http_outgoing){
        .head_size = (uint32_t)head_size,
        .sent = (uint32_t)sent,
        .total = (uint32_t)(head_size + body_size),
        .body = steal_pointer(answer->owned),
        .charged = answer->charged + (uint32_t)more,
    };
    answer->charged = 0;
    memcpy(outgoing->head, head, head_size);
    list_push_back(&connection->unsent, &outgoing->node);
    http_want_writing(connection, true);
    connection->pace.taken = 0;
    timer_set(&dispatch->loop.timers, &connection->timer, dispatch->loop.now_us + dispatch->loops->stall_us);
    return 0;
}

/* 1: it has left whole; 0: some of it waits; or a negative errno. */
static int send_answer(
    struct http_connection *connection, const char *head, size_t head_size, struct answer *answer, size_t body_size) {
    size_t total = head_size + body_size;
    ssize_t n = 0;
    int r;

    if (list_empty(&connection->unsent))
        n = send_parts(connection->watch.fd, (const uint8_t *)head, head_size, answer->body.data, total, 0);
    if (n < 0)
        return (int)n;
    if ((size_t)n == total)
        return 1;
    r = postpone(connection, head, head_size, answer, body_size, (size_t)n);
    return r < 0 ? r : 0;
}

/* What becomes of a body that is still coming. */
static void leave_body(struct http_connection *connection) {
    if (connection->state != HTTP_BODY)
        return;
    if (!connection->head.chunked && connection->body_left == 0) {
        connection->state = HTTP_WAIT;
    } else if (connection->close || connection->head.chunked || connection->body_left > HTTP_DISCARD_MAX ||
        (connection->head.expect_continue && connection->body_taken == 0)) {
        connection->close = true;
        connection->state = HTTP_WAIT;
    } else {
        connection->state = HTTP_DISCARD;
    }
}

/* To who takes it in parts: anything but a refusal, and the answer to a dry run. */
static bool streams(const struct answer *answer) {
    return answer->outcome != WIRE_OUTCOME_REFUSED && answer->status != 204 && answer->status != 202;
}

void http_answer(struct exchange *exchange, struct answer *answer) {
    struct http_connection *connection = list_entry(exchange->caller, struct http_connection, caller);
    char head[HTTP_ANSWER_HEAD_MAX], error[ERROR_MAX];
    size_t head_size;
    int r = 0;

    connection->exchange = NULL;
    http_trust_forget(connection);
    forward_drop(connection);
    if (!exchange->begun)
        connection->close = connection->close || http_of(connection)->leaving;
    if (!connection->closed && exchange->stream && (exchange->begun || streams(answer))) {
        http_end_stream(connection, exchange->begun, answer);
    } else if (!connection->closed) {
        leave_body(connection);
        if (answer->outcome == WIRE_OUTCOME_REFUSED)
            answer->body = (struct wire_slice){(uint8_t *)error, (uint32_t)render_error(answer, error)};
        else if (answer->status == 204)
            answer->body.size = 0;
        head_size = render_head(connection, answer, answer->body.size, head);
        r = send_answer(connection, head, head_size, answer, answer->body.size);
    }
    free(answer->owned);
    budget_give_back(&connection->caller.dispatch->budget, answer->charged);
    if (r > 0)
        http_answered(connection);
    else if (r < 0)
        http_close(connection);
}

void http_say_continue(struct http_connection *connection) {
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    ssize_t n = send_parts(connection->watch.fd, (const uint8_t *)line, sizeof(line) - 1, NULL, sizeof(line) - 1, 0);
    /* The socket was empty: it takes 25 bytes or is broken. */
    if (n != (ssize_t)(sizeof(line) - 1))
        http_close(connection);
}

int http_send(struct http_connection *connection) {
    struct dispatch *dispatch = connection->caller.dispatch;

    while (!list_empty(&connection->unsent)) {
        struct http_outgoing *outgoing = list_entry(connection->unsent.next, struct http_outgoing, node);
        ssize_t n = send_parts(
            connection->watch.fd, outgoing->head, outgoing->head_size, outgoing->body, outgoing->total, outgoing->sent);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return 0;
        outgoing->sent += (uint32_t)n;
        if (pace_took(&connection->pace, (size_t)n))
            timer_set(&dispatch->loop.timers, &connection->timer, dispatch->loop.now_us + dispatch->loops->stall_us);
        if (outgoing->sent < outgoing->total)
            return 0;
        outgoing_free(connection, outgoing);
    }
    http_want_writing(connection, false);
    http_answered(connection);
    return 0;
}
