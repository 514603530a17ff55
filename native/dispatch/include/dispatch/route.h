/* Routes: (function name, qualifier) → target, with a weighted alternate. An alias is a route with two targets;
 * `$LATEST` and every published version are routes too. The control plane owns the ids; lookups are by name and
 * qualifier.
 *
 * A route names targets by id: code updates swap the id, invocations under way keep the target they resolved. Records
 * of asynchronous events hold function uid and qualifier and resolve when they are taken from the queue (waits for
 * the log). */
#pragma once

#include <stdint.h>

#include "dispatch/table.h"
#include "protocol/wire.h"

#define ROUTE_WEIGHT_ONE 65536u

struct route {
    uint64_t id;
    uint64_t generation;
    uint32_t mark; /* of the synchronisation that put it last */
    uint64_t hash;
    struct route *next; /* another name with the same hash */
    uint64_t target;
    uint64_t alternate; /* 0: none */
    uint32_t alternate_weight;
    uint16_t name_size, qualifier_size;
    char text[WIRE_PUT_ROUTE_NAME_MAX + WIRE_PUT_ROUTE_QUALIFIER_MAX]; /* name, then qualifier */
};

struct routes {
    struct table by_id;
    struct table by_hash;
    uint64_t seed;
};

/* Newer generation wins, an older one changes nothing but the mark. 0 or -ENOMEM. */
int routes_put(
    struct routes *routes, const struct wire_header *header, const struct wire_put_route *message, uint32_t mark);
void routes_del(struct routes *routes, uint64_t id);
/* Removes those without the mark. */
void routes_sweep(struct routes *routes, uint32_t mark);
const struct route *routes_find(const struct routes *routes, struct wire_slice name, struct wire_slice qualifier);
/* The target's id; draw: uniform below 65,536. */
uint64_t route_pick(const struct route *route, uint32_t draw);
void routes_done(struct routes *routes);
