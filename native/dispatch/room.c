/* Room; see the header. */
#include "dispatch/room.h"

#include <float.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"
#include "dispatch/schedule.h"
#include "dispatch/turn.h"
#include "dispatch/worth.h"

#define ROUNDING 1e-4
#define LINE_MAX 64u /* of who waits for room, so many are counted */

static void on_timer(struct timer *timer, uint64_t now);

void room_init(struct room *room) {
    *room = (struct room){0};
    list_init(&room->idle);
    list_init(&room->targets);
    list_init(&room->waiting);
    timer_init(&room->timer, on_timer);
}

static struct room_common *common_of(const struct dispatch *dispatch) {
    return &dispatch->loops->room;
}

static uint32_t value(const _Atomic uint32_t *of) {
    return atomic_load_explicit(of, memory_order_relaxed);
}

bool room_is_left(const struct dispatch *dispatch) {
    const struct room_common *room = common_of(dispatch);
    return room->limit == 0 || value(&room->environments) < room->limit;
}

/* own: NULL where nobody waits; then whoever does comes first. */
static bool is_owed_elsewhere(const struct dispatch *dispatch, const struct invocation *own) {
    const struct loops *loops = dispatch->loops;
    for (unsigned i = 0; loops->n > 1 && i < loops->n; i++) {
        uint64_t since = atomic_load_explicit(&loops->room.since_us[i], memory_order_relaxed);
        if (i != dispatch->number && since != 0 && (own == NULL || since + ROOM_PATIENCE_US < own->arrived_us))
            return true;
    }
    return false;
}

bool room_claim(struct target *target) {
    struct dispatch *dispatch = target->dispatch;
    struct room_common *room = common_of(dispatch);
    uint32_t environments = value(&room->environments);

    if (is_owed_elsewhere(dispatch, schedule_head(target)))
        return false;
    do {
        if (room->limit != 0 && environments >= room->limit)
            return false;
    } while (!atomic_compare_exchange_weak(&room->environments, &environments, environments + 1));
    return true;
}

void room_take(struct dispatch *dispatch) {
    atomic_fetch_add(&common_of(dispatch)->environments, 1);
}

void room_give_back(struct dispatch *dispatch) {
    atomic_fetch_sub(&common_of(dispatch)->environments, 1);
}

void room_leaving(struct dispatch *dispatch, int change) {
    if (change != 0)
        atomic_fetch_add(&common_of(dispatch)->leaving, (uint32_t)change);
}

/* More than what is leaving has to go. */
static bool is_short(const struct dispatch *dispatch) {
    const struct room_common *room = common_of(dispatch);
    uint32_t leaving;
    if (room->limit == 0)
        return false;
    leaving = value(&room->leaving);
    return leaving < value(&room->wanted) || value(&room->environments) > (uint64_t)room->limit + leaving;
}

/* ---- turns ------------------------------------------------------------------------------------------------------ */

static void see_others(const struct environment *environment, struct turn_view *view) {
    const struct dispatch *dispatch = environment->dispatch;
    const struct loops *loops = dispatch->loops;

    list_for_each(node, &dispatch->room.waiting) {
        const struct target *target = list_entry(node, struct target, room);
        const struct invocation *head = schedule_head(target);
        if (target == environment->target || head == NULL) /* else for one ahead of demand */
            continue;
        if (view->line++ == 0)
            view->other_us = head->arrived_us;
        if (view->line >= LINE_MAX)
            break;
    }
    for (unsigned i = 0; loops->n > 1 && i < loops->n; i++) {
        uint64_t since = atomic_load_explicit(&loops->room.since_us[i], memory_order_relaxed);
        if (i == dispatch->number || since == 0)
            continue;
        view->line++;
        view->other_us = view->other_us == 0 ? since : MIN(view->other_us, since);
    }
}

/* Until when it stays, whoever waits for room; 0: it gives way. For the moment between two calls only the one that the next
 * call will take is left alone. */
static uint64_t stays_until(const struct environment *environment, uint64_t idle_us, uint64_t now) {
    const struct target *target = environment->target;
    const struct invocation *own = schedule_head(target);
    const bool only = target->idle_times.level == 0 && list_empty(&target->ahead.idle) &&
        (list_empty(&target->idle) ||
            (target->idle.next == &environment->idle && target->idle.previous == &environment->idle));
    struct turn_view view = {
        .now_us = now,
        .made_us = environment->started_us + environment->init_us,
        .cost_us = environment->started_us + environment->init_us - environment->launched_us,
        .idle_us = idle_us,
        .pause_us = only ? MAX(target->pauses_us[0], target->pauses_us[1]) : UINT64_MAX,
        .own_us = own != NULL ? own->arrived_us : 0,
        .places = common_of(environment->dispatch)->limit,
    };
    if (environment->started_us == 0) /* another dispatcher made it */
        view.cost_us = environment->init_us;
    see_others(environment, &view);
    return turn_until(&view);
}

/* ---- who is worth least ----------------------------------------------------------------------------------------- */

/* By the target's table. So many tables are made in a look; where another would be, what is old serves once more. */
static double rate_of(struct target *target, uint64_t idle_us, unsigned *tables) {
    const struct counters_idle *counts = target->idle_times.counts;

    if (*tables > 0 && (target->worth == NULL || worth_is_old(target->worth, counts))) {
        if (target->worth == NULL)
            target->worth = malloc(sizeof(*target->worth));
        if (target->worth != NULL)
            worth_fill(target->worth, counts);
        --*tables;
    }
    return target->worth != NULL ? worth_look_up(target->worth, idle_us) : worth_rate(counts, idle_us);
}

struct candidate {
    struct environment *environment;
    uint64_t since_us; /* nobody has needed it since */
    double rate;       /* uses a second */
    double worth;      /* the same for the memory that it takes */
};

/* The last of a target's idle stack. Those that were never used lie below the one used longest ago: they have been needed
 * as little as that one. */
static struct candidate candidate_of(struct target *target, uint64_t now, unsigned *tables) {
    struct environment *last = list_entry(target->idle.previous, struct environment, idle);
    struct candidate candidate = {.environment = last, .since_us = last->idle_us};
    struct list *node = target->idle.previous;

    for (unsigned n = 0; n < ROOM_UNUSED_MAX && node->previous != &target->idle &&
         list_entry(node, struct environment, idle)->served == 0;
         n++)
        node = node->previous;
    candidate.since_us = MIN(candidate.since_us, list_entry(node, struct environment, idle)->idle_us);
    candidate.rate = rate_of(target, now - MIN(candidate.since_us, now), tables);
    candidate.worth = candidate.rate / (double)MAX(last->peak_kb, ROOM_LEAST_KB);
    return candidate;
}

/* Of two that are worth the same, but for the rounding of tables, the one that nobody has needed for longer. */
static bool is_worth_less(const struct candidate *one, const struct candidate *other) {
    if (other->environment == NULL || one->worth < other->worth * (1 - ROUNDING))
        return true;
    return one->worth <= other->worth * (1 + ROUNDING) && one->since_us < other->since_us;
}

/* Of each target the last one is looked at, and of so many targets in turn. Only those that are likely to be used less often
 * than `below`; *spared_us: only those whose turn is over, and when the first of the others' will be. NULL: all. */
static struct candidate least_valuable(struct dispatch *dispatch, double below, uint64_t *spared_us) {
    struct list *targets = &dispatch->room.targets, seen, *node;
    const uint64_t now = clock_monotonic_us();
    struct candidate least = {0};
    unsigned candidates = 0, tables = ROOM_TABLES_MAX;

    list_init(&seen);
    while (candidates < ROOM_CANDIDATES_MAX && (node = list_pop_front(targets)) != NULL) {
        struct target *target = list_entry(node, struct target, idle_room);
        struct candidate candidate;
        if (list_empty(&target->idle))
            continue; /* it is in the list again when one of its is idle again */
        list_push_back(&seen, node);
        candidates++;
        candidate = candidate_of(target, now, &tables);
        if (candidate.rate >= below || !is_worth_less(&candidate, &least))
            continue;
        if (spared_us != NULL) {
            uint64_t until = stays_until(candidate.environment, candidate.environment->idle_us, now);
            if (until != 0) {
                *spared_us = MIN(*spared_us, until);
                continue;
            }
        }
        least = candidate;
    }
    while ((node = list_pop_front(&seen)) != NULL)
        list_push_back(targets, node);
    return least;
}

static void look_again(struct dispatch *dispatch, uint64_t at_us) {
    struct timer *timer = &dispatch->room.timer;
    if (at_us != UINT64_MAX && (timer->deadline_us == 0 || timer->deadline_us > at_us))
        timer_set(&dispatch->loop.timers, timer, MAX(at_us, 1u));
}

void room_offer(struct environment *environment) {
    struct room *room = &environment->dispatch->room;

    list_push_back(&room->idle, &environment->by_use);
    if (ahead_is_provisioned(environment))
        return;
    atomic_store_explicit(&room->n_idle, value(&room->n_idle) + 1, memory_order_relaxed);
    if (list_empty(&environment->target->idle_room))
        list_push_back(&room->targets, &environment->target->idle_room);
    if (is_short(environment->dispatch)) /* it was left alone, for a moment */
        look_again(environment->dispatch, stays_until(environment, environment->idle_us, environment->idle_us));
}

void room_withdraw(struct environment *environment) {
    struct room *room = &environment->dispatch->room;

    if (list_empty(&environment->by_use))
        return;
    list_remove(&environment->by_use);
    if (!ahead_is_provisioned(environment))
        atomic_store_explicit(&room->n_idle, value(&room->n_idle) - 1, memory_order_relaxed);
}

struct environment *room_least(struct dispatch *dispatch) {
    return least_valuable(dispatch, DBL_MAX, NULL).environment;
}

bool room_can_wait(const struct target *target, uint64_t now) {
    const struct invocation *head = schedule_head(target);
    struct candidate least;

    if (head == NULL || head->arrived_us + ROOM_PATIENCE_US <= now || target_established_anywhere(target) == 0)
        return false;
    least = least_valuable(target->dispatch, DBL_MAX, NULL);
    return least.environment == NULL || least.rate >= ROOM_HOT_RATE;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static uint64_t idle_of(const struct dispatch *dispatch, unsigned from) {
    const struct loops *loops = dispatch->loops;
    uint64_t idle = 0;
    for (unsigned i = from; i < loops->n; i++)
        idle += value(&loops->each[i]->room.n_idle);
    return idle;
}

static void give_memory_back(struct dispatch *dispatch, uint64_t n) {
    const double below = common_of(dispatch)->pressure >= ROOM_PRESSURE_FULL ? DBL_MAX : ROOM_HOT_RATE;

    for (; n > 0; n--) {
        struct environment *least = least_valuable(dispatch, below, NULL).environment;
        if (least == NULL)
            return;
        count_one(&dispatch->counters.node->environments_reclaimed);
        environment_handle(least, EVENT_RETIRE, NULL);
    }
}

void room_press(struct dispatch *dispatch, uint8_t level, uint32_t idle) {
    struct room_common *room = common_of(dispatch);
    uint64_t all, here;

    room->pressure = level;
    room->most_idle = level == ROOM_PRESSURE_NONE ? UINT32_MAX : idle;
    /* Each loop is told in turn: it ends its part of what is too many in those that are still to be told. */
    all = idle_of(dispatch, 0);
    here = value(&dispatch->room.n_idle);
    if (all > room->most_idle && here > 0) {
        uint64_t left = idle_of(dispatch, dispatch->number);
        give_memory_back(dispatch, ((all - room->most_idle) * here + left - 1) / left);
    }
}

void room_relieve(struct dispatch *dispatch) {
    const uint32_t most = common_of(dispatch)->most_idle;

    if (most != UINT32_MAX && idle_of(dispatch, 0) > most)
        give_memory_back(dispatch, 1);
}

/* ---- room ------------------------------------------------------------------------------------------------------- */

static void make(struct dispatch *dispatch) {
    struct environment *environment;
    uint64_t spared_us = UINT64_MAX;

    while (is_short(dispatch) && (environment = least_valuable(dispatch, DBL_MAX, &spared_us).environment) != NULL)
        environment_handle(environment, EVENT_RETIRE, NULL);
    if (is_short(dispatch))
        look_again(dispatch, spared_us);
}

static void on_timer(struct timer *timer, uint64_t now) {
    (void)now;
    make(list_entry(timer, struct dispatch, room.timer));
}

/* Since when the first that waits for room here does, for the other loops. */
static void show_since(struct dispatch *dispatch) {
    const struct invocation *head = NULL;

    if (dispatch->loops->n == 1)
        return;
    list_for_each(node, &dispatch->room.waiting) {
        head = schedule_head(list_entry(node, struct target, room));
        if (head != NULL) /* else for one ahead of demand */
            break;
    }
    atomic_store_explicit(
        &common_of(dispatch)->since_us[dispatch->number], head != NULL ? head->arrived_us : 0, memory_order_relaxed);
}

void room_want(struct target *target, uint32_t missing) {
    struct room *room = &target->dispatch->room;

    if (missing != target->missing)
        atomic_fetch_add(&common_of(target->dispatch)->wanted, missing - target->missing);
    target->missing = missing;
    if (missing == 0) {
        list_remove(&target->room);
        show_since(target->dispatch);
        return;
    }
    if (list_empty(&target->room))
        list_push_back(&room->waiting, &target->room);
    make(target->dispatch);
    show_since(target->dispatch);
    if (target->dispatch->loops->n > 1 && is_short(target->dispatch))
        loops_tell_room(target->dispatch);
}

bool room_is_owed(const struct environment *environment) {
    const uint64_t now = clock_monotonic_us();
    return is_short(environment->dispatch) && !ahead_is_provisioned(environment) &&
        stays_until(environment, now, now) == 0;
}

void room_changed(struct dispatch *dispatch) {
    struct list looked_at, *node;

    /* First who waits, so that what is wanted is known anew. Each once: who still has no room is in the list again. */
    list_init(&looked_at);
    while ((node = list_pop_front(&dispatch->room.waiting)) != NULL)
        list_push_back(&looked_at, node);
    while ((node = list_pop_front(&looked_at)) != NULL) {
        if (room_is_left(dispatch))
            schedule_target(list_entry(node, struct target, room));
        else
            list_push_back(&dispatch->room.waiting, node);
    }
    make(dispatch);
}

void room_freed(struct dispatch *dispatch) {
    room_give_back(dispatch);
    room_changed(dispatch);
    if (dispatch->loops->n > 1 && value(&common_of(dispatch)->wanted) > 0)
        loops_tell_room(dispatch);
}
