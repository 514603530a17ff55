/* The Runtime API's connections of an environment that goes to another loop, which is idle: travel.h. */
#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/environment.h"
#include "dispatch/runtime_connection.h"

void runtime_leave(struct environment *environment) {
    struct runtime *runtime = environment->runtime;
    struct dispatch *dispatch = environment->dispatch;

    if (runtime == NULL || runtime->listener.fd < 0)
        return;
    if (!runtime->full)
        loop_remove(&dispatch->loop, &runtime->listener);
    list_for_each(node, &runtime->connections) {
        struct runtime_connection *connection = list_entry(node, struct runtime_connection, node);
        loop_remove(&dispatch->loop, &connection->watch);
        budget_give_back(&dispatch->budget, (uint64_t)connection->body_room + connection->output_charge);
        connection->dispatch = NULL;
    }
}

void runtime_come(struct environment *environment) {
    struct runtime *runtime = environment->runtime;
    struct dispatch *dispatch = environment->dispatch;

    if (runtime == NULL || runtime->listener.fd < 0)
        return;
    list_for_each(node, &runtime->connections) {
        struct runtime_connection *connection = list_entry(node, struct runtime_connection, node);
        connection->dispatch = dispatch;
        budget_take_over(&dispatch->budget, (uint64_t)connection->body_room + connection->output_charge);
    }
}

int runtime_settle_in(struct environment *environment) {
    struct runtime *runtime = environment->runtime;
    struct dispatch *dispatch = environment->dispatch;
    int r = 0, added;

    if (runtime == NULL || runtime->listener.fd < 0)
        return 0;
    list_for_each(node, &runtime->connections) {
        struct runtime_connection *connection = list_entry(node, struct runtime_connection, node);
        added = connection->events != 0 ? loop_add(&dispatch->loop, &connection->watch, connection->events) : 0;
        r = MIN(r, added);
    }
    added = !runtime->full ? loop_add(&dispatch->loop, &runtime->listener, EPOLLIN) : 0;
    return MIN(r, added);
}
