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

static void check_take(
    uint32_t limit, uint32_t reserved_by_others, uint32_t reserved, uint32_t in_use, struct load load) {
    struct account account = {.limit = limit, .reserved = reserved_by_others, .in_use = in_use};
    struct concurrency function = {.reserved = RESERVED_UNSET, .in_use = in_use};
    uint32_t tokens = 77;

    admission_reserve(&account, &function, reserved);
    if (reserved == RESERVED_UNSET)
        account.unreserved_in_use = in_use;
    struct account before = account;
    enum admission expected = ADMISSION_GRANTED;
    int64_t shared = (int64_t)limit - reserved_by_others;
    if (reserved != RESERVED_UNSET && in_use >= reserved)
        expected = ADMISSION_FUNCTION;
    else if (reserved == RESERVED_UNSET && in_use >= (shared > 0 ? shared : 0))
        expected = ADMISSION_ACCOUNT;
    else if (load.in_flight >= (uint64_t)load.max_environments + load.max_waiting)
        expected = ADMISSION_TARGET;

    CHECK(admission_take(&account, &function, &load, &tokens) == expected);
    if (expected != ADMISSION_GRANTED) {
        CHECK(tokens == 77 && account.in_use == before.in_use && function.in_use == in_use);
        CHECK(account.unreserved_in_use == before.unreserved_in_use);
        return;
    }
    CHECK(account.in_use == in_use + 1 && function.in_use == in_use + 1);
    /* A reservation changed meanwhile does not confuse what was taken. */
    admission_reserve(&account, &function, reserved == RESERVED_UNSET ? 3 : RESERVED_UNSET);
    admission_give_back(&account, &function, tokens);
    admission_reserve(&account, &function, reserved);
    CHECK(account.in_use == before.in_use && function.in_use == in_use);
    CHECK(account.unreserved_in_use == before.unreserved_in_use && account.reserved == before.reserved);
}

static void test_take(void) {
    static const uint32_t reservations[] = {RESERVED_UNSET, 0, 1, 2};
    struct load load;
    for (uint32_t limit = 0; limit < SMALL; limit++)
        for (uint32_t others = 0; others < SMALL; others++)
            for (unsigned r = 0; r < 4; r++)
                for (uint32_t in_use = 0; in_use < SMALL; in_use++)
                    for (load.in_flight = 0; load.in_flight < SMALL; load.in_flight++)
                        for (load.max_environments = 1; load.max_environments < SMALL; load.max_environments++)
                            for (load.max_waiting = 0; load.max_waiting < SMALL; load.max_waiting++)
                                check_take(limit, others, reservations[r], in_use, load);
    load = (struct load){.in_flight = UINT32_MAX, .max_environments = UINT32_MAX, .max_waiting = UINT32_MAX};
    check_take(10, 0, RESERVED_UNSET, 0, load);
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
    test_start();
    test_patience();
    return 0;
}
