/* Bytes on their way to a peer that takes them as it can: one piece of memory, counted against the node's budget for
 * payloads, that grows as it must and goes when it is empty. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct budget;

struct outflow {
    struct budget *budget;
    uint8_t *data;
    size_t at, size, room; /* `size` bytes from `at` on wait; room is charged */
};

/* Room for `size` more bytes behind the others; they count when outflow_grow says so. -ENOBUFS: over budget;
 * -ENOMEM. */
int outflow_reserve(struct outflow *outflow, size_t size, uint8_t **ret_at);
void outflow_grow(struct outflow *outflow, size_t size);
/* Both at once. */
int outflow_add(struct outflow *outflow, const void *data, size_t size);
/* So many from the front are gone. */
void outflow_taken(struct outflow *outflow, size_t size);
void outflow_done(struct outflow *outflow);
