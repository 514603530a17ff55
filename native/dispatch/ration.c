/* What an environment may have the loop do; see the header. */
#include "dispatch/ration.h"

#include "base/cleanup.h"
#include "base/list.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/runtime_connection.h"
#include "dispatch/stream.h"

#define RETRY_US 10000u

static struct timers *timers_of(const struct environment *environment) {
    return &environment->dispatch->loop.timers;
}

static int64_t rate(const struct environment *environment) {
    return (int64_t)environment->dispatch->loops->ration;
}

/* So much there must be for a rest to end. */
static int64_t awake(const struct environment *environment) {
    return rate(environment) / RATION_AWAKE;
}

static void refill(struct environment *environment, uint64_t now) {
    struct ration *ration = &environment->ration;
    uint64_t passed = now > ration->filled_us ? now - ration->filled_us : 0;
    uint64_t units = MIN(passed, UINT64_C(3600000000)) * (uint64_t)rate(environment) / 1000000;

    if (units == 0)
        return; /* what has passed counts the next time */
    ration->left = MIN(ration->left + (int64_t)units, RATION_BURST * rate(environment));
    ration->filled_us = now;
}

static void wake(struct environment *environment) {
    environment->ration.resting = false;
    if (environment->runtime != NULL)
        runtime_wake(environment->runtime);
    if (!stream_waits(environment))
        channel_resume(environment);
}

/* A rest goes on until there is something to spend again: rather some long ones than many short ones. */
static void rest(struct environment *environment, uint64_t now) {
    struct ration *ration = &environment->ration;
    uint64_t wait = (uint64_t)(awake(environment) - ration->left) * 1000000 / (uint64_t)rate(environment) + 1;
    timer_set(timers_of(environment), &ration->timer, now + wait);
}

static void on_timer(struct timer *timer, uint64_t now) {
    struct environment *environment = list_entry(timer, struct environment, ration.timer);

    refill(environment, now);
    if (environment->ration.resting && environment->ration.left < awake(environment))
        rest(environment, now);
    else
        wake(environment);
}

void ration_init(struct environment *environment) {
    environment->ration =
        (struct ration){.left = RATION_BURST * rate(environment), .filled_us = environment->dispatch->loop.now_us};
    timer_init(&environment->ration.timer, on_timer);
}

void ration_done(struct environment *environment) {
    timer_drop(timers_of(environment), &environment->ration.timer);
    environment->ration.resting = false;
}

void ration_leave(struct environment *environment) {
    timer_drop(timers_of(environment), &environment->ration.timer);
}

void ration_settle_in(struct environment *environment) {
    if (environment->ration.resting)
        timer_set(timers_of(environment), &environment->ration.timer, environment->dispatch->loop.now_us);
}

void ration_spend(struct environment *environment, uint32_t units, uint64_t bytes) {
    struct ration *ration = &environment->ration;
    uint64_t now = environment->dispatch->loop.now_us;

    ration->left -= (int64_t)units + (int64_t)(bytes / RATION_UNIT_BYTES);
    if (ration->left >= 0 || ration->resting || environment->ended)
        return;
    refill(environment, now);
    if (ration->left >= 0)
        return;
    ration->resting = true;
    count_one(&environment->dispatch->counters.node->environment_rests);
    rest(environment, now);
    if (environment->runtime != NULL)
        runtime_rest(environment->runtime);
}

void ration_grant(struct environment *environment) {
    struct ration *ration = &environment->ration;

    refill(environment, environment->dispatch->loop.now_us);
    ration->left = MIN(ration->left + RATION_INVOCATION, RATION_BURST * rate(environment));
    if (ration->resting && ration->left >= awake(environment))
        timer_set(timers_of(environment), &ration->timer, environment->dispatch->loop.now_us);
}

bool ration_rests(const struct environment *environment) {
    return environment->ration.resting;
}

void ration_retry(struct environment *environment) {
    timer_set(timers_of(environment), &environment->ration.timer, environment->dispatch->loop.now_us + RETRY_US);
}
