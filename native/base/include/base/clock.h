/* Time in integers: monotonic for durations and deadlines, real for what people read. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_us(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* Microseconds of an arbitrary origin that never go back. */
static inline uint64_t clock_monotonic_us(void) {
    return clock_us(CLOCK_MONOTONIC);
}

/* The same, going on while the machine sleeps: what the real clock should have moved by. */
static inline uint64_t clock_boot_us(void) {
    return clock_us(CLOCK_BOOTTIME);
}

/* Microseconds since the Unix epoch. */
static inline uint64_t clock_real_us(void) {
    return clock_us(CLOCK_REALTIME);
}
