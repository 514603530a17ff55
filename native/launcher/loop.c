/* The event loop; see the header. */
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

int loop_init(struct loop *loop) {
    memset(loop, 0, sizeof(*loop));
    list_init(&loop->timers);
    loop->now_us = clock_monotonic_us();
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    return loop->epoll < 0 ? -errno : 0;
}

void loop_free(struct loop *loop) {
    if (loop->epoll >= 0)
        close(loop->epoll);
    loop->epoll = -1;
}

int loop_watch(
    struct loop *loop, struct watch *watch, int fd, uint32_t events, void (*ready)(void *, uint32_t), void *owner) {
    struct epoll_event event = {.events = events, .data.ptr = watch};

    watch->ready = ready;
    watch->owner = owner;
    watch->fd = -1;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    watch->fd = fd;
    return 0;
}

int loop_rewatch(struct loop *loop, struct watch *watch, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(loop->epoll, EPOLL_CTL_MOD, watch->fd, &event) < 0 ? -errno : 0;
}

void loop_unwatch(struct loop *loop, struct watch *watch) {
    if (watch->fd < 0)
        return;
    (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->fd = -1;
    for (int i = loop->at + 1; i < loop->batched; i++)
        if (loop->batch[i].data.ptr == watch)
            loop->batch[i].data.ptr = NULL;
}

void loop_timer(struct loop *loop, struct timer *timer, uint64_t after_us, void (*fire)(void *), void *owner) {
    struct list *at = &loop->timers;

    loop_timer_off(timer);
    timer->due_us = clock_monotonic_us() + after_us;
    timer->fire = fire;
    timer->owner = owner;
    /* Few timers, and a new one is mostly the last due: from the back. */
    while (at->previous != &loop->timers && list_entry(at->previous, struct timer, node)->due_us > timer->due_us)
        at = at->previous;
    list_insert_between(&timer->node, at->previous, at);
}

void loop_timer_off(struct timer *timer) {
    if (timer->node.next == NULL)
        list_init(&timer->node);
    list_remove(&timer->node);
}

static int next_timeout_ms(const struct loop *loop) {
    if (list_empty(&loop->timers))
        return -1;
    uint64_t due = list_entry(loop->timers.next, struct timer, node)->due_us, now = clock_monotonic_us();
    if (due <= now)
        return 0;
    uint64_t ms = (due - now + 999) / 1000;
    return ms > 60000 ? 60000 : (int)ms;
}

static void fire_due(struct loop *loop) {
    uint64_t now = clock_monotonic_us();
    while (!list_empty(&loop->timers)) {
        struct timer *timer = list_entry(loop->timers.next, struct timer, node);
        if (timer->due_us > now)
            break;
        list_remove(&timer->node);
        timer->fire(timer->owner);
    }
}

int loop_run(struct loop *loop, void (*end_of_turn)(void *), void *owner) {
    while (!loop->stop) {
        int n = epoll_wait(loop->epoll, loop->batch, LOOP_BATCH, next_timeout_ms(loop));
        if (n < 0 && errno != EINTR)
            return -errno;
        loop->now_us = clock_monotonic_us();
        loop->batched = n < 0 ? 0 : n;
        for (loop->at = 0; loop->at < loop->batched; loop->at++) {
            struct watch *watch = loop->batch[loop->at].data.ptr;
            if (watch != NULL)
                watch->ready(watch->owner, loop->batch[loop->at].events);
        }
        loop->batched = loop->at = 0;
        fire_due(loop);
        end_of_turn(owner);
    }
    return 0;
}
