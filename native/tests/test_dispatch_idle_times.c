/* Gaps of idle environments: their bins, and the ranks that they are measured at. */
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

/* Bin n begins at 2^((n-1)/8) seconds, as machines/keep_alive.py has it. */
static void test_bins(void) {
    static const uint64_t edges[9] = {1000000, 1090508, 1189208, 1296840, 1414214, 1542211, 1681793, 1834009, 2000000};

    for (unsigned octave = 0; octave < 17; octave++)
        for (unsigned n = 0; n < 8; n++) {
            /* An edge is a fraction of a microsecond away from its whole number. */
            uint64_t slack = UINT64_C(1) << octave;
            CHECK(idle_bin((edges[n] << octave) + (n > 0 ? slack : 0)) == 1 + 8 * octave + n);
            CHECK(idle_bin((edges[n + 1] << octave) - slack) == 1 + 8 * octave + n);
        }
    CHECK(idle_bin(0) == 0 && idle_bin(SECOND - 1) == 0);
    CHECK(idle_bin(SECOND << 17) == IDLE_BINS - 1 && idle_bin(UINT64_MAX) == IDLE_BINS - 1);
}

/* Two at once, then one at a time: the second environment has fallen idle once and is not used again. */
static void test_ranks(void) {
    struct counters_idle counts = {0};
    struct idle_times times = {.counts = &counts};
    uint64_t now = 5 * SECOND;

    idle_rise(&times, now);
    idle_rise(&times, now);
    CHECK(counts.gaps == 0);
    idle_fall(&times, now += SECOND);
    idle_fall(&times, now += SECOND);
    idle_rise(&times, now += 4 * SECOND);
    CHECK(counts.gaps == 1 && counts.bins[idle_bin(4 * SECOND)] == 1);
    idle_rise(&times, now); /* the other one, idle for five seconds */
    CHECK(counts.gaps == 2 && counts.others[idle_bin(5 * SECOND)] == 1 && counts.bins[idle_bin(5 * SECOND)] == 0);
    for (unsigned n = 0; n < 2 * IDLE_LEVELS_MAX; n++)
        idle_rise(&times, now);
    for (unsigned n = 0; n < 2 * IDLE_LEVELS_MAX; n++)
        idle_fall(&times, now);
    CHECK(counts.gaps == 2 && times.ranks <= IDLE_LEVELS_MAX && times.level == 2);
    for (unsigned n = 0; n < 2 * IDLE_LEVELS_MAX; n++)
        idle_rise(&times, now + SECOND / 2);
    CHECK(counts.gaps == IDLE_LEVELS_MAX && counts.others[0] == IDLE_LEVELS_MAX - 2);
    idle_times_done(&times);
}

int main(void) {
    test_bins();
    test_ranks();
    return EXIT_SUCCESS;
}
