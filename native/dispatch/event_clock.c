/* The wall clock against that of the machine's running (which goes on while it sleeps): when the one was set forward, as a
 * machine's clock is that had a wrong time at its start, events that were accepted before are no older for it.
 *
 * Steps of less than STEP_MS are the clock's own discipline. Setting back takes away from the last step forward; where
 * there is none, events live longer by as much. What a dispatcher before this one saw is not known here. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "event_parts.h"

#define STEP_MS 1000

static int64_t offset_ms(uint64_t *ret_wall_ms) {
    uint64_t running_ms = clock_boot_us() / 1000;
    *ret_wall_ms = clock_real_us() / 1000;
    return (int64_t)*ret_wall_ms - (int64_t)running_ms;
}

void event_clock_begin(struct event_clock *clock) {
    uint64_t wall;
    *clock = (struct event_clock){.offset_ms = offset_ms(&wall)};
}

void event_clock_look(struct event_clock *clock) {
    uint64_t wall_ms;
    int64_t offset = offset_ms(&wall_ms), by = offset - clock->offset_ms;

    clock->offset_ms = offset;
    if (by >= STEP_MS) {
        if (clock->n == CLOCK_STEPS) { /* the two oldest become one */
            clock->steps[1].by_ms += clock->steps[0].by_ms;
            clock->n--;
            for (unsigned i = 0; i < clock->n; i++)
                clock->steps[i] = clock->steps[i + 1];
        }
        clock->steps[clock->n].before_ms = wall_ms - (uint64_t)by;
        clock->steps[clock->n++].by_ms = (uint64_t)by;
    }
    for (uint64_t back = by <= -STEP_MS ? (uint64_t)-by : 0; back > 0 && clock->n > 0;) {
        uint64_t taken = MIN(back, clock->steps[clock->n - 1].by_ms);
        clock->steps[clock->n - 1].by_ms -= taken;
        clock->n -= clock->steps[clock->n - 1].by_ms == 0;
        back -= taken;
    }
}

uint64_t event_clock_accepted(const struct event_clock *clock, uint64_t accepted_ms) {
    for (unsigned i = 0; i < clock->n; i++)
        if (accepted_ms <= clock->steps[i].before_ms)
            accepted_ms += clock->steps[i].by_ms;
    return accepted_ms;
}
