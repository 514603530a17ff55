/* HTTP connections: who may, how long, and when they are read; see the header. */
#include "dispatch/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/h2.h"

#define ACCEPT_BATCH 32
#define ACCEPT_PAUSE_US 100000u

struct http *http_of(const struct http_connection *connection) {
    return &connection->caller.dispatch->http;
}

bool http_sending(const struct http_connection *connection) {
    return connection->stream != NULL || !list_empty(&connection->unsent);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

void http_close(struct http_connection *connection) {
    struct dispatch *dispatch = connection->caller.dispatch;
    struct http *http = &dispatch->http;

    if (connection->closed)
        return;
    connection->closed = true;
    loop_remove(&dispatch->loop, &connection->watch);
    cleanup_close(&connection->watch.fd);
    timer_drop(&dispatch->loop.timers, &connection->timer);
    http_trust_forget(connection);
    forward_drop(connection);
    connection->exchange = NULL;
    h2_free(steal_pointer(connection->h2));
    caller_done(&connection->caller);
    http_forget_unsent(connection);
    http_stream_free(connection);
    http_forget_input(connection);
    list_remove(&connection->kept);
    list_remove(&connection->node);
    list_push_back(&http->closed, &connection->node);
    http->n_connections--;
    count_less(&dispatch->spread.open, 1);
    count_less(&dispatch->counters.node->connections, 1);
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static void set_timer(struct http_connection *connection, uint64_t us) {
    struct dispatch *dispatch = connection->caller.dispatch;
    timer_set(&dispatch->loop.timers, &connection->timer, dispatch->loop.now_us + us);
}

/* By what is going on now. Called when that has changed, and when bytes went either way. */
static void arm(struct http_connection *connection) {
    struct dispatch *dispatch = connection->caller.dispatch;
    if (connection->closed || connection->h2 != NULL || connection->state == HTTP_LINGER)
        return;
    if (http_sending(connection))
        return; /* who sends arms it at each progress */
    switch (connection->state) {
    case HTTP_HEAD:
        /* From its first byte on a head has its time, however it trickles in. */
        if (connection->input_size == 0)
            set_timer(connection, HTTP_IDLE_US);
        else if (connection->head_size == 0)
            set_timer(connection, HTTP_HEAD_US);
        connection->head_size = connection->input_size;
        break;
    case HTTP_BODY:
    case HTTP_DISCARD:
        timer_set(&dispatch->loop.timers, &connection->timer,
            connection->body_began_us + HTTP_BODY_US + connection->body_taken * 1000000 / HTTP_BODY_RATE);
        break;
    default:
        timer_clear(&connection->timer); /* the function has its own time-out */
        break;
    }
}

static void on_timer(struct timer *timer, uint64_t now) {
    struct http_connection *connection = list_entry(timer, struct http_connection, timer);
    struct counters_node *node = connection->caller.dispatch->counters.node;
    (void)now;

    if (connection->h2 != NULL) {
        h2_on_timer(connection->h2);
        return;
    }
    if (http_sending(connection) || connection->state == HTTP_LINGER || connection->state == HTTP_DISCARD ||
        (connection->state == HTTP_HEAD && connection->input_size == 0)) {
        if (http_sending(connection))
            count_one(&node->connections_dropped);
        http_close(connection);
        return;
    }
    count_one(&node->http_slow);
    http_refuse(connection, 408, "RequestTimeoutException", "The request took too long to arrive.");
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

void http_watch_reading(struct http_connection *connection, bool reading) {
    if (connection->paused == !reading)
        return;
    connection->paused = !reading;
    (void)loop_change(&connection->caller.dispatch->loop, &connection->watch,
        (reading ? EPOLLIN : 0u) | (connection->writing ? EPOLLOUT : 0u));
}

static void read_kept(struct http_connection *connection) {
    uint32_t n;
    uint8_t *input = http_take_input(connection, &n);
    http_advance(connection, input, n);
    free(input);
}

/* Reads what came first as HTTP/1.1 unless it begins as HTTP/2 does. False: it may become either. */
static bool sniff(struct http_connection *connection, const uint8_t *data, size_t size) {
    if (memcmp(data, H2_PREFACE, MIN(size, H2_PREFACE_SIZE)) != 0)
        connection->sniffed = true;
    else if (size >= H2_PREFACE_SIZE)
        connection->sniffed = h2_begin(connection) == 0;
    else
        return false;
    return true;
}

static void take_first(struct http_connection *connection, const uint8_t *data, size_t size) {
    _cleanup_free_ uint8_t *input = NULL;

    if (connection->input_size > 0) {
        uint32_t all;
        if (!http_keep_input(connection, data, size)) {
            http_no_room(connection);
            return;
        }
        data = input = http_take_input(connection, &all);
        size = all;
    }
    if (!sniff(connection, data, size)) {
        if (!http_keep_input(connection, data, size))
            http_no_room(connection);
    } else if (connection->h2 != NULL) {
        h2_read(connection->h2, data, size);
    } else if (connection->sniffed) {
        http_advance(connection, data, size);
    } else {
        http_close(connection);
    }
}

static void take_in(struct http_connection *connection, const uint8_t *data, size_t size) {
    if (connection->state == HTTP_LINGER)
        return;
    if (connection->h2 != NULL)
        h2_read(connection->h2, data, size);
    else if (!connection->sniffed)
        take_first(connection, data, size);
    else if (connection->input_size == 0)
        http_advance(connection, data, size);
    else if (http_keep_input(connection, data, size))
        read_kept(connection);
    else
        http_no_room(connection);
}

void http_collect(struct http *http) {
    struct list *node;
    while ((node = list_pop_front(&http->kept)) != NULL) {
        struct http_connection *connection = list_entry(node, struct http_connection, kept);
        if (connection->h2 != NULL) {
            h2_collect(connection->h2);
            continue;
        }
        read_kept(connection);
        arm(connection);
    }
    while ((node = list_pop_front(&http->closed)) != NULL)
        free(list_entry(node, struct http_connection, node));
}

static void on_readable(struct http_connection *connection) {
    struct http *http = http_of(connection);
    uint32_t room = connection->input_size < HTTP_INPUT_MAX ? HTTP_INPUT_MAX - connection->input_size : 0;
    ssize_t n;

    if (room == 0) {
        http_watch_reading(connection, false);
        return;
    }
    do
        n = recv(connection->watch.fd, http->input, room, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        /* A caller may shut its writing end and still wait for the answer; who is gone altogether shows as HUP. */
        if (n == 0 && (connection->state == HTTP_WAIT || http_sending(connection))) {
            connection->close = true;
            http_watch_reading(connection, false);
        } else {
            http_close(connection);
        }
        return;
    }
    connection->used_us = connection->caller.dispatch->loop.now_us;
    take_in(connection, http->input, (size_t)n);
    arm(connection);
}

static void on_ready(struct watch *watch, uint32_t events) {
    struct http_connection *connection = list_entry(watch, struct http_connection, watch);

    if ((events & EPOLLOUT) && connection->h2 != NULL)
        h2_write(connection->h2);
    else if ((events & EPOLLOUT) &&
        (connection->stream != NULL ? http_stream_send(connection) : http_send(connection)) < 0)
        http_close(connection);
    if (!connection->closed && (events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN))
        http_close(connection);
    if (!connection->closed && (events & EPOLLIN))
        on_readable(connection);
}

void http_answered(struct http_connection *connection) {
    if (connection->closed)
        return;
    if (connection->close) {
        connection->state = HTTP_LINGER;
        http_forget_input(connection);
        if (shutdown(connection->watch.fd, SHUT_WR) < 0) {
            http_close(connection);
            return;
        }
        http_watch_reading(connection, true);
        set_timer(connection, HTTP_LINGER_US);
        return;
    }
    connection->trace[0] = '\0';
    if (connection->state == HTTP_WAIT) {
        connection->state = HTTP_HEAD;
        connection->head_size = 0;
        h1_begin(&connection->head);
    }
    http_watch_reading(connection, true);
    /* Not from here: an environment may be in the middle of what it does on being answered. */
    if (!connection->advancing && connection->input_size > 0) {
        list_remove(&connection->kept);
        list_push_back(&http_of(connection)->kept, &connection->kept);
    }
    arm(connection);
}

/* ---- listening -------------------------------------------------------------------------------------------------- */

bool http_is_full(const struct http *http) {
    return http->n_connections >= HTTP_CONNECTIONS_MAX / list_entry(http, const struct dispatch, http)->loops->n;
}

int http_adopt(struct http *http, int fd, enum http_trust trust) {
    struct dispatch *dispatch = list_entry(http, struct dispatch, http);
    struct http_connection *connection;
    int r;

    connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        return -ENOMEM;
    caller_init(&connection->caller, dispatch, http_answer);
    connection->caller.begin = http_begin_stream;
    connection->caller.chunk = http_put_chunk;
    connection->watch = (struct watch){.fd = fd, .ready = on_ready};
    connection->trust = trust;
    list_init(&connection->unsent);
    list_init(&connection->kept);
    timer_init(&connection->timer, on_timer);
    h1_begin(&connection->head);
    r = loop_add(&dispatch->loop, &connection->watch, EPOLLIN);
    if (r < 0) {
        free(connection);
        return r;
    }
    list_push_back(&http->connections, &connection->node);
    http->n_connections++;
    count_one(&dispatch->spread.open);
    count_one(&dispatch->counters.node->connections);
    arm(connection);
    return 0;
}

static void take(struct dispatch *dispatch, int fd, uint64_t trust) {
    static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
                               "x-amzn-ErrorType: ServiceException\r\nConnection: close\r\n\r\n";

    if (!http_is_full(&dispatch->http) && http_adopt(&dispatch->http, fd, (enum http_trust)trust) == 0)
        return;
    (void)send(fd, full, sizeof(full) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    count_one(&dispatch->counters.node->connections_refused);
    close(fd);
}

static void accept_from(struct http *http, struct watch *watch) {
    struct dispatch *dispatch = list_entry(http, struct dispatch, http);

    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        _cleanup_close_ int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        enum http_trust trust;
        if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
            /* No descriptor left, most likely. It stays readable: looked at again in a while. */
            (void)loop_change(&dispatch->loop, watch, 0);
            timer_set(&dispatch->loop.timers, &http->pause, dispatch->loop.now_us + ACCEPT_PAUSE_US);
        }
        if (fd < 0)
            return;
        if (watch == &http->tcp)
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        trust = watch == &http->tcp ? HTTP_KEYED : http_may_call(http, fd) ? HTTP_TRUSTED : HTTP_REFUSED;
        spread_hand_out(dispatch, steal_fd(&fd), trust, take);
    }
}

static void on_listener(struct watch *watch, uint32_t events) {
    (void)events;
    accept_from(list_entry(watch, struct http, listener), watch);
}

static void on_tcp(struct watch *watch, uint32_t events) {
    (void)events;
    accept_from(list_entry(watch, struct http, tcp), watch);
}

static void on_pause(struct timer *timer, uint64_t now) {
    struct http *http = list_entry(timer, struct http, pause);
    struct loop *loop = &list_entry(http, struct dispatch, http)->loop;
    (void)now;
    (void)loop_change(loop, &http->listener, EPOLLIN);
    if (http->tcp.fd >= 0)
        (void)loop_change(loop, &http->tcp, EPOLLIN);
}

void http_init(struct http *http, int listener, int tcp, gid_t group) {
    *http = (struct http){
        .listener = {.fd = listener, .ready = on_listener}, .tcp = {.fd = tcp, .ready = on_tcp}, .group = group};
    list_init(&http->connections);
    list_init(&http->closed);
    list_init(&http->kept);
    timer_init(&http->pause, on_pause);
}

int http_listen(struct http *http) {
    int r;
    if (http->listening || http->listener.fd < 0)
        return 0;
    r = loop_add(&list_entry(http, struct dispatch, http)->loop, &http->listener, EPOLLIN);
    if (r >= 0 && http->tcp.fd >= 0)
        r = loop_add(&list_entry(http, struct dispatch, http)->loop, &http->tcp, EPOLLIN);
    http->listening = r >= 0;
    return r;
}

void http_deafen(struct http *http) {
    struct loop *loop = &list_entry(http, struct dispatch, http)->loop;
    if (http->listening)
        loop_remove(loop, &http->listener);
    if (http->listening && http->tcp.fd >= 0)
        loop_remove(loop, &http->tcp);
    timer_clear(&http->pause);
    http->listening = false;
}

void http_done(struct http *http) {
    struct dispatch *dispatch = list_entry(http, struct dispatch, http);
    list_for_each_safe(node, &http->connections) {
        struct http_connection *connection = list_entry(node, struct http_connection, node);
        if (connection->h2 != NULL)
            h2_goodbye(connection->h2);
        http_close(connection);
    }
    http_collect(http);
    http_deafen(http);
    timer_drop(&dispatch->loop.timers, &http->pause);
    cleanup_close(&http->listener.fd);
    cleanup_close(&http->tcp.fd);
    free(http->input);
    free(http->output);
    http->input = http->output = NULL;
}
