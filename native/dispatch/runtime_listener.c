/* The Runtime API's listener of an environment, and how connections begin; see runtime_connection.h. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/environment.h"
#include "dispatch/runtime_connection.h"

/* Takes the descriptor. NULL: no room for it. */
static struct runtime_connection *connection_new(struct runtime *runtime, int fd) {
    struct dispatch *dispatch = runtime->environment->dispatch;
    struct runtime_connection *connection = calloc(1, sizeof(*connection));
    const int on = 1;

    if (connection == NULL) {
        close(fd);
        return NULL;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    connection->runtime = runtime;
    connection->dispatch = dispatch;
    connection->watch = (struct watch){.fd = fd, .ready = runtime_ready};
    connection->events = EPOLLIN;
    h1_begin(&connection->head);
    if (loop_add(&dispatch->loop, &connection->watch, EPOLLIN) < 0) {
        close(fd);
        free(connection);
        return NULL;
    }
    list_push_back(&runtime->connections, &connection->node);
    runtime->n_connections++;
    return connection;
}

bool runtime_is_simple(const struct runtime *runtime) {
    return runtime->state == RUNTIME_READY && runtime->n_connections == (runtime->waiting != NULL) &&
        (runtime->waiting == NULL || (runtime->waiting->output == NULL && runtime->waiting->input_size == 0));
}

int runtime_resume(struct runtime *runtime, int fd, bool close) {
    struct runtime_connection *connection;

    runtime->state = RUNTIME_READY;
    if (fd < 0)
        return 0;
    connection = connection_new(runtime, fd);
    if (connection == NULL)
        return -ENOMEM;
    connection->reading = RUNTIME_WAIT;
    connection->close = close;
    runtime->waiting = connection;
    runtime_watch(connection);
    return 0;
}

/* 0, -EAGAIN: nobody more, or another error: there is no room for any. */
static int accept_one(struct runtime *runtime) {
    int fd = accept4(runtime->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), r = fd < 0 ? -errno : 0;

    if (r != -EAGAIN)
        ration_spend(runtime->environment, RATION_CONNECTION, 0);
    if (r < 0)
        return r == -ECONNABORTED || r == -EINTR ? 0 : r;
    (void)connection_new(runtime, fd);
    return 0;
}

void runtime_accept(struct watch *watch, uint32_t events) {
    struct runtime *runtime = list_entry(watch, struct runtime, listener);
    int r = 0;
    (void)events;
    while (runtime->n_connections < RUNTIME_CONNECTIONS_MAX && r == 0 && !runtime_rests(runtime))
        r = accept_one(runtime);
    if (runtime->full || (runtime->n_connections < RUNTIME_CONNECTIONS_MAX && r == -EAGAIN))
        return;
    /* Also without descriptors or memory: rather deaf, until a connection ends, than awake all the time. */
    loop_remove(&runtime->environment->dispatch->loop, &runtime->listener);
    runtime->full = true;
}

void runtime_listen_again(struct runtime *runtime) {
    if (!runtime->full || runtime->listener.fd < 0 || runtime->n_connections >= RUNTIME_CONNECTIONS_MAX ||
        runtime_rests(runtime))
        return;
    runtime->full = loop_add(&runtime->environment->dispatch->loop, &runtime->listener, EPOLLIN) < 0;
}

bool runtime_rests(const struct runtime *runtime) {
    return !runtime->gone && ration_rests(runtime->environment);
}

void runtime_rest(struct runtime *runtime) {
    if (runtime->listener.fd < 0)
        return;
    if (!runtime->full)
        loop_remove(&runtime->environment->dispatch->loop, &runtime->listener);
    runtime->full = true;
    list_for_each_safe(node, &runtime->connections) runtime_watch(list_entry(node, struct runtime_connection, node));
}

void runtime_wake(struct runtime *runtime) {
    runtime_listen_again(runtime);
    list_for_each_safe(node, &runtime->connections) runtime_watch(list_entry(node, struct runtime_connection, node));
}

int runtime_open(struct environment *environment) {
    struct runtime *runtime = calloc(1, sizeof(*runtime));
    int r;

    if (runtime == NULL)
        return -ENOMEM;
    runtime->environment = environment;
    runtime->state = RUNTIME_STARTED;
    runtime->listener = (struct watch){.fd = environment->listener_fd, .ready = runtime_accept};
    list_init(&runtime->connections);
    environment->runtime = runtime;
    r = runtime->listener.fd < 0 ? -EBADF : fd_set_nonblocking(runtime->listener.fd, 1);
    if (r >= 0)
        r = loop_add(&environment->dispatch->loop, &runtime->listener, EPOLLIN);
    if (r < 0)
        runtime->listener.fd = -1;
    return r;
}
