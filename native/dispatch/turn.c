/* Turns; see the header. */
#include "dispatch/turn.h"

#include "base/cleanup.h"

static uint64_t later(uint64_t from_us, uint64_t by_us) {
    return from_us > UINT64_MAX - by_us ? UINT64_MAX : from_us + by_us;
}

static uint64_t end_of_turn(const struct turn_view *view) {
    const uint64_t least = MIN(view->cost_us, TURN_US);
    const uint64_t part = view->line > view->places ? TURN_US * view->places / view->line : TURN_US;
    return later(MAX(view->made_us, view->other_us), MAX(part, least));
}

uint64_t turn_until(const struct turn_view *view) {
    const uint64_t linger = MIN(view->cost_us, TURN_LINGER_US), end = end_of_turn(view);
    uint64_t until;

    if (view->own_us != 0 && (view->other_us == 0 || view->own_us <= view->other_us))
        return UINT64_MAX;
    if (view->own_us == 0 && view->pause_us > linger)
        return 0;
    until = view->own_us != 0 ? end : MIN(later(view->idle_us, linger), end);
    return until > view->now_us ? until : 0;
}
