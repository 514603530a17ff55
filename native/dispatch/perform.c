/* Carries out the state table's commands; see the header. Runs in the loop.
 *
 * The one timer of an environment means, by state: LAUNCHING and INITIALIZING the limit of the phase (or the deadline
 * of the invocation that the init runs inside); IDLE the moment to freeze, then that to let go of the arena, then the
 * end of keep-alive; BUSY, REPLYING, SETTLING the invocation's deadline; INIT_FAILING and FAILING the moment for END,
 * then the wait for EXITED. */
#include "dispatch/perform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/outcome.h"
#include "dispatch/schedule.h"
#include "dispatch/travel.h"

static void on_timer(struct timer *timer, uint64_t now);

/* Of two dispatchers that run at a time one counts from the middle of each millisecond; of several loops each counts its
 * own. */
static uint64_t new_id(struct dispatch *dispatch) {
    const uint64_t half = atomic_load_explicit(&dispatch->loops->launcher_epoch, memory_order_relaxed) & 1;
    uint64_t id = clock_real_us() / 1000 << 20 | half << 19 | dispatch->number;
    if (id <= dispatch->last_environment)
        id = dispatch->last_environment + LOOPS_MAX;
    while (table_get(&dispatch->environments, id) != NULL)
        id += LOOPS_MAX;
    dispatch->last_environment = id;
    return id;
}

/* By its id, which is nearly always the highest. */
static void put_in_order(struct environment *environment) {
    struct list *before = environment->dispatch->in_order.previous;
    while (before != &environment->dispatch->in_order &&
        list_entry(before, struct environment, in_order)->id > environment->id)
        before = before->previous;
    list_push_front(before, &environment->in_order);
}

static struct environment *make(struct target *target, uint64_t id) {
    struct dispatch *dispatch = target->dispatch;
    struct environment *environment = calloc(1, sizeof(*environment));

    if (environment == NULL)
        return NULL;
    if (table_put(&dispatch->environments, id, environment) < 0) {
        free(environment);
        return NULL;
    }
    environment->id = id;
    environment->dispatch = dispatch;
    environment->target = target;
    environment->state = ENVIRONMENT_LAUNCHING;
    environment->capacity = ENVIRONMENT_CAPACITY;
    environment->participants = 1;
    environment->channel.fd = environment->log.watch.fd = -1;
    arena_init(environment);
    ration_init(environment);
    environment->freeze_fd = environment->peak_fd = environment->listener_fd = -1;
    environment->launched_us = dispatch->loop.now_us;
    timer_init(&environment->timer, on_timer);
    timer_init(&environment->log.timer, NULL);
    list_init(&environment->outbox);
    list_init(&environment->idle);
    list_init(&environment->by_use);
    list_init(&environment->dirty);
    list_push_back(&target->environments, &environment->node);
    put_in_order(environment);
    target->in_state[ENVIRONMENT_LAUNCHING]++;
    count_one(&dispatch->counters.node->environments);
    levels_environment(environment);
    return environment;
}

struct environment *environment_new(struct target *target) {
    return make(target, new_id(target->dispatch));
}

/* ---- commands -------------------------------------------------------------------------------------------------- */

static void close_all(struct environment *environment) {
    channel_detach(environment);
    logs_detach(environment);
    arena_done(environment);
    ration_done(environment);
    cleanup_close(&environment->freeze_fd);
    cleanup_close(&environment->peak_fd);
    cleanup_close(&environment->listener_fd);
    if (environment->freezer == FREEZER_FROZEN)
        environment_not_frozen(environment);
    environment->freezer = FREEZER_RUNNING;
}

static void start(struct environment *environment, const struct environment_detail *detail) {
    struct dispatch *dispatch = environment->dispatch;
    uint64_t now = dispatch->loop.now_us;

    histogram_add(&dispatch->counters.histograms->launch_us, now - environment->launched_us);
    environment->started_us = now;
    environment->freeze_fd = detail->fds[2];
    environment->peak_fd = detail->fds[3];
    environment->listener_fd = detail->fds[4];
    logs_attach(environment, detail->fds[1]);
    logs_init_start(environment);
    if (environment->reserved_for != NULL)
        timer_set(&dispatch->loop.timers, &environment->timer, environment->reserved_for->deadline_us);
    else
        timer_set(&dispatch->loop.timers, &environment->timer, now + outcome_init_limit_us(environment));
    /* It is gone already: EXITED will say why. */
    if (channel_attach(environment, detail->fds[0]) < 0 || channel_start(environment) < 0)
        environment_handle(environment, EVENT_HANGUP, NULL);
}

static void invoke(struct environment *environment, const struct environment_detail *detail) {
    struct dispatch *dispatch = environment->dispatch;
    struct target *target = environment->target;
    struct invocation *invocation = detail->invocation;
    uint64_t now = clock_monotonic_us();

    environment_thaw(environment);
    invocation->environment = environment;
    environment->invocations[0] = invocation;
    environment->in_flight++;
    environment->ready = 0;
    dispatch->in_flight++;
    invocation->first = environment->served == 0;
    invocation->init_us = invocation->first ? environment->init_us : 0;
    invocation->sent_us = now;
    if (!invocation->reinit)
        invocation->deadline_us = now + (uint64_t)target->timeout_ms * 1000;
    environment->served++;
    count_one(&dispatch->counters.node->invocations);
    count_one(&dispatch->counters.node->invocations_in_flight);
    if (invocation->first) {
        count_one(&dispatch->counters.node->cold_starts);
        count_one(&target->slot->cold_starts);
    }
    if (ahead_is_provisioned(environment))
        count_one(&target->slot->provisioned);
    else if (target->ahead.provisioned > 0)
        count_one(&target->slot->spillover);
    timer_set(&dispatch->loop.timers, &environment->timer, invocation->deadline_us);
    logs_hand_over(environment, invocation);
    logs_start(environment, invocation);
    invocation->logged_start = true;
    if (channel_invoke(environment) < 0)
        environment_handle(environment, channel_end(environment, -EPIPE), NULL);
}

static void release(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    struct invocation *invocation = environment->invocations[0];

    environment->invocations[0] = NULL;
    environment->in_flight--;
    environment->ready = environment->participants;
    dispatch->in_flight--;
    count_less(&dispatch->counters.node->invocations_in_flight, 1);
    invocation->environment = NULL;
    invocation_free(invocation);
}

/* A runtime that leaves closes its channel first: it is given a moment, so that its own status is told and not that
 * of our END. */
static void await_exit(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    channel_detach(environment);
    timer_set(&dispatch->loop.timers, &environment->timer, dispatch->loop.now_us + PERFORM_LEAVE_US);
}

static void end(struct environment *environment, enum environment_event event) {
    uint8_t reason = WIRE_END_REASON_FAILURE;
    switch (event) {
    case EVENT_RETIRE:
        if (environment->reserved_for != NULL)
            schedule_push_back(environment->reserved_for);
        environment->reserved_for = NULL;
        reason = environment->target->retired ? WIRE_END_REASON_RETIRED : WIRE_END_REASON_SPINDOWN;
        break;
    case EVENT_TIMEOUT:
    case EVENT_INIT_TIMEOUT:
        reason = WIRE_END_REASON_TIMEOUT;
        break;
    case EVENT_VIOLATION:
        reason = WIRE_END_REASON_PROTOCOL;
        count_one(&environment->dispatch->counters.node->violations);
        break;
    default:
        break;
    }
    timer_clear(&environment->timer);
    logs_drain(environment);
    close_all(environment);
    launcher_end(environment, reason);
}

/* The init took too long: once more, inside the oldest waiting invocation, under the function's time-out. */
static void reinit(struct environment *environment) {
    struct target *target = environment->target;
    struct dispatch *dispatch = environment->dispatch;
    struct log_report report = {.duration_us = dispatch->loop.now_us - environment->started_us,
        .memory_mb = target->memory_mb,
        .status = LOG_STATUS_TIMEOUT};
    struct invocation *invocation;

    count_one(&dispatch->counters.node->init_timeouts);
    if (environment->init_type == WIRE_INIT_TYPE_SNAP_START) {
        outcome_restore_timeout(environment);
        return;
    }
    logs_init_report(environment, &report);
    invocation = schedule_pop(target);
    if (invocation == NULL)
        return;
    logs_hand_over(environment, invocation);
    invocation->reinit = true;
    invocation->deadline_us = dispatch->loop.now_us + (uint64_t)target->timeout_ms * 1000;
    if (schedule_launch(target, invocation, environment->incarnation + 1) == NULL) {
        invocation_refuse(invocation, 500, "ServiceException", NULL, "The node is out of memory.");
        invocation_free(invocation);
    }
}

static void gone(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    struct target *target = environment->target;

    close_all(environment);
    logs_forget(environment);
    timer_drop(&dispatch->loop.timers, &environment->timer);
    list_remove(&environment->outbox);
    table_remove(&dispatch->environments, environment->id);
    list_remove(&environment->node);
    list_remove(&environment->in_order);
    levels_environment_gone(environment);
    if (environment->destined != 0)
        loops_disown(dispatch->loops, environment->id);
    target->in_state[ENVIRONMENT_DEAD]--;
    count_less(&dispatch->counters.node->environments, 1);
    if (!environment->given)
        count_one(&dispatch->counters.node->environments_ended);
    list_push_back(&dispatch->dead, &environment->node);
    room_freed(dispatch);
}

/* Who hung up during init still takes an invocation, though only to tell it why. */
static bool environment_is_starting(enum environment_state state) {
    return state == ENVIRONMENT_LAUNCHING || state == ENVIRONMENT_INITIALIZING || state == ENVIRONMENT_INIT_FAILING;
}

/* ---- the handler ----------------------------------------------------------------------------------------------- */

static void enter(struct environment *environment, enum environment_state next) {
    struct dispatch *dispatch = environment->dispatch;
    struct target *target = environment->target;
    enum environment_state before = environment->state;
    bool coarse;

    if (before == next)
        return;
    if (environment->reserved_for != NULL && environment_is_starting(before) && !environment_is_starting(next))
        target->reserved_starting--;
    if (before == ENVIRONMENT_IDLE) {
        if (environment->departing)
            travel_missed(environment);
        list_remove(&environment->idle);
        room_withdraw(environment);
        count_less(&dispatch->counters.node->environments_idle, 1);
    }
    room_leaving(dispatch, (next == ENVIRONMENT_STOPPING) - (before == ENVIRONMENT_STOPPING));
    target_count(target, before, next);
    ahead_count(environment, before, next);
    environment->state = next;
    if (next == ENVIRONMENT_IDLE)
        count_one(&dispatch->counters.node->environments_idle);
    /* The control plane hears of lifes, not of every invocation. */
    coarse = next != ENVIRONMENT_BUSY && next != ENVIRONMENT_REPLYING && next != ENVIRONMENT_SETTLING &&
        (next != ENVIRONMENT_IDLE || before == ENVIRONMENT_INITIALIZING);
    if (coarse)
        levels_environment(environment);
    levels_target(target);
}

struct environment *environment_take(struct target *target, uint64_t id) {
    struct environment *environment = make(target, id);
    if (environment == NULL)
        return NULL;
    atomic_fetch_add(&target->common->live, 1);
    room_take(target->dispatch);
    enter(environment, ENVIRONMENT_IDLE);
    return environment;
}

static void initialized(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    environment->init_us = MAX(clock_monotonic_us() - environment->started_us, 1u);
    environment->target->backoff_ms = 0;
    ahead_made(environment);
    histogram_add(&dispatch->counters.histograms->init_us, environment->init_us);
    histogram_add(&environment->target->slot->init_us, environment->init_us);
    if (environment->init_type == WIRE_INIT_TYPE_SNAP_START)
        outcome_restored(environment);
    logs_drain(environment);
}

static void carry_out(struct environment *environment, enum environment_event event, uint32_t commands,
    const struct environment_detail *detail) {
    if (commands & COMMAND_START)
        start(environment, detail);
    if (commands & COMMAND_INVOKE)
        invoke(environment, detail);
    /* It is ready already: who calls on having the answer, on whatever loop, finds the tokens back. */
    if ((commands & COMMAND_ANSWER_RESULT) && (commands & COMMAND_RELEASE))
        invocation_give_back(environment->invocations[0]);
    if (commands & COMMAND_ANSWER_RESULT)
        invocation_answer_result(environment->invocations[0], detail);
    if (commands & COMMAND_ANSWER_INIT_ERROR)
        outcome_init_error(environment, detail);
    if (commands & COMMAND_ANSWER_TIMEOUT)
        outcome_timeout(environment);
    if (commands & COMMAND_ANSWER_EXIT)
        outcome_exit(environment, detail);
    if (commands & COMMAND_ANSWER_VIOLATION)
        outcome_violation(environment, detail);
    if (commands & COMMAND_ANSWER_LAUNCH)
        outcome_launch(environment, detail);
    if (commands & COMMAND_RELEASE)
        release(environment);
    if (commands & COMMAND_TAKE_BACK)
        outcome_unread(environment);
    if (commands & COMMAND_MARK)
        environment->retire = true;
    if (commands & COMMAND_AWAIT_EXIT)
        await_exit(environment);
    if (commands & COMMAND_END)
        end(environment, event);
    if (commands & COMMAND_REINIT)
        reinit(environment);
    if (commands & COMMAND_GONE)
        gone(environment);
}

void environment_handle(
    struct environment *environment, enum environment_event event, const struct environment_detail *detail) {
    static const struct environment_detail nothing = {.what = "?"};
    struct target *target = environment->target;
    struct environment_detail violation = {.what = "unexpected message"};
    struct transition transition;

    if (environment_next(environment->state, event, &transition) < 0) {
        if (!environment_event_is_its_own(event) && event != EVENT_VIOLATION && event != EVENT_HANGUP) {
            count_one(&environment->dispatch->counters.node->logic_errors);
            return;
        }
        violation.what = environment_event_name(event);
        event = EVENT_VIOLATION;
        detail = &violation;
        if (environment_next(environment->state, event, &transition) < 0)
            return; /* it is ending already */
    }
    if (event == EVENT_INIT_DONE)
        initialized(environment);
    enter(environment, transition.next);
    carry_out(environment, event, transition.commands, detail != NULL ? detail : &nothing);
    if (transition.commands & COMMAND_OFFER)
        schedule_environment(environment);
    schedule_target(target);
    if (transition.commands & (COMMAND_GONE | COMMAND_RELEASE))
        target_settle(target);
}

/* First frozen, then without its arena, for which it must run a moment, at last retired. */
static void on_idle(struct environment *environment, uint64_t now) {
    const struct target *target = environment->target;
    uint64_t next = environment->idle_us + ahead_keep_us(environment);

    if (ahead_needs(environment))
        next = UINT64_MAX;
    if (now >= next) {
        environment_handle(environment, EVENT_RETIRE, NULL);
        return;
    }
    if (arena_is_shared(environment) && now >= environment->idle_us + ARENA_IDLE_US) {
        environment_thaw(environment);
        arena_release(environment);
        next = MIN(next, now + ARENA_LEAVE_US);
    } else {
        if (target->freeze_after_ms != 0)
            environment_freeze(environment);
        if (arena_is_shared(environment))
            next = MIN(next, environment->idle_us + ARENA_IDLE_US);
    }
    if (next != UINT64_MAX)
        timer_set(&environment->dispatch->loop.timers, &environment->timer, next);
}

static void on_timer(struct timer *timer, uint64_t now) {
    struct environment *environment = list_entry(timer, struct environment, timer);
    struct environment_detail detail = {.what = "the launcher did not answer", .errno_value = ETIMEDOUT};

    switch (environment->state) {
    case ENVIRONMENT_LAUNCHING:
    case ENVIRONMENT_INITIALIZING:
        environment_handle(environment,
            environment->reserved_for != NULL && now >= environment->reserved_for->deadline_us ? EVENT_TIMEOUT
                                                                                               : EVENT_INIT_TIMEOUT,
            &detail);
        break;
    case ENVIRONMENT_IDLE:
        on_idle(environment, now);
        break;
    case ENVIRONMENT_BUSY:
    case ENVIRONMENT_REPLYING:
    case ENVIRONMENT_SETTLING:
        environment_handle(environment, EVENT_TIMEOUT, &detail);
        break;
    case ENVIRONMENT_INIT_FAILING:
    case ENVIRONMENT_FAILING:
        if (!environment->ended) {
            launcher_end(environment, WIRE_END_REASON_FAILURE);
            timer_set(&environment->dispatch->loop.timers, timer, now + PERFORM_EXIT_US);
            break;
        }
        detail.what = "the environment hung up and did not end";
        environment_handle(environment, EVENT_TIMEOUT, &detail);
        break;
    default:
        break;
    }
}

void environments_collect(struct dispatch *dispatch) {
    struct list *node;
    while ((node = list_pop_front(&dispatch->dead)) != NULL) {
        struct environment *environment = list_entry(node, struct environment, node);
        free(environment->runtime);
        free(environment);
    }
}
