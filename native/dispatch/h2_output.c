/* Bytes in and out of an HTTP/2 connection, and its time; see h2.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/h2.h"

/* ---- sending ---------------------------------------------------------------------------------------------------- */

static ssize_t send_bytes(struct h2 *h2, const uint8_t *data, size_t size) {
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = send(h2->connection->watch.fd, data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            return -errno;
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    if (pace_took(&h2->pace, sent))
        h2->progress_us = h2_dispatch(h2)->loop.now_us;
    return (ssize_t)sent;
}

/* Two pieces that follow each other. */
static int keep(struct h2 *h2, const uint8_t *data, size_t size, const uint8_t *more, size_t more_size) {
    h2->output = malloc(size + more_size);
    if (h2->output == NULL)
        return -ENOMEM;
    memcpy(h2->output, data, size);
    if (more_size > 0)
        memcpy(h2->output + size, more, more_size);
    h2->output_size = (uint32_t)(size + more_size);
    h2->output_sent = 0;
    budget_take_over(&h2_dispatch(h2)->budget, h2->output_size);
    h2->pace.taken = 0;
    h2->progress_us = h2_dispatch(h2)->loop.now_us;
    return 0;
}

static int send_kept(struct h2 *h2) {
    ssize_t n;
    if (h2->output == NULL)
        return 0;
    n = send_bytes(h2, h2->output + h2->output_sent, h2->output_size - h2->output_sent);
    if (n < 0)
        return (int)n;
    h2->output_sent += (uint32_t)n;
    if (h2->output_sent == h2->output_size) {
        budget_give_back(&h2_dispatch(h2)->budget, h2->output_size);
        free(h2->output);
        h2->output = NULL;
    }
    return 0;
}

static int send_all(struct h2 *h2) {
    uint8_t *scratch = http_of(h2->connection)->output;
    size_t size = 0;
    int r = send_kept(h2);

    while (r >= 0 && h2->output == NULL) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(h2->session, &data), sent;
        if (n < 0)
            return -EPROTO;
        if (n > 0 && size + (size_t)n <= H2_OUTPUT_SIZE) {
            memcpy(scratch + size, data, (size_t)n);
            size += (size_t)n;
            continue;
        }
        sent = send_bytes(h2, scratch, size);
        if (sent < 0)
            return (int)sent;
        if ((size_t)sent < size) /* and the frame that found no room behind it */
            return keep(h2, scratch + sent, size - (size_t)sent, data, (size_t)n);
        if (n == 0)
            return 0;
        memcpy(scratch, data, (size_t)n);
        size = (size_t)n;
    }
    return r;
}

void h2_flush(struct h2 *h2) {
    if (h2->broken || h2->sending)
        return;
    h2->sending = true;
    if (send_all(h2) < 0)
        h2->broken = true;
    h2->sending = false;
    if (!h2->broken)
        http_want_writing(h2->connection, h2->output != NULL);
}

/* ---- after reading and sending ------------------------------------------------------------------------------------ */

static bool is_over(const struct h2 *h2) {
    return h2->output == NULL && !nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session);
}

static void release_gone(struct h2 *h2) {
    struct list *node;
    while ((node = list_pop_front(&h2->gone)) != NULL) {
        struct h2_stream *stream = list_entry(node, struct h2_stream, node);
        if (stream->exchange != NULL) {
            stream->is_gone = true;
            exchange_cancel(stream->exchange);
        }
        h2_stream_free(stream);
    }
}

static void arm(struct h2 *h2) {
    struct dispatch *dispatch = h2_dispatch(h2);
    struct timer *timer = &h2->connection->timer;

    if (h2->output != NULL)
        timer_set(&dispatch->loop.timers, timer, h2->progress_us + dispatch->loops->stall_us);
    else if (h2->in_headers || !h2->settled)
        timer_set(&dispatch->loop.timers, timer, h2->began_us + HTTP_HEAD_US);
    else if (h2->n_streams == 0)
        timer_set(&dispatch->loop.timers, timer, h2->used_us + HTTP_IDLE_US);
    else
        timer_clear(timer);
}

/* Sees to what ended. The connection may be closed, and `h2` with it. */
static void settle(struct h2 *h2) {
    struct http_connection *connection = h2->connection;

    do {
        release_gone(h2);
        h2_flush(h2);
    } while (!list_empty(&h2->gone));
    if (h2->broken) {
        http_close(connection);
        return;
    }
    if (is_over(h2)) {
        h2_free(steal_pointer(connection->h2));
        connection->close = true;
        http_answered(connection); /* lingers, so that the GOAWAY is read */
        return;
    }
    http_watch_reading(
        connection, nghttp2_session_get_outbound_queue_size(h2->session) <= H2_QUEUE_MAX || h2->output == NULL);
    arm(h2);
}

void h2_kick(struct h2 *h2) {
    struct http_connection *connection = h2->connection;
    if (h2->reading || h2->sending)
        return;
    h2_flush(h2);
    if (h2->broken || is_over(h2) || !list_empty(&h2->gone)) {
        list_remove(&connection->kept);
        list_push_back(&http_of(connection)->kept, &connection->kept);
    } else {
        arm(h2);
    }
}

void h2_read(struct h2 *h2, const uint8_t *data, size_t size) {
    ssize_t n;
    h2->reading = true;
    n = nghttp2_session_mem_recv(h2->session, data, size);
    h2->reading = false;
    if (n < 0 && !h2->ending) {
        count_one(&h2_dispatch(h2)->counters.node->http_malformed);
        h2_end(h2, n == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
    }
    settle(h2);
}

void h2_write(struct h2 *h2) {
    settle(h2);
}

void h2_collect(struct h2 *h2) {
    settle(h2);
}

void h2_on_timer(struct h2 *h2) {
    struct counters_node *node = h2_dispatch(h2)->counters.node;

    if (h2->output != NULL) {
        count_one(&node->connections_dropped);
        http_close(h2->connection);
        return;
    }
    if (h2->in_headers || !h2->settled)
        count_one(&node->http_slow);
    h2_end(h2, NGHTTP2_NO_ERROR);
    settle(h2);
}
