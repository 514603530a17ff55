/* Scheduling; see the header and admission.h for the rules. */
#include "dispatch/schedule.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/exchange.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"
#include "dispatch/travel.h"
#include "dispatch/worth.h"

/* With several loops: so many invocations that nothing can be started for are looked at. */
#define HUNGRY_MAX 16u
#define ROOM_AGAIN_US 10000u

struct invocation *schedule_head(const struct target *target) {
    return list_empty(&target->waiting) ? NULL : list_entry(target->waiting.next, struct invocation, waiting);
}

static void count_queue(struct target *target, struct invocation *invocation, bool in) {
    _Atomic uint64_t *waiting = &target->dispatch->counters.node->waiting;
    invocation->is_waiting = in;
    if (in) {
        target->n_waiting++;
        count_one(waiting);
    } else {
        target->n_waiting--;
        count_less(waiting, 1);
    }
    levels_target(target);
}

static void enqueue(struct invocation *invocation) {
    struct target *target = invocation->target;
    list_push_back(&target->waiting, &invocation->waiting);
    count_queue(target, invocation, true);
    count_one(&target->slot->waited);
}

void schedule_unqueue(struct invocation *invocation) {
    if (!invocation->is_waiting)
        return;
    list_remove(&invocation->waiting);
    count_queue(invocation->target, invocation, false);
}

struct invocation *schedule_pop(struct target *target) {
    struct invocation *invocation = schedule_head(target);
    if (invocation != NULL)
        schedule_unqueue(invocation);
    return invocation;
}

void schedule_push_back(struct invocation *invocation) {
    invocation->reinit = false; /* whoever serves it now has all of its time-out */
    list_push_front(&invocation->target->waiting, &invocation->waiting);
    count_queue(invocation->target, invocation, true);
}

static void assign(struct environment *environment, struct invocation *invocation) {
    struct environment_detail detail = {.invocation = invocation};
    environment_handle(environment, EVENT_ASSIGN, &detail);
}

struct environment *schedule_idle(const struct target *target) {
    const struct list *idle = list_empty(&target->ahead.idle) ? &target->idle : &target->ahead.idle;
    return list_empty(idle) ? NULL : list_entry(idle->next, struct environment, idle);
}

void schedule_invocation(struct invocation *invocation) {
    struct environment *environment = schedule_idle(invocation->target);
    if (environment != NULL) {
        assign(environment, invocation);
        return;
    }
    enqueue(invocation);
    schedule_target(invocation->target);
}

void schedule_again(struct invocation *invocation) {
    struct environment *environment = schedule_idle(invocation->target);
    invocation->reinit = false;
    if (environment != NULL)
        assign(environment, invocation);
    else
        schedule_push_back(invocation);
}

/* It serves who waits here, and then ends. */
static bool is_leaving(const struct environment *environment) {
    const struct target *target = environment->target;
    return environment->retire || target->retired || ahead_is_excess(environment) ||
        (ahead_keep_us(environment) == 0 && !ahead_needs(environment));
}

void schedule_environment(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    struct target *target = environment->target;
    struct invocation *invocation = environment->reserved_for;
    uint64_t now = clock_monotonic_us(), keep;

    environment->reserved_for = NULL;
    /* Of who has left already only the first invocation is told why: it may never get one that works. */
    if (invocation == NULL && ((environment->ended && environment->served > 0) || room_is_owed(environment))) {
        environment_handle(environment, EVENT_RETIRE, NULL);
        return;
    }
    if (invocation == NULL && dispatch->loops->n > 1 && !is_leaving(environment) &&
        travel_give(environment, schedule_head(target)))
        return;
    if (invocation == NULL) {
        invocation = schedule_pop(target);
        if (invocation != NULL) {
            invocation->waited_us = now - invocation->arrived_us;
            histogram_add(&dispatch->counters.histograms->wait_us, invocation->waited_us);
            counters_waited(target->slot, invocation->waited_us);
        }
    }
    if (invocation != NULL) {
        assign(environment, invocation);
        return;
    }
    if (is_leaving(environment)) {
        environment_handle(environment, EVENT_RETIRE, NULL);
        return;
    }
    ahead_offer(environment);
    environment->idle_us = now;
    keep = ahead_needs(environment) ? UINT64_MAX / 2 : ahead_keep_us(environment);
    room_offer(environment);
    if (target->freeze_after_ms != 0 && environment->freeze_fd >= 0)
        keep = MIN(keep, (uint64_t)target->freeze_after_ms * 1000);
    else if (arena_is_shared(environment))
        keep = MIN(keep, (uint64_t)ARENA_IDLE_US);
    timer_set(&dispatch->loop.timers, &environment->timer, now + keep);
    ahead_follow(environment);
    if (dispatch->loops->n > 1 && travel_offer(environment))
        return;
    room_relieve(dispatch);
}

/* One environment more of the target and of the node. */
static void unclaim(struct target *target) {
    atomic_fetch_sub(&target->common->live, 1);
    room_give_back(target->dispatch);
}

struct environment *schedule_launch(struct target *target, struct invocation *reserved, uint32_t incarnation) {
    struct environment *environment;
    uint64_t limit;

    /* An init that is repeated takes the place of its predecessor, which is still ending. */
    if (reserved != NULL) {
        atomic_fetch_add(&target->common->live, 1);
        room_take(target->dispatch);
    }
    environment = environment_new(target);
    if (environment == NULL) {
        unclaim(target);
        return NULL;
    }
    environment->incarnation = incarnation;
    environment->reserved_for = reserved;
    limit = environment->launched_us + PERFORM_LAUNCH_US;
    if (reserved != NULL) {
        target->reserved_starting++;
        limit = MIN(limit, reserved->deadline_us);
    }
    timer_set(&target->dispatch->loop.timers, &environment->timer, limit);
    launcher_launch(environment);
    return environment;
}

static uint64_t wait_limit_us(const struct target *target) {
    return ((uint64_t)target->init_timeout_ms + target->timeout_ms) * 1000 + SCHEDULE_WAIT_SLACK_US;
}

bool schedule_serves(const struct target *target) {
    const struct dispatch *dispatch = target->dispatch;
    const uint32_t burst = dispatch->loops->burst;
    uint64_t now, next;

    if (target->n_waiting == 0 || burst == 0)
        return true;
    now = clock_monotonic_us();
    next = burst_next(&target->function->common->burst_us, burst, now);
    const uint32_t live = atomic_load_explicit(&target->common->live, memory_order_relaxed);
    const struct burst_view view = {
        .waiting = target->n_waiting + 1,
        .starting = target_starting(target) + target->wished,
        .established = target_established_anywhere(target),
        .left = live < target->max_environments ? target->max_environments - live : 0,
        .p50_us = target->p50_us,
        .first_us = next != 0 ? next - now : 0,
        .each_us = BURST_WINDOW_US / burst,
        .limit_us = wait_limit_us(target),
    };
    return burst_serves(&view);
}

/* Those that waited long enough, as far as it matters; *ret_next: when the next one will have. */
static uint32_t count_ripe(const struct target *target, uint64_t now, uint32_t enough, uint64_t *ret_next) {
    uint64_t patience = start_patience_us(target->p50_us);
    uint32_t ripe = 0;
    list_for_each(node, &target->waiting) {
        const struct invocation *invocation = list_entry(node, struct invocation, waiting);
        if (invocation->arrived_us + patience > now) {
            *ret_next = invocation->arrived_us + patience;
            break;
        }
        if (++ripe >= enough)
            break;
    }
    return ripe;
}

/* Environments to launch; fewer when the launcher has enough to do or there is no room. Returns how many were. */
static uint32_t launch(struct target *target, uint32_t launches, uint64_t now, uint64_t *next, uint32_t *ret_missing) {
    struct dispatch *dispatch = target->dispatch;
    const uint64_t not_before = MAX(target->retry_us, takeover_expected_us(dispatch));
    uint32_t launched = 0;
    uint64_t again;

    if (launches > 0 && now < not_before) {
        *next = MIN(*next, not_before);
        return launches; /* they will be */
    }
    for (; launched < launches; launched++) {
        if (atomic_load_explicit(&dispatch->loops->launching, memory_order_relaxed) >= SCHEDULE_LAUNCHES_MAX) {
            *next = MIN(*next, now + START_PATIENCE_US);
            return launches;
        }
        if (!common_target_claim(target->common, target->max_environments))
            break;
        if (!room_claim(target)) {
            atomic_fetch_sub(&target->common->live, 1);
            *ret_missing = launches - launched;
            if (dispatch->loops->n > 1) /* others may have had room in mind that they do not take */
                *next = MIN(*next, now + ROOM_AGAIN_US);
            if (room_can_wait(target, now)) {
                *ret_missing = 0;
                *next = MIN(*next, now + ROOM_AGAIN_US);
            }
            return launches;
        }
        again = burst_take(&target->function->common->burst_us, dispatch->loops->burst, now);
        if (again != 0) {
            unclaim(target);
            *next = MIN(*next, again);
            return launches;
        }
        if (schedule_launch(target, NULL, 0) == NULL) {
            *next = MIN(*next, now + START_PATIENCE_US);
            return launches;
        }
    }
    return launched;
}

/* With several loops an idle environment of another is better than a new one. Returns how many invocations none is on its way
 * to: what is being launched may take long, and they take what becomes free first, wherever that is. */
static uint32_t wish_or_launch(
    struct target *target, struct start_view *view, uint64_t now, uint64_t *next, uint32_t *ret_missing) {
    uint32_t demand = target_established(target) == 0 ? view->waiting : view->ripe;

    if (demand > view->starting)
        view->starting += travel_wish(target, demand - view->starting);
    (void)launch(target, start_count(view), now, next, ret_missing);
    demand = view->established == 0 ? view->waiting : view->ripe;
    return demand > target->wished ? demand - target->wished : 0;
}

/* Which are more than can be started now; shown before they are looked for once more (travel.h). Nobody tells when an
 * environment of another loop ends, or one that was to come from there: looked at again until all are provided for. */
static void go_hungry(struct target *target, uint32_t hungry, uint64_t now, uint64_t *next) {
    travel_show_hungry(target, hungry, schedule_head(target)->arrived_us);
    if (hungry == 0)
        return;
    (void)travel_wish(target, hungry);
    *next = MIN(*next, now + ROOM_AGAIN_US);
}

void schedule_target(struct target *target) {
    struct dispatch *dispatch = target->dispatch;
    const bool alone = dispatch->loops->n == 1;
    uint64_t now, next = UINT64_MAX;
    struct start_view view;
    uint32_t missing = 0;

    if (target->n_waiting == 0) {
        timer_clear(&target->timer);
        room_want(target, 0);
        if (!alone)
            travel_show_hungry(target, 0, 0);
        ahead_step(target);
        return;
    }
    now = clock_monotonic_us();
    view = (struct start_view){
        .waiting = target->n_waiting,
        .starting = target_starting(target) + target->wished,
        .established = target_established_anywhere(target),
        .live = atomic_load_explicit(&target->common->live, memory_order_relaxed),
        .max_environments = target->max_environments,
    };
    if (view.established > 0 && view.live < view.max_environments)
        view.ripe = count_ripe(target, now, view.starting + view.max_environments - view.live, &next);
    else if (!alone)
        view.ripe = count_ripe(target, now, view.starting + HUNGRY_MAX, &next);
    if (alone)
        (void)launch(target, start_count(&view), now, &next, &missing);
    else
        go_hungry(target, wish_or_launch(target, &view, now, &next, &missing), now, &next);
    room_want(target, missing);
    next = MIN(next, schedule_head(target)->arrived_us + wait_limit_us(target));
    timer_set(&dispatch->loop.timers, &target->timer, next);
}

void schedule_timer(struct target *target) {
    struct dispatch *dispatch = target->dispatch;
    uint64_t now = clock_monotonic_us(), limit = wait_limit_us(target);
    struct invocation *head;

    while ((head = schedule_head(target)) != NULL && head->arrived_us + limit <= now) {
        schedule_unqueue(head);
        count_one(&dispatch->counters.node->waited_too_long);
        if (target_established(target) > 0)
            invocation_refuse(head, 429, "TooManyRequestsException", "ConcurrentInvocationLimitExceeded",
                "No execution environment became free in time.");
        else
            invocation_refuse(
                head, 500, "ServiceException", NULL, "No execution environment could be started in time.");
        invocation_free(head);
    }
    schedule_target(target);
    target_settle(target);
}
