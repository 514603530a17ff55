/* Packing connections on loops; see the header. */
#include "dispatch/balance.h"

#include "base/cleanup.h"

unsigned balance_choose(const struct balance_view *views, unsigned n, const struct balance_rule *rule) {
    unsigned found = 0;

    for (unsigned i = 0; i < n; i++)
        if (views[i].load < rule->busy && views[i].connections < rule->room)
            return i;
    for (unsigned i = 1; i < n; i++)
        if (views[i].connections < views[found].connections)
            found = i;
    return found;
}

/* Since when something has held, from looks in turn. */
static bool has_held(uint64_t *since_us, bool holds, uint64_t for_us, uint64_t now_us) {
    if (!holds)
        *since_us = 0;
    else if (*since_us == 0)
        *since_us = now_us;
    return holds && now_us - *since_us >= for_us;
}

/* To the least busy one, as much as makes both equally so; never the last active one: the load would go along. */
static struct balance_move relieve(const struct balance_view *views, unsigned n, unsigned self,
    const struct balance_own *own, const struct balance_rule *rule) {
    uint32_t mine = views[self].load, left;
    unsigned to = self;

    for (unsigned i = 0; i < n; i++)
        if (views[i].load < views[to].load && views[i].connections < rule->room)
            to = i;
    if (to == self || mine < rule->busy || views[to].load + rule->busy / 4 > mine || own->active < 2 ||
        own->movable == 0)
        return (struct balance_move){0};
    left = (mine - views[to].load) / 2;
    return (struct balance_move){to, MAX(1u, (uint32_t)((uint64_t)own->active * left / mine))};
}

/* To the first one before it that could do all of both with a third to spare. */
static struct balance_move gather(
    const struct balance_view *views, unsigned self, const struct balance_own *own, const struct balance_rule *rule) {
    for (unsigned i = 0; i < self && own->movable > 0; i++)
        if (views[i].load + views[self].load <= rule->busy * 2 / 3 && views[i].connections + own->movable <= rule->room)
            return (struct balance_move){i, own->movable};
    return (struct balance_move){0};
}

struct balance_move balance_look(struct balance_state *state, const struct balance_view *views, unsigned n,
    unsigned self, const struct balance_own *own, const struct balance_rule *rule, uint64_t now_us) {
    struct balance_move away = relieve(views, n, self, own, rule), back = gather(views, self, own, rule);
    bool stays_busy = has_held(&state->busy_since_us, away.count > 0, BALANCE_STAYS_BUSY_US, now_us);
    bool stays_calm = has_held(&state->calm_since_us, back.count > 0, BALANCE_STAYS_CALM_US, now_us);
    struct balance_move move = stays_busy ? away : stays_calm ? back : (struct balance_move){0};

    if (rule->busy == 0 || (state->moved_us != 0 && now_us - state->moved_us < BALANCE_BETWEEN_US))
        return (struct balance_move){0};
    if (move.count > 0)
        state->moved_us = now_us;
    return move;
}
