/* Room; see the header. */
#include "dispatch/room.h"

#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"
#include "dispatch/schedule.h"

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

bool room_claim(struct dispatch *dispatch) {
    struct room_common *room = common_of(dispatch);
    uint32_t environments = value(&room->environments);
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

static void make(struct dispatch *dispatch) {
    struct room *room = &dispatch->room;
    while (is_short(dispatch) && !list_empty(&room->idle))
        environment_handle(list_entry(room->idle.next, struct environment, by_use), EVENT_RETIRE, NULL);
}

void room_want(struct target *target, uint32_t missing) {
    struct room *room = &target->dispatch->room;

    if (missing != target->missing)
        atomic_fetch_add(&common_of(target->dispatch)->wanted, missing - target->missing);
    target->missing = missing;
    if (missing == 0) {
        list_remove(&target->room);
        return;
    }
    if (list_empty(&target->room))
        list_push_back(&room->waiting, &target->room);
    make(target->dispatch);
}

bool room_is_owed(const struct environment *environment) {
    const struct dispatch *dispatch = environment->dispatch;
    const struct invocation *own = schedule_head(environment->target);

    if (!is_short(dispatch))
        return false;
    if (own == NULL)
        return true;
    list_for_each(node, &dispatch->room.waiting) {
        const struct target *target = list_entry(node, struct target, room);
        const struct invocation *other = schedule_head(target);
        if (target != environment->target && other != NULL)
            return other->arrived_us + ROOM_PATIENCE_US < own->arrived_us;
    }
    return false;
}

void room_changed(struct dispatch *dispatch) {
    struct list *node;

    /* First who waits, so that what is wanted is known anew. */
    while (room_is_left(dispatch) && (node = list_pop_front(&dispatch->room.waiting)) != NULL)
        schedule_target(list_entry(node, struct target, room));
    make(dispatch);
}
