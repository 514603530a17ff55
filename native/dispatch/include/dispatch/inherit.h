/* What the dispatchers before this one counted. HELLO of the launcher brings the counters page of the one that is
 * replaced, or that has died; it is kept in the last region of ours, so that the sums go on where that one's stood. Runs
 * in the first loop.
 *
 * When: with SYNC_END, before its acknowledgement, so before the control plane looks at our page; every INHERIT_US at
 * most while the one before still runs; at last when the launcher says that it has ended. Levels are not taken over.
 * Calls that it took and never answered count as abandoned in the end: the sums agree whatever moment it died at.
 * Targets that do not exist any more are left out.
 *
 * Trust: the page is one of another process. It is read only when it is sealed against shrinking and its head describes
 * the layout of counters.h; counters that it has beside ours are left out, those that it lacks are 0. Otherwise all
 * start at zero, and the page's `started_us` says so. A value that is smaller than before is not taken. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch/counters.h"
#include "dispatch/table.h"
#include "dispatch/timers.h"

#define INHERIT_US 500000u

struct dispatch;

struct inheritance {
    const uint8_t *page; /* of the one before; NULL: none, or all is taken over */
    size_t size, stride; /* of it; from one region to the next */
    unsigned regions, n_node, n_histograms, n_slot;
    bool given;          /* HELLO brought one, of whatever kind */
    bool alive;          /* it still counts */
    bool begun;          /* SYNC_END was seen */
    struct counters own; /* the region of ours */
    struct table slots;  /* of `own`, by target */
    struct timer timer;
};

/* HELLO, with the page. alive: it runs. */
void inherit_from(struct dispatch *dispatch, int fd, bool alive);
/* The launcher waits to hear that it was taken over. */
bool inherit_expected(const struct dispatch *dispatch);
/* SYNC_END. */
void inherit_begin(struct dispatch *dispatch);
/* The one before has ended. */
void inherit_finish(struct dispatch *dispatch);
/* A target is gone. */
void inherit_forget(struct dispatch *dispatch, uint64_t target);
void inherit_close(struct dispatch *dispatch);
