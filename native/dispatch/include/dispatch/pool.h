/* A pool of tokens that several loops draw on: the limits of admission. Each loop keeps a few tokens at hand in a cell of
 * its own, drawn in batches from what all have in common, so that an invocation touches no memory that another loop
 * writes; a loop that finds neither takes half of what another has at hand. Pure, no locks.
 *
 * Exact: tokens in use never exceed the capacity, and none is lost: capacity = common + cells + in use, always. A
 * capacity that shrinks below what is in use leaves `common` negative: then what comes back goes there, and nothing is
 * taken. A refusal means that no token was found in any place while nobody moved any from one to the other (or that
 * POOL_TRIES looks found none and somebody always did).
 *
 * One loop has no cells and pays for no atomic instruction. The capacity is changed while all other loops stand still. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LOOPS_MAX 64u
#define POOL_BATCH 64u /* tokens drawn at once, at most */
#define POOL_TRIES 16u
#define POOL_ENDLESS (INT64_C(1) << 40)

struct pool_cell {
    _Alignas(64) _Atomic uint32_t free;
};

struct pool {
    _Atomic int64_t common;  /* free ones; negative: more are in use than there should be */
    _Atomic uint32_t moving; /* loops that are moving tokens from one place to another */
    _Atomic uint32_t moves;  /* how often that was begun */
    int64_t capacity;
    unsigned loops;
    uint32_t batch;
    struct pool_cell *cells; /* one a loop; NULL: a single loop */
};

/* 0 or -ENOMEM. */
int pool_init(struct pool *pool, unsigned loops, int64_t capacity);
void pool_done(struct pool *pool);
bool pool_take(struct pool *pool, unsigned loop);
void pool_give(struct pool *pool, unsigned loop);
/* While all other loops stand still. */
void pool_resize(struct pool *pool, int64_t capacity);
/* Exact while all other loops stand still. */
int64_t pool_in_use(const struct pool *pool);
