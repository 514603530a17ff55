/* Connections of the Runtime API; see the header. */
#include "dispatch/runtime_connection.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/environment.h"

/* Read of one connection at once; others then have their turn. */
#define READ_MAX 65536u
#define INPUT_MAX (H1_HEAD_MAX + READ_MAX)

static_assert(READ_MAX <= WIRE_MESSAGE_MAX, "packet_in holds what is read at once");

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void drop_output(struct runtime_connection *connection) {
    free(connection->output);
    runtime_let_go(connection, connection->output_charge);
    connection->output = NULL;
    connection->output_size = connection->output_sent = connection->output_charge = 0;
}

static void drop_input(struct runtime_connection *connection) {
    free(connection->input);
    connection->input = NULL;
    connection->input_size = 0;
}

void runtime_connection_close(struct runtime_connection *connection) {
    struct runtime *runtime = connection->runtime;
    struct dispatch *dispatch = connection->dispatch;

    if (connection->closed)
        return;
    drop_input(connection);
    drop_output(connection);
    /* The body may be what an answer under way is made of: it goes with the connection's memory, and that may outlive
     * the runtime's. */
    runtime_stream_drop(connection);
    runtime->held -= connection->body_room;
    connection->closed = true;
    if (runtime->waiting == connection)
        runtime->waiting = NULL;
    if (runtime->streamer == connection)
        runtime->streamer = NULL;
    if (runtime->bearer == connection)
        runtime->bearer = NULL;
    loop_remove(&dispatch->loop, &connection->watch);
    cleanup_close(&connection->watch.fd);
    list_remove(&connection->node);
    list_push_back(&dispatch->runtime_closed, &connection->node);
    runtime->n_connections--;
    runtime_listen_again(runtime);
}

void runtime_collect(struct dispatch *dispatch) {
    struct list *node;
    while ((node = list_pop_front(&dispatch->runtime_closed)) != NULL) {
        struct runtime_connection *connection = list_entry(node, struct runtime_connection, node);
        runtime_body_drop(connection);
        free(connection);
    }
}

void runtime_close(struct environment *environment) {
    struct runtime *runtime = environment->runtime;
    if (runtime == NULL || runtime->listener.fd < 0)
        return;
    if (!runtime->full)
        loop_remove(&environment->dispatch->loop, &runtime->listener);
    runtime->listener.fd = -1;
    while (!list_empty(&runtime->connections))
        runtime_connection_close(list_entry(runtime->connections.next, struct runtime_connection, node));
}

/* Who goes away with bytes unread, or is sent some afterwards, resets the connection. */
static void note_error(struct runtime_connection *connection, int error) {
    struct runtime *runtime = connection->runtime;
    if (runtime->bearer == connection && (error == ECONNRESET || error == EPIPE))
        runtime->unread = true;
}

/* Of one that had ended before it was sent the event: its end is read first, as no error. */
static int late_error(int fd) {
    socklen_t size = sizeof(int);
    int error = 0;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? 0 : error;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static int watch_for(struct runtime_connection *connection, uint32_t events) {
    struct loop *loop = &connection->dispatch->loop;
    uint32_t before = connection->events;

    connection->events = events;
    if (events == 0)
        loop_remove(loop, &connection->watch);
    else
        return before == 0 ? loop_add(loop, &connection->watch, events) : loop_change(loop, &connection->watch, events);
    return 0;
}

/* Something was read and not looked at yet. */
static bool has_input(const struct runtime_connection *connection) {
    return connection->input_size > 0 &&
        (connection->reading == RUNTIME_BODY ||
            (connection->reading == RUNTIME_HEAD && connection->head.line == 0 && connection->head.scanned == 0));
}

void runtime_watch(struct runtime_connection *connection) {
    uint32_t events;

    if (connection->closed)
        return;
    /* While the socket is full, nothing more is read: requests behind wait with their sender. What was read already and
     * waits is looked at when the socket is found to take more. */
    if (runtime_stream_waits(connection))
        events = 0;
    else if (connection->output != NULL)
        events = EPOLLOUT;
    else if (runtime_rests(connection->runtime))
        events = 0;
    else if (connection->reading == RUNTIME_WAIT)
        events = EPOLLRDHUP;
    else if (has_input(connection))
        events = EPOLLOUT;
    else
        events = EPOLLIN;
    if (events != connection->events && watch_for(connection, events) < 0)
        runtime_connection_close(connection);
}

/* The answer has left altogether: on to the next request. */
static void sent(struct runtime_connection *connection) {
    connection->reading = RUNTIME_HEAD;
    h1_begin(&connection->head);
    if (!connection->close)
        return;
    connection->reading = RUNTIME_LINGER;
    drop_input(connection);
    if (shutdown(connection->watch.fd, SHUT_WR) < 0)
        runtime_connection_close(connection);
}

/* Of what is to be sent, the rest from `done` on, kept for later. False: no memory. */
static bool keep_rest(
    struct runtime_connection *connection, struct wire_slice head, struct wire_slice body, uint32_t done) {
    uint32_t size = head.size + body.size - done, at = 0;

    if (!runtime_hold(connection, size))
        return false;
    connection->output_charge = size;
    connection->output = malloc(size);
    if (connection->output == NULL)
        return false;
    if (done < head.size) {
        at = head.size - done;
        memcpy(connection->output, head.data + done, at);
        done = head.size;
    }
    if (size > at)
        memcpy(connection->output + at, body.data + (done - head.size), size - at);
    connection->output_size = size;
    connection->output_sent = 0;
    connection->reading = RUNTIME_SENDING;
    return true;
}

void runtime_send(struct runtime_connection *connection, struct wire_slice head, struct wire_slice body) {
    struct iovec parts[] = {{(void *)head.data, head.size}, {(void *)body.data, body.size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = body.size > 0 ? 2 : 1};
    ssize_t n;

    if (connection->closed)
        return;
    do
        n = sendmsg(connection->watch.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        note_error(connection, errno);
        runtime_connection_close(connection);
        return;
    }
    n = n < 0 ? 0 : n;
    if ((size_t)n == (size_t)head.size + body.size)
        sent(connection);
    else if (!keep_rest(connection, head, body, (uint32_t)n))
        runtime_connection_close(connection);
    runtime_watch(connection);
}

static void send_rest(struct runtime_connection *connection) {
    ssize_t n;
    if (connection->output == NULL)
        return;
    do
        n = send(connection->watch.fd, connection->output + connection->output_sent,
            connection->output_size - connection->output_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (errno != EAGAIN) {
            note_error(connection, errno);
            runtime_connection_close(connection);
        }
        return;
    }
    connection->output_sent += (uint32_t)n;
    if (connection->output_sent < connection->output_size)
        return;
    drop_output(connection);
    sent(connection);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* Returns how many bytes were used up; 0: more are needed. */
static size_t read_head(struct runtime_connection *connection, const uint8_t *data, size_t size) {
    enum h1_result result = h1_read(&connection->head, data, size);
    size_t used = connection->head.size;

    if (result == H1_MORE)
        return 0;
    if (result == H1_WRONG) {
        connection->close = true;
        runtime_call_refuse(connection, connection->head.status, "InvalidRequestFormat", connection->head.reason);
        return size;
    }
    connection->close = connection->head.close;
    connection->body_left = connection->head.length;
    if (connection->head.chunked)
        h1_chunks_begin(&connection->chunks);
    runtime_call_begin(connection, data);
    if (connection->closed || connection->reading != RUNTIME_BODY)
        return used;
    if (!connection->head.chunked && connection->body_left == 0)
        runtime_call_finish(connection);
    else if (connection->head.expect_continue && used == size &&
        send(connection->watch.fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_DONTWAIT | MSG_NOSIGNAL) != 25)
        runtime_connection_close(connection); /* it takes not even that */
    return used;
}

/* However small its chunks, what was read at once of a body goes on at once. */
static enum h1_result read_chunks(
    struct runtime_connection *connection, uint8_t *data, size_t size, size_t *ret_taken, struct wire_slice *ret_part) {
    enum h1_result result = H1_MORE;
    struct wire_slice part;
    size_t taken, at = 0;
    uint32_t n = 0;

    while (at < size && result == H1_MORE) {
        result = h1_chunks_read(&connection->chunks, data + at, size - at, &taken, &part);
        if (result != H1_WRONG) {
            memmove(data + n, part.data, part.size); /* their framing makes room */
            n += part.size;
        }
        at += taken;
    }
    *ret_taken = at;
    *ret_part = (struct wire_slice){data, n};
    return result;
}

static size_t read_body(struct runtime_connection *connection, uint8_t *data, size_t size) {
    struct wire_slice part = {data, (uint32_t)MIN(size, connection->body_left)};
    enum h1_result result;
    size_t taken;

    if (!connection->head.chunked) {
        connection->body_left -= part.size;
        runtime_call_body(connection, part);
        if (connection->body_left == 0)
            runtime_call_finish(connection);
        return part.size;
    }
    result = read_chunks(connection, data, size, &taken, &part);
    runtime_call_body(connection, part);
    if (result == H1_WRONG) {
        connection->close = true;
        runtime_call_cut_short(connection);
        return size;
    }
    if (result == H1_DONE)
        runtime_call_finish(connection);
    return taken;
}

/* May more of what was read be looked at now? */
static bool may_go_on(const struct runtime_connection *connection, unsigned calls) {
    const struct runtime *runtime = connection->runtime;
    return connection->output == NULL && !runtime_stream_waits(connection) && !runtime_rests(runtime) &&
        (calls < RUNTIME_CALLS_MAX || runtime->gone);
}

/* Keeps what is not used up. Reads no further request before the answer to the last one has left. */
static void advance(struct runtime_connection *connection, uint8_t *data, size_t size) {
    unsigned calls = 0;
    size_t at = 0;

    while (!connection->closed && at < size && may_go_on(connection, calls)) {
        size_t used = 0;
        if (connection->reading == RUNTIME_HEAD) {
            used = read_head(connection, data + at, size - at);
            calls++;
        } else if (connection->reading == RUNTIME_BODY) {
            used = read_body(connection, data + at, size - at);
        } else if (connection->reading == RUNTIME_LINGER) {
            used = size - at;
        }
        at += used;
        if (used == 0)
            break;
    }
    if (connection->closed || at == size || connection->reading == RUNTIME_LINGER)
        return;
    connection->input = malloc(size - at);
    if (connection->input == NULL) {
        runtime_connection_close(connection);
        return;
    }
    memcpy(connection->input, data + at, size - at);
    connection->input_size = (uint32_t)(size - at);
}

/* What is there, behind what was there before. */
static void take_in(struct runtime_connection *connection, uint8_t *data, size_t size) {
    uint8_t *all = steal_pointer(connection->input);
    uint32_t before = connection->input_size;

    connection->input_size = 0;
    if (all == NULL) {
        advance(connection, data, size);
        return;
    }
    if (size > 0) {
        uint8_t *more = before + size <= INPUT_MAX ? realloc(all, before + size) : NULL;
        if (more == NULL) {
            free(all);
            runtime_connection_close(connection);
            return;
        }
        all = more;
        memcpy(all + before, data, size);
    }
    advance(connection, all, before + size);
    free(all);
}

/* False: nothing more to read now. */
static bool read_some(struct runtime_connection *connection) {
    uint8_t *data = connection->dispatch->packet_in;
    ssize_t n;

    do
        n = recv(connection->watch.fd, data, READ_MAX, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n > 0) {
        if (connection->runtime->bearer == connection)
            connection->runtime->bearer = NULL;
        ration_spend(connection->runtime->environment, 0, (uint64_t)n);
        take_in(connection, data, (size_t)n);
        return !connection->closed;
    }
    note_error(connection, n < 0 ? errno : late_error(connection->watch.fd));
    if (connection->reading == RUNTIME_BODY) {
        connection->close = true;
        runtime_call_cut_short(connection);
    }
    if (connection->output == NULL)
        runtime_connection_close(connection);
    return false;
}

void runtime_ready(struct watch *watch, uint32_t events) {
    struct runtime_connection *connection = list_entry(watch, struct runtime_connection, watch);

    if (connection->reading == RUNTIME_WAIT && connection->output == NULL &&
        (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
        runtime_connection_close(connection);
        return;
    }
    ration_spend(connection->runtime->environment, RATION_WAKE, 0);
    if (events & EPOLLOUT)
        send_rest(connection);
    if (!connection->closed && connection->output != NULL && (events & (EPOLLHUP | EPOLLERR)))
        runtime_connection_close(connection);
    if (!connection->closed && connection->output == NULL && connection->input_size > 0 &&
        (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)))
        take_in(connection, NULL, 0);
    if (!connection->closed && connection->output == NULL && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) &&
        connection->reading != RUNTIME_WAIT && !has_input(connection) && may_go_on(connection, 0))
        (void)read_some(connection);
    runtime_watch(connection);
}

void runtime_drain(struct environment *environment) {
    struct runtime *runtime = environment->runtime;

    if (runtime == NULL || runtime->listener.fd < 0)
        return;
    runtime->gone = true;
    runtime_accept(&runtime->listener, 0);
    list_for_each_safe(node, &runtime->connections) {
        struct runtime_connection *connection = list_entry(node, struct runtime_connection, node);
        if (has_input(connection))
            take_in(connection, NULL, 0); /* what had to wait */
        while (!connection->closed && connection->output == NULL && connection->reading != RUNTIME_WAIT &&
            read_some(connection))
            ;
        if (runtime->listener.fd < 0)
            return; /* that was its end */
    }
}
