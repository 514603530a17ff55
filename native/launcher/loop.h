/* The launcher's event loop: descriptors by epoll, timers, and one call at the end of each turn. Single-threaded; a
 * callback may add and remove any watch or timer, its own included. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/list.h"

/* Embedded in what it watches for; fd -1: not watched. */
struct watch {
    int fd;
    void (*ready)(void *owner, uint32_t events);
    void *owner;
};

struct timer {
    struct list node; /* linked to itself while off; zeroed memory counts as off */
    uint64_t due_us;
    void (*fire)(void *owner);
    void *owner;
};

#define LOOP_BATCH 32

struct loop {
    int epoll;
    struct list timers; /* by due_us */
    struct epoll_event batch[LOOP_BATCH];
    int batched, at; /* the batch under way, so that a removed watch is not called */
    uint64_t now_us; /* when this turn's events were fetched */
    bool stop;
};

int loop_init(struct loop *loop);
void loop_free(struct loop *loop);
int loop_watch(
    struct loop *loop, struct watch *watch, int fd, uint32_t events, void (*ready)(void *, uint32_t), void *owner);
int loop_rewatch(struct loop *loop, struct watch *watch, uint32_t events);
/* Forgets the watch; the descriptor stays open. */
void loop_unwatch(struct loop *loop, struct watch *watch);

/* Sets, or sets anew. */
void loop_timer(struct loop *loop, struct timer *timer, uint64_t after_us, void (*fire)(void *), void *owner);
void loop_timer_off(struct timer *timer);
static inline bool loop_timer_on(const struct timer *timer) {
    return timer->node.next != NULL && timer->node.next != &timer->node;
}

/* Until `stop`: events, then due timers, then end_of_turn. Negative errno when epoll fails. */
int loop_run(struct loop *loop, void (*end_of_turn)(void *), void *owner);
