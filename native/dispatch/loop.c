/* The loop; see the header. */
#include "dispatch/loop.h"

#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

int loop_open(struct loop *loop) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return -errno;
    *loop = (struct loop){.epoll = epoll, .now_us = clock_monotonic_us(), .gap_us = LOOP_SPIN_US * 8};
    loop->last_us = loop->now_us;
    return 0;
}

void loop_close(struct loop *loop) {
    cleanup_close(&loop->epoll);
}

static int control(struct loop *loop, int operation, struct watch *watch, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(loop->epoll, operation, watch->fd, &event) < 0 ? -errno : 0;
}

int loop_add(struct loop *loop, struct watch *watch, uint32_t events) {
    return control(loop, EPOLL_CTL_ADD, watch, events);
}

int loop_change(struct loop *loop, struct watch *watch, uint32_t events) {
    return control(loop, EPOLL_CTL_MOD, watch, events);
}

void loop_remove(struct loop *loop, struct watch *watch) {
    if (watch->fd < 0)
        return;
    (void)control(loop, EPOLL_CTL_DEL, watch, 0);
    for (int i = loop->at; i < loop->n_batch; i++)
        if (loop->batch[i].data.ptr == watch)
            loop->batch[i].data.ptr = NULL;
}

static int poll_events(struct loop *loop, int timeout_ms) {
    int n = epoll_wait(loop->epoll, loop->batch, LOOP_BATCH, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    return n;
}

static int milliseconds_until(uint64_t now_us, uint64_t when_us) {
    uint64_t ms = when_us > now_us ? (when_us - now_us + 999) / 1000 : 0;
    return (int)MIN(ms, 60000u);
}

/* Events at once, or after spinning, or after sleeping until the next timer. */
static int collect(struct loop *loop, bool calm, uint64_t until_us) {
    struct spin *spin = &loop->spinning[loop->at_work];
    uint64_t now = clock_monotonic_us(), began = now, spin_until;
    int n;

    if (!calm || loop->gap_us >= LOOP_SPIN_US || spin->skip > 0) {
        spin->skip -= spin->skip > 0;
        return poll_events(loop, milliseconds_until(now, until_us));
    }
    spin_until = MIN(now + LOOP_SPIN_US, until_us);
    do {
        n = poll_events(loop, 0);
        if (n != 0) {
            loop->spins++;
            spin->last = 0;
            loop->spun_us += now - began;
            return n;
        }
        now = clock_monotonic_us();
    } while (now < spin_until);
    loop->spun_us += now - began;
    spin->skip = spin->last = MIN(MAX(spin->last * 2, 1u), LOOP_SKIP_MAX);
    return poll_events(loop, milliseconds_until(now, until_us));
}

int loop_turn(struct loop *loop, bool calm, uint64_t patience_us) {
    uint64_t next = timers_next(&loop->timers), patience_end = clock_monotonic_us() + patience_us;
    int n = collect(loop, calm, MIN(next, patience_end));

    if (n < 0)
        return n;
    loop->turns++;
    loop->now_us = clock_monotonic_us();
    if (n > 0) {
        /* A long pause weighs no more than what makes spinning pointless: the average recovers within a few events. */
        uint64_t gap = MIN(loop->now_us - loop->last_us, (uint64_t)LOOP_SPIN_US * 8);
        loop->gap_us = (loop->gap_us * 7 + gap) / 8;
        loop->last_us = loop->now_us;
    }
    loop->n_batch = n;
    for (loop->at = 0; loop->at < loop->n_batch;) {
        struct epoll_event *event = &loop->batch[loop->at++];
        struct watch *watch = event->data.ptr;
        if (watch != NULL)
            watch->ready(watch, event->events);
    }
    loop->n_batch = loop->at = 0;
    /* One and the same: what a timer sets anew, reckoned from `now_us`, is not due again before the next turn. */
    loop->now_us = clock_monotonic_us();
    timers_run(&loop->timers, loop->now_us);
    return 0;
}
