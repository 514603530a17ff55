/* What an environment costs and holds still: its cgroup's freezer, and the peak of its memory. Runs in the loop; the
 * descriptors came with LAUNCHED. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/perform.h"

/* The file's own contents say which kind it is: cgroup v2's cgroup.freeze holds 0 or 1, v1's freezer.state a word. */
static int write_freezer(struct environment *environment, bool freeze) {
    char now[16];
    ssize_t n = pread(environment->freeze_fd, now, sizeof(now), 0);
    const char *word;

    if (n <= 0)
        return -EIO;
    if (now[0] == '0' || now[0] == '1')
        word = freeze ? "1" : "0";
    else
        word = freeze ? "FROZEN" : "THAWED";
    n = pwrite(environment->freeze_fd, word, strlen(word), 0);
    return n < 0 ? -errno : 0;
}

void environment_freeze(struct environment *environment) {
    if (environment->freeze_fd < 0 || environment->freezer != FREEZER_RUNNING)
        return;
    if (write_freezer(environment, true) == 0)
        environment_was_frozen(environment);
}

void environment_was_frozen(struct environment *environment) {
    environment->freezer = FREEZER_FROZEN;
    environment_is_frozen(environment);
}

void environment_is_frozen(struct environment *environment) {
    count_one(&environment->dispatch->counters.node->environments_frozen);
    count_one(&environment->target->slot->environments_frozen);
}

void environment_not_frozen(struct environment *environment) {
    count_less(&environment->dispatch->counters.node->environments_frozen, 1);
    count_less(&environment->target->slot->environments_frozen, 1);
}

void environment_thaw(struct environment *environment) {
    if (environment->freezer != FREEZER_FROZEN)
        return;
    (void)write_freezer(environment, false);
    environment->freezer = FREEZER_RUNNING;
    environment_not_frozen(environment);
}

void environment_see_peak(struct environment *environment, uint64_t kb) {
    _Atomic uint64_t *highest = &environment->target->slot->peak_kb;
    environment->peak_kb = MAX(environment->peak_kb, kb);
    if (kb > atomic_load_explicit(highest, memory_order_relaxed))
        atomic_store_explicit(highest, kb, memory_order_relaxed);
}

void environment_sample(struct environment *environment) {
    uint64_t now = environment->dispatch->loop.now_us;
    char text[32];
    ssize_t n;

    if (environment->peak_fd < 0 ||
        (environment->peak_read_us != 0 && now - environment->peak_read_us < PERFORM_PEAK_US))
        return;
    n = pread(environment->peak_fd, text, sizeof(text) - 1, 0);
    environment->peak_read_us = now;
    if (n <= 0)
        return;
    text[n] = '\0';
    environment_see_peak(environment, strtoull(text, NULL, 10) / 1024);
}
