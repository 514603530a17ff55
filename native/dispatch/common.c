/* What the loops have in common of functions and targets; see the header. */
#include "dispatch/common.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/log_ring.h"
#include "dispatch/log_writer.h"

static uint64_t key_of(const uint8_t uid[16]) {
    uint64_t key;
    memcpy(&key, uid, sizeof(key));
    return key;
}

static void function_free(struct common_function *function) {
    concurrency_done(&function->concurrency);
    free(function);
}

struct common_function *common_function_take(struct loops *loops, const uint8_t uid[16]) {
    struct common_function *first = table_get(&loops->functions, key_of(uid)), *function = first;

    while (function != NULL && memcmp(function->uid, uid, 16) != 0)
        function = function->next;
    if (function != NULL) {
        function->users++;
        return function;
    }
    function = calloc(1, sizeof(*function));
    if (function == NULL)
        return NULL;
    memcpy(function->uid, uid, 16);
    function->next = first;
    function->users = 1;
    if (concurrency_init(&function->concurrency, loops->n) < 0)
        goto fail;
    function->log = log_file_new(uid);
    if (function->log == NULL || table_put(&loops->functions, key_of(uid), function) < 0)
        goto fail;
    bucket_init(&function->log_bucket, LOG_FUNCTION_RATE, clock_monotonic_us());
    return function;
fail:
    free(function->log);
    function_free(function);
    return NULL;
}

/* The log's file belongs to the writer's thread: an empty entry in each ring, behind all records, tells it to let go. */
static void log_let_go(struct loops *loops, struct log_file *log) {
    for (unsigned i = 0; i < loops->n; i++) {
        struct log_ring *ring = loops->each[i]->logs.ring;
        struct ring_entry *entry = ring_reserve(ring, 0, true);
        if (entry == NULL)
            continue; /* cannot be: its reserve is larger than all functions that can end in a turn */
        entry->file = log;
        ring_commit(ring, entry);
    }
}

void common_function_let_go(struct loops *loops, struct common_function *function) {
    struct common_function *first;

    if (--function->users > 0)
        return;
    admission_reserve(&loops->account, &function->concurrency, RESERVED_UNSET);
    first = table_get(&loops->functions, key_of(function->uid));
    if (first == function) {
        table_remove(&loops->functions, key_of(function->uid));
        if (function->next != NULL)
            (void)table_put(&loops->functions, key_of(function->uid), function->next);
    } else {
        while (first->next != function)
            first = first->next;
        first->next = function->next;
    }
    log_let_go(loops, function->log);
    function_free(function);
}

static struct common_view *views_new(unsigned n) {
    struct common_view *views = aligned_alloc(64, n * sizeof(*views));
    if (views != NULL)
        memset(views, 0, n * sizeof(*views));
    return views;
}

struct common_target *common_target_take(struct loops *loops, uint64_t id) {
    struct common_target *target = table_get(&loops->targets, id);

    if (target != NULL) {
        target->users++;
        return target;
    }
    target = calloc(1, sizeof(*target));
    if (target == NULL)
        return NULL;
    target->id = id;
    target->users = 1;
    if (loops->n > 1) {
        target->views = views_new(loops->n);
        if (target->views == NULL)
            goto fail;
    }
    if (version_pools_init(&target->pools, loops->n) < 0)
        goto fail;
    if (table_put(&loops->targets, id, target) < 0)
        goto fail;
    return target;
fail:
    version_pools_done(&target->pools);
    free(target->views);
    free(target);
    return NULL;
}

void common_target_let_go(struct loops *loops, struct common_target *target) {
    if (--target->users > 0)
        return;
    table_remove(&loops->targets, target->id);
    version_pools_done(&target->pools);
    free(target->views);
    free(target);
}

bool common_claim(_Atomic uint32_t *count, uint32_t most) {
    uint32_t now = atomic_load_explicit(count, memory_order_relaxed);
    while (now < most)
        if (atomic_compare_exchange_weak_explicit(count, &now, now + 1, memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

bool common_target_claim(struct common_target *target, uint32_t max_environments) {
    return common_claim(&target->live, max_environments);
}
