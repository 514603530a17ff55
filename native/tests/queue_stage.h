/* Queues over a log in memory, for their tests: one world a program. */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "memory_files.h"
#include "queue/queue.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static struct memory memory;
static struct queues queues;
static struct log_found report;
static uint64_t now = 1700000000000u;
static uint64_t n_accepted, n_refused;
static int last_result;

static __attribute__((unused)) uint64_t salt(void *context) {
    (void)context;
    return memory_random(&memory);
}

static __attribute__((unused)) void accepted(void *context, uint64_t tag, int result, struct place place) {
    (void)context;
    (void)tag;
    (void)place;
    n_accepted += result == 0;
    n_refused += result != 0;
    last_result = result;
}

struct options {
    uint64_t segment_bytes;
    uint32_t segment_events, group_bytes;
};
static struct options sizes;

static __attribute__((unused)) void open_queues(void) {
    struct queues_options options = {.log = {.segment_bytes = sizes.segment_bytes,
                                         .segment_events = sizes.segment_events,
                                         .group_bytes = sizes.group_bytes,
                                         .pending_bytes = 1u << 20,
                                         .salt = salt},
        .policy = {.retries = 2, .base_delay_ms = 60000, .max_age_ms = 21600000},
        .cap = 1000,
        .key_window_s = 300,
        .keys_most = 1000000,
        .accepted = accepted};
    CHECK(queues_open(&queues, &memory.files, &options, now, &report) == 0);
}

static __attribute__((unused)) void begin_with(uint64_t room, const struct options *options) {
    memory_init(&memory, 42);
    sizes = *options;
    memory.room = room;
    n_accepted = n_refused = 0;
    open_queues();
}

static __attribute__((unused)) void begin(uint64_t room) {
    static const struct options small = {.segment_bytes = 32768, .segment_events = 64, .group_bytes = 4096};
    begin_with(room, &small);
}

static __attribute__((unused)) void end(void) {
    queues_close(&queues);
    memory_done(&memory);
}

/* As by kill -9. */
static __attribute__((unused)) void restart(void) {
    queues.log.writer.file = -1;
    queues_close(&queues);
    open_queues();
    CHECK(report.damaged_segments == 0 && report.missing_segments == 0 && report.unknown_places == 0);
}

/* What was promised is on the disk, whatever else is. */
static __attribute__((unused)) void power_cut(void) {
    queues.log.writer.file = -1;
    queues_close(&queues);
    memory_cut(&memory);
    open_queues();
}

static __attribute__((unused)) void turn(void) {
    do {
        queues_turn(&queues, now);
    } while (log_flush(&queues.log, now) > 0);
    queues_turn(&queues, now);
}

static __attribute__((unused)) int accept_one(unsigned queue, uint32_t id, uint32_t size, uint64_t key) {
    static uint8_t payload[8192];
    struct record_event event = {
        .accepted_ms = now, .key = key, .digest = id, .payload = payload, .payload_size = size};
    memcpy(event.id, &id, 4);
    event.queue[0] = (uint8_t)queue;
    event.queue[1] = (uint8_t)(queue >> 8);
    return queues_accept(&queues, &event, id);
}

static __attribute__((unused)) bool take(struct taken *ret_taken, uint32_t *ret_id, struct decision *ret_decision) {
    struct record record;
    int r = queues_take(&queues, ret_taken, &record, ret_decision);
    CHECK(r >= 0);
    if (r > 0)
        memcpy(ret_id, record.event.id, 4);
    return r > 0;
}

static __attribute__((unused)) void finish(
    const struct taken *taken, enum outcome outcome, uint64_t accepted_ms, struct decision *ret) {
    struct decision ignored;
    CHECK(queues_end(&queues, taken, outcome, accepted_ms, 0, ret != NULL ? ret : &ignored) == 0);
}
