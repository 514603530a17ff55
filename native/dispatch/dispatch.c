/* A loop's whole: opening, one turn, closing; see the header. */
#include "dispatch/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/channel.h"
#include "dispatch/h2.h"
#include "dispatch/invocation.h"
#include "dispatch/levels.h"
#include "dispatch/log_ring.h"
#include "dispatch/log_writer.h"
#include "dispatch/perform.h"
#include "dispatch/runtime_connection.h"
#include "dispatch/schedule.h"
#include "dispatch/travel.h"

/* A quarter of the memory, within bounds. */
static uint64_t payload_budget(void) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    uint64_t quarter = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size / 4 : BUDGET_MIN;
    return MAX(BUDGET_MIN, MIN(quarter, BUDGET_MAX));
}

/* What a loop has of its own. */
static int open_own(
    struct dispatch *dispatch, const struct dispatch_options *options, struct loops *loops, unsigned number) {
    const bool first = number == 0;

    memset(dispatch, 0, sizeof(*dispatch));
    dispatch->loops = loops;
    dispatch->number = number;
    loops->each[number] = dispatch;
    dispatch->loop.epoll = -1;
    dispatch->counters.fd = -1;
    dispatch->budget.common = &loops->budget;
    dispatch->budget.loop = number;
    room_init(&dispatch->room);
    list_init(&dispatch->in_order);
    list_init(&dispatch->dead);
    list_init(&dispatch->departing);
    list_init(&dispatch->runtime_closed);
    list_init(&dispatch->events_told);
    control_init(&dispatch->control, dispatch);
    handover_init(&dispatch->handover);
    transport_init(&dispatch->transport, first ? options->listener : -1, options->allow_uids);
    http_init(&dispatch->http, first ? options->http : -1, first ? options->http_tcp : -1, options->http_group);
    dispatch->http.unproven_max = loops->budget.limit / HTTP_UNPROVEN_SHARE;
    dispatch->http.h2_max = (unsigned)(loops->budget.limit / H2_SHARE / H2_CHARGE / loops->n);
    random_bytes(&dispatch->randomness, (uint8_t *)&dispatch->routes.seed, sizeof(dispatch->routes.seed));
    dispatch->packet_in = malloc(WIRE_MESSAGE_MAX);
    dispatch->packet_out = malloc(WIRE_MESSAGE_MAX);
    dispatch->http.input = malloc(HTTP_INPUT_MAX);
    dispatch->http.output = malloc(H2_OUTPUT_SIZE);
    if (dispatch->packet_in == NULL || dispatch->packet_out == NULL || dispatch->http.input == NULL ||
        dispatch->http.output == NULL)
        return -ENOMEM;
    int r = loop_open(&dispatch->loop);
    if (r >= 0)
        r = loops_open_mailbox(dispatch);
    return r < 0 ? r : events_port_open(dispatch);
}

/* A loop besides the first. */
static int open_other(const struct dispatch_options *options, struct loops *loops, unsigned number) {
    const struct dispatch *first = loops->each[0];
    struct dispatch *dispatch = malloc(sizeof(*dispatch));
    int r;

    if (dispatch == NULL)
        return -ENOMEM;
    r = open_own(dispatch, options, loops, number);
    if (r < 0)
        return r;
    counters_region(&first->counters, number, &dispatch->counters);
    r = logs_open(&dispatch->logs, &dispatch->counters, &loops->log_bucket);
    if (r < 0)
        return r;
    ring_chain(first->logs.ring, dispatch->logs.ring);
    return launcher_open(&dispatch->launcher, dispatch, options->launcher);
}

int dispatch_open(struct dispatch *dispatch, const struct dispatch_options *options) {
    struct loops *loops;
    int r;

    memset(dispatch, 0, sizeof(*dispatch));
    dispatch->loop.epoll = -1;
    r = loops_new(&loops, MIN(MAX(options->loops, 1u), LOOPS_MAX),
        options->payload_bytes != 0 ? options->payload_bytes : payload_budget(), ACCOUNT_CONCURRENCY_DEFAULT);
    if (r < 0)
        return r;
    loops->balance = (struct balance_rule){.busy = options->busy, .room = SPREAD_ROOM};
    r = open_own(dispatch, options, loops, 0);
    if (r >= 0)
        r = counters_open(&dispatch->counters, loops->n, clock_real_us());
    if (r >= 0)
        r = logs_open(&dispatch->logs, &dispatch->counters, &loops->log_bucket);
    for (unsigned i = 1; i < loops->n && r >= 0; i++)
        r = open_other(options, loops, i);
    if (r >= 0)
        r = log_writer_start(&loops->log_writer, dispatch->logs.ring, &dispatch->counters, options->logs,
            &options->log_limits, options->confine);
    if (r >= 0) {
        struct events_options events = options->events;
        events.confine = options->confine;
        r = events_start(&loops->events, loops, &events);
    }
    if (r >= 0)
        r = loops_start(loops, options->confine);
    if (r >= 0)
        r = options->confine != NULL ? options->confine() : 0;
    if (r >= 0)
        r = launcher_open(&dispatch->launcher, dispatch, options->launcher);
    return r;
}

enum admission dispatch_admit(struct dispatch *dispatch, struct target *target, uint32_t *ret_tokens) {
    enum admission admission;

    if (!schedule_serves(target))
        return ADMISSION_BURST;
    admission = admission_take(&dispatch->loops->account, &target->function->common->concurrency,
        &target->common->pools, dispatch->number, ret_tokens);
    if (admission == ADMISSION_GRANTED)
        count_one(&dispatch->in_use);
    return admission;
}

void dispatch_give_back(struct dispatch *dispatch, struct target *target, uint32_t tokens) {
    if (tokens != 0)
        count_less(&dispatch->in_use, 1);
    admission_give_back(&dispatch->loops->account, &target->function->common->concurrency, &target->common->pools,
        dispatch->number, tokens);
}

uint64_t dispatch_in_use(const struct loops *loops) {
    uint64_t in_use = 0;
    for (unsigned i = 0; i < loops->n; i++)
        in_use += atomic_load_explicit(&loops->each[i]->in_use, memory_order_relaxed);
    return in_use;
}

void dispatch_drain(struct dispatch *dispatch, bool leave) {
    dispatch->draining = true;
    dispatch->leave_drained = dispatch->leave_drained || leave;
    if (dispatch->number == 0)
        events_pause_all(dispatch);
    if (!leave)
        return;
    dispatch->http.leaving = true;
    http_drain(&dispatch->http);
}

static bool drained(const struct dispatch *dispatch) {
    return dispatch->leave_drained && dispatch->in_use == 0 && transport_flushed(&dispatch->transport) &&
        http_flushed(&dispatch->http);
}

bool dispatch_is_over(const struct dispatch *dispatch) {
    return drained(dispatch) || handover_done(dispatch);
}

/* What each loop tells the first. */
static int report(struct dispatch *dispatch) {
    struct loops *loops = dispatch->loops;
    bool is_over = dispatch_is_over(dispatch);

    if (dispatch->number == 0)
        return dispatch->leave || (is_over && loops_over(loops));
    levels_post(dispatch);
    if (is_over != atomic_load_explicit(&dispatch->is_over, memory_order_relaxed)) {
        atomic_store(&dispatch->is_over, is_over);
        levels_wake(loops->each[0]);
    }
    return atomic_load_explicit(&loops->leave, memory_order_relaxed);
}

int dispatch_turn(struct dispatch *dispatch, uint64_t patience_us) {
    struct counters_node *node = dispatch->counters.node;
    bool calm = dispatch->in_flight + dispatch->events.waiting <= 1;
    int r;

    dispatch->loop.at_work = dispatch->in_flight > 0;
    r = loop_turn(&dispatch->loop, calm, patience_us);
    if (r < 0)
        return r;
    events_depart(dispatch);
    if (dispatch->number == 0)
        control_flush(&dispatch->control);
    handover_step(dispatch);
    transport_collect(&dispatch->transport);
    http_collect(&dispatch->http);
    events_depart(dispatch); /* of requests that lay behind others */
    runtime_collect(dispatch);
    travel_depart(dispatch);
    environments_collect(dispatch);
    spread_step(dispatch);
    atomic_store_explicit(&node->loop_turns, dispatch->loop.turns, memory_order_relaxed);
    atomic_store_explicit(&node->loop_spins, dispatch->loop.spins, memory_order_relaxed);
    atomic_store_explicit(&node->payload_bytes, dispatch->budget.used, memory_order_relaxed);
    return report(dispatch);
}

static void free_environments(struct dispatch *dispatch) {
    struct environment *environment;
    size_t at = 0;

    while ((environment = table_next(&dispatch->environments, &at)) != NULL) {
        struct invocation *invocation = environment->invocations[0];
        if (invocation == NULL)
            invocation = environment->reserved_for;
        if (invocation != NULL)
            invocation_free(invocation);
        environment->reserved_for = NULL;
        environment->invocations[0] = NULL;
        channel_detach(environment);
        logs_detach(environment);
        logs_forget(environment);
        arena_done(environment);
        ration_done(environment);
        cleanup_close(&environment->freeze_fd);
        cleanup_close(&environment->peak_fd);
        cleanup_close(&environment->listener_fd);
        timer_drop(&dispatch->loop.timers, &environment->timer);
        free(environment->runtime);
        free(environment);
    }
    table_done(&dispatch->environments);
}

/* Connections first: nobody waits any more, what is queued goes with them. */
static void close_links(struct dispatch *dispatch) {
    transport_done(&dispatch->transport);
    http_done(&dispatch->http);
    launcher_close(&dispatch->launcher);
    control_close(&dispatch->control);
    environments_collect(dispatch);
    free_environments(dispatch);
    runtime_collect(dispatch);
}

static void close_tables(struct dispatch *dispatch) {
    targets_done(dispatch);
    routes_done(&dispatch->routes);
    principals_done(&dispatch->principals);
}

static void close_own(struct dispatch *dispatch) {
    logs_close(&dispatch->logs);
    inherit_close(dispatch);
    mailbox_close(&dispatch->mailbox);
    loop_close(&dispatch->loop);
    levels_done(&dispatch->control.levels);
    free(dispatch->packet_in);
    free(dispatch->packet_out);
}

void dispatch_close(struct dispatch *dispatch) {
    struct loops *loops = dispatch->loops;

    if (dispatch->loop.epoll < 0)
        return;
    loops_join(loops);
    for (unsigned i = loops->n; i-- > 0;)
        close_links(loops->each[i]);
    for (unsigned i = loops->n; i-- > 0;)
        close_tables(loops->each[i]);
    events_stop(loops->events);
    for (unsigned i = loops->n; i-- > 0;) {
        loops->each[i]->draining = true; /* what the thread handed over last goes back */
        events_port_close(loops->each[i]);
    }
    events_free(loops->events);
    events_drop_told(dispatch);
    if (loops->log_writer != NULL)
        ring_stop(dispatch->logs.ring);
    log_writer_join(loops->log_writer);
    for (unsigned i = loops->n; i-- > 0;)
        close_own(loops->each[i]);
    counters_close(&dispatch->counters);
    for (unsigned i = loops->n; i-- > 1;)
        free(loops->each[i]);
    loops_free(loops);
}
