/* What an idle environment is worth, and how fast a function may grow: numbers, pure.
 *
 * Worth is how often an environment is likely to be used: of all stretches of time from now on the best rate of uses in it, by
 * the idle times that its function has shown (idle_times.h), given that it has been idle for so long already. A function
 * that has shown none, or none so long, is taken to have as many in each doubling as in any other: then what was used
 * longest ago is worth least. Below a second the doublings share what the histogram's first bin counts. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct counters_idle;

/* Uses a second. counts: NULL: none are known. The rule as it is meant; who asks often keeps a table. */
double worth_rate(const struct counters_idle *counts, uint64_t idle_us);

#define WORTH_STEPS 146u /* what is beyond the last of them is beyond prediction */

/* The same for every idle time, to be looked up: as of the gaps that were counted when it was made. */
struct worth_table {
    uint64_t gaps;
    float rate[WORTH_STEPS + 1];
};

/* In one pass: the stretch with the best rate from each step on is a tangent to a convex hull. */
void worth_fill(struct worth_table *table, const struct counters_idle *counts);
/* Were so many gaps counted since, an eighth of those before, that another should be made? */
bool worth_is_old(const struct worth_table *table, const struct counters_idle *counts);
double worth_look_up(const struct worth_table *table, uint64_t idle_us);

#define BURST_WINDOW_US 10000000u /* Lambda's: so many more environments in ten seconds */

/* One environment more of a function, of which there may be `most` more at once and as many again, evenly, over the
 * window; 0: without limit. Returns 0, or when there may be one. *full_us: when all that was taken will have come back; 0
 * at first. Any loop may call it. */
uint64_t burst_take(_Atomic uint64_t *full_us, uint32_t most, uint64_t now_us);
/* The same without taking it. */
uint64_t burst_next(const _Atomic uint64_t *full_us, uint32_t most, uint64_t now_us);
