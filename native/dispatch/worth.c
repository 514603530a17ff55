/* Worth and bursts; see the header. */
#include "dispatch/worth.h"

#include <stddef.h>

#include "base/cleanup.h"
#include "dispatch/counters.h"
#include "dispatch/idle_times.h"

#define LOW 10u                     /* doublings below a second, the first from zero on */
#define STEPS (LOW + IDLE_BINS - 2) /* what is beyond the last of them is beyond prediction */
#define PRIOR 2.0                   /* idle times that ignorance weighs, as in machines/keep_alive.py */
#define PER_OCTAVE 8.0
#define PRIOR_ALL (PER_OCTAVE * LOW + IDLE_BINS - 1)

/* Seconds at which the step begins. */
static double edge(unsigned step) {
    static const double eighths[8] = {1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
        1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424};
    if (step < LOW)
        return step == 0 ? 0 : 1.0 / (double)(1u << (LOW - step));
    return eighths[(step - LOW) % 8] * (double)(1u << (step - LOW) / 8);
}

static double counted(const struct counters_idle *counts, unsigned bin) {
    return counts != NULL ? (double)atomic_load_explicit(&counts->bins[bin], memory_order_relaxed) : 0;
}

static double weight(const struct counters_idle *counts, unsigned step) {
    if (step < LOW)
        return counted(counts, 0) / LOW + PRIOR * PER_OCTAVE / PRIOR_ALL;
    return counted(counts, step - LOW + 1) + PRIOR / PRIOR_ALL;
}

double worth_rate(const struct counters_idle *counts, uint64_t idle_us) {
    const double idle = (double)idle_us / 1e6;
    double lasts = 0, uses = 0, time = 0, best = 0;
    unsigned first = 1; /* as from the step's beginning: of two in the same one neither is worth more */

    while (first < STEPS && edge(first + 1) <= idle)
        first++;
    for (unsigned step = first; step <= STEPS; step++)
        lasts += weight(counts, step);
    for (unsigned step = first; step < STEPS; step++) {
        double ends = weight(counts, step);
        lasts -= ends;
        uses += ends;
        time += (edge(step + 1) - edge(step)) * (lasts + ends / 2);
        best = MAX(best, uses / time);
    }
    return best;
}

uint64_t burst_take(_Atomic uint64_t *full_us, uint32_t most, uint64_t now_us) {
    uint64_t each, full, from, until;

    if (most == 0 || most > BURST_WINDOW_US)
        return 0;
    each = BURST_WINDOW_US / most;
    until = now_us + each * most;
    full = atomic_load_explicit(full_us, memory_order_relaxed);
    do {
        from = MAX(full, now_us);
        if (from + each > until)
            return now_us + (from + each - until);
    } while (!atomic_compare_exchange_weak_explicit(
        full_us, &full, from + each, memory_order_relaxed, memory_order_relaxed));
    return 0;
}
