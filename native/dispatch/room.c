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

uint32_t room_left(const struct dispatch *dispatch) {
    const struct room *room = &dispatch->room;
    if (room->limit == 0)
        return UINT32_MAX;
    return dispatch->environments.size < room->limit ? room->limit - (uint32_t)dispatch->environments.size : 0;
}

/* More than what is leaving has to go. */
static bool is_short(const struct dispatch *dispatch) {
    const struct room *room = &dispatch->room;
    if (room->limit == 0)
        return false;
    return room->leaving < room->wanted || dispatch->environments.size > (size_t)room->limit + room->leaving;
}

static void make(struct dispatch *dispatch) {
    struct room *room = &dispatch->room;
    while (is_short(dispatch) && !list_empty(&room->idle))
        environment_handle(list_entry(room->idle.next, struct environment, by_use), EVENT_RETIRE, NULL);
}

void room_want(struct target *target, uint32_t missing) {
    struct room *room = &target->dispatch->room;

    room->wanted += missing - target->missing;
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
    while (room_left(dispatch) > 0 && (node = list_pop_front(&dispatch->room.waiting)) != NULL)
        schedule_target(list_entry(node, struct target, room));
    make(dispatch);
}
