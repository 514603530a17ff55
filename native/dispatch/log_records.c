/* Records on their way to the log writer; see logs.h for what they are made of. Runs in the loop. */
#include "dispatch/log_records.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/log_ring.h"
#include "dispatch/render.h"

/* The low bytes come first; the width is a constant. */
static inline __attribute__((always_inline)) void store(uint8_t *at, uint64_t value, unsigned width) {
    value = htole64(value);
    memcpy(at, &value, width);
}

void log_record_header(uint8_t ret_header[LOG_RECORD_HEADER], uint32_t payload, uint64_t time_us, enum log_kind kind,
    const struct log_tag *tag) {
    store(ret_header, LOG_RECORD_HEADER + payload, 4);
    store(ret_header + 4, 0, 4);
    store(ret_header + 8, time_us, 8);
    ret_header[16] = (uint8_t)kind;
    store(ret_header + 17, tag->version, 3);
    store(ret_header + 20, tag->environment, 8);
    memcpy(ret_header + 28, tag->request_id, 16);
}

void log_report_pack(uint8_t ret_packed[LOG_REPORT_SIZE], const struct log_report *report) {
    store(ret_packed, report->duration_us, 8);
    store(ret_packed + 8, report->billed_ms, 8);
    store(ret_packed + 16, report->init_us, 8);
    store(ret_packed + 24, report->memory_mb, 4);
    store(ret_packed + 28, report->peak_mb, 4);
    ret_packed[32] = report->status;
    ret_packed[33] = report->init_type;
    store(ret_packed + 34, report->error_type_size, 2);
    store(ret_packed + 36, 0, 4);
}

/* Into the ring, in up to two parts. -ENOBUFS when it does not fit. */
static int try_emit(struct logs *logs, struct log_file *file, enum log_kind kind, const struct log_tag *tag,
    uint64_t time_us, struct wire_slice first, struct wire_slice second) {
    uint32_t payload = first.size + second.size;
    struct ring_entry *entry;
    uint8_t *at;

    entry = file != NULL ? ring_reserve(logs->ring, LOG_RECORD_HEADER + payload, false) : NULL;
    if (entry == NULL)
        return -ENOBUFS;
    entry->file = file;
    log_record_header(entry->payload, payload, time_us, kind, tag);
    at = entry->payload + LOG_RECORD_HEADER;
    if (first.size > 0)
        memcpy(at, first.data, first.size);
    if (second.size > 0)
        memcpy(at + first.size, second.data, second.size);
    ring_commit(logs->ring, entry);
    return 0;
}

/* While the disk does not keep up, nobody's lines take more than a quarter of the ring: a flood by one function is its
 * own loss. The ring is a queue, so what a function has in it came within its last two halves. */
static bool fair(struct function *function, const struct log_ring *ring, uint64_t size) {
    uint64_t window = atomic_load_explicit(&ring->head, memory_order_relaxed) / (RING_SIZE / 2);
    if (window != function->log_window) {
        function->log_before = window == function->log_window + 1 ? function->log_recent : 0;
        function->log_recent = 0;
        function->log_window = window;
    }
    if (ring_used(ring) > RING_SIZE / 2 && function->log_before + function->log_recent + size > RING_SIZE / 4)
        return false;
    function->log_recent += size;
    return true;
}

/* What was lost before is told first, in its place. */
void log_emit(struct environment *environment, enum log_kind kind, const struct log_tag *tag, uint64_t time_us,
    struct wire_slice first, struct wire_slice second) {
    struct function *function = environment->target->function;
    struct logs *logs = &environment->dispatch->logs;
    int r = 0;

    if (kind == LOG_KIND_LINE && !fair(function, logs->ring, first.size + second.size))
        r = -ENOBUFS;
    if (r >= 0 && function->lost_records > 0) {
        static const struct log_tag outside;
        uint8_t lost[17];
        store(lost, function->lost_records, 8);
        store(lost + 8, function->lost_bytes, 8);
        lost[16] = LOG_DROPPED_BUSY;
        r = try_emit(logs, function->common->log, LOG_KIND_DROPPED, &outside, time_us,
            (struct wire_slice){lost, sizeof(lost)}, (struct wire_slice){0});
        if (r >= 0)
            function->lost_records = function->lost_bytes = 0;
    }
    if (r >= 0)
        r = try_emit(logs, function->common->log, kind, tag, time_us, first, second);
    if (r < 0) {
        function->lost_records++;
        function->lost_bytes += first.size + second.size;
        count_shared(&logs->counters->node->log_records_dropped, 1);
    }
}

struct log_tag log_tag_of(const struct environment *environment, const struct invocation *invocation) {
    struct log_tag tag = {.environment = environment->id, .version = environment->target->version_number};
    if (invocation != NULL)
        memcpy(tag.request_id, invocation->id, 16);
    return tag;
}

static void emit_report(struct environment *environment, const struct invocation *invocation, enum log_kind kind,
    uint64_t now, const struct log_report *report) {
    struct log_tag tag = log_tag_of(environment, invocation);
    uint8_t packed[LOG_REPORT_SIZE];

    log_report_pack(packed, report);
    log_emit(environment, kind, &tag, now, (struct wire_slice){packed, sizeof(packed)},
        (struct wire_slice){(const uint8_t *)report->error_type, report->error_type_size});
}

void logs_start(struct environment *environment, const struct invocation *invocation) {
    struct log_tag tag = log_tag_of(environment, invocation);
    uint64_t now = clock_real_us();
    char line[RENDER_MAX];

    log_emit(environment, LOG_KIND_START, &tag, now, (struct wire_slice){0}, (struct wire_slice){0});
    if (invocation->tail != NULL)
        log_tail_append(invocation->tail, line,
            render_start(line, environment->target->log_format, now, invocation->id, environment->target->version));
}

void logs_report(
    struct environment *environment, const struct invocation *invocation, const struct log_report *report) {
    struct log_tag tag = log_tag_of(environment, invocation);
    int json = environment->target->log_format;
    uint64_t now = clock_real_us();
    char line[RENDER_MAX];

    log_emit(environment, LOG_KIND_END, &tag, now, (struct wire_slice){0}, (struct wire_slice){0});
    emit_report(environment, invocation, LOG_KIND_REPORT, now, report);
    if (invocation->tail == NULL)
        return;
    log_tail_append(invocation->tail, line, render_end(line, json, invocation->id));
    log_tail_append(invocation->tail, line, render_report(line, json, now, invocation->id, report));
}

void logs_init_start(struct environment *environment) {
    struct log_tag tag = log_tag_of(environment, NULL);
    log_emit(environment, LOG_KIND_INIT_START, &tag, clock_real_us(), (struct wire_slice){&environment->init_type, 1},
        (struct wire_slice){0});
}

void logs_init_report(struct environment *environment, const struct log_report *report) {
    struct log_tail *early;
    uint64_t now = clock_real_us(); /* the tail says what the log does */
    char line[RENDER_MAX];

    emit_report(environment, NULL, LOG_KIND_INIT_REPORT, now, report);
    if (report->status == LOG_STATUS_SUCCESS)
        return; /* for the log alone, as INIT_START is */
    early = logs_early(environment);
    if (early != NULL)
        log_tail_append(early, line, render_init_report(line, environment->target->log_format, now, report));
}

/* ---- before the first invocation ------------------------------------------------------------------------------- */

struct log_tail *logs_early(struct environment *environment) {
    struct log_pipe *log = &environment->log;
    if (environment->served > 0)
        return NULL;
    if (log->early == NULL) {
        log->early = malloc(sizeof(*log->early));
        if (log->early != NULL)
            log->early->written = 0;
    }
    return log->early;
}

void logs_hand_over(struct environment *environment, struct invocation *invocation) {
    struct log_tail *early = environment->log.early;
    char text[LOG_TAIL_MAX];

    if (early == NULL)
        return;
    if (invocation->tail != NULL)
        log_tail_append(invocation->tail, text, log_tail_copy(early, text));
    logs_forget(environment);
}

void logs_forget(struct environment *environment) {
    free(environment->log.early);
    environment->log.early = NULL;
}
