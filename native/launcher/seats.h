/* Seats: the cgroup that a zygote's next fork lands in. Leaves are made ahead by the seater and kept in stock.
 *
 * v1: the zygote itself is moved into the leaf and its child is born there. A move that follows another within a few
 * milliseconds is quick (some 25 us for four hierarchies) and done here; any other may wait for an RCU grace period and
 * is the seater's. v2: the child is cloned into the leaf, the zygote stays where it is. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "seater.h"

struct server;
struct zygote;

/* Leaves in stock, and asked for at a time. */
#define LEAVES_STOCK 16
#define LEAVES_ASKED_MAX 8

struct seats {
    struct seater seater;
    struct leaf stock[LEAVES_STOCK];
    unsigned n, asked;
    uint64_t moved_us; /* when a zygote was moved last, by anybody */
};

int seats_start(struct server *server);
/* Stops the seater; the stock's directories are left to the last sweep. */
void seats_stop(struct server *server);
void seats_refill(struct server *server);
/* Gives the zygote a seat, now (true) or soon: then zygote_seated is called. */
bool seats_give(struct server *server, struct zygote *zygote);
/* Writes the limits where they are not written yet (some 80 us). */
int leaf_set_limits(struct server *server, struct leaf *leaf, const struct cgroup_limits *limits);
/* Gives a leaf up: removed once empty. */
void leaf_drop(struct server *server, struct leaf *leaf);
