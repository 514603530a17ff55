/* The wheel against a list that is searched whole, the retry rules at their borders, the table of idempotency. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/idempotency.h"
#include "queue/policy.h"
#include "queue/wheel.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { ITEMS = 3000 };

static uint64_t random_state = 1;

static uint64_t draw(uint64_t below) {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

/* Horizons from a millisecond to thousands of years. */
static uint64_t delay(void) {
    return draw(2ull << draw(46));
}

static void check_against_list(uint64_t start) {
    static uint64_t due[ITEMS];
    static int there[ITEMS];
    struct wheel wheel;
    uint64_t now = start, left = ITEMS;
    wheel_init(&wheel, now);
    for (unsigned i = 0; i < ITEMS; i++) {
        struct timed item = {.due_ms = now + delay(), .where = i, .kind = (uint16_t)(i % 3)};
        due[i] = item.due_ms;
        there[i] = 1;
        CHECK(wheel_add(&wheel, &item) == 0);
        if (i % 100 == 0)
            wheel_advance(&wheel, now += draw(5));
    }
    while (left > 0) {
        struct timed item;
        uint64_t first = UINT64_MAX;
        for (unsigned i = 0; i < ITEMS; i++)
            if (there[i] && due[i] < first)
                first = due[i];
        CHECK(wheel_next(&wheel) <= (first > now ? first : now));
        uint64_t next = draw(3) == 0 ? wheel_next(&wheel) : draw(2) == 0 ? first : now + delay();
        now = next > now ? next : now + 1;
        wheel_advance(&wheel, now);
        while (wheel_take(&wheel, &item)) {
            CHECK(there[item.where] && item.due_ms == due[item.where] && item.due_ms <= now);
            there[item.where] = 0;
            left--;
        }
        for (unsigned i = 0; i < ITEMS; i++)
            CHECK(!there[i] || due[i] > now);
    }
    CHECK(wheel.n == 0 && wheel_next(&wheel) == UINT64_MAX);
    wheel_done(&wheel);
}

/* A million items, and the time passes in the smallest steps: what is done is counted. Each item comes down once a level at
 * most, and a step in time looks at no item that is not due or passing. */
static void test_steps(void) {
    enum { MILLION = 1000000, TURNS = 100000 };
    struct wheel wheel;
    struct timed item;
    uint64_t now = 1700000000000u, taken = 0, start = now;
    wheel_init(&wheel, now);
    for (unsigned i = 0; i < MILLION; i++) {
        item = (struct timed){.due_ms = now + 1 + draw(i % 2 == 0 ? 300000 : 365ull * 86400000), .where = i};
        CHECK(wheel_add(&wheel, &item) == 0);
    }
    CHECK(wheel.steps == MILLION);
    for (unsigned i = 0; i < TURNS; i++) {
        uint64_t before = wheel.steps, there = wheel.n;
        wheel_advance(&wheel, ++now);
        (void)wheel_next(&wheel);
        while (wheel_take(&wheel, &item)) {
            CHECK(item.due_ms <= now);
            taken++;
        }
        /* Seldom more than a slot of the next level passes. */
        CHECK(now % 64 == 0 || wheel.steps - before <= WHEEL_LEVELS + (there - wheel.n) + 1);
    }
    CHECK(taken > MILLION / 2 / 4 && wheel.n == MILLION - taken);
    CHECK(wheel.steps <= MILLION + (uint64_t)MILLION * WHEEL_LEVELS / 2 + TURNS);
    CHECK(now == start + TURNS);
    wheel_done(&wheel);
}

static void test_clock_set_back(void) {
    struct wheel wheel;
    struct timed item = {.due_ms = 10000000, .kind = 2, .where = 2};
    wheel_init(&wheel, 9000000);
    CHECK(wheel_add(&wheel, &item) == 0);
    item.kind = 1;
    item.where = 1;
    CHECK(wheel_add(&wheel, &item) == 0);
    wheel_reset_clock(&wheel, 1000, 1u << 2, 5000);
    wheel_advance(&wheel, 4999);
    CHECK(!wheel_take(&wheel, &item));
    wheel_advance(&wheel, 5000);
    CHECK(wheel_take(&wheel, &item) && item.where == 2 && !wheel_take(&wheel, &item));
    wheel_advance(&wheel, 10000000);
    CHECK(wheel_take(&wheel, &item) && item.where == 1);
    wheel_done(&wheel);
}

static void test_policy(void) {
    struct policy lambda = {.retries = 2, .base_delay_ms = 60000, .max_age_ms = 21600000, .deliver_failure = true};
    struct decision d = policy_after(&lambda, OUTCOME_ERROR, 0, 0, 5, 0, 0);
    CHECK(d.verdict == VERDICT_RETRY && d.attempts == 1 && d.due_ms == 60005);
    d = policy_after(&lambda, OUTCOME_ERROR, 1, 0, 5, 0, 0);
    CHECK(d.verdict == VERDICT_RETRY && d.attempts == 2 && d.due_ms == 120005);
    d = policy_after(&lambda, OUTCOME_ERROR, 2, 0, 5, 0, 0);
    CHECK(d.verdict == VERDICT_DELIVER && d.condition == CONDITION_RETRIES_EXHAUSTED && d.attempts == 3);
    CHECK(policy_after(&lambda, OUTCOME_SUCCESS, 2, 0, 5, 0, 0).verdict == VERDICT_SETTLE);
    CHECK(policy_before(&lambda, 0, 0, 21600000).verdict == VERDICT_INVOKE);
    d = policy_before(&lambda, 1, 0, 21600001);
    CHECK(d.verdict == VERDICT_DELIVER && d.condition == CONDITION_EVENT_AGE_EXCEEDED && d.attempts == 1);
    CHECK(policy_before(&lambda, 0, 500, 3).verdict == VERDICT_INVOKE);     /* the clock was set back */
    d = policy_after(&lambda, OUTCOME_ERROR, 0, 0, 21600000 - 59999, 0, 0); /* would be too old by then */
    CHECK(d.verdict == VERDICT_DELIVER && d.condition == CONDITION_EVENT_AGE_EXCEEDED && d.attempts == 1);
    lambda.refused = true;
    CHECK(policy_before(&lambda, 0, 0, 0).verdict == VERDICT_DELIVER);
    for (uint32_t gates = 0; gates < 40; gates++)
        for (uint32_t random = 0; random < 1000000; random += 4999) {
            uint64_t full = gates > 8 ? GATE_MAX_MS : (uint64_t)GATE_MIN_MS << gates;
            d = policy_after(&lambda, OUTCOME_THROTTLED, 1, 0, 7, gates, random);
            CHECK(d.verdict == VERDICT_GATE && d.attempts == 1);
            CHECK(d.due_ms >= 7 + full / 2 && d.due_ms <= 7 + full);
        }
}

static void test_idempotency(void) {
    struct idempotency table;
    idempotency_init(&table, 300, 5000);
    CHECK(idempotency_begin(&table, 7, 1, 1000000) == KNOWN_NEW);
    CHECK(idempotency_begin(&table, 7, 1, 1000000) == KNOWN_PENDING);
    idempotency_end(&table, 7, 1);
    CHECK(idempotency_begin(&table, 7, 1, 1300000) == KNOWN_DUPLICATE);
    CHECK(idempotency_begin(&table, 7, 2, 1300000) == KNOWN_CONFLICT);
    CHECK(idempotency_begin(&table, 7, 2, 1301000) == KNOWN_NEW);
    idempotency_end(&table, 7, 0); /* refused: nothing was accepted under it */
    CHECK(idempotency_begin(&table, 7, 3, 1301000) == KNOWN_NEW);
    uint64_t n = 1;
    for (uint64_t key = 100; key < 20000; key++) {
        int r = idempotency_begin(&table, key, key, 2000000);
        CHECK(r == KNOWN_NEW || r == -ENOBUFS);
        idempotency_end(&table, key, r == KNOWN_NEW);
        n += r == KNOWN_NEW;
    }
    CHECK(n >= 5000 && n < 13000);
    CHECK(idempotency_begin(&table, 100, 100, 2000000) == KNOWN_DUPLICATE); /* known, although there is no room */
    CHECK(idempotency_begin(&table, 99999, 1, 2301000) == KNOWN_NEW);       /* the old ones make room */
    idempotency_done(&table);
}

static uint64_t table_bytes(const struct idempotency *table) {
    uint64_t bytes = 0;
    for (unsigned i = 0; i < IDEMPOTENCY_PARTS; i++)
        bytes += (uint64_t)table->parts[i].capacity * sizeof(struct known);
    return bytes;
}

/* Of a million names all are known, in the memory that was said, and while they become old no more is taken. */
static void test_a_million_names(void) {
    enum { MOST = 1000000 };
    struct idempotency table;
    idempotency_init(&table, 300, MOST);
    for (uint64_t key = 1; key <= MOST; key++) {
        CHECK(idempotency_begin(&table, key, key, 1000000) == KNOWN_NEW);
        idempotency_end(&table, key, 1);
    }
    CHECK(table_bytes(&table) <= IDEMPOTENCY_BYTES(MOST) && IDEMPOTENCY_BYTES(MOST) < 22 << 20);
    for (uint64_t key = 1; key <= MOST; key += 997)
        CHECK(idempotency_begin(&table, key, key, 1200000) == KNOWN_DUPLICATE);
    for (uint64_t key = MOST + 1; key <= 3 * MOST; key++) {
        uint64_t now_ms = 1200000 + (key - MOST) / 2; /* a thousand seconds: each name is forgotten in its turn */
        int r = idempotency_begin(&table, key, key, now_ms);
        CHECK(r == KNOWN_NEW || r == -ENOBUFS);
        idempotency_end(&table, key, r == KNOWN_NEW);
    }
    CHECK(table_bytes(&table) <= IDEMPOTENCY_BYTES(MOST));
    idempotency_done(&table);
}

int main(void) {
    check_against_list(0);
    check_against_list(1700000000000u);
    check_against_list((1ull << 42) - 3);
    test_clock_set_back();
    test_policy();
    test_idempotency();
    test_a_million_names();
    test_steps();
    return 0;
}
