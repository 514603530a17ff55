/* Environments ahead of demand; see the header. */
#include "dispatch/ahead.h"

#include <errno.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/perform.h"
#include "dispatch/schedule.h"

#define AHEAD_MAX 100000u
#define FAILURES_MAX 1000u

static void on_timer(struct timer *timer, uint64_t now);

void ahead_init(struct target *target) {
    target->ahead = (struct ahead){.keep_alive_ms = AHEAD_KEEP_OWN};
    target->pauses_us[0] = target->pauses_us[1] = UINT64_MAX;
    list_init(&target->ahead.idle);
    timer_init(&target->ahead.timer, on_timer);
}

void ahead_done(struct target *target) {
    timer_drop(&target->dispatch->loop.timers, &target->ahead.timer);
    idle_times_done(&target->idle_times);
}

/* ---- what there is --------------------------------------------------------------------------------------------- */

bool ahead_is_provisioned(const struct environment *environment) {
    return environment->init_type == WIRE_INIT_TYPE_PROVISIONED_CONCURRENCY;
}

static bool is_starting(unsigned state) {
    return state == ENVIRONMENT_LAUNCHING || state == ENVIRONMENT_INITIALIZING || state == ENVIRONMENT_INIT_FAILING;
}

static bool is_at_work(unsigned state) {
    return state == ENVIRONMENT_BUSY || state == ENVIRONMENT_REPLYING || state == ENVIRONMENT_SETTLING;
}

static bool is_ready(unsigned state) {
    return state == ENVIRONMENT_IDLE || is_at_work(state);
}

static uint32_t count_of(const _Atomic uint32_t *count) {
    return atomic_load_explicit(count, memory_order_relaxed);
}

/* The next one is launched later each time, by whatever loop: before any hears that one is missing. */
static void failed(struct target *target) {
    uint64_t pause = AHEAD_RETRY_US;
    uint32_t failures;

    (void)common_claim(&target->common->ahead_failures, FAILURES_MAX);
    failures = count_of(&target->common->ahead_failures);
    for (uint32_t i = 1; i < failures && pause < AHEAD_RETRY_MAX_US; i++)
        pause *= 2;
    atomic_store(&target->common->ahead_retry_us, target->dispatch->loop.now_us + MIN(pause, AHEAD_RETRY_MAX_US));
    levels_target(target);
}

static void shift(_Atomic uint64_t *level, bool before, bool next) {
    if (before != next)
        count_add(level, (uint64_t)next - (uint64_t)before);
}

/* What is shown of it: as many of each kind as it is one of. */
static void show(struct environment *environment, unsigned before, unsigned next) {
    struct counters_node *node = environment->dispatch->counters.node;
    struct counters_slot *slot = environment->target->slot;
    const bool was_idle = before == ENVIRONMENT_IDLE, is_idle = next == ENVIRONMENT_IDLE;

    if (ahead_is_provisioned(environment)) {
        shift(&node->environments_provisioned, is_ready(before), is_ready(next));
        shift(&node->provisioned_in_use, is_at_work(before), is_at_work(next));
        shift(&slot->provisioned_in_use, is_at_work(before), is_at_work(next));
    } else if (environment->ahead && environment->served == 0) {
        shift(&node->environments_parked, was_idle, is_idle);
        shift(&slot->environments_parked, was_idle, is_idle);
    }
}

void ahead_count(struct environment *environment, unsigned before, unsigned next) {
    struct common_target *common = environment->target->common;
    struct ahead *ahead = &environment->target->ahead;

    if (environment->ahead && is_starting(before) && !is_starting(next) && !is_ready(next))
        failed(environment->target);
    show(environment, before, next);
    if (!ahead_is_provisioned(environment))
        return;
    ahead->starting += (uint32_t)is_starting(next) - (uint32_t)is_starting(before);
    ahead->free += (uint32_t)(next == ENVIRONMENT_IDLE) - (uint32_t)(before == ENVIRONMENT_IDLE);
    if (is_ready(next) != is_ready(before))
        atomic_fetch_add(&common->provisioned_ready, (uint32_t)is_ready(next) - (uint32_t)is_ready(before));
    if ((is_starting(before) || is_ready(before)) && !is_starting(next) && !is_ready(next))
        atomic_fetch_sub(&common->provisioned, 1);
}

void ahead_took(struct environment *environment) {
    if (!ahead_is_provisioned(environment))
        return;
    environment->target->ahead.free++;
    count_one(&environment->dispatch->counters.node->environments_provisioned);
    atomic_fetch_add(&environment->target->common->provisioned, 1);
    atomic_fetch_add(&environment->target->common->provisioned_ready, 1);
}

void ahead_left(struct environment *environment) {
    environment->target->ahead.free -= ahead_is_provisioned(environment);
    show(environment, ENVIRONMENT_IDLE, ENVIRONMENT_DEAD);
    ahead_step(environment->target);
}

void ahead_came(struct environment *environment) {
    environment->target->ahead.free += ahead_is_provisioned(environment);
    show(environment, ENVIRONMENT_DEAD, ENVIRONMENT_IDLE);
}

void ahead_made(struct environment *environment) {
    if (environment->ahead)
        atomic_store_explicit(&environment->target->common->ahead_failures, 0, memory_order_relaxed);
}

/* ---- what is wanted -------------------------------------------------------------------------------------------- */

/* Idle ones besides those that are provisioned. */
static uint32_t parked_wanted(const struct target *target) {
    const struct ahead *ahead = &target->ahead;
    uint64_t idle = target->dispatch->loop.now_us - ahead->left_us;

    if (ahead->parked == 0 && ahead->left_us != 0 && idle >= (uint64_t)ahead->prewarm_ms * 1000 &&
        idle < (uint64_t)ahead->prewarm_end_ms * 1000)
        return 1;
    return ahead->parked;
}

static uint32_t idle_on_demand(const struct target *target) {
    return target->in_state[ENVIRONMENT_IDLE] - target->ahead.free;
}

bool ahead_needs(const struct environment *environment) {
    const struct target *target = environment->target;
    if (!target->ahead.active || target->retired)
        return false;
    if (ahead_is_provisioned(environment))
        return !ahead_is_excess(environment);
    return idle_on_demand(target) <= parked_wanted(target);
}

bool ahead_is_excess(const struct environment *environment) {
    const struct target *target = environment->target;
    return ahead_is_provisioned(environment) &&
        count_of(&target->common->provisioned_ready) > target->ahead.provisioned;
}

void ahead_offer(struct environment *environment) {
    struct target *target = environment->target;
    if (ahead_is_provisioned(environment))
        list_push_front(&target->ahead.idle, &environment->idle);
    else if (environment->ahead && environment->served == 0)
        list_push_back(&target->idle, &environment->idle);
    else
        list_push_front(&target->idle, &environment->idle);
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static uint32_t less(uint32_t a, uint32_t b) {
    return a > b ? a - b : 0;
}

static uint32_t missing_provisioned(const struct target *target) {
    return less(target->ahead.provisioned, count_of(&target->common->provisioned));
}

static uint32_t missing_parked(const struct target *target) {
    uint32_t coming = less(target_starting(target), target->ahead.starting);
    return less(parked_wanted(target), idle_on_demand(target) + coming);
}

/* Somebody waits: for this function, or for room. */
static bool is_in_the_way(const struct target *target) {
    const struct dispatch *dispatch = target->dispatch;
    return target->n_waiting > 0 || !list_empty(&dispatch->room.waiting) ||
        dispatch->launcher.launching >= AHEAD_LAUNCHING_MAX;
}

static bool is_over(const struct target *target) {
    const struct dispatch *dispatch = target->dispatch;
    return target->retired || !dispatch->synced || dispatch->draining || dispatch->leave_drained ||
        dispatch->handover.giving;
}

/* Where there are as many as may be, one that is not provisioned goes for one that is. */
static bool claim_place(struct target *target, bool provisioned) {
    while (!common_target_claim(target->common, target->max_environments)) {
        if (!provisioned || list_empty(&target->idle))
            return false;
        environment_handle(list_entry(target->idle.previous, struct environment, idle), EVENT_RETIRE, NULL);
    }
    return true;
}

static bool claim(struct target *target, bool provisioned) {
    const unsigned loops = target->dispatch->loops->n;

    if (!claim_place(target, provisioned))
        return false;
    if (!room_claim(target)) {
        atomic_fetch_sub(&target->common->live, 1);
        if (provisioned) /* each loop sees to its part */
            room_want(target, (missing_provisioned(target) + loops - 1) / loops);
        return false;
    }
    /* Last: who cannot make one leaves it to the others. */
    if (provisioned && !common_claim(&target->common->provisioned, target->ahead.provisioned)) {
        atomic_fetch_sub(&target->common->live, 1);
        room_give_back(target->dispatch);
        return false;
    }
    return true;
}

/* No launch before. */
static uint64_t not_before_us(const struct target *target) {
    return MAX(MAX(target->ahead.retry_us, target->retry_us), atomic_load(&target->common->ahead_retry_us));
}

/* False: no more now. */
static bool launch(struct target *target, bool provisioned) {
    struct environment *environment;

    if (!claim(target, provisioned))
        return false;
    environment = schedule_launch(target, NULL, 0);
    if (environment == NULL) {
        atomic_fetch_sub(&target->common->provisioned, (uint32_t)provisioned);
        return false;
    }
    environment->ahead = true;
    if (provisioned) {
        environment->init_type = WIRE_INIT_TYPE_PROVISIONED_CONCURRENCY;
        target->ahead.starting++;
    }
    return true;
}

static void launch_some(struct target *target) {
    struct ahead *ahead = &target->ahead;
    const uint64_t now = target->dispatch->loop.now_us;

    if (is_in_the_way(target)) {
        ahead->retry_us = MAX(ahead->retry_us, now + AHEAD_YIELD_US);
        return;
    }
    for (uint32_t n = 0; n < AHEAD_BATCH; n++) {
        bool provisioned = missing_provisioned(target) > 0;
        if (!provisioned && missing_parked(target) == 0)
            return;
        if (!launch(target, provisioned)) {
            ahead->retry_us = MAX(ahead->retry_us, now + AHEAD_RETRY_US);
            return;
        }
    }
}

/* The first of the list that nothing keeps any more ends; the others will, each in its time. */
static bool sweep_one(struct target *target, struct list *list) {
    const uint64_t now = target->dispatch->loop.now_us;

    for (struct list *node = list->previous; node != list; node = node->previous) {
        struct environment *environment = list_entry(node, struct environment, idle);
        uint64_t due = ahead_is_provisioned(environment) ? now : environment->idle_us + ahead_keep_us(environment);
        if (ahead_needs(environment))
            continue;
        if (due <= now) {
            environment_handle(environment, EVENT_RETIRE, NULL);
            return true;
        }
        if (environment->timer.deadline_us == 0 || environment->timer.deadline_us > due)
            timer_set(&target->dispatch->loop.timers, &environment->timer, due);
    }
    return false;
}

static void sweep(struct target *target) {
    while (sweep_one(target, &target->idle) || sweep_one(target, &target->ahead.idle))
        ;
}

void ahead_step(struct target *target) {
    struct dispatch *dispatch = target->dispatch;
    struct ahead *ahead = &target->ahead;
    const uint64_t now = dispatch->loop.now_us;
    uint64_t next = UINT64_MAX;

    if (!ahead->active || is_over(target))
        return;
    if (missing_provisioned(target) > 0 || missing_parked(target) > 0)
        next = MAX(MAX(now + AHEAD_DELAY_US, not_before_us(target)), takeover_expected_us(dispatch));
    else if (ahead->left_us != 0 && ahead->prewarm_end_ms != 0) {
        uint64_t from = ahead->left_us + (uint64_t)ahead->prewarm_ms * 1000;
        uint64_t until = ahead->left_us + (uint64_t)ahead->prewarm_end_ms * 1000;
        if (now < until)
            next = now < from ? from : until;
    }
    if (next == UINT64_MAX)
        timer_clear(&ahead->timer);
    else if (ahead->timer.deadline_us == 0 || ahead->timer.deadline_us > next)
        timer_set(&dispatch->loop.timers, &ahead->timer, next);
}

static void on_timer(struct timer *timer, uint64_t now) {
    struct target *target = list_entry(timer, struct target, ahead.timer);

    if (is_over(target))
        return;
    if (now >= not_before_us(target))
        launch_some(target);
    sweep(target);
    ahead_step(target);
}

void ahead_begin(struct dispatch *dispatch) {
    struct target *target;
    size_t at = 0;
    while ((target = table_next(&dispatch->targets.by_id, &at)) != NULL)
        ahead_step(target);
}

/* ---- demand ---------------------------------------------------------------------------------------------------- */

void ahead_rise(struct target *target) {
    const uint64_t now = target->dispatch->loop.now_us;

    if (target->ahead.left_us != 0) {
        target->pauses_us[1] = target->pauses_us[0];
        target->pauses_us[0] = now - MIN(target->ahead.left_us, now);
    }
    target->ahead.left_us = 0;
    idle_rise(&target->idle_times, now);
}

void ahead_fall(struct target *target) {
    const uint64_t now = target->dispatch->loop.now_us;
    idle_fall(&target->idle_times, now);
    if (target->idle_times.level > 0)
        return;
    target->ahead.left_us = now;
    if (target->ahead.prewarm_end_ms != 0)
        ahead_step(target);
}

/* ---- the control plane ----------------------------------------------------------------------------------------- */

static const char *wrong_field(const struct wire_put_pool *message) {
    if (message->provisioned > AHEAD_MAX)
        return "provisioned";
    if (message->parked > AHEAD_MAX)
        return "parked";
    if (message->prewarm_end_ms != 0 && message->prewarm_end_ms <= message->prewarm_ms)
        return "prewarm_end_ms";
    return NULL;
}

static uint32_t share(const struct dispatch *dispatch, uint32_t of) {
    return of / dispatch->loops->n + (dispatch->number < of % dispatch->loops->n);
}

int ahead_put(struct dispatch *dispatch, const struct wire_header *header, const struct wire_put_pool *message,
    const char **ret_field) {
    struct target *target = target_find(dispatch, header->object);
    struct ahead *ahead;

    *ret_field = wrong_field(message);
    if (*ret_field != NULL)
        return -EINVAL;
    if (target == NULL)
        return -ENOENT;
    ahead = &target->ahead;
    if (header->generation < ahead->generation)
        return 0;
    ahead->generation = header->generation;
    if (ahead->provisioned != message->provisioned) {
        atomic_store(&target->common->ahead_failures, 0);
        atomic_store(&target->common->ahead_retry_us, 0);
        ahead->retry_us = 0;
    }
    ahead->provisioned = message->provisioned;
    admission_provision(&dispatch->loops->account, &target->function->common->concurrency, &target->common->pools,
        message->provisioned);
    ahead->parked = share(dispatch, message->parked);
    ahead->keep_alive_ms = message->keep_alive_ms;
    ahead->keep_others_ms = message->keep_others_ms;
    ahead->prewarm_ms = message->prewarm_ms;
    ahead->prewarm_end_ms = message->prewarm_end_ms;
    ahead->active = ahead->provisioned > 0 || ahead->parked > 0 || ahead->prewarm_end_ms > 0;
    timer_clear(&ahead->timer);
    if (target->n_waiting == 0)
        room_want(target, 0); /* what was missing until now may not be wanted any more */
    levels_target(target);
    sweep(target);
    ahead_step(target);
    return 0;
}
