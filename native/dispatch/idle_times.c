/* Gaps; see the header. */
#include "dispatch/idle_times.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "dispatch/counters.h"

#define SECOND_US 1000000u
#define OCTAVES 17u

unsigned idle_bin(uint64_t gap_us) {
    /* 2^(n/8), with 32 binary places. */
    static const uint64_t eighths[8] = {UINT64_C(4294967296), UINT64_C(4683695048), UINT64_C(5107605667),
        UINT64_C(5569883475), UINT64_C(6074001000), UINT64_C(6623745059), UINT64_C(7223245206), UINT64_C(7877004752)};
    unsigned octave, eighth = 7;
    uint64_t seconds = gap_us / SECOND_US, share;

    if (seconds == 0)
        return 0;
    octave = 63u - (unsigned)__builtin_clzll(seconds);
    if (octave >= OCTAVES)
        return IDLE_BINS - 1;
    share = ((gap_us << 26) / ((uint64_t)SECOND_US << octave)) << 6; /* below 2^63 */
    while (share < eighths[eighth])
        eighth--;
    return 1 + octave * 8 + eighth;
}

void idle_times_done(struct idle_times *times) {
    free(times->since_us);
    times->since_us = NULL;
    times->ranks = 0;
}

/* Room for this rank. None, also for want of memory: it is not measured. */
static bool reserve(struct idle_times *times, uint32_t rank) {
    uint32_t ranks = MAX(times->ranks * 2, 4u);
    uint64_t *since;

    if (rank < times->ranks)
        return true;
    if (rank >= IDLE_LEVELS_MAX)
        return false;
    while (ranks <= rank)
        ranks *= 2;
    since = realloc(times->since_us, ranks * sizeof(*since));
    if (since == NULL)
        return false;
    for (uint32_t i = times->ranks; i < ranks; i++)
        since[i] = 0;
    times->since_us = since;
    times->ranks = ranks;
    return true;
}

void idle_rise(struct idle_times *times, uint64_t now_us) {
    uint32_t rank = times->level++;
    struct counters_idle *counts = times->counts;

    if (rank >= times->ranks || times->since_us[rank] == 0 || counts == NULL)
        return;
    count_one(&counts->gaps);
    const unsigned number = idle_bin(now_us > times->since_us[rank] ? now_us - times->since_us[rank] : 0);
    _Atomic uint32_t *bin = rank == 0 ? &counts->bins[number] : &counts->others[number];
    atomic_store_explicit(bin, atomic_load_explicit(bin, memory_order_relaxed) + 1, memory_order_relaxed);
}

void idle_fall(struct idle_times *times, uint64_t now_us) {
    uint32_t rank = --times->level;
    if (reserve(times, rank))
        times->since_us[rank] = now_us;
}
