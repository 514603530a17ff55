/* The invoke transport; rules in the header. */
#include "dispatch/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/exchange.h"
#include "dispatch/packet.h"

/* Packets read of one connection before others have their turn. */
#define BATCH 32
#define ACCEPT_BATCH 32
#define ACCEPT_PAUSE_US 100000u

/* ---- connections ----------------------------------------------------------------------------------------------- */

static void connection_close(struct connection *connection) {
    struct dispatch *dispatch = connection->dispatch;

    if (connection->closed)
        return;
    connection->closed = true;
    list_remove(&connection->broken);
    loop_remove(&dispatch->loop, &connection->watch);
    cleanup_close(&connection->watch.fd);
    timer_drop(&dispatch->loop.timers, &connection->stall);
    caller_done(&connection->caller);
    answers_forget(connection);
    table_done(&connection->calls);
    list_remove(&connection->node);
    list_push_back(&dispatch->transport.closed, &connection->node);
    dispatch->transport.n_connections--;
    count_less(&dispatch->spread.open, 1);
    count_less(&dispatch->counters.node->connections, 1);
}

/* For its own fault. */
static void connection_drop(struct connection *connection) {
    if (connection->closed)
        return;
    count_one(&connection->dispatch->counters.node->connections_dropped);
    connection_close(connection);
}

void connection_break(struct connection *connection) {
    list_remove(&connection->broken);
    list_push_back(&connection->dispatch->transport.broken, &connection->broken);
}

void transport_collect(struct transport *transport) {
    struct list *node;
    while ((node = transport->broken.next) != &transport->broken)
        connection_close(list_entry(node, struct connection, broken));
    while ((node = list_pop_front(&transport->closed)) != NULL)
        free(list_entry(node, struct connection, node));
}

static void on_stall(struct timer *timer, uint64_t now) {
    (void)now;
    connection_drop(list_entry(timer, struct connection, stall));
}

/* ---- what comes in --------------------------------------------------------------------------------------------- */

static int on_call(struct connection *connection, const uint8_t *data, size_t size) {
    struct wire_header header;
    struct wire_call message;
    struct exchange *exchange;
    struct call call;

    if (wire_call_decode(data, size, &header, &message) < 0 || table_get(&connection->calls, header.object) != NULL ||
        message.body.size > message.total)
        return -EBADMSG;
    call = (struct call){.flags = message.flags,
        .name = message.name,
        .qualifier = message.qualifier,
        .trace = message.trace,
        .client_context = message.client_context,
        .tenant = message.tenant,
        .event_id = message.event_id,
        .total = message.total,
        .body = message.body};
    exchange = exchange_new(&connection->caller, header.object);
    if (exchange == NULL)
        return -ENOMEM;
    if (table_put(&connection->calls, header.object, exchange) < 0)
        return -ENOMEM; /* it is abandoned with the connection */
    if (connection->calls.size > TRANSPORT_CALLS_MAX)
        exchange_refuse(exchange, 429, "TooManyRequestsException", "CallerRateLimitExceeded",
            "Too many calls at once on one connection.");
    else if (exchange_start(exchange, &call) > 0 && exchange_complete(exchange))
        exchange_finish(exchange);
    return message.body.size < message.total;
}

static int on_chunk(struct connection *connection, const uint8_t *data, size_t size) {
    struct wire_header header;
    struct wire_call_chunk chunk;
    struct exchange *exchange;
    int r;

    if (wire_call_chunk_decode(data, size, &header, &chunk) < 0)
        return -EBADMSG;
    exchange = table_get(&connection->calls, header.object);
    if (exchange == NULL)
        return 1;
    r = exchange_append(exchange, chunk.data);
    if (r < 0)
        return r;
    if (!exchange_complete(exchange))
        return 1;
    exchange_finish(exchange);
    return 0;
}

/* 0, 1 when more of the same call is to come, or a negative errno: the connection must end. */
static int on_packet(struct connection *connection, const uint8_t *data, size_t size) {
    struct wire_header header;
    struct wire_cancel cancel;
    struct exchange *exchange;

    if (wire_peek(data, size, &header) < 0)
        return -EBADMSG;
    switch (header.type) {
    case WIRE_CALL:
        return on_call(connection, data, size);
    case WIRE_CALL_CHUNK:
        return on_chunk(connection, data, size);
    case WIRE_CANCEL:
        if (wire_cancel_decode(data, size, &header, &cancel) < 0)
            return -EBADMSG;
        exchange = table_get(&connection->calls, header.object);
        if (exchange != NULL)
            exchange_cancel(exchange);
        return 0;
    default:
        return -EBADMSG;
    }
}

static void read_packets(struct connection *connection) {
    struct dispatch *dispatch = connection->dispatch;
    int n, more;

    connection->used_us = dispatch->loop.now_us;
    for (unsigned i = 0; i < BATCH; i++) {
        n = packet_receive_plain(connection->watch.fd, dispatch->packet_in, WIRE_MESSAGE_MAX);
        if (n == -EAGAIN)
            return;
        if (n <= 0 && n != -EMSGSIZE) {
            connection_close(connection);
            return;
        }
        more = n < 0 ? -EBADMSG : on_packet(connection, dispatch->packet_in, (size_t)n);
        if (more < 0) {
            connection_drop(connection);
            return;
        }
        /* A caller with one call at a time has sent no more: save the system call that would say so. */
        if (more == 0 && connection->calls.size <= 1)
            return;
    }
}

static void on_ready(struct watch *watch, uint32_t events) {
    struct connection *connection = list_entry(watch, struct connection, watch);
    if ((events & EPOLLOUT) && answers_send(connection) < 0)
        connection_close(connection);
    if (!connection->closed && connection->given && (events & (EPOLLHUP | EPOLLERR)))
        connection_close(connection);
    else if (!connection->closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        read_packets(connection);
}

void connection_give(struct connection *connection) {
    connection->given = true;
    (void)loop_change(&connection->dispatch->loop, &connection->watch, connection->writing ? EPOLLOUT : 0);
}

/* ---- listening ------------------------------------------------------------------------------------------------- */

bool transport_allows(const struct transport *transport, uint32_t uid) {
    if (uid == 0)
        return true;
    for (unsigned i = 0; i < transport->n_allow; i++)
        if (transport->allow[i] == uid)
            return true;
    return false;
}

static bool is_full(const struct transport *transport) {
    const struct dispatch *dispatch = list_entry(transport, const struct dispatch, transport);
    return transport->n_connections >= TRANSPORT_CONNECTIONS_MAX / dispatch->loops->n;
}

int transport_adopt(struct transport *transport, int fd, uint32_t uid) {
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    struct connection *connection;
    int r;

    connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        return -ENOMEM;
    connection->watch = (struct watch){.fd = fd, .ready = on_ready};
    connection->dispatch = dispatch;
    connection->uid = uid;
    caller_init(&connection->caller, dispatch, transport_answer);
    list_init(&connection->unsent);
    list_init(&connection->broken);
    timer_init(&connection->stall, on_stall);
    r = loop_add(&dispatch->loop, &connection->watch, EPOLLIN);
    if (r < 0) {
        free(connection);
        return r;
    }
    list_push_back(&transport->connections, &connection->node);
    transport->n_connections++;
    count_one(&dispatch->spread.open);
    count_one(&dispatch->counters.node->connections);
    return 0;
}

/* The user that the kernel names, where it may call. */
static int identify(const struct transport *transport, int fd, uint32_t *ret_uid) {
    struct ucred peer = {.uid = UINT32_MAX};
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || !transport_allows(transport, peer.uid))
        return -EACCES;
    *ret_uid = peer.uid;
    return 0;
}

int transport_take(struct transport *transport, int fd) {
    uint32_t uid;
    int r = is_full(transport) ? -EMFILE : identify(transport, fd, &uid);
    return r < 0 ? r : transport_adopt(transport, fd, uid);
}

/* Of a loop that was chosen. */
static void take(struct dispatch *dispatch, int fd, uint64_t uid) {
    if (!is_full(&dispatch->transport) && transport_adopt(&dispatch->transport, fd, (uint32_t)uid) == 0)
        return;
    count_one(&dispatch->counters.node->connections_refused);
    close(fd);
}

/* From another loop, whose place it took there: there is room for it. */
static void arrive(struct dispatch *dispatch, int fd, uint64_t uid) {
    struct connection *connection;

    if (transport_adopt(&dispatch->transport, fd, (uint32_t)uid) < 0) {
        count_one(&dispatch->counters.node->connections_dropped);
        close(fd);
        return;
    }
    connection = list_entry(dispatch->transport.connections.previous, struct connection, node);
    connection->moved_us = connection->used_us = dispatch->loop.now_us;
    count_one(&dispatch->counters.node->connections_moved);
}

bool connection_move(struct connection *connection, unsigned to, uint64_t now) {
    struct dispatch *dispatch = connection->dispatch;
    uint32_t uid = connection->uid;
    int fd;

    if (connection->closed || connection->given || connection->owed || connection->calls.size > 0 ||
        !list_empty(&connection->unsent) || !list_empty(&connection->broken) ||
        (connection->moved_us != 0 && now - connection->moved_us < BALANCE_BETWEEN_US))
        return false;
    loop_remove(&dispatch->loop, &connection->watch);
    fd = steal_fd(&connection->watch.fd);
    connection_close(connection);
    spread_send(dispatch, to, fd, uid, arrive);
    return true;
}

static void on_listener(struct watch *watch, uint32_t events) {
    struct transport *transport = list_entry(watch, struct transport, listener);
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    uint32_t uid;
    (void)events;

    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        _cleanup_close_ int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
            /* No descriptor left, most likely. It stays readable: looked at again in a while. */
            (void)loop_change(&dispatch->loop, watch, 0);
            timer_set(&dispatch->loop.timers, &transport->pause, dispatch->loop.now_us + ACCEPT_PAUSE_US);
        }
        if (fd < 0)
            return;
        if (identify(transport, fd, &uid) < 0)
            count_one(&dispatch->counters.node->connections_refused);
        else
            spread_hand_out(dispatch, steal_fd(&fd), uid, take);
    }
}

static void on_pause(struct timer *timer, uint64_t now) {
    struct transport *transport = list_entry(timer, struct transport, pause);
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    (void)now;
    (void)loop_change(&dispatch->loop, &transport->listener, EPOLLIN);
}

void transport_init(struct transport *transport, int listener, const char *allow_uids) {
    *transport = (struct transport){.listener = {.fd = listener, .ready = on_listener}};
    list_init(&transport->connections);
    list_init(&transport->closed);
    list_init(&transport->broken);
    timer_init(&transport->pause, on_pause);
    while (allow_uids != NULL && *allow_uids != '\0' && transport->n_allow < TRANSPORT_ALLOW_MAX) {
        char *end;
        unsigned long uid = strtoul(allow_uids, &end, 10);
        if (end == allow_uids)
            break;
        transport->allow[transport->n_allow++] = (uint32_t)uid;
        allow_uids = *end == ',' ? end + 1 : end;
    }
}

int transport_listen(struct transport *transport) {
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    int r;
    if (transport->listening || transport->listener.fd < 0)
        return 0;
    r = loop_add(&dispatch->loop, &transport->listener, EPOLLIN);
    transport->listening = r >= 0;
    return r;
}

bool transport_flushed(const struct transport *transport) {
    for (const struct list *node = transport->connections.next; node != &transport->connections; node = node->next)
        if (!list_empty(&list_entry(node, struct connection, node)->unsent))
            return false;
    return true;
}

void transport_deafen(struct transport *transport) {
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    if (transport->listening)
        loop_remove(&dispatch->loop, &transport->listener);
    timer_clear(&transport->pause);
    transport->listening = false;
}

void transport_done(struct transport *transport) {
    list_for_each_safe(node, &transport->connections) {
        connection_close(list_entry(node, struct connection, node));
    }
    transport_collect(transport);
    transport_deafen(transport);
    cleanup_close(&transport->listener.fd);
}
