/* Which loop serves a connection: the decisions one by one, and a node in which loops look at each other in turn, as they
 * do: packed when little is used, spread when much is, and at rest afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/balance.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static const struct balance_rule usual = {.busy = BALANCE_BUSY, .room = 512}, by_number = {.busy = 0, .room = 512};

static void test_new_ones_are_packed(void) {
    struct balance_view views[3] = {{.load = 740, .connections = 500}, {.load = 0}, {.load = 0}};
    CHECK(balance_choose(views, 3, &usual) == 0);
    CHECK(balance_choose(views, 3, &by_number) == 1);
    views[0].load = 750;
    CHECK(balance_choose(views, 3, &usual) == 1);
    views[1] = (struct balance_view){.load = 10, .connections = 512}; /* no room */
    CHECK(balance_choose(views, 3, &usual) == 2);
    views[2].load = 990; /* all busy or full: the fewest connections */
    CHECK(balance_choose(views, 3, &usual) == 2);
    views[2].connections = 501;
    CHECK(balance_choose(views, 3, &usual) == 0);
}

static struct balance_move look_after(const struct balance_view *views, unsigned n, unsigned self,
    struct balance_own own, const struct balance_rule *rule, uint64_t us, struct balance_state *state) {
    CHECK(balance_look(state, views, n, self, &own, rule, 1000000).count == 0); /* never at the first look */
    return balance_look(state, views, n, self, &own, rule, 1000000 + us);
}

static struct balance_move fresh(const struct balance_view *views, unsigned self, struct balance_own own,
    const struct balance_rule *rule, uint64_t us) {
    struct balance_state state = {0};
    return look_after(views, 2, self, own, rule, us, &state);
}

static void test_a_busy_one_is_relieved(void) {
    struct balance_view views[2] = {{.load = 900, .connections = 64}, {.load = 0}};
    const struct balance_own own = {.active = 64, .movable = 64};
    struct balance_move move = fresh(views, 0, own, &usual, BALANCE_STAYS_BUSY_US);
    CHECK(move.to == 1 && move.count == 32);
    CHECK(fresh(views, 0, own, &usual, BALANCE_STAYS_BUSY_US - 1).count == 0);
    CHECK(fresh(views, 0, own, &by_number, BALANCE_STAYS_BUSY_US).count == 0);
    CHECK(fresh(views, 0, (struct balance_own){1, 64}, &usual, BALANCE_STAYS_BUSY_US).count == 0);
    CHECK(fresh(views, 0, (struct balance_own){64, 0}, &usual, BALANCE_STAYS_BUSY_US).count == 0);
    views[1] = (struct balance_view){.load = 600, .connections = 500};
    move = fresh(views, 0, own, &usual, BALANCE_STAYS_BUSY_US);
    CHECK(move.to == 1 && move.count == 10); /* until both have 750 */
    views[1].load = 720;
    CHECK(fresh(views, 0, own, &usual, BALANCE_STAYS_BUSY_US).count == 0);
    views[1] = (struct balance_view){.load = 0, .connections = 512};
    CHECK(fresh(views, 0, own, &usual, BALANCE_STAYS_BUSY_US).count == 0);
    views[0].load = 740;
    views[1] = (struct balance_view){0};
    CHECK(fresh(views, 0, own, &usual, 60000000).count == 0);
}

static void test_a_calm_one_is_given_up(void) {
    struct balance_view views[2] = {{.load = 250, .connections = 3}, {.load = 250, .connections = 5}};
    const struct balance_own own = {.movable = 4};
    struct balance_move move = fresh(views, 1, own, &usual, BALANCE_STAYS_CALM_US);
    CHECK(move.to == 0 && move.count == 4);
    CHECK(fresh(views, 1, own, &usual, BALANCE_STAYS_CALM_US - 1).count == 0);
    CHECK(fresh(views, 0, own, &usual, BALANCE_STAYS_CALM_US).count == 0); /* the first one keeps what it has */
    CHECK(fresh(views, 1, own, &by_number, BALANCE_STAYS_CALM_US).count == 0);
    views[0].load = 251;
    CHECK(fresh(views, 1, own, &usual, BALANCE_STAYS_CALM_US).count == 0);
    views[0] = (struct balance_view){.load = 0, .connections = 509};
    CHECK(fresh(views, 1, own, &usual, BALANCE_STAYS_CALM_US).count == 0);
}

static void test_not_twice_in_a_second(void) {
    const struct balance_view views[2] = {{.load = 1000, .connections = 64}, {.load = 0}};
    const struct balance_own own = {.active = 64, .movable = 64};
    struct balance_state state = {0};
    CHECK(look_after(views, 2, 0, own, &usual, BALANCE_STAYS_BUSY_US, &state).count > 0);
    CHECK(balance_look(&state, views, 2, 0, &own, &usual, 1999999).count == 0);
    CHECK(balance_look(&state, views, 2, 0, &own, &usual, 1000000 + BALANCE_STAYS_BUSY_US + BALANCE_BETWEEN_US).count);
}

/* ---- a node ------------------------------------------------------------------------------------------------------ */

#define LOOPS 4u
#define CONNECTIONS 96u
#define STEP_US 50000u

struct node {
    unsigned loop_of[CONNECTIONS];
    uint32_t brings[CONNECTIONS]; /* per mille */
    uint32_t load[LOOPS];
    struct balance_state states[LOOPS];
    uint64_t now_us, moved_us[CONNECTIONS];
    unsigned moves;
};

/* What a loop has to do; connections of their own loop cost a tenth more, for they come in smaller batches. */
static uint32_t wanted(const struct node *node, unsigned loop) {
    uint32_t sum = 0, all = 0;
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        sum += node->loop_of[i] == loop ? node->brings[i] : 0;
        all += node->brings[i];
    }
    return sum < all ? sum + sum / 10 : sum;
}

static void turn(struct node *node) {
    struct balance_view views[LOOPS] = {0};
    node->now_us += STEP_US;
    for (unsigned i = 0; i < LOOPS; i++) {
        uint32_t now = wanted(node, i);
        node->load[i] = (node->load[i] * 3 + (now < 1000 ? now : 1000)) / 4;
        views[i].load = node->load[i];
    }
    for (unsigned i = 0; i < CONNECTIONS; i++)
        views[node->loop_of[i]].connections++;
    for (unsigned self = 0; self < LOOPS; self++) {
        struct balance_own own = {.movable = views[self].connections};
        struct balance_move move;
        for (unsigned i = 0; i < CONNECTIONS; i++)
            own.active += node->loop_of[i] == self && node->brings[i] > 0;
        move = balance_look(&node->states[self], views, LOOPS, self, &own, &usual, node->now_us);
        for (unsigned i = 0; i < CONNECTIONS && move.count > 0; i++) {
            if (node->loop_of[i] != self || (node->moved_us[i] != 0 && node->now_us - node->moved_us[i] < 1000000))
                continue;
            CHECK(move.to != self && move.to < LOOPS);
            node->loop_of[i] = move.to;
            node->moved_us[i] = node->now_us;
            node->moves++;
            move.count--;
        }
    }
}

static void run_for(struct node *node, unsigned seconds) {
    for (unsigned i = 0; i < seconds * (1000000 / STEP_US); i++)
        turn(node);
}

static void bring(struct node *node, uint32_t total) {
    for (unsigned i = 0; i < CONNECTIONS; i++)
        node->brings[i] = total / CONNECTIONS + (i < total % CONNECTIONS);
}

/* Whatever is asked of it, in any order: it comes to rest, with no loop over the mark that another could relieve, and with
 * one loop only where one is enough. */
static void test_a_node_comes_to_rest(void) {
    static const uint32_t loads[] = {0, 96, 300, 480, 600, 740, 900, 1100, 1400, 2000, 2600, 3500};
    for (unsigned seed = 1; seed < 300; seed++) {
        struct node node = {.now_us = 1};
        unsigned state = seed;
        for (unsigned phase = 0; phase < 6; phase++) {
            uint32_t total, highest = 0, lowest = UINT32_MAX;
            state = state * 1103515245u + 12345u;
            total = loads[(state >> 16) % (sizeof(loads) / sizeof(loads[0]))];
            bring(&node, total);
            run_for(&node, 40);
            node.moves = 0;
            run_for(&node, 20);
            CHECK(node.moves == 0);
            for (unsigned i = 0; i < LOOPS; i++) {
                highest = node.load[i] > highest ? node.load[i] : highest;
                lowest = node.load[i] < lowest ? node.load[i] : lowest;
            }
            CHECK(highest < usual.busy || highest - lowest < usual.busy / 4 + 25);
            if (total <= 300)
                for (unsigned i = 0; i < CONNECTIONS; i++)
                    CHECK(node.loop_of[i] == 0);
        }
    }
}

int main(void) {
    test_new_ones_are_packed();
    test_a_busy_one_is_relieved();
    test_a_calm_one_is_given_up();
    test_not_twice_in_a_second();
    test_a_node_comes_to_rest();
    return 0;
}
