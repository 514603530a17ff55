/* Holding back: on a machine whose processors are all at work, a call waits for an environment that is about to be free
 * rather than waking one more. With more environments at work than processors each of them runs cold, and every call
 * costs more: that of a short handler twice as much with 64 as with four. Runs in the loop where it is the only one; several
 * hold nothing back.
 *
 * A call is held back, in its target's queue although there are idle environments, while
 *   - as many of the target's invocations as are `hot` were handed over within the last `fresh_us` and still run, and
 *   - in the last HOLD_WINDOW_US the processors were hardly idle. If they are idle while calls are held back, then these
 *     wait for something else than a processor, and nothing is held back for some time.
 * What waits goes to idle environments after all, a few at a time, when none became free for `fresh_us`, or when the
 * oldest has waited HOLD_MOST times as long. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct target;

#define HOLD_FRESH_US 1000u
#define HOLD_MOST 4u
#define HOLD_WINDOW_US 100000u
#define HOLD_IDLE_PERCENT 15u
#define HOLD_BACKOFF_MIN_US 1000000u
#define HOLD_BACKOFF_MAX_US 64000000u

struct hold {
    bool always;  /* whatever the processors do */
    uint32_t hot; /* invocations of a target; 0: nothing is held back */
    uint64_t fresh_us;
    uint32_t cores;
    int uptime;                  /* /proc/uptime, where idle time is told; or -1 */
    uint64_t window_us, idle_us; /* when the window began; how long processors had been idle by then, in sum */
    bool busy;                   /* the last window was */
    bool held;                   /* in this window calls were held back */
    uint64_t not_before_us;
    uint32_t backoff_us;
};

/* Before the process is confined. mode: NULL, as above; "never"; or a number: always, and it is `fresh_us`. */
void hold_open(struct hold *hold, const char *mode, unsigned loops);
void hold_close(struct hold *hold);

/* Shall calls of this target wait although it has idle environments? */
bool hold_wanted(struct target *target, uint64_t now_us);
/* When some of what waits goes on; something waits. */
uint64_t hold_until(const struct target *target);
/* How many go on now: none before that time. */
uint32_t hold_release(struct target *target, uint64_t now_us);

/* Idle time was read, in sum of all processors. */
void hold_sample(struct hold *hold, uint64_t now_us, uint64_t idle_us);
