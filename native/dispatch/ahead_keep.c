/* How long an idle environment is kept; see ahead.h. */
#include "dispatch/ahead.h"
#include "dispatch/dispatch.h"

/* The next invocation takes it, or would if it were idle. Provisioned ones are used before all others. */
static bool is_first(const struct environment *environment) {
    const struct target *target = environment->target;
    return target->idle_times.level == 0 && list_empty(&target->ahead.idle) &&
        (list_empty(&environment->idle) || target->idle.next == &environment->idle);
}

uint64_t ahead_keep_us(const struct environment *environment) {
    const struct target *target = environment->target;
    const struct ahead *ahead = &target->ahead;
    uint32_t keep = ahead->keep_alive_ms != AHEAD_KEEP_OWN ? ahead->keep_alive_ms : target->keep_alive_ms;

    if (ahead->keep_others_ms != 0 && ahead->keep_others_ms != keep && !is_first(environment))
        keep = ahead->keep_others_ms;
    return (uint64_t)keep * 1000;
}

void ahead_follow(const struct environment *environment) {
    const struct target *target = environment->target;
    struct list *next = environment->idle.next;
    struct environment *other;
    uint64_t due;

    if (target->ahead.keep_others_ms == 0 || target->idle.next != &environment->idle || next == &target->idle)
        return;
    other = list_entry(next, struct environment, idle);
    if (ahead_needs(other))
        return;
    due = other->idle_us + ahead_keep_us(other);
    if (other->timer.deadline_us > due)
        timer_set(&target->dispatch->loop.timers, &other->timer, due);
}
