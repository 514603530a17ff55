/* Room; see the header. */
#include "dispatch/room.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"
#include "dispatch/schedule.h"
#include "dispatch/worth.h"

void room_init(struct room *room) {
    *room = (struct room){0};
    list_init(&room->idle);
    list_init(&room->waiting);
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

static double rate_of(const struct environment *environment, uint64_t now) {
    return worth_rate(environment->target->idle_times.counts, now - MIN(environment->idle_us, now));
}

/* For the memory that it takes. */
static double worth_of(const struct environment *environment, uint64_t now) {
    return rate_of(environment, now) / (double)MAX(environment->peak_kb, ROOM_LEAST_KB);
}

/* Of each target the one used longest ago is looked at, and of so many of those who did so longest ago. */
static struct environment *least_valuable(struct dispatch *dispatch) {
    const uint64_t now = clock_monotonic_us();
    const uint32_t look = ++dispatch->room.look;
    struct environment *least = NULL;
    double least_worth = 0;
    uint32_t seen = 0, candidates = 0;

    list_for_each(node, &dispatch->room.idle) {
        struct environment *environment = list_entry(node, struct environment, by_use);
        double worth;
        if (++seen > ROOM_LOOK_MAX || candidates >= ROOM_CANDIDATES_MAX)
            break;
        if (ahead_is_provisioned(environment) || environment->target->room_look == look)
            continue;
        environment->target->room_look = look;
        candidates++;
        worth = worth_of(environment, now);
        if (least == NULL || worth < least_worth) {
            least = environment;
            least_worth = worth;
        }
    }
    return least;
}

bool room_can_wait(const struct target *target, uint64_t now) {
    const struct invocation *head = schedule_head(target);
    const struct environment *least;

    if (head == NULL || head->arrived_us + ROOM_PATIENCE_US <= now || target_established_anywhere(target) == 0)
        return false;
    least = least_valuable(target->dispatch);
    return least == NULL || rate_of(least, now) >= ROOM_HOT_RATE;
}

static void make(struct dispatch *dispatch) {
    struct environment *environment;
    while (is_short(dispatch) && (environment = least_valuable(dispatch)) != NULL)
        environment_handle(environment, EVENT_RETIRE, NULL);
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
    const struct dispatch *dispatch = environment->dispatch;
    const struct invocation *own = schedule_head(environment->target);

    if (!is_short(dispatch) || ahead_is_provisioned(environment))
        return false;
    if (own == NULL)
        return true;
    list_for_each(node, &dispatch->room.waiting) {
        const struct target *target = list_entry(node, struct target, room);
        const struct invocation *other = schedule_head(target);
        if (target != environment->target && other != NULL)
            return other->arrived_us + ROOM_PATIENCE_US < own->arrived_us;
    }
    return is_owed_elsewhere(dispatch, own);
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
