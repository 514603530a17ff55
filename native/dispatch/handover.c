/* The dispatcher that is replaced; see the header. */
#include "dispatch/handover.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/events.h"
#include "dispatch/exchange.h"
#include "dispatch/h2.h"
#include "dispatch/levels.h"
#include "dispatch/perform.h"
#include "dispatch/runtime_connection.h"

static void on_timer(struct timer *timer, uint64_t now) {
    (void)timer;
    (void)now;
}

void handover_init(struct handover *handover) {
    *handover = (struct handover){0};
    timer_init(&handover->timer, on_timer);
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static int give_connection(struct dispatch *dispatch, int fd, const uint8_t *input, uint32_t size, bool owed) {
    struct wire_header header = {0};
    struct wire_connection_handed message = {.input = {input, size}, .owed = owed};
    uint8_t state[WIRE_HEADER_SIZE + WIRE_CONNECTION_HANDED_INPUT_MAX + 8];
    int n = wire_connection_handed_encode(&header, &message, state, sizeof(state));
    return n < 0 ? n : launcher_hand(&dispatch->launcher, WIRE_HANDED_KIND_CONNECTION, 0, state, (uint32_t)n, &fd, 1);
}

/* Between two requests, and nothing of it lies anywhere but in its input. */
static bool is_between(const struct http_connection *connection) {
    return connection->h2 == NULL && connection->state == HTTP_HEAD && connection->exchange == NULL &&
        !http_sending(connection) && !connection->advancing && !connection->close &&
        connection->input_size <= WIRE_CONNECTION_HANDED_INPUT_MAX &&
        (connection->input_size == 0 || connection->sniffed);
}

static int give_http(struct dispatch *dispatch) {
    list_for_each_safe(node, &dispatch->http.connections) {
        struct http_connection *connection = list_entry(node, struct http_connection, node);
        if (!is_between(connection))
            continue;
        int r = give_connection(dispatch, connection->watch.fd, connection->input, connection->input_size, false);
        if (r == -EAGAIN)
            return r;
        http_close(connection);
    }
    return 0;
}

/* Some call's body is on its way: the rest of it must be read here. */
static bool is_receiving(const struct connection *connection) {
    const struct exchange *exchange;
    size_t at = 0;
    while ((exchange = table_next(&connection->calls, &at)) != NULL)
        if (!exchange_complete(exchange))
            return true;
    return false;
}

static int give_transport(struct dispatch *dispatch) {
    list_for_each_safe(node, &dispatch->transport.connections) {
        struct connection *connection = list_entry(node, struct connection, node);
        if (!connection->given && !dispatch->handover.keeping && !is_receiving(connection)) {
            int r = give_connection(dispatch, connection->watch.fd, NULL, 0,
                connection->calls.size > 0 || !list_empty(&connection->unsent));
            if (r == -EAGAIN)
                return r;
            connection_give(connection);
        }
        if ((connection->given || dispatch->handover.keeping) && connection->calls.size == 0 &&
            list_empty(&connection->unsent))
            connection_break(connection);
    }
    return 0;
}

/* ---- environments ----------------------------------------------------------------------------------------------- */

static void put(struct wire_environment_handed *message, int *fds, unsigned *n, uint8_t flag, int fd) {
    if (fd < 0)
        return;
    message->descriptors |= flag;
    fds[(*n)++] = fd;
}

/* Its memory was sealed for us alone: it gives that back, and gets another where it needs one. False: it is in the middle of
 * getting one. */
static bool let_go_of_arena(struct environment *environment) {
    arena_release(environment);
    return environment->arena.state != ARENA_SENT && environment->arena.state != ARENA_SHARED;
}

static bool can_be_given(struct environment *environment) {
    return (environment->runtime == NULL || runtime_is_simple(environment->runtime)) && let_go_of_arena(environment);
}

static int give_environment(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    const struct runtime *runtime = environment->runtime;
    const struct runtime_connection *waiting = runtime != NULL ? runtime->waiting : NULL;
    uint8_t state[WIRE_HEADER_SIZE + 128];
    struct wire_header header = {.object = environment->id};
    struct wire_environment_handed message = {
        .target = environment->target->id,
        .incarnation = environment->incarnation,
        .init_type = environment->init_type,
        .frozen = environment->freezer == FREEZER_FROZEN,
        .runtime_api = runtime != NULL,
        .close = waiting != NULL && waiting->close,
        .served = environment->served,
        .init_us = environment->init_us,
        .idle_us = dispatch->loop.now_us > environment->idle_us ? dispatch->loop.now_us - environment->idle_us : 0,
        .peak_kb = environment->peak_kb,
    };
    int fds[6];
    unsigned n = 0;

    logs_drain(environment);
    put(&message, fds, &n, WIRE_ENVIRONMENT_HANDED_CHANNEL, environment->channel.fd);
    put(&message, fds, &n, WIRE_ENVIRONMENT_HANDED_LOG, environment->log.watch.fd);
    put(&message, fds, &n, WIRE_ENVIRONMENT_HANDED_FREEZE, environment->freeze_fd);
    put(&message, fds, &n, WIRE_ENVIRONMENT_HANDED_PEAK, environment->peak_fd);
    put(&message, fds, &n, WIRE_ENVIRONMENT_HANDED_LISTENER, environment->listener_fd);
    put(&message, fds, &n, WIRE_ENVIRONMENT_HANDED_WAITING, waiting != NULL ? waiting->watch.fd : -1);
    int size = wire_environment_handed_encode(&header, &message, state, sizeof(state));
    if (size < 0)
        return size;
    return launcher_hand(
        &dispatch->launcher, WIRE_HANDED_KIND_ENVIRONMENT, environment->id, state, (uint32_t)size, fds, n);
}

/* Nobody waits for it here. A call whose body is still coming may find none left: another is launched for it,
 * which the launcher grants to each of the two. */
static bool is_spare(const struct environment *environment) {
    return environment->target->n_waiting == 0 && environment->reserved_for == NULL;
}

static int give_environments(struct dispatch *dispatch) {
    list_for_each_safe(node, &dispatch->room.idle) {
        struct environment *environment = list_entry(node, struct environment, by_use);
        if (!is_spare(environment))
            continue;
        int r = can_be_given(environment) ? give_environment(environment) : -EBUSY;
        if (r == -EAGAIN)
            return r;
        environment->given = r >= 0;
        environment_handle(environment, r >= 0 ? EVENT_GIVEN : EVENT_RETIRE, NULL);
        return -EINTR; /* the list has changed: again from its head */
    }
    return 0;
}

/* ---- the steps -------------------------------------------------------------------------------------------------- */

static void begin(struct dispatch *dispatch, uint32_t version) {
    struct handover *handover = &dispatch->handover;

    handover->keeping = version < HANDOVER_VERSION;
    dispatch->http.leaving = dispatch->http.leaving || handover->keeping;
    if (handover->keeping)
        http_read_on(&dispatch->http);
    if (handover->giving)
        return;
    handover->giving = true;
    handover->began_us = clock_monotonic_us();
    if (dispatch->number == 0)
        events_give(dispatch, false);
    transport_deafen(&dispatch->transport);
    http_deafen(&dispatch->http);
    http_drain(&dispatch->http);
    timer_set(&dispatch->loop.timers, &handover->timer, handover->began_us + HANDOVER_SETTLE_US);
}

void handover_begin(struct loops *loops, uint32_t version) {
    loops_stop(loops);
    for (unsigned i = 0; i < loops->n; i++)
        begin(loops->each[i], version);
    loops_go(loops);
}

static bool is_settled(const struct dispatch *dispatch) {
    return dispatch->loop.now_us >= dispatch->handover.began_us + HANDOVER_SETTLE_US || http_settled(&dispatch->http);
}

/* This loop is through with its own; the first says so when all are. */
static void tell_all(struct dispatch *dispatch) {
    struct handover *handover = &dispatch->handover;
    struct loops *loops = dispatch->loops;

    if (!atomic_exchange(&handover->gave_all, true) && dispatch->number != 0)
        levels_wake(loops->each[0]);
    if (dispatch->number != 0 || handover->told_all)
        return;
    for (unsigned i = 1; i < loops->n; i++)
        if (!atomic_load(&loops->each[i]->handover.gave_all))
            return;
    int r = launcher_hand(&dispatch->launcher, WIRE_HANDED_KIND_ALL, 0, NULL, 0, NULL, 0);
    handover->told_all = r != -EAGAIN;
}

static bool is_quiet(const struct loops *loops) {
    for (unsigned i = 0; i < loops->n; i++)
        if (!atomic_load(&loops->each[i]->handover.events_quiet))
            return false;
    return true;
}

/* Nobody is about to bring an event to this loop: what calls there are have ended, and the connections whose next requests
 * could bring some are the other dispatcher's. The first says so when that holds for all. */
static void give_events(struct dispatch *dispatch) {
    struct handover *handover = &dispatch->handover;
    bool quiet = is_settled(dispatch) && !http_brings_more(&dispatch->http, handover->keeping) &&
        atomic_load_explicit(&dispatch->counters.node->calls_open, memory_order_relaxed) == 0;

    if (atomic_exchange(&handover->events_quiet, quiet) != quiet && quiet && dispatch->number != 0)
        levels_wake(dispatch->loops->each[0]);
    if (dispatch->number == 0 && !handover->gave_events && is_quiet(dispatch->loops)) {
        handover->gave_events = true;
        events_give(dispatch, true);
    }
}

void handover_step(struct dispatch *dispatch) {
    struct handover *handover = &dispatch->handover;
    int r;

    if (!handover->giving || dispatch->launcher.writing)
        return;
    if (give_transport(dispatch) < 0 || (!handover->keeping && give_http(dispatch) < 0))
        return;
    give_events(dispatch);
    if (handover->keeping || !is_settled(dispatch))
        return;
    do
        r = give_environments(dispatch);
    while (r == -EINTR);
    if (r >= 0)
        tell_all(dispatch);
}

bool handover_done(const struct dispatch *dispatch) {
    const struct handover *handover = &dispatch->handover;

    if (!handover->giving || dispatch->in_use > 0 || dispatch->http.n_connections > 0 ||
        dispatch->transport.n_connections > 0)
        return false;
    if (handover->keeping)
        return true;
    for (const struct list *node = dispatch->in_order.next; node != &dispatch->in_order; node = node->next)
        if (list_entry(node, struct environment, in_order)->state != ENVIRONMENT_STOPPING)
            return false;
    return dispatch->number == 0 ? handover->told_all : atomic_load(&handover->gave_all);
}
