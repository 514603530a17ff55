/* Forwarding; see the header. */
#include "dispatch/forward.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/levels.h"
#include "dispatch/request.h"

#define UNAVAILABLE "ServiceUnavailableException"

/* A signed request whose body is coming. */
struct forward {
    int spool;
    uint32_t head;
    uint64_t size, most; /* of the spool */
};

/* ---- refusing ---------------------------------------------------------------------------------------------------- */

static void refuse(struct http_connection *connection, const char *message) {
    count_one(&connection->caller.dispatch->counters.node->forwards_refused);
    http_refuse_request(connection, 503, UNAVAILABLE, message);
}

/* The link and the credit are the first loop's. It changes the link only while the others stand still. */
static struct dispatch *first_of(const struct dispatch *dispatch) {
    return dispatch->loops->each[0];
}

/* Is there somebody who takes it? Answers when not. */
static bool check_room(struct http_connection *connection) {
    const struct dispatch *dispatch = connection->caller.dispatch;

    if (dispatch->draining)
        refuse(connection, "The node is shutting down.");
    else if (first_of(dispatch)->control.watch.fd < 0 || !first_of(dispatch)->control.greeted)
        refuse(connection,
            "The control plane is being restarted; try again. Invocations are served in the meantime: "
            "POST /2015-03-31/functions/NAME/invocations.");
    else if (atomic_load_explicit(&first_of(dispatch)->forwards.credit, memory_order_relaxed) == 0)
        refuse(connection, "The control plane has as many requests as it takes at a time; try again.");
    else
        return true;
    return false;
}

static void refuse_memory(struct http_connection *connection) {
    count_one(&connection->caller.dispatch->counters.node->refused_memory);
    refuse(connection, "The node's memory for payloads is in use; try again.");
}

static void refuse_length(struct http_connection *connection) {
    http_refuse_request(connection, 413, "RequestTooLargeException",
        connection->head.chunked ? "A signed body without a Content-Length may have 6 MB. Say how long it is."
                                 : "The body is longer than any request of this API may be: 72 MB, with a zip of 50 MB "
                                   "in base64. Packages up "
                                   "to 250 MB are taken by `runtimectl deploy`.");
}

/* ---- the spool --------------------------------------------------------------------------------------------------- */

/* It may be mapped by who receives it: nobody shall cut it short, or change it, under a reader. */
static int seal(int spool) {
    return fcntl(spool, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0 ? -errno : 0;
}

static int open_spool(const uint8_t *data, size_t size) {
    _cleanup_close_ int spool = memfd_create("runtimed-request", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r;

    if (spool < 0)
        return -errno;
    r = write_all(spool, data, size);
    return r < 0 ? r : steal_fd(&spool);
}

/* ---- passing on -------------------------------------------------------------------------------------------------- */

static struct forward_slot *find_slot(struct forwards *forwards, uint64_t id) {
    for (unsigned i = 0; i < FORWARD_SLOTS; i++)
        if (forwards->slots[i].id == id)
            return &forwards->slots[i];
    return NULL;
}

static int send_forward(struct http_connection *connection, const struct wire_forward *message, int spool) {
    struct dispatch *dispatch = connection->caller.dispatch;
    const struct control *control = &first_of(dispatch)->control;
    struct forwards *forwards = &first_of(dispatch)->forwards;
    struct forward_slot *slot = find_slot(forwards, 0);
    struct wire_header header = {.epoch = control->epoch, .object = forwards->last + 1};
    const int fds[] = {connection->watch.fd, spool};
    int r = seal(spool);

    if (forwards->credit == 0)
        return -EAGAIN; /* another loop had the last */
    if (slot == NULL || !budget_take(&dispatch->budget, message->size))
        return -ENOBUFS;
    if (r >= 0)
        r = wire_forward_encode(&header, message, dispatch->packet_out, WIRE_MESSAGE_MAX);
    if (r >= 0)
        r = packet_send(control->watch.fd, dispatch->packet_out, (size_t)r, fds, ARRAY_SIZE(fds));
    if (r < 0) {
        budget_give_back(&dispatch->budget, message->size);
        return r;
    }
    forwards->last++;
    forwards->credit--;
    *slot = (struct forward_slot){.id = forwards->last, .charged = message->size, .budget = &dispatch->budget};
    return 0;
}

/* Afterwards the connection is gone, or was answered. */
static void pass_on(struct http_connection *connection, struct wire_forward *message, int spool) {
    struct dispatch *dispatch = connection->caller.dispatch;
    const struct principal *principal = table_get(&dispatch->principals.by_id, connection->principal);
    int r;

    if (connection->principal != 0 && principal == NULL) {
        count_one(&dispatch->counters.node->http_denied);
        http_refuse_request(
            connection, 403, "UnrecognizedClientException", "The key was revoked while the request was on its way.");
        return;
    }
    if (principal != NULL)
        message->key_id = (struct wire_slice){(const uint8_t *)principal->key_id, (uint32_t)strlen(principal->key_id)};
    loops_lock(dispatch->loops);
    r = send_forward(connection, message, spool);
    loops_unlock(dispatch->loops);
    if (r == -ENOBUFS) {
        refuse_memory(connection);
    } else if (r < 0) {
        refuse(connection, "The control plane does not take the request now; try again.");
    } else {
        count_one(&dispatch->counters.node->forwarded);
        connection->state = HTTP_WAIT;
        http_close(connection); /* our descriptor of it */
    }
}

static void keep_body(struct http_connection *connection, const uint8_t *data, uint64_t body) {
    struct forward *forward = malloc(sizeof(*forward));
    int spool = forward != NULL ? open_spool(data, connection->head.size) : -ENOMEM;

    if (spool < 0) {
        free(forward);
        refuse_memory(connection);
        return;
    }
    *forward = (struct forward){.spool = spool,
        .head = connection->head.size,
        .size = connection->head.size,
        .most = connection->head.size + body};
    connection->forward = forward;
    if (connection->body_left == 0 && !connection->head.chunked && http_trust_body(connection))
        forward_finish(connection);
}

void forward_begin(struct http_connection *connection, const uint8_t *data, size_t size) {
    const struct h1_head *head = &connection->head;
    const uint64_t body = head->chunked ? REQUEST_BODY_MAX : head->length;
    _cleanup_close_ int spool = -1;

    if (body > FORWARD_BODY_MAX) {
        refuse_length(connection);
        return;
    }
    if (!http_trust_head(connection, data, body) || !check_room(connection))
        return;
    if (connection->sigv4 != NULL) {
        keep_body(connection, data, body);
        return;
    }
    spool = open_spool(data, size);
    if (spool < 0) {
        refuse_memory(connection);
        return;
    }
    pass_on(connection, &(struct wire_forward){.head = head->size, .size = size}, spool);
}

void forward_append(struct http_connection *connection, struct wire_slice part) {
    struct forward *forward = connection->forward;

    if (part.size > forward->most - forward->size) {
        refuse_length(connection);
        return;
    }
    if (write_all(forward->spool, part.data, part.size) < 0) {
        refuse_memory(connection);
        return;
    }
    forward->size += part.size;
}

void forward_finish(struct http_connection *connection) {
    struct forward *forward = connection->forward;
    struct wire_forward message = {.flags = WIRE_FORWARD_WHOLE, .head = forward->head, .size = forward->size};
    _cleanup_close_ int spool = steal_fd(&forward->spool);

    forward_drop(connection);
    if (check_room(connection))
        pass_on(connection, &message, spool);
}

void forward_drop(struct http_connection *connection) {
    struct forward *forward = steal_pointer(connection->forward);
    if (forward == NULL)
        return;
    cleanup_close(&forward->spool);
    free(forward);
}

/* ---- the control plane -------------------------------------------------------------------------------------------- */

void forwards_credit(struct dispatch *dispatch, uint64_t done, uint32_t n) {
    struct forwards *forwards = &dispatch->forwards;
    struct forward_slot *slot = done != 0 ? find_slot(forwards, done) : NULL;

    if (slot != NULL) {
        budget_give_back(slot->budget, slot->charged);
        *slot = (struct forward_slot){0};
    }
    forwards->credit += MIN(n, FORWARD_SLOTS - MIN(forwards->credit, FORWARD_SLOTS));
}

void forwards_forget(struct dispatch *dispatch) {
    struct forwards *forwards = &dispatch->forwards;

    for (unsigned i = 0; i < FORWARD_SLOTS; i++)
        if (forwards->slots[i].id != 0)
            budget_give_back(forwards->slots[i].budget, forwards->slots[i].charged);
    memset(forwards->slots, 0, sizeof(forwards->slots));
    forwards->credit = 0;
}
