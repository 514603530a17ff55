/* Tokens; see the header. */
#include "dispatch/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define RELAXED memory_order_relaxed

/* As much as a loop may hoard: with small limits nearly all stays in common. */
static uint32_t batch_of(int64_t capacity, unsigned loops) {
    int64_t share = capacity / (4 * (int64_t)loops);
    return share < 1 ? 1 : share > POOL_BATCH ? POOL_BATCH : (uint32_t)share;
}

int pool_init(struct pool *pool, unsigned loops, int64_t capacity) {
    struct pool_cell *cells = NULL;
    if (loops > 1) {
        cells = aligned_alloc(64, loops * sizeof(*cells));
        if (cells == NULL)
            return -ENOMEM;
        memset(cells, 0, loops * sizeof(*cells));
    }
    *pool = (struct pool){
        .common = capacity, .capacity = capacity, .loops = loops, .batch = batch_of(capacity, loops), .cells = cells};
    return 0;
}

void pool_done(struct pool *pool) {
    free(pool->cells);
    pool->cells = NULL;
}

static uint32_t draw(_Atomic int64_t *common, uint32_t n) {
    int64_t there = atomic_load_explicit(common, RELAXED);
    while (there > 0) {
        uint32_t taken = (uint32_t)MIN((int64_t)n, there);
        if (atomic_compare_exchange_weak(common, &there, there - taken))
            return taken;
    }
    return 0;
}

static bool draw_one(struct pool_cell *cell) {
    uint32_t there = atomic_load_explicit(&cell->free, RELAXED);
    while (there > 0)
        if (atomic_compare_exchange_weak(&cell->free, &there, there - 1))
            return true;
    return false;
}

static uint32_t draw_half(struct pool_cell *cell) {
    uint32_t there = atomic_load_explicit(&cell->free, RELAXED);
    while (there > 0)
        if (atomic_compare_exchange_weak(&cell->free, &there, there - (there + 1) / 2))
            return (there + 1) / 2;
    return 0;
}

/* While they are between two places nobody sees them: who finds none looks again. */
static void begin_move(struct pool *pool) {
    atomic_fetch_add(&pool->moving, 1);
    atomic_fetch_add(&pool->moves, 1);
}

static void end_move(struct pool *pool) {
    atomic_fetch_sub(&pool->moving, 1);
}

static bool fetch_common(struct pool *pool, unsigned loop) {
    if (draw(&pool->common, 1) == 0)
        return false;
    if (pool->batch > 1) {
        begin_move(pool);
        atomic_fetch_add(&pool->cells[loop].free, draw(&pool->common, pool->batch - 1));
        end_move(pool);
    }
    return true;
}

static bool fetch_cell(struct pool *pool, unsigned loop, unsigned other) {
    if (!draw_one(&pool->cells[other]))
        return false;
    begin_move(pool);
    atomic_fetch_add(&pool->cells[loop].free, draw_half(&pool->cells[other]));
    end_move(pool);
    return true;
}

/* A token from elsewhere, and a few more for the cell. */
static bool fetch(struct pool *pool, unsigned loop) {
    for (unsigned tries = 0; tries < POOL_TRIES; tries++) {
        uint32_t before = atomic_load(&pool->moves);
        bool still = atomic_load(&pool->moving) == 0;
        if (fetch_common(pool, loop))
            return true;
        for (unsigned i = 1; i < pool->loops; i++)
            if (fetch_cell(pool, loop, (loop + i) % pool->loops))
                return true;
        if (still && atomic_load(&pool->moves) == before)
            return false;
    }
    return false;
}

bool pool_take(struct pool *pool, unsigned loop) {
    int64_t common = atomic_load_explicit(&pool->common, RELAXED);

    if (pool->cells == NULL) {
        if (common <= 0)
            return false;
        atomic_store_explicit(&pool->common, common - 1, RELAXED);
        return true;
    }
    return common >= 0 && (draw_one(&pool->cells[loop]) || fetch(pool, loop));
}

void pool_give(struct pool *pool, unsigned loop) {
    struct pool_cell *cell;
    uint32_t there;

    if (pool->cells == NULL) {
        atomic_store_explicit(&pool->common, atomic_load_explicit(&pool->common, RELAXED) + 1, RELAXED);
        return;
    }
    if (atomic_load_explicit(&pool->common, RELAXED) < 0) {
        atomic_fetch_add(&pool->common, 1);
        return;
    }
    cell = &pool->cells[loop];
    there = atomic_fetch_add(&cell->free, 1) + 1;
    if (there <= 2 * pool->batch)
        return;
    /* More than it will need soon: half goes back. */
    begin_move(pool);
    atomic_fetch_add(&pool->common, draw_half(cell));
    end_move(pool);
}

void pool_resize(struct pool *pool, int64_t capacity) {
    int64_t common = atomic_load_explicit(&pool->common, RELAXED) + capacity - pool->capacity;
    for (unsigned i = 0; pool->cells != NULL && i < pool->loops; i++)
        common += atomic_exchange(&pool->cells[i].free, 0);
    atomic_store_explicit(&pool->common, common, RELAXED);
    pool->capacity = capacity;
    pool->batch = batch_of(capacity, pool->loops);
}

int64_t pool_in_use(const struct pool *pool) {
    int64_t available = atomic_load_explicit(&pool->common, RELAXED);
    for (unsigned i = 0; pool->cells != NULL && i < pool->loops; i++)
        available += atomic_load_explicit(&pool->cells[i].free, RELAXED);
    return pool->capacity - available;
}
