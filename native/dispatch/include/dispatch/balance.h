/* Which of several loops serves a connection: pure, from numbers that the loops show each other (spread.h).
 *
 * Connections are packed: a second loop costs turns, wake-ups and journeys of environments for nothing as long as one is
 * enough. The first loop that is not busy takes what is new. From one that stays busy some go to one that has less to do by
 * a quarter of the mark at least; when two loops together stay below two thirds of it, the later one's go to the earlier
 * one. The marks lie apart, so that what was moved is not moved back for what the move itself saved or cost.
 *
 * Loads are per mille of a core: processor time of the loop's thread without what it spun away. Time in which it wanted a
 * core and had none does not count: where cores are short, another loop would only take them from the functions. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BALANCE_BUSY 750u              /* of a thousand: the mark unless it is set */
#define BALANCE_STAYS_BUSY_US 250000u  /* so long before any go */
#define BALANCE_STAYS_CALM_US 2000000u /* and so long before they go back */
#define BALANCE_BETWEEN_US 1000000u    /* from one move of a loop to its next, and of a connection */

struct balance_view {
    uint32_t load;        /* per mille */
    uint32_t connections; /* that it has, and that are on their way to it */
};

/* What a loop knows from one look to the next. */
struct balance_state {
    uint64_t busy_since_us, calm_since_us; /* 0: it is not */
    uint64_t moved_us;                     /* when it last wanted any to go */
};

struct balance_rule {
    uint32_t busy; /* per mille; 0: all loops always are, connections go where the fewest are, and stay */
    uint32_t room; /* connections that are packed on a loop; more go where the fewest are */
};

/* Of the loop's own connections. */
struct balance_own {
    uint32_t active;  /* were used lately */
    uint32_t movable; /* are of a kind that can go */
};

struct balance_move {
    unsigned to;
    uint32_t count; /* connections; 0: none */
};

/* The loop that a new connection goes to. */
unsigned balance_choose(const struct balance_view *views, unsigned n, const struct balance_rule *rule);
/* What goes from loop `self`, which looks at itself every now and then while it is awake. */
struct balance_move balance_look(struct balance_state *state, const struct balance_view *views, unsigned n,
    unsigned self, const struct balance_own *own, const struct balance_rule *rule, uint64_t now_us);
