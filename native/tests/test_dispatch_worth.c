/* What idle environments are worth, and how fast functions may grow. */
#include "dispatch/worth.h"

#include <stdio.h>
#include <stdlib.h>

#include "dispatch/counters.h"
#include "dispatch/idle_times.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define SECOND UINT64_C(1000000)

static struct counters_idle shown(uint64_t gap_us, uint32_t times) {
    struct counters_idle counts = {0};
    counts.gaps = times;
    counts.bins[idle_bin(gap_us)] = times;
    return counts;
}

/* Where nothing is known, what was used longest ago is worth least. */
static void test_ignorance(void) {
    const struct counters_idle none = {0};
    double before = worth_rate(NULL, 0);

    CHECK(before > 1);
    for (uint64_t idle = 4000; idle < SECOND << 14; idle *= 2) {
        double rate = worth_rate(NULL, idle);
        CHECK(rate < before && rate > 0);
        CHECK(rate == worth_rate(&none, idle));
        before = rate;
    }
    CHECK(worth_rate(NULL, SECOND << 17) == 0);
    CHECK(worth_rate(NULL, UINT64_MAX) == 0);
}

static void test_timers(void) {
    const struct counters_idle minute = shown(60 * SECOND, 50), often = shown(SECOND / 100, 5000);

    /* The nearer its time, the more; when that has passed, little. */
    CHECK(worth_rate(&minute, 55 * SECOND) > worth_rate(&minute, 10 * SECOND));
    CHECK(worth_rate(&minute, 10 * SECOND) > 1 / 60.0);
    CHECK(worth_rate(&minute, 600 * SECOND) < 1 / 600.0);
    CHECK(worth_rate(&minute, 50 * SECOND) > worth_rate(NULL, 5 * SECOND));
    /* One that is always called again at once is worth most, until it is not. */
    CHECK(worth_rate(&often, SECOND / 100) > worth_rate(&minute, 50 * SECOND));
    CHECK(worth_rate(&often, SECOND / 2) > worth_rate(NULL, SECOND / 2));
    CHECK(worth_rate(&often, 20 * SECOND) < worth_rate(&minute, 20 * SECOND));
}

static uint32_t draw(uint32_t *seed) {
    return *seed = *seed * 1664525u + 1013904223u;
}

static void test_any_numbers(void) {
    uint32_t seed = 7;
    for (unsigned run = 0; run < 20000; run++) {
        struct counters_idle counts = {0};
        uint64_t idle = (uint64_t)draw(&seed) << (draw(&seed) >> 28);
        double rate;
        for (unsigned n = draw(&seed) >> 29; n > 0; n--)
            counts.bins[draw(&seed) % IDLE_BINS] = draw(&seed) >> (draw(&seed) >> 27);
        rate = worth_rate(&counts, idle);
        CHECK(rate >= 0 && rate < 1e12); /* neither infinite nor no number */
    }
}

/* The table says of every idle time what the rule does. */
static void test_table(void) {
    uint32_t seed = 11;
    for (unsigned run = 0; run < 3000; run++) {
        struct counters_idle counts = {0};
        struct worth_table table;
        for (unsigned n = draw(&seed) >> 29; n > 0; n--)
            counts.bins[draw(&seed) % IDLE_BINS] = draw(&seed) >> (draw(&seed) >> 27);
        worth_fill(&table, run % 100 == 0 ? NULL : &counts);
        for (unsigned n = 0; n < 40; n++) {
            uint64_t idle = (uint64_t)draw(&seed) << (draw(&seed) >> 28) >> (draw(&seed) >> 27);
            double rate = worth_rate(run % 100 == 0 ? NULL : &counts, idle), found = worth_look_up(&table, idle);
            CHECK(found >= rate * (1 - 1e-5) && found <= rate * (1 + 1e-5));
        }
    }
}

static void test_age(void) {
    struct counters_idle counts = {0};
    struct worth_table table;

    worth_fill(&table, NULL);
    CHECK(!worth_is_old(&table, NULL) && !worth_is_old(&table, &counts));
    counts.gaps = 1;
    CHECK(worth_is_old(&table, &counts));
    counts.gaps = 800;
    worth_fill(&table, &counts);
    for (counts.gaps = 800; counts.gaps <= 900; counts.gaps++)
        CHECK(!worth_is_old(&table, &counts));
    CHECK(worth_is_old(&table, &counts));
}

/* Beside a bucket that is filled in the plain way. */
static void test_bursts(void) {
    const uint32_t sizes[] = {1, 3, 1000, 9999};
    uint32_t seed = 3;

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint32_t most = sizes[i];
        const uint64_t each = BURST_WINDOW_US / most;
        _Atomic uint64_t full = 0;
        uint64_t now = 1000 * SECOND, last = now, credit = most * each, taken = 0, began = now;
        for (unsigned turn = 0; turn < 200000; turn++) {
            uint64_t again;
            if (draw(&seed) % 4 == 0)
                now += draw(&seed) % (each * 3);
            credit = credit + (now - last) < most * each ? credit + (now - last) : most * each;
            last = now;
            CHECK((burst_next(&full, most, now) == 0) == (credit >= each));
            again = burst_take(&full, most, now);
            CHECK((again == 0) == (credit >= each));
            CHECK(again == 0 || again == now + each - credit);
            if (again == 0) {
                credit -= each;
                taken++;
            }
            CHECK(taken <= most + (now - began) / each);
        }
        CHECK(taken > most);
    }
    {
        _Atomic uint64_t full = 0;
        for (unsigned n = 0; n < 100000; n++)
            CHECK(burst_take(&full, 0, SECOND) == 0);
    }
}

int main(void) {
    test_ignorance();
    test_timers();
    test_any_numbers();
    test_table();
    test_age();
    test_bursts();
    return EXIT_SUCCESS;
}
