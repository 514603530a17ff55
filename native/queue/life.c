/* Opening, sweeping, compacting and closing the log; see log.h. The loop's side. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "log_parts.h"

#define ENTRIES 256u /* of a footer, read at a time */
#define COPY_NAME_SIZE (SEGMENT_NAME_SIZE + 13)
#define COPY_BLOCK (256u << 10)

static int check_options(const struct log_options *o) {
    if (o->segment_events == 0 || o->segment_events > SEGMENT_EVENTS_MAX || o->salt == NULL)
        return -EINVAL;
    if (o->segment_bytes % SECTOR != 0 || o->segment_bytes > (uint64_t)UINT32_MAX * 8 ||
        o->segment_bytes < segment_start(o->segment_events) + segment_footer_max(o->segment_events) + 16u * SECTOR)
        return -EINVAL;
    if (o->group_bytes < SECTOR ||
        o->group_bytes > o->segment_bytes - segment_start(o->segment_events) - segment_footer_max(o->segment_events) -
                DROP_SECTORS * SECTOR)
        return -EINVAL;
    return 0;
}

int log_open(struct log *log, struct files *files, const struct log_options *options, const struct log_sink *sink,
    uint64_t now_ms, struct log_found *ret_report) {
    int r = check_options(options);
    if (r < 0)
        return r;
    *log = (struct log){.files = files, .options = *options, .sink = *sink, .wake_fd = -1};
    list_init(&log->segments);
    log->done_end = &log->done;
    pthread_mutex_init(&log->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&log->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    r = log_recover(log, now_ms, ret_report);
    if (r < 0)
        log_close(log);
    return r;
}

void log_close(struct log *log) {
    if (log->writer.file >= 0) {
        struct batch batch = {0};
        (void)writer_seal(log, &batch);
        footer_done(&batch.sealed_footer);
    }
    for (struct batch *next; log->open != NULL; log->open = next) {
        next = log->open->next;
        batch_free(log->open);
    }
    for (struct batch *next; log->done != NULL; log->done = next) {
        next = log->done->next;
        if (log->done->begun != NULL)
            log_segment_free(log, log->done->begun);
        batch_free(log->done);
    }
    batch_free(log->free_batch);
    list_for_each_safe(node, &log->segments) {
        log_segment_free(log, list_entry(node, struct log_segment, node));
    }
    builder_done(&log->writer.builder);
    free(log->writer.doubts);
    pthread_cond_destroy(&log->wake);
    pthread_mutex_destroy(&log->mutex);
}

/* ---- damage that is met by reading ------------------------------------------------------------------------------ */

static int copy_file(struct log *log, int from, int to) {
    const struct file_operations *op = log->files->operations;
    _cleanup_free_ uint8_t *block = malloc(COPY_BLOCK);
    uint64_t size = 0, unreadable = 0;
    int64_t n = 0;

    if (block == NULL)
        return -ENOMEM;
    int r = op->size(log->files, from, &size);
    for (uint64_t at = 0; at < size && r == 0; at += (uint64_t)n) {
        n = files_read_most(log->files, from, block, COPY_BLOCK, at, &unreadable);
        r = n < 0 ? (int)n : n == 0 ? -EIO : op->write(log->files, to, block, (size_t)n, at);
    }
    return r < 0 ? r : op->sync(log->files, to);
}

int log_keep_copy(struct log *log, struct log_segment *segment) {
    const struct file_operations *op = log->files->operations;
    char name[SEGMENT_NAME_SIZE], making[COPY_NAME_SIZE], made[COPY_NAME_SIZE];

    if (segment->copied)
        return 0;
    segment_name(name, segment->sequence);
    snprintf(making, sizeof(making), "copy-%s", name);
    snprintf(made, sizeof(made), "copy-%s.damaged", name);
    int file = op->open(log->files, made, 0);
    if (file >= 0) { /* by a start before */
        op->close(log->files, file);
        segment->copied = true;
        return 0;
    }
    file = op->open(log->files, making, 1);
    if (file == -EEXIST && op->remove(log->files, making) == 0)
        file = op->open(log->files, making, 1);
    if (file < 0)
        return file;
    int r = copy_file(log, segment->file, file);
    op->close(log->files, file);
    if (r == 0)
        r = op->rename(log->files, making, made);
    if (r == 0)
        r = op->sync_directory(log->files);
    if (r < 0)
        (void)op->remove(log->files, making);
    segment->copied = r == 0;
    log->copies += r == 0;
    return r;
}

/* ---- removal --------------------------------------------------------------------------------------------------- */

void log_discard(struct log *log, uint64_t keep_from_ms, uint64_t keep_to_ms) {
    if (log->dropping != 0) {
        if (log->collected < log->dropping_batch)
            return;
        list_for_each_safe(node, &log->segments) {
            struct log_segment *segment = list_entry(node, struct log_segment, node);
            if (segment->sequence > log->dropping)
                break;
            log_segment_free(log, segment);
        }
        pthread_mutex_lock(&log->mutex);
        log->remove = log->dropping;
        pthread_cond_signal(&log->wake);
        pthread_mutex_unlock(&log->mutex);
        log->dropping = 0;
        log->compacting = 0;
        log->stuck = false;
    }
    uint64_t last = 0;
    list_for_each(node, &log->segments) {
        struct log_segment *segment = list_entry(node, struct log_segment, node);
        bool keyed = segment->keyed_ms != 0 && segment->keyed_ms >= keep_from_ms && segment->keyed_ms <= keep_to_ms;
        if (segment == log->last || segment->live > 0 || keyed)
            break;
        last = segment->sequence;
        if (__atomic_load_n(&log->full, __ATOMIC_ACQUIRE) != 0)
            break; /* one by one: what is removed without a record can say so for itself alone */
    }
    if (last == 0)
        return;
    struct record_change change = {.place = {last, ORDINAL_ALL}, .phase = PHASE_SETTLED};
    uint8_t record[RECORD_CHANGE_SIZE];
    record_put_change(record, &change);
    if (log_append_change(log, record, &log->dropping_batch) == 0)
        log->dropping = last;
}

/* ---- compaction ------------------------------------------------------------------------------------------------ */

static bool worth_it(struct log *log, const struct log_segment *oldest) {
    uint64_t live = 0, there = 0, n = 0;
    if (!oldest->sealed || oldest == log->last || oldest->live == 0)
        return false;
    list_for_each(node, &log->segments) {
        const struct log_segment *segment = list_entry(node, struct log_segment, node);
        uint64_t bytes = segment->sealed ? segment->end - segment_start(segment->header.events_max) : 0;
        there += bytes;
        live += segment->ordinals > 0 ? bytes * segment->live / segment->ordinals : 0;
        n++;
    }
    return n > 3 && live < there / 2;
}

static int move_one(struct log *log, struct log_segment *segment, const struct footer_event *entry, uint64_t now_ms,
    uint8_t **buffer, size_t *capacity) {
    uint32_t ordinal = event_ordinal(entry);
    uint8_t *state = &segment->states[ordinal];
    struct record record;

    int r = log_read(log, segment, entry->where, entry->size, buffer, capacity, &record);
    if (r < 0)
        return r;
    struct record_event event = record.event;
    event.origin = (struct place){segment->sequence, ordinal};
    event.due_ms = state_attempts(*state) > record.event.attempts ? now_ms : record.event.due_ms;
    event.attempts = state_attempts(*state);
    event.phase = state_phase(*state);
    r = log_move(log, &event, TAG_MOVE);
    if (r == 0) {
        *state |= EVENT_TAKEN;
        log->moving++;
    }
    return r;
}

int log_compact(struct log *log, uint64_t now_ms, uint64_t bytes) {
    struct footer_event entries[ENTRIES];
    uint8_t *buffer = NULL;
    size_t capacity = 0;
    int moved = 0, r = 0;

    if (__atomic_load_n(&log->full, __ATOMIC_ACQUIRE) == 0)
        log->stuck = false;
    if (list_empty(&log->segments) || log->dropping != 0 || log->moving > 0 || log->stuck)
        return 0;
    struct log_segment *oldest = list_entry(log->segments.next, struct log_segment, node);
    if (!worth_it(log, oldest))
        return 0;
    while (bytes > 0 && r == 0) {
        uint64_t left = oldest->entries > log->compacting ? oldest->entries - log->compacting : 0;
        uint32_t n = (uint32_t)MIN(left, ENTRIES), i;
        if (n == 0) {
            log->compacting = 0; /* once more later: what was in flight may have ended */
            break;
        }
        r = log_read_entries(log, oldest, (uint32_t)log->compacting, n, entries);
        for (i = 0; i < n && r == 0 && bytes > 0; i++) {
            uint8_t state = oldest->states[event_ordinal(&entries[i])];
            if (state_phase(state) == PHASE_SETTLED || (state & EVENT_TAKEN) != 0)
                continue;
            r = move_one(log, oldest, &entries[i], now_ms, &buffer, &capacity);
            bytes -= MIN(bytes, entries[i].size);
            moved += r == 0;
            if (r == -EBADMSG || r == -EIO)
                r = 0; /* it stays, until it is its turn or the next start finds it */
        }
        log->compacting += r < 0 && i > 0 ? i - 1 : i;
    }
    free(buffer);
    log->moved += (uint64_t)moved;
    return r < 0 && r != -ENOBUFS ? r : moved;
}
