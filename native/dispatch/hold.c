/* Holding back; see the header. */
#include "dispatch/hold.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/schedule.h"

/* With these at work no processor waits for the dispatcher to hand over the next call. */
#define HOT_PER_CORE 2u

void hold_open(struct hold *hold, const char *mode, unsigned loops) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    *hold = (struct hold){
        .fresh_us = HOLD_FRESH_US,
        .cores = cores > 0 ? (uint32_t)cores : 1,
        .uptime = -1,
        .backoff_us = HOLD_BACKOFF_MIN_US,
    };
    if (loops > 1 || (mode != NULL && strcmp(mode, "never") == 0))
        return;
    hold->hot = MAX(hold->cores * HOT_PER_CORE, 2u);
    hold->always = mode != NULL;
    if (hold->always)
        hold->fresh_us = strtoull(mode, NULL, 10);
    else
        hold->uptime = open("/proc/uptime", O_RDONLY | O_CLOEXEC);
}

void hold_close(struct hold *hold) {
    cleanup_close(&hold->uptime);
}

void hold_sample(struct hold *hold, uint64_t now_us, uint64_t idle_us) {
    uint64_t took = now_us - hold->window_us;
    bool known = took < 10 * HOLD_WINDOW_US;

    hold->busy = known && (idle_us - hold->idle_us) * 100 < took * hold->cores * HOLD_IDLE_PERCENT;
    if (known && hold->held) {
        if (hold->busy) {
            hold->backoff_us = HOLD_BACKOFF_MIN_US;
        } else {
            hold->not_before_us = now_us + hold->backoff_us;
            hold->backoff_us = MIN(hold->backoff_us * 2, HOLD_BACKOFF_MAX_US);
        }
    }
    hold->held = false;
    hold->window_us = now_us;
    hold->idle_us = idle_us;
}

/* The second of the file's numbers, in seconds with two decimals. */
static bool read_idle(int fd, uint64_t *ret_us) {
    char text[80], *at;
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return false;
    text[n] = '\0';
    at = strchr(text, ' ');
    if (at == NULL)
        return false;
    *ret_us = strtoull(at, &at, 10) * 1000000;
    if (*at == '.')
        *ret_us += strtoull(at + 1, NULL, 10) * 10000;
    return true;
}

static bool is_busy(struct hold *hold, uint64_t now_us) {
    uint64_t idle_us;
    if (hold->always || hold->uptime < 0)
        return hold->always;
    if (now_us - hold->window_us >= HOLD_WINDOW_US && read_idle(hold->uptime, &idle_us))
        hold_sample(hold, now_us, idle_us);
    return hold->busy && now_us >= hold->not_before_us;
}

bool hold_wanted(struct target *target, uint64_t now_us) {
    struct hold *hold = &target->dispatch->hold;
    const struct list *node = &target->running;

    if (hold->hot == 0)
        return false;
    for (uint32_t i = 0; i < hold->hot; i++) {
        node = node->previous;
        if (node == &target->running ||
            list_entry(node, struct invocation, running)->sent_us + hold->fresh_us <= now_us)
            return false;
    }
    if (!is_busy(hold, now_us))
        return false;
    hold->held = true;
    return true;
}

/* None became free since then, or since the oldest came. */
static uint64_t quiet_since(const struct target *target, uint64_t arrived_us) {
    return MAX(target->freed_us, arrived_us);
}

uint64_t hold_until(const struct target *target) {
    uint64_t fresh = target->dispatch->hold.fresh_us, arrived = schedule_head(target)->arrived_us;
    uint64_t until = MIN(quiet_since(target, arrived) + fresh, arrived + fresh * HOLD_MOST);
    return MAX(until, target->released_us + fresh);
}

uint32_t hold_release(struct target *target, uint64_t now_us) {
    uint64_t fresh = target->dispatch->hold.fresh_us;
    if (now_us < hold_until(target))
        return 0;
    /* Twice as many each time that it was in vain. */
    if (quiet_since(target, schedule_head(target)->arrived_us) + fresh <= now_us)
        target->release = MIN(target->release * 2 + 1, UINT16_MAX);
    else
        target->release = 1;
    target->released_us = now_us;
    return target->release;
}
