/* The invoke transport; rules in the header. */
#include "dispatch/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/exchange.h"

/* Packets read of one connection before others have their turn. */
#define BATCH 32
#define ACCEPT_BATCH 32

/* An answer that the socket did not take whole. */
struct outgoing {
    struct list node;
    uint64_t call;
    uint32_t head_size; /* of the ANSWER packet; 0: it is sent */
    uint32_t sent, total;
    uint8_t *body; /* total bytes, own memory */
    uint32_t charged;
    uint8_t head[];
};

/* ---- connections ----------------------------------------------------------------------------------------------- */

static void outgoing_free(struct connection *connection, struct outgoing *outgoing) {
    connection->unsent_bytes -= outgoing->charged;
    budget_give_back(&connection->dispatch->budget, outgoing->charged);
    list_remove(&outgoing->node);
    free(outgoing->body);
    free(outgoing);
}

static void connection_close(struct connection *connection) {
    struct dispatch *dispatch = connection->dispatch;
    struct list *node;

    if (connection->closed)
        return;
    connection->closed = true;
    list_remove(&connection->broken);
    loop_remove(&dispatch->loop, &connection->watch);
    cleanup_close(&connection->watch.fd);
    timer_drop(&dispatch->loop.timers, &connection->stall);
    while ((node = list_pop_front(&connection->exchanges)) != NULL) {
        struct exchange *exchange = list_entry(node, struct exchange, node);
        exchange->connection = NULL;
        exchange_abandon(exchange);
    }
    while (!list_empty(&connection->unsent))
        outgoing_free(connection, list_entry(connection->unsent.next, struct outgoing, node));
    table_done(&connection->calls);
    list_remove(&connection->node);
    list_push_back(&dispatch->transport.closed, &connection->node);
    dispatch->transport.n_connections--;
    count_less(&dispatch->counters.node->connections, 1);
}

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
        connection_drop(list_entry(node, struct connection, broken));
    while ((node = list_pop_front(&transport->closed)) != NULL)
        free(list_entry(node, struct connection, node));
}

static void on_stall(struct timer *timer, uint64_t now) {
    (void)now;
    connection_drop(list_entry(timer, struct connection, stall));
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static struct wire_slice text(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, text != NULL ? (uint32_t)strlen(text) : 0};
}

static int encode_answer(struct dispatch *dispatch, uint64_t call, const struct answer *answer) {
    struct wire_header header = {.object = call};
    struct wire_answer message = {
        .status = answer->status,
        .outcome = answer->outcome,
        .code = text(answer->code),
        .reason = text(answer->reason),
        .message = text(answer->message),
        .executed_version = text(answer->version),
        .duration_us = answer->duration_us,
        .init_us = answer->init_us,
        .log_tail = answer->log_tail,
        .total = answer->body.size,
        .body = {answer->body.data, MIN(answer->body.size, WIRE_ANSWER_BODY_MAX)},
    };
    message.message.size = MIN(message.message.size, WIRE_ANSWER_MESSAGE_MAX);
    if (answer->id != NULL)
        memcpy(message.request_id, answer->id, 16);
    return wire_answer_encode(&header, &message, dispatch->packet_out, WIRE_MESSAGE_MAX);
}

/* Chunks from *sent on. 0, -EAGAIN, or another error. */
static int send_chunks(
    struct connection *connection, uint64_t call, const uint8_t *body, uint32_t total, uint32_t *sent) {
    struct dispatch *dispatch = connection->dispatch;
    while (*sent < total) {
        struct wire_header header = {.object = call};
        struct wire_answer_chunk chunk = {.data = {body + *sent, MIN(total - *sent, WIRE_ANSWER_CHUNK_DATA_MAX)}};
        int size = wire_answer_chunk_encode(&header, &chunk, dispatch->packet_out, WIRE_MESSAGE_MAX);
        int r = size < 0 ? size : packet_send(connection->watch.fd, dispatch->packet_out, (size_t)size, NULL, 0);
        if (r < 0)
            return r;
        *sent += chunk.data.size;
    }
    return 0;
}

static void want_writing(struct connection *connection, bool writing) {
    if (connection->writing == writing)
        return;
    connection->writing = writing;
    (void)loop_change(&connection->dispatch->loop, &connection->watch, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Keeps what was not sent. head_size 0: the ANSWER is out, sent bytes of the body too. */
static int postpone(
    struct connection *connection, uint64_t call, uint32_t head_size, struct answer *answer, uint32_t sent) {
    struct dispatch *dispatch = connection->dispatch;
    uint32_t body = answer->owned != NULL ? 0 : answer->body.size, more = head_size + body;
    struct outgoing *outgoing;

    if (connection->unsent_bytes + more + answer->charged > TRANSPORT_UNREAD_MAX ||
        !budget_take(&dispatch->budget, more))
        return -ENOBUFS;
    outgoing = malloc(sizeof(*outgoing) + head_size);
    if (outgoing != NULL && answer->owned == NULL && body > 0) {
        answer->owned = malloc(body);
        if (answer->owned != NULL)
            memcpy(answer->owned, answer->body.data, body);
    }
    if (outgoing == NULL || (answer->owned == NULL && body > 0)) {
        free(outgoing);
        budget_give_back(&dispatch->budget, more);
        return -ENOMEM;
    }
    *outgoing = (struct outgoing){
        .call = call,
        .head_size = head_size,
        .sent = sent,
        .total = answer->body.size,
        .body = steal_pointer(answer->owned),
        .charged = answer->charged + more,
    };
    answer->charged = 0;
    memcpy(outgoing->head, dispatch->packet_out, head_size);
    connection->unsent_bytes += outgoing->charged;
    list_push_back(&connection->unsent, &outgoing->node);
    want_writing(connection, true);
    if (connection->stall.deadline_us == 0)
        timer_set(&dispatch->loop.timers, &connection->stall, dispatch->loop.now_us + TRANSPORT_STALL_US);
    return 0;
}

void transport_answer(struct exchange *exchange, struct answer *answer) {
    struct connection *connection = exchange->connection;
    struct dispatch *dispatch = exchange->dispatch;
    uint32_t sent = 0;
    int size, r;

    list_remove(&exchange->node);
    if (connection != NULL && !connection->closed) {
        table_remove(&connection->calls, exchange->call);
        size = encode_answer(dispatch, exchange->call, answer);
        r = size < 0 ? size
            : !list_empty(&connection->unsent)
            ? -EAGAIN
            : packet_send(connection->watch.fd, dispatch->packet_out, (size_t)size, NULL, 0);
        if (r == -EAGAIN) {
            r = postpone(
                connection, exchange->call, (uint32_t)size, answer, MIN(answer->body.size, WIRE_ANSWER_BODY_MAX));
        } else if (r >= 0) {
            sent = MIN(answer->body.size, WIRE_ANSWER_BODY_MAX);
            r = send_chunks(connection, exchange->call, answer->body.data, answer->body.size, &sent);
            if (r == -EAGAIN)
                r = postpone(connection, exchange->call, 0, answer, sent);
        }
        /* We may be inside a walk over its exchanges: closed after the batch. */
        if (r < 0)
            connection_break(connection);
    }
    free(answer->owned);
    budget_give_back(&dispatch->budget, answer->charged);
}

static void write_more(struct connection *connection) {
    struct dispatch *dispatch = connection->dispatch;
    bool progress = false;
    int r = 0;

    while (!list_empty(&connection->unsent)) {
        struct outgoing *outgoing = list_entry(connection->unsent.next, struct outgoing, node);
        uint32_t before = outgoing->sent;
        if (outgoing->head_size > 0) {
            r = packet_send(connection->watch.fd, outgoing->head, outgoing->head_size, NULL, 0);
            if (r < 0)
                break;
            outgoing->head_size = 0;
            progress = true;
        }
        r = send_chunks(connection, outgoing->call, outgoing->body, outgoing->total, &outgoing->sent);
        progress = progress || outgoing->sent > before;
        if (r < 0)
            break;
        outgoing_free(connection, outgoing);
    }
    if (r < 0 && r != -EAGAIN) {
        connection_drop(connection);
        return;
    }
    if (list_empty(&connection->unsent)) {
        want_writing(connection, false);
        timer_clear(&connection->stall);
    } else if (progress) {
        timer_set(&dispatch->loop.timers, &connection->stall, dispatch->loop.now_us + TRANSPORT_STALL_US);
    }
}

/* ---- what comes in --------------------------------------------------------------------------------------------- */

static int on_call(struct connection *connection, const uint8_t *data, size_t size) {
    struct wire_header header;
    struct wire_call call;

    if (wire_call_decode(data, size, &header, &call) < 0 || table_get(&connection->calls, header.object) != NULL ||
        call.body.size > call.total)
        return -EBADMSG;
    exchange_begin(connection, &header, &call);
    return call.body.size < call.total;
}

/* 0, 1 when more of the same call is to come, -EBADMSG. */
static int on_packet(struct connection *connection, const uint8_t *data, size_t size) {
    struct wire_header header;
    struct wire_call_chunk chunk;
    struct wire_cancel cancel;
    struct exchange *exchange;

    if (wire_peek(data, size, &header) < 0)
        return -EBADMSG;
    switch (header.type) {
    case WIRE_CALL:
        return on_call(connection, data, size);
    case WIRE_CALL_CHUNK:
        if (wire_call_chunk_decode(data, size, &header, &chunk) < 0)
            return -EBADMSG;
        exchange = table_get(&connection->calls, header.object);
        return exchange != NULL ? exchange_append(exchange, chunk.data) : 1;
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
    ssize_t n;
    int more;

    for (unsigned i = 0; i < BATCH; i++) {
        /* Without room for control data: descriptors are not taken. */
        n = recv(connection->watch.fd, dispatch->packet_in, WIRE_MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            connection_close(connection);
            return;
        }
        more = (size_t)n > WIRE_MESSAGE_MAX ? -EBADMSG : on_packet(connection, dispatch->packet_in, (size_t)n);
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
    if (events & EPOLLOUT)
        write_more(connection);
    if (!connection->closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        read_packets(connection);
}

/* ---- listening ------------------------------------------------------------------------------------------------- */

static bool allowed(const struct transport *transport, uint32_t uid) {
    if (uid == 0)
        return true;
    for (unsigned i = 0; i < transport->n_allow; i++)
        if (transport->allow[i] == uid)
            return true;
    return false;
}

int transport_adopt(struct transport *transport, int fd, uint32_t uid) {
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    struct connection *connection;
    int r;

    if (transport->n_connections >= TRANSPORT_CONNECTIONS_MAX)
        return -EMFILE;
    connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        return -ENOMEM;
    connection->watch = (struct watch){.fd = fd, .ready = on_ready};
    connection->dispatch = dispatch;
    connection->uid = uid;
    list_init(&connection->exchanges);
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
    count_one(&dispatch->counters.node->connections);
    return 0;
}

static void on_listener(struct watch *watch, uint32_t events) {
    struct transport *transport = list_entry(watch, struct transport, listener);
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    (void)events;

    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        struct ucred peer = {.uid = UINT32_MAX};
        socklen_t size = sizeof(peer);
        _cleanup_close_ int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || !allowed(transport, peer.uid) ||
            transport_adopt(transport, fd, peer.uid) < 0) {
            count_one(&dispatch->counters.node->connections_refused);
            continue;
        }
        steal_fd(&fd);
    }
}

void transport_init(struct transport *transport, int listener, const char *allow_uids) {
    *transport = (struct transport){.listener = {.fd = listener, .ready = on_listener}};
    list_init(&transport->connections);
    list_init(&transport->closed);
    list_init(&transport->broken);
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

void transport_done(struct transport *transport) {
    struct dispatch *dispatch = list_entry(transport, struct dispatch, transport);
    list_for_each_safe(node, &transport->connections) {
        connection_close(list_entry(node, struct connection, node));
    }
    transport_collect(transport);
    if (transport->listening)
        loop_remove(&dispatch->loop, &transport->listener);
    transport->listening = false;
    cleanup_close(&transport->listener.fd);
}
