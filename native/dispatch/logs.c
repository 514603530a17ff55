/* Log pipes; see the header. This side runs in the loop; records: log_records.c. */
#include "dispatch/logs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/log_records.h"
#include "dispatch/log_ring.h"
#include "dispatch/log_writer.h"
#include "dispatch/render.h"

#define PARTIAL_FIRST 4096u

/* ---- the token bucket ------------------------------------------------------------------------------------------ */

#define BUCKET_BURST_NS UINT64_C(2000000000)
#define SECOND_NS UINT64_C(1000000000)

/* Idleness earns no more than the burst. */
static uint64_t earliest(uint64_t now_ns) {
    return now_ns > BUCKET_BURST_NS ? now_ns - BUCKET_BURST_NS : 0;
}

static uint64_t until(uint64_t paid_ns, uint64_t now_ns) {
    return paid_ns > now_ns ? (paid_ns - now_ns) / 1000 + 1 : 0;
}

void bucket_init(struct bucket *bucket, uint64_t rate, uint64_t now_us) {
    bucket->rate = rate;
    atomic_store_explicit(&bucket->paid_ns, earliest(now_us * 1000), memory_order_relaxed);
}

uint64_t bucket_wait(const struct bucket *bucket, uint64_t now_us) {
    return until(atomic_load_explicit(&bucket->paid_ns, memory_order_relaxed), now_us * 1000);
}

uint64_t bucket_take(struct bucket *bucket, uint64_t n, uint64_t now_us) {
    uint64_t now_ns = now_us * 1000, before = atomic_load_explicit(&bucket->paid_ns, memory_order_relaxed), after;
    do
        after = MAX(before, earliest(now_ns)) + n * SECOND_NS / bucket->rate;
    while (!atomic_compare_exchange_weak_explicit(
        &bucket->paid_ns, &before, after, memory_order_relaxed, memory_order_relaxed));
    return until(after, now_ns);
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

static struct invocation *present(const struct environment *environment) {
    return environment->invocations[0];
}

static void line(struct environment *environment, const uint8_t *data, uint32_t size) {
    struct dispatch *dispatch = environment->dispatch;
    struct invocation *invocation = present(environment);
    struct log_tail *tail = invocation != NULL ? invocation->tail : logs_early(environment);
    struct log_tag tag = log_tag_of(environment, invocation);
    struct wire_slice partial = {environment->log.partial, environment->log.partial_size};

    log_emit(environment, LOG_KIND_LINE, &tag, clock_real_us(), partial, (struct wire_slice){data, size});
    if (tail != NULL) {
        log_tail_append(tail, partial.data, partial.size);
        log_tail_append(tail, data, size);
        log_tail_append(tail, "\n", 1);
    }
    count_one(&dispatch->counters.node->log_lines);
    count_add(&dispatch->counters.node->log_bytes, partial.size + size);
    count_one(&environment->target->slot->log_lines);
    count_add(&environment->target->slot->log_bytes, partial.size + size);
    environment->log.partial_size = 0;
}

/* Keeps what has no newline yet. Without memory for it, it becomes a line of its own. */
static void keep(struct environment *environment, const uint8_t *data, uint32_t size) {
    struct log_pipe *log = &environment->log;
    uint32_t needed = log->partial_size + size;

    if (needed > log->partial_capacity) {
        uint32_t capacity = log->partial_capacity == 0 ? PARTIAL_FIRST : log->partial_capacity;
        while (capacity < needed)
            capacity *= 2;
        uint8_t *bigger = realloc(log->partial, capacity);
        if (bigger == NULL) {
            line(environment, data, size);
            return;
        }
        log->partial = bigger;
        log->partial_capacity = capacity;
    }
    memcpy(log->partial + log->partial_size, data, size);
    log->partial_size = needed;
}

/* Returns how many records it made. Lines beyond LOG_LINES_MAX become one, newlines and all: a function that writes
 * nothing but newlines would otherwise hold the loop for 65,536 of them at a time. */
static uint32_t split(struct environment *environment, const uint8_t *data, uint32_t size) {
    uint32_t records = 0;
    while (size > 0) {
        uint32_t room = LOG_LINE_MAX - environment->log.partial_size, looked = MIN(size, room);
        const uint8_t *newline = records < LOG_LINES_MAX ? memchr(data, '\n', looked) : memrchr(data, '\n', looked);
        if (newline != NULL) {
            uint32_t length = (uint32_t)(newline - data);
            line(environment, data, length);
            data += length + 1;
            size -= length + 1;
        } else if (size >= room) {
            line(environment, data, room);
            data += room;
            size -= room;
        } else {
            keep(environment, data, size);
            break;
        }
        records++;
    }
    return records;
}

/* What has no newline at the end of an invocation is a line; big buffers are not kept. */
static void finish(struct environment *environment) {
    struct log_pipe *log = &environment->log;
    if (log->partial_size > 0)
        line(environment, NULL, 0);
    if (log->partial_capacity > PARTIAL_FIRST) {
        free(log->partial);
        log->partial = NULL;
        log->partial_capacity = 0;
    }
}

/* ---- pipes ----------------------------------------------------------------------------------------------------- */

static void stop_watching(struct environment *environment) {
    struct log_pipe *log = &environment->log;
    loop_remove(&environment->dispatch->loop, &log->watch);
    timer_drop(&environment->dispatch->loop.timers, &log->timer);
    cleanup_close(&log->watch.fd);
}

/* One read. The number of bytes, 0 at the pipe's end or when there is nothing more to come now. What they cost the log,
 * headers of records included, is added. */
static uint32_t read_once(struct environment *environment, uint64_t *cost) {
    struct logs *logs = &environment->dispatch->logs;
    ssize_t n;

    do
        n = read(environment->log.watch.fd, logs->buffer, LOG_READ_SIZE);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        *cost += (uint64_t)n + (uint64_t)split(environment, logs->buffer, (uint32_t)n) * LOG_RECORD_HEADER;
        return (uint32_t)n;
    }
    if (n == 0 || errno != EAGAIN)
        stop_watching(environment);
    return 0;
}

/* Charges both buckets. Returns for how long the pipe should be left alone. */
static uint64_t charge(struct environment *environment, uint64_t n, uint64_t now) {
    uint64_t function = bucket_take(&environment->target->function->common->log_bucket, n, now);
    uint64_t node = bucket_take(environment->dispatch->logs.bucket, n, now);
    return MAX(function, node);
}

static void read_pipe(struct environment *environment, uint64_t now) {
    struct log_pipe *log = &environment->log;
    struct timers *timers = &environment->dispatch->loop.timers;
    uint64_t debt = MAX(bucket_wait(&environment->target->function->common->log_bucket, now),
        bucket_wait(environment->dispatch->logs.bucket, now));
    uint64_t cost = 0;
    uint32_t n;

    if (debt > 0) {
        timer_set(timers, &log->timer, now + debt);
        return;
    }
    n = read_once(environment, &cost);
    if (log->watch.fd < 0)
        return;
    if (n == 0) {
        (void)loop_change(&environment->dispatch->loop, &log->watch, EPOLLIN | EPOLLONESHOT);
        return;
    }
    debt = charge(environment, cost, now);
    if (debt > 0)
        count_one(&environment->dispatch->counters.node->log_throttled);
    /* A pipe that was nearly full is read again soon: its writer waits. */
    timer_set(timers, &log->timer, now + MAX(debt, n > LOG_READ_SIZE / 2 ? LOG_PAUSE_US / 10 : LOG_PAUSE_US));
}

static void on_readable(struct watch *watch, uint32_t events) {
    struct environment *environment = list_entry(watch, struct environment, log.watch);
    (void)events;
    read_pipe(environment, environment->dispatch->loop.now_us);
}

static void on_timer(struct timer *timer, uint64_t now) {
    struct environment *environment = list_entry(timer, struct environment, log.timer);
    if (environment->log.watch.fd >= 0)
        read_pipe(environment, now);
}

void logs_attach(struct environment *environment, int fd) {
    struct log_pipe *log = &environment->log;
    *log = (struct log_pipe){.watch = {.fd = fd, .ready = on_readable}};
    timer_init(&log->timer, on_timer);
    if (fd < 0)
        return;
    if (fd_set_nonblocking(fd, 1) < 0 ||
        loop_add(&environment->dispatch->loop, &log->watch, EPOLLIN | EPOLLONESHOT) < 0)
        cleanup_close(&log->watch.fd);
}

void logs_drain(struct environment *environment) {
    uint64_t total = 0, cost = 0;
    uint32_t n;

    while (environment->log.watch.fd >= 0 && total < LOG_DRAIN_MAX) {
        n = read_once(environment, &cost);
        total += n;
        /* Less than what fits: the pipe was empty behind it. */
        if (n < LOG_READ_SIZE)
            break;
    }
    finish(environment);
    if (total > 0)
        (void)charge(environment, cost, environment->dispatch->loop.now_us);
}

void logs_detach(struct environment *environment) {
    stop_watching(environment);
    free(environment->log.partial);
    environment->log.partial = NULL;
    environment->log.partial_size = environment->log.partial_capacity = 0;
}

void logs_leave(struct environment *environment) {
    struct log_pipe *log = &environment->log;
    loop_remove(&environment->dispatch->loop, &log->watch);
    timer_drop(&environment->dispatch->loop.timers, &log->timer);
}

int logs_settle_in(struct environment *environment) {
    struct log_pipe *log = &environment->log;
    return log->watch.fd >= 0 ? loop_add(&environment->dispatch->loop, &log->watch, EPOLLIN | EPOLLONESHOT) : 0;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

int logs_open(struct logs *logs, struct counters *counters, struct bucket *bucket) {
    struct logs opened = {.counters = counters, .bucket = bucket};

    opened.buffer = malloc(LOG_READ_SIZE);
    opened.ring = ring_new();
    if (opened.buffer == NULL || opened.ring == NULL) {
        free(opened.buffer);
        free(opened.ring);
        return -ENOMEM;
    }
    *logs = opened;
    return 0;
}

void logs_close(struct logs *logs) {
    free(logs->ring);
    free(logs->buffer);
    *logs = (struct logs){0};
}
