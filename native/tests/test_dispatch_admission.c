/* Admission and the start rule: every small case against the rules as sentences. */
#include <stdio.h>
#include <stdlib.h>

#include "dispatch/admission.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define SMALL 5

struct load {
    uint32_t in_flight, max_environments, max_waiting;
};

static void fill(struct pool *pool, unsigned loop, uint32_t in_use) {
    int64_t capacity = pool->capacity;
    pool_resize(pool, POOL_ENDLESS);
    for (uint32_t i = 0; i < in_use; i++)
        CHECK(pool_take(pool, (loop + i) % pool->loops));
    pool_resize(pool, capacity);
}

/* Of the function, `in_use` run beside those that the provision serves, of which `own` do. */
struct provision {
    uint32_t executions, own, others;
};

static void check_take(unsigned loops, uint32_t limit, uint32_t reserved_by_others, uint32_t reserved, uint32_t in_use,
    struct load load, struct provision provision) {
    const unsigned loop = in_use % loops;
    struct account account;
    struct concurrency function, other;
    struct version_pools target, elsewhere;
    uint32_t tokens = 77;

    CHECK(account_init(&account, loops, limit) == 0);
    CHECK(concurrency_init(&function, loops) == 0 && concurrency_init(&other, loops) == 0);
    CHECK(version_pools_init(&target, loops) == 0 && version_pools_init(&elsewhere, loops) == 0);
    pool_resize(&target.load, (int64_t)load.max_environments + load.max_waiting);
    admission_reserve(&account, &other, reserved_by_others);
    admission_provision(&account, &function, &target, provision.executions);
    admission_provision(&account, &function, &elsewhere, provision.others);
    admission_reserve(&account, &function, reserved);
    fill(&function.pool, loop, in_use);
    if (reserved == RESERVED_UNSET)
        fill(&account.unreserved, loop, in_use);
    fill(&target.load, loop, load.in_flight);
    fill(&target.provision, loop, provision.own);
    const int64_t unreserved = pool_in_use(&account.unreserved);
    enum admission expected = ADMISSION_GRANTED;
    const bool provided = provision.own < provision.executions;
    int64_t shared = (int64_t)limit - reserved_by_others;
    if (reserved == RESERVED_UNSET)
        shared -= provision.executions + provision.others;
    if (reserved != RESERVED_UNSET && in_use >= reserved)
        expected = ADMISSION_FUNCTION;
    else if (reserved == RESERVED_UNSET && !provided && in_use >= (shared > 0 ? shared : 0))
        expected = ADMISSION_ACCOUNT;
    else if (load.in_flight >= (uint64_t)load.max_environments + load.max_waiting)
        expected = ADMISSION_TARGET;

    CHECK(admission_take(&account, &function, &target, loop, &tokens) == expected);
    if (expected == ADMISSION_GRANTED) {
        CHECK(pool_in_use(&function.pool) == in_use + 1 && pool_in_use(&target.load) == load.in_flight + 1);
        CHECK(pool_in_use(&target.provision) == provision.own + provided);
        CHECK(pool_in_use(&account.unreserved) == unreserved + (reserved == RESERVED_UNSET && !provided));
        /* A reservation changed meanwhile does not confuse what was taken. */
        admission_reserve(&account, &function, reserved == RESERVED_UNSET ? 3 : RESERVED_UNSET);
        admission_provision(&account, &function, &target, provision.executions + 1);
        admission_provision(&account, &function, &elsewhere, 0);
        admission_give_back(&account, &function, &target, (loop + 1) % loops, tokens);
        admission_reserve(&account, &function, reserved);
        admission_provision(&account, &function, &target, provision.executions);
        admission_provision(&account, &function, &elsewhere, provision.others);
    } else {
        CHECK(tokens == 77);
    }
    CHECK(pool_in_use(&function.pool) == in_use && pool_in_use(&target.load) == load.in_flight);
    CHECK(pool_in_use(&target.provision) == provision.own);
    CHECK(pool_in_use(&account.unreserved) == unreserved);
    CHECK(account.reserved == (uint64_t)reserved_by_others + (reserved != RESERVED_UNSET ? reserved : 0));
    CHECK(account.provisioned == (reserved == RESERVED_UNSET ? provision.executions + provision.others : 0));
    account_done(&account);
    concurrency_done(&function);
    concurrency_done(&other);
    version_pools_done(&target);
    version_pools_done(&elsewhere);
}

static const uint32_t reservations[] = {RESERVED_UNSET, 0, 1, 2};
static const struct provision none = {0};

/* What is provisioned is left out of what all share, whether used or not; what comes beyond it is not. */
static void test_provision(void) {
    struct load load = {.max_environments = 2, .max_waiting = 1};
    struct provision provision;
    for (uint32_t limit = 0; limit < SMALL; limit++)
        for (unsigned r = 0; r < 4; r++)
            for (uint32_t in_use = 0; in_use < SMALL; in_use++)
                for (load.in_flight = 0; load.in_flight < SMALL; load.in_flight++)
                    for (provision.executions = 0; provision.executions < SMALL; provision.executions++)
                        for (provision.own = 0; provision.own < SMALL; provision.own++)
                            for (provision.others = 0; provision.others < 3; provision.others++)
                                for (unsigned loops = 1; loops < 4; loops++)
                                    check_take(loops, limit, 1, reservations[r], in_use, load, provision);
}

/* Beside the sum of what each environment can serve until the limit, turn by turn. */
static uint64_t served_by(const struct burst_view *v) {
    uint64_t served = 0, at = v->first_us;
    for (uint32_t i = 0; i < v->left && at <= v->limit_us; i++, at += v->each_us)
        served++;
    for (uint32_t i = 0; i < v->established + v->starting; i++) {
        uint64_t turns = 0;
        for (uint64_t done = v->p50_us; v->p50_us != 0 && done <= v->limit_us; done += v->p50_us)
            turns++;
        served += turns > 0 ? turns : 1;
    }
    return served;
}

static void test_burst(void) {
    static const uint64_t durations[] = {0, 1, 30, 100, 101}, times[] = {1, 7, 50, 100, 101};
    struct burst_view v = {.limit_us = 100};
    for (v.waiting = 1; v.waiting < 40; v.waiting += 3)
        for (v.starting = 0; v.starting < 4; v.starting++)
            for (v.established = 0; v.established < 4; v.established++)
                for (v.left = 0; v.left < 9; v.left += 4)
                    for (unsigned d = 0; d < 5; d++)
                        for (unsigned f = 0; f < 5; f++)
                            for (unsigned e = 0; e < 5; e++) {
                                v.p50_us = durations[d];
                                v.first_us = times[f];
                                v.each_us = times[e];
                                CHECK(burst_serves(&v) ==
                                    ((v.established > 0 && v.p50_us == 0) || v.waiting <= served_by(&v)));
                                v.first_us = 0; /* it may have another now */
                                CHECK(burst_serves(&v));
                            }
}

static void test_take(void) {
    struct load load;
    for (uint32_t limit = 0; limit < SMALL; limit++)
        for (uint32_t others = 0; others < SMALL; others++)
            for (unsigned r = 0; r < 4; r++)
                for (uint32_t in_use = 0; in_use < SMALL; in_use++)
                    for (load.in_flight = 0; load.in_flight < SMALL; load.in_flight++)
                        for (load.max_environments = 1; load.max_environments < SMALL; load.max_environments++)
                            for (load.max_waiting = 0; load.max_waiting < SMALL; load.max_waiting++)
                                for (unsigned loops = 1; loops < 4; loops++)
                                    check_take(loops, limit, others, reservations[r], in_use, load, none);
    load = (struct load){.in_flight = 7, .max_environments = UINT32_MAX, .max_waiting = UINT32_MAX};
    check_take(1, 10, 0, RESERVED_UNSET, 0, load, none);
}

static void test_start(void) {
    struct start_view v;
    for (v.waiting = 0; v.waiting < SMALL; v.waiting++)
        for (v.ripe = 0; v.ripe <= v.waiting; v.ripe++)
            for (v.starting = 0; v.starting < SMALL; v.starting++)
                for (v.established = 0; v.established < SMALL; v.established++)
                    for (v.max_environments = 0; v.max_environments < 2 * SMALL; v.max_environments++) {
                        v.live = v.starting + v.established;
                        uint32_t n = start_count(&v);
                        uint32_t demand = v.established > 0 ? v.ripe : v.waiting;
                        /* Never beyond the limit, never more than wait without one coming, and no fewer than both
                         * allow. */
                        CHECK(n == 0 || v.live + n <= v.max_environments);
                        CHECK(n == 0 || v.starting + n <= demand);
                        CHECK(v.starting + n >= demand || v.live + n >= v.max_environments);
                    }
}

static void test_patience(void) {
    CHECK(start_patience_us(0) == 2000 && start_patience_us(150) == 150);
    CHECK(start_patience_us(2000) == 2000 && start_patience_us(900000) == 2000);
}

int main(void) {
    test_take();
    test_provision();
    test_burst();
    test_start();
    test_patience();
    return 0;
}
