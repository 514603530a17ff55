/* How long a function's environments stay idle: counted at the function and not at its environments, so that whoever
 * decides how long they are kept does not judge by what was ended too early. Runs in the loop.
 *
 * The invocations of a target that wait or are at work are its level. When it falls from n + 1 to n, the environment
 * of rank n falls idle; when it rises to n + 1 again, that one would be used again: the time between is a gap. Ranks
 * stand for environments because the one used last is taken first. Gaps of rank 0, in which nothing of the function is at
 * work, and those of the others, which serve invocations that overlap, are counted apart: they are unlike each other.
 *
 * Bins are those of runtimed/machines/keep_alive.py, which reads them: bin 0 below a second, then eight to a doubling
 * over 17 doublings, the last one for what is longer. They lie in the counters page, memory for them only where a
 * target has ever had a gap. */
#pragma once

#include <stdint.h>

struct counters_idle;

#define IDLE_LEVELS_MAX 256u /* ranks above it have no gaps */

struct idle_times {
    uint32_t level, ranks;
    uint64_t *since_us;           /* by rank; 0: never at work */
    struct counters_idle *counts; /* NULL: nobody counts */
};

unsigned idle_bin(uint64_t gap_us);
void idle_times_done(struct idle_times *times);
/* One invocation more, and one less. */
void idle_rise(struct idle_times *times, uint64_t now_us);
void idle_fall(struct idle_times *times, uint64_t now_us);
