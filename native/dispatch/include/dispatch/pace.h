/* How fast a peer takes what is sent to it: a byte now and then is no progress, or one connection could hold an answer's
 * memory for days. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Who takes less than this within the time that a connection may stand still (loops.stall_us) stands still. */
#define PACE_LEAST 16384u

struct pace {
    size_t taken; /* since the last progress */
};

/* So many bytes more: is that progress? */
static inline bool pace_took(struct pace *pace, size_t bytes) {
    pace->taken += bytes;
    if (pace->taken < PACE_LEAST)
        return false;
    pace->taken = 0;
    return true;
}
