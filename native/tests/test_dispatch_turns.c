/* A turn of the loop is over: what happens in it does not keep it from the next. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "dispatch/loop.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define AGAIN_US 1000u
#define LONG_US 5000u

struct repeated {
    struct loop *loop;
    struct timer timer;
    unsigned fired;
};

static void set_again(struct timer *timer, uint64_t now) {
    struct repeated *repeated = list_entry(timer, struct repeated, timer);
    (void)now;
    if (++repeated->fired < 10)
        timer_set(&repeated->loop->timers, timer, repeated->loop->now_us + AGAIN_US);
}

static void take_long(struct watch *watch, uint32_t events) {
    const uint64_t began = clock_monotonic_us();
    char byte;
    (void)events;
    CHECK(read(watch->fd, &byte, 1) == 1);
    while (clock_monotonic_us() < began + LONG_US)
        ;
}

/* What a timer sets anew is not due in the same turn, however long the batch before took. */
static void test_timers_behind_a_long_batch(void) {
    struct loop loop;
    int ends[2];

    CHECK(loop_open(&loop) == 0 && pipe(ends) == 0);
    struct watch watch = {.fd = ends[0], .ready = take_long};
    struct repeated repeated = {.loop = &loop};
    timer_init(&repeated.timer, set_again);
    timer_set(&loop.timers, &repeated.timer, loop.now_us + AGAIN_US);
    CHECK(loop_add(&loop, &watch, EPOLLIN) == 0 && write(ends[1], "x", 1) == 1);
    CHECK(loop_turn(&loop, false, 0) == 0 && repeated.fired == 1);
    loop_remove(&loop, &watch);
    loop_close(&loop);
    close(ends[0]);
    close(ends[1]);
}

int main(void) {
    test_timers_behind_a_long_batch();
    return 0;
}
