/* HTTP connections that this dispatcher leaves, those that it takes over from another, and those that change loops; see
 * http.h. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/h2.h"

void http_drain(struct http *http) {
    list_for_each(node, &http->connections) {
        struct http_connection *connection = list_entry(node, struct http_connection, node);
        if (connection->h2 != NULL)
            h2_drain(connection->h2);
    }
}

static bool is_flushed(const struct http_connection *connection) {
    return connection->h2 != NULL ? h2_flushed(connection->h2) : !http_sending(connection);
}

bool http_flushed(const struct http *http) {
    for (const struct list *node = http->connections.next; node != &http->connections; node = node->next)
        if (!is_flushed(list_entry(node, struct http_connection, node)))
            return false;
    return true;
}

bool http_settled(const struct http *http) {
    for (const struct list *node = http->connections.next; node != &http->connections; node = node->next) {
        const struct http_connection *connection = list_entry(node, struct http_connection, node);
        if (connection->h2 != NULL && !connection->h2->left)
            return false;
    }
    return true;
}

void http_read_on(struct http *http) {
    list_for_each(node, &http->connections) {
        struct http_connection *connection = list_entry(node, struct http_connection, node);
        if (connection->h2 != NULL || connection->state != HTTP_HEAD || connection->input_size == 0 ||
            !connection->sniffed || connection->closed)
            continue;
        list_remove(&connection->kept);
        list_push_back(&http->kept, &connection->kept);
    }
}

static bool brings_more(const struct http_connection *connection, bool keeping) {
    if (connection->input_size > WIRE_CONNECTION_HANDED_INPUT_MAX)
        return true;
    return connection->h2 == NULL && connection->state == HTTP_HEAD && !connection->close &&
        (!keeping || connection->input_size > 0);
}

bool http_brings_more(const struct http *http, bool keeping) {
    for (const struct list *node = http->connections.next; node != &http->connections; node = node->next)
        if (brings_more(list_entry(node, struct http_connection, node), keeping))
            return true;
    return false;
}

/* ---- taking over -------------------------------------------------------------------------------------------------- */

/* Root, whoever the transport lets in, and members of the group: by what the kernel says of the peer. */
bool http_may_call(const struct http *http, int fd) {
    const struct transport *transport = &list_entry(http, struct dispatch, http)->transport;
    struct ucred peer = {.uid = UINT32_MAX};
    gid_t groups[HTTP_GROUPS_MAX];
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    if (transport_allows(transport, peer.uid) || (http->group != (gid_t)-1 && peer.gid == http->group))
        return true;
    size = sizeof(groups);
    if (http->group == (gid_t)-1 || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
        return false;
    for (size_t i = 0; i < size / sizeof(groups[0]); i++)
        if (groups[i] == http->group)
            return true;
    return false;
}

static struct http_connection *newest(const struct http *http) {
    return list_entry(http->connections.previous, struct http_connection, node);
}

/* The bytes are read after the batch, like those behind a request that was answered. */
static bool keep_input(struct http_connection *connection, struct wire_slice input) {
    if (input.size == 0)
        return true;
    if (!http_keep_input(connection, input.data, input.size))
        return false;
    connection->sniffed = true;
    list_push_back(&http_of(connection)->kept, &connection->kept);
    return true;
}

int http_take(struct http *http, int fd, bool is_tcp, struct wire_slice input) {
    struct http_connection *connection;
    int r = http_is_full(http) ? -EMFILE
                               : http_adopt(http, fd,
                                     is_tcp                        ? HTTP_KEYED
                                         : http_may_call(http, fd) ? HTTP_TRUSTED
                                                                   : HTTP_REFUSED);

    if (r < 0)
        return r;
    connection = newest(http);
    if (!keep_input(connection, input))
        http_close(connection); /* with its descriptor */
    return 0;
}

/* ---- changing loops ------------------------------------------------------------------------------------------------ */

/* What is known of its peer: enum http_trust, and whether its first bytes were read. */
#define DETAIL_SNIFFED 256u

static bool is_movable(const struct http_connection *connection, uint64_t now) {
    return !connection->closed && connection->h2 == NULL && connection->state == HTTP_HEAD &&
        connection->exchange == NULL && !http_sending(connection) && !connection->close && !connection->paused &&
        connection->input_size == 0 && (connection->moved_us == 0 || now - connection->moved_us >= BALANCE_BETWEEN_US);
}

/* It takes the place of one that was counted here before: there is room for it. */
static void arrive(struct dispatch *dispatch, int fd, uint64_t detail) {
    struct http *http = &dispatch->http;
    struct http_connection *connection;

    if (http_adopt(http, fd, (enum http_trust)(detail % DETAIL_SNIFFED)) < 0) {
        count_one(&dispatch->counters.node->connections_dropped);
        close(fd);
        return;
    }
    connection = newest(http);
    connection->sniffed = detail >= DETAIL_SNIFFED;
    connection->moved_us = connection->used_us = dispatch->loop.now_us;
    count_one(&dispatch->counters.node->connections_moved);
}

bool http_move(struct http_connection *connection, unsigned to, uint64_t now) {
    struct dispatch *dispatch = connection->caller.dispatch;
    uint64_t detail = (uint64_t)connection->trust | (connection->sniffed ? DETAIL_SNIFFED : 0);
    int fd;

    if (!is_movable(connection, now))
        return false;
    loop_remove(&dispatch->loop, &connection->watch);
    fd = steal_fd(&connection->watch.fd);
    http_close(connection);
    spread_send(dispatch, to, fd, detail, arrive);
    return true;
}
