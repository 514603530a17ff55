/* Routes; see the header. */
#include "dispatch/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t hash, const uint8_t *data, uint32_t size) {
    for (uint32_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    hash ^= hash >> 32;
    return hash * 0x9e3779b97f4a7c15u;
}

static uint64_t hash_of(const struct routes *routes, struct wire_slice name, struct wire_slice qualifier) {
    return mix(mix(routes->seed ^ 0xcbf29ce484222325u, name.data, name.size), qualifier.data, qualifier.size);
}

static int route_is(const struct route *route, struct wire_slice name, struct wire_slice qualifier) {
    return route->name_size == name.size && route->qualifier_size == qualifier.size &&
        (name.size == 0 || memcmp(route->text, name.data, name.size) == 0) &&
        (qualifier.size == 0 || memcmp(route->text + name.size, qualifier.data, qualifier.size) == 0);
}

static void unlink_route(struct routes *routes, struct route *route) {
    struct route *first = table_get(&routes->by_hash, route->hash);
    if (first == route) {
        table_remove(&routes->by_hash, route->hash);
        /* Putting into a place that was just freed cannot fail. */
        if (route->next != NULL)
            (void)table_put(&routes->by_hash, route->hash, route->next);
    } else {
        while (first != NULL && first->next != route)
            first = first->next;
        if (first != NULL)
            first->next = route->next;
    }
    route->next = NULL;
}

/* In front of an older one of the same name: the last one put is found. */
static int link_route(struct routes *routes, struct route *route) {
    struct route *first = table_get(&routes->by_hash, route->hash);
    int r = table_put(&routes->by_hash, route->hash, route);
    if (r < 0)
        return r;
    route->next = first;
    return 0;
}

int routes_put(
    struct routes *routes, const struct wire_header *header, const struct wire_put_route *message, uint32_t mark) {
    struct route *route = table_get(&routes->by_id, header->object), *made;
    int r;

    if (route != NULL) {
        route->mark = mark;
        if (header->generation <= route->generation)
            return 0;
    }
    made = calloc(1, sizeof(*made));
    if (made == NULL)
        return -ENOMEM;
    *made = (struct route){
        .id = header->object,
        .generation = header->generation,
        .mark = mark,
        .hash = hash_of(routes, message->name, message->qualifier),
        .target = message->target,
        .alternate = message->alternate,
        .alternate_weight = message->alternate_weight,
        .name_size = (uint16_t)message->name.size,
        .qualifier_size = (uint16_t)message->qualifier.size,
    };
    memcpy(made->text, message->name.data, message->name.size);
    if (message->qualifier.size > 0)
        memcpy(made->text + message->name.size, message->qualifier.data, message->qualifier.size);
    r = table_put(&routes->by_id, made->id, made);
    if (r >= 0) {
        r = link_route(routes, made);
        if (r < 0 && route == NULL)
            table_remove(&routes->by_id, made->id);
        else if (r < 0)
            (void)table_put(&routes->by_id, made->id, route);
    }
    if (r < 0) {
        free(made);
        return r;
    }
    if (route != NULL) {
        unlink_route(routes, route);
        free(route);
    }
    return 0;
}

static void remove_route(struct routes *routes, struct route *route) {
    table_remove(&routes->by_id, route->id);
    unlink_route(routes, route);
    free(route);
}

void routes_del(struct routes *routes, uint64_t id) {
    struct route *route = table_get(&routes->by_id, id);
    if (route != NULL)
        remove_route(routes, route);
}

void routes_sweep(struct routes *routes, uint32_t mark) {
    struct route *route;
    size_t at = 0;
    /* Deleting shifts entries back: what moved is looked at again by starting over. */
    while ((route = table_next(&routes->by_id, &at)) != NULL)
        if (route->mark != mark) {
            remove_route(routes, route);
            at = 0;
        }
}

const struct route *routes_find(const struct routes *routes, struct wire_slice name, struct wire_slice qualifier) {
    struct route *route = table_get(&routes->by_hash, hash_of(routes, name, qualifier));
    while (route != NULL && !route_is(route, name, qualifier))
        route = route->next;
    return route;
}

uint64_t route_pick(const struct route *route, uint32_t draw) {
    return route->alternate != 0 && draw < route->alternate_weight ? route->alternate : route->target;
}

void routes_done(struct routes *routes) {
    struct route *route;
    size_t at = 0;
    while ((route = table_next(&routes->by_id, &at)) != NULL)
        free(route);
    table_done(&routes->by_id);
    table_done(&routes->by_hash);
}
