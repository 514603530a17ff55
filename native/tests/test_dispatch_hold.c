/* What makes a loop hold calls back: the measure of busy processors, and what is done when it was wrong. */
#include "dispatch/hold.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define SECOND UINT64_C(1000000)

/* Another window, in which the two processors were idle for that part of the time. */
static void window(struct hold *hold, bool held, unsigned idle_percent) {
    hold->held = held;
    hold_sample(
        hold, hold->window_us + HOLD_WINDOW_US, hold->idle_us + (uint64_t)HOLD_WINDOW_US * 2 * idle_percent / 100);
    CHECK(!hold->held);
}

static void check_busy(void) {
    struct hold hold = {.cores = 2, .backoff_us = HOLD_BACKOFF_MIN_US};

    hold_sample(&hold, 1000 * SECOND, 500 * SECOND); /* the first says nothing */
    CHECK(!hold.busy);
    window(&hold, false, 0);
    CHECK(hold.busy);
    window(&hold, false, HOLD_IDLE_PERCENT - 1);
    CHECK(hold.busy);
    window(&hold, false, HOLD_IDLE_PERCENT);
    CHECK(!hold.busy);
    window(&hold, false, 100);
    CHECK(!hold.busy && hold.not_before_us == 0);
    /* After a pause one knows nothing. */
    hold_sample(&hold, hold.window_us + SECOND, hold.idle_us);
    CHECK(!hold.busy);
}

static void check_backoff(void) {
    struct hold hold = {.cores = 2, .backoff_us = HOLD_BACKOFF_MIN_US, .window_us = SECOND};

    window(&hold, true, 0);
    CHECK(hold.busy && hold.not_before_us == 0);
    for (uint64_t backoff = HOLD_BACKOFF_MIN_US; backoff < HOLD_BACKOFF_MAX_US; backoff *= 2) {
        window(&hold, true, 50);
        CHECK(!hold.busy && hold.not_before_us == hold.window_us + backoff);
    }
    for (int i = 0; i < 2; i++)
        window(&hold, true, 50);
    CHECK(hold.not_before_us == hold.window_us + HOLD_BACKOFF_MAX_US);
    window(&hold, true, 0); /* it was right: the next mistake costs little again */
    window(&hold, true, 50);
    CHECK(hold.not_before_us == hold.window_us + HOLD_BACKOFF_MIN_US);
}

static void check_modes(void) {
    struct hold hold;

    hold_open(&hold, "never", 1);
    CHECK(hold.hot == 0 && hold.uptime < 0);
    hold_open(&hold, "30000000", 1);
    CHECK(hold.always && hold.hot >= 2 && hold.fresh_us == 30 * SECOND && hold.uptime < 0);
    hold_open(&hold, NULL, 2);
    CHECK(hold.hot == 0 && hold.uptime < 0);
    hold_open(&hold, NULL, 1);
    CHECK(!hold.always && hold.hot >= 2 && hold.fresh_us == HOLD_FRESH_US);
    CHECK(hold.uptime >= 0);
    hold_close(&hold);
    CHECK(hold.uptime < 0);
}

int main(void) {
    check_busy();
    check_backoff();
    check_modes();
    return 0;
}
