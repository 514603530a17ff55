/* Answers on their way to their connections: sent at once as far as the socket takes them; the rest waits in memory
 * that the budget counts, while the environment is long free. Part of the invoke transport, see transport.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/exchange.h"
#include "dispatch/packet.h"

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

static void outgoing_free(struct connection *connection, struct outgoing *outgoing) {
    connection->unsent_bytes -= outgoing->charged;
    budget_give_back(&connection->dispatch->budget, outgoing->charged);
    list_remove(&outgoing->node);
    free(outgoing->body);
    free(outgoing);
}

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
        int r = packet_send_plain(connection->watch.fd, dispatch->packet_out, size);
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
    (void)loop_change(&connection->dispatch->loop, &connection->watch,
        (writing ? EPOLLOUT : 0u) | (connection->given ? 0u : EPOLLIN));
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
        timer_set(&dispatch->loop.timers, &connection->stall, dispatch->loop.now_us + dispatch->loops->stall_us);
    return 0;
}

void transport_answer(struct exchange *exchange, struct answer *answer) {
    struct connection *connection = list_entry(exchange->caller, struct connection, caller);
    struct dispatch *dispatch = exchange->dispatch;
    uint32_t sent = 0;
    int size, r;

    if (!connection->closed) {
        table_remove(&connection->calls, exchange->number);
        size = encode_answer(dispatch, exchange->number, answer);
        /* Behind what waits already. */
        r = size >= 0 && !list_empty(&connection->unsent)
            ? -EAGAIN
            : packet_send_plain(connection->watch.fd, dispatch->packet_out, size);
        if (r == -EAGAIN) {
            r = postpone(
                connection, exchange->number, (uint32_t)size, answer, MIN(answer->body.size, WIRE_ANSWER_BODY_MAX));
        } else if (r >= 0) {
            sent = MIN(answer->body.size, WIRE_ANSWER_BODY_MAX);
            r = send_chunks(connection, exchange->number, answer->body.data, answer->body.size, &sent);
            if (r == -EAGAIN)
                r = postpone(connection, exchange->number, 0, answer, sent);
        }
        /* We may be inside a walk over its exchanges: closed after the batch. */
        if (r == -ENOBUFS || r == -ENOMEM)
            count_one(&dispatch->counters.node->connections_dropped);
        if (r < 0)
            connection_break(connection);
    }
    free(answer->owned);
    budget_give_back(&dispatch->budget, answer->charged);
}

int answers_send(struct connection *connection) {
    struct dispatch *dispatch = connection->dispatch;
    bool progress = false;
    int r = 0;

    while (!list_empty(&connection->unsent)) {
        struct outgoing *outgoing = list_entry(connection->unsent.next, struct outgoing, node);
        uint32_t before = outgoing->sent;
        if (outgoing->head_size > 0) {
            r = packet_send_plain(connection->watch.fd, outgoing->head, (int)outgoing->head_size);
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
    if (r < 0 && r != -EAGAIN)
        return r;
    if (list_empty(&connection->unsent)) {
        want_writing(connection, false);
        timer_clear(&connection->stall);
    } else if (progress) {
        timer_set(&dispatch->loop.timers, &connection->stall, dispatch->loop.now_us + dispatch->loops->stall_us);
    }
    return 0;
}

void answers_forget(struct connection *connection) {
    while (!list_empty(&connection->unsent))
        outgoing_free(connection, list_entry(connection->unsent.next, struct outgoing, node));
}
