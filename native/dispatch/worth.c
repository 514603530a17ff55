/* Worth and bursts; see the header. */
#include "dispatch/worth.h"

#include <stddef.h>

#include "base/cleanup.h"
#include "dispatch/counters.h"
#include "dispatch/idle_times.h"

#define LOW 10u   /* doublings below a second, the first from zero on */
#define PRIOR 2.0 /* idle times that ignorance weighs, as in machines/keep_alive.py */
#define PER_OCTAVE 8.0
#define PRIOR_ALL (PER_OCTAVE * LOW + IDLE_BINS - 1)
#define STEPS WORTH_STEPS

_Static_assert(WORTH_STEPS == LOW + IDLE_BINS - 2, "steps are the doublings and the bins");

/* Seconds at which the step begins. */
static double edge(unsigned step) {
    static const double eighths[8] = {1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
        1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424};
    if (step < LOW)
        return step == 0 ? 0 : 1.0 / (double)(1u << (LOW - step));
    return eighths[(step - LOW) % 8] * (double)(1u << (step - LOW) / 8);
}

static double counted(const struct counters_idle *counts, unsigned bin) {
    if (counts == NULL)
        return 0;
    return (double)atomic_load_explicit(&counts->bins[bin], memory_order_relaxed) +
        (double)atomic_load_explicit(&counts->others[bin], memory_order_relaxed);
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

/* A point of the curve of uses over time, both as far as they are likely. */
struct point {
    double time, uses;
};

static double slope(struct point from, struct point to) {
    return (to.uses - from.uses) / (to.time - from.time);
}

/* What worth_rate adds up from a step on are differences of such points. They are made from the last one on, which is the
 * origin: beside what is likely within a second, what is beyond an hour would be lost in rounding. */
void worth_fill(struct worth_table *table, const struct counters_idle *counts) {
    double lasts = weight(counts, STEPS);
    struct point hull[STEPS], at = {0};
    unsigned n = 0;

    table->gaps = counts != NULL ? atomic_load_explicit(&counts->gaps, memory_order_relaxed) : 0;
    table->rate[STEPS] = 0;
    hull[n++] = at;
    for (unsigned step = STEPS - 1; step > 0; step--) {
        double ends = weight(counts, step);
        at.uses -= ends;
        at.time -= (edge(step + 1) - edge(step)) * (lasts + ends / 2);
        lasts += ends;
        while (n > 1 && slope(at, hull[n - 2]) >= slope(at, hull[n - 1]))
            n--;
        table->rate[step] = (float)slope(at, hull[n - 1]);
        hull[n++] = at;
    }
    table->rate[0] = table->rate[1];
}

bool worth_is_old(const struct worth_table *table, const struct counters_idle *counts) {
    uint64_t gaps = counts != NULL ? atomic_load_explicit(&counts->gaps, memory_order_relaxed) : 0;
    return gaps - table->gaps > table->gaps / 8;
}

/* The step that an idle time has reached. */
static unsigned step_of(uint64_t idle_us) {
    uint64_t shares = idle_us < UINT64_C(1000000) ? (idle_us << LOW) / UINT64_C(1000000) : 0;

    if (idle_us >= UINT64_C(1000000))
        return LOW + idle_bin(idle_us) - 1;
    return shares < 2 ? 1 : 63u - (unsigned)__builtin_clzll(shares);
}

double worth_look_up(const struct worth_table *table, uint64_t idle_us) {
    return (double)table->rate[step_of(idle_us)];
}

/* When there may be one more, where all that was taken will have come back at `full`; 0: now. */
static uint64_t burst_at(uint64_t full, uint32_t most, uint64_t now_us) {
    const uint64_t each = BURST_WINDOW_US / most, until = now_us + each * most, from = MAX(full, now_us);
    return from + each > until ? now_us + (from + each - until) : 0;
}

uint64_t burst_next(const _Atomic uint64_t *full_us, uint32_t most, uint64_t now_us) {
    if (most == 0 || most > BURST_WINDOW_US)
        return 0;
    return burst_at(atomic_load_explicit(full_us, memory_order_relaxed), most, now_us);
}

uint64_t burst_take(_Atomic uint64_t *full_us, uint32_t most, uint64_t now_us) {
    uint64_t full, next;

    if (most == 0 || most > BURST_WINDOW_US)
        return 0;
    full = atomic_load_explicit(full_us, memory_order_relaxed);
    do {
        next = burst_at(full, most, now_us);
        if (next != 0)
            return next;
    } while (!atomic_compare_exchange_weak_explicit(
        full_us, &full, MAX(full, now_us) + BURST_WINDOW_US / most, memory_order_relaxed, memory_order_relaxed));
    return 0;
}
