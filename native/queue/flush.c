/* The flusher's turn: one batch becomes one group. See log.h for the two sides and what they share. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "log_parts.h"

#define AHEAD_GROUP (64u << 10) /* larger ones are not slower for their blocks */
#define AHEAD_GROUPS 8u
#define AHEAD_LEAST (16u << 10)
#define AHEAD_MOST (256u << 10)
#define AHEAD_SHARE 32u /* of a file, at most */

/* `reserve`: sectors, and as many changes, that have to stay free. */
static bool fits(const struct log *log, const struct batch *batch, uint32_t reserve) {
    const struct writer *w = &log->writer;
    return w->file >= 0 &&
        w->offset + sector_up(batch->size) + (uint64_t)reserve * SECTOR <= writer_limit(&w->header) &&
        w->builder.ordinals + batch->n_items <= w->header.events_max &&
        (uint64_t)w->builder.n_changes + batch->n_changes + reserve <= segment_changes_max(w->header.events_max);
}

/* Keeps the records that `keep` wants; items whose record goes get `result`. */
static void batch_filter(struct batch *batch, bool (*keep)(const uint8_t *record), int result) {
    size_t to = GROUP_HEADER, item = 0, next;
    uint8_t kind;
    batch->n_records = batch->n_accepts = batch->n_changes = 0;
    for (size_t at = GROUP_HEADER; at < batch->size; at = next) {
        next = batch_step(batch, at, &kind);
        bool event = kind != RECORD_CHANGE, kept = keep(batch->bytes + at);
        while (event && batch->items[item].result != 0)
            item++; /* gone before */
        if (kept) {
            memmove(batch->bytes + to, batch->bytes + at, next - at);
            batch->n_records++;
            batch->n_accepts += kind == RECORD_ACCEPT;
            batch->n_changes += kind == RECORD_CHANGE ? 1 : kind == RECORD_MOVED ? 2 : 0;
        }
        if (event && kept)
            batch->items[item].at = (uint32_t)to;
        else if (event)
            batch->items[item].result = result;
        item += event;
        to += kept ? next - at : 0;
    }
    batch->size = to;
}

static bool no_accept(const uint8_t *record) {
    return record[8] != RECORD_ACCEPT;
}

static bool is_removal(const uint8_t *record) {
    uint32_t ordinal;
    memcpy(&ordinal, record + 12, 4);
    return record[8] == RECORD_CHANGE && ordinal == ORDINAL_ALL;
}

static bool is_change(const uint8_t *record) {
    return record[8] == RECORD_CHANGE;
}

static void batch_fail(struct batch *batch, int result) {
    for (uint32_t i = 0; i < batch->n_items; i++)
        if (batch->items[i].result == 0)
            batch->items[i].result = result;
}

/* ---- doubts ---------------------------------------------------------------------------------------------------- */

static int doubts_reserve(struct writer *w, uint32_t n) {
    if (n <= w->doubts_capacity)
        return 0;
    struct doubt *more = realloc(w->doubts, n * sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    w->doubts = more;
    w->doubts_capacity = n;
    return 0;
}

/* The group failed: its moves did not happen, and may be on the disk. */
static void doubt_moves(struct writer *w, const struct batch *batch) {
    struct record record;
    w->n_doubts = 0;
    for (size_t at = GROUP_HEADER; at < batch->size; at += record.padded) {
        if (record_look(batch->bytes + at, batch->size - at, &record) < 0)
            abort();
        if (record.kind == RECORD_MOVED && w->n_doubts < w->doubts_capacity)
            w->doubts[w->n_doubts++] = (struct doubt){record.event.origin, record.ordinal};
    }
}

static uint32_t doubtful(const struct writer *w, uint64_t segment, uint32_t ordinal) {
    for (uint32_t i = 0; i < w->n_doubts; i++)
        if (w->doubts[i].origin.segment == segment && w->doubts[i].origin.ordinal == ordinal)
            return w->doubts[i].ordinal;
    return ORDINAL_ALL;
}

/* ---- changes without room for records -------------------------------------------------------------------------- */

/* All changes of the batch that are of events in `sequence`, or of doubtful copies there, into its state area. */
static int put_states(struct log *log, const struct batch *batch, uint64_t sequence) {
    const struct file_operations *op = log->files->operations;
    _cleanup_free_ uint8_t *states = calloc(1, SEGMENT_EVENTS_MAX);
    uint8_t bytes[HEADER_SIZE], kind;
    struct segment_header header;
    char name[SEGMENT_NAME_SIZE];

    if (states == NULL)
        return -ENOMEM;
    segment_name(name, sequence);
    int file = op->open(log->files, name, 0);
    if (file < 0)
        return file == -ENOENT ? 0 : file; /* gone with all that it had */
    int64_t n = op->read(log->files, file, bytes, sizeof(bytes), 0);
    int r = n < 0 ? (int)n : n < (int64_t)sizeof(bytes) ? -EBADMSG : segment_parse_header(bytes, &header);
    if (r == 0) {
        for (size_t at = GROUP_HEADER, next; at < batch->size; at = next) {
            uint64_t segment;
            uint32_t ordinal, copy;
            next = batch_step(batch, at, &kind);
            const uint8_t *record = batch->bytes + at;
            memcpy(&ordinal, record + 12, 4);
            memcpy(&segment, record + 16, 8);
            if (kind != RECORD_CHANGE)
                continue;
            uint8_t state = state_of(record[10], record[11]);
            copy = sequence == log->writer.previous ? doubtful(&log->writer, segment, ordinal) : ORDINAL_ALL;
            if (segment == sequence && ordinal < header.events_max)
                states[ordinal] = state_merged(states[ordinal], state);
            if (copy < header.events_max)
                states[copy] = state_merged(states[copy], state);
        }
        r = states_write(log->files, file, &header, states, header.events_max);
    }
    op->close(log->files, file);
    return r;
}

static int put_all_states(struct log *log, const struct batch *batch) {
    uint64_t done = 0; /* the segments, from the lowest to the highest */
    for (;;) {
        uint64_t next_segment = UINT64_MAX;
        uint8_t kind;
        for (size_t at = GROUP_HEADER, next; at < batch->size; at = next) {
            uint64_t segment;
            next = batch_step(batch, at, &kind);
            memcpy(&segment, batch->bytes + at + 16, 8);
            if (is_change(batch->bytes + at) && !is_removal(batch->bytes + at) && segment > done)
                next_segment = MIN(next_segment, segment);
        }
        if (next_segment == UINT64_MAX) /* the copies: younger than all that has changed */
            return log->writer.n_doubts == 0 ? 0 : put_states(log, batch, log->writer.previous);
        int r = put_states(log, batch, next_segment);
        if (r < 0)
            return r;
        done = next_segment;
    }
}

/* ---- groups ---------------------------------------------------------------------------------------------------- */

/* The first write to a block that was only allocated costs its sync a change of the file's map, and often a commit of the
 * file system's journal. Where groups are small, zeros go along to the blocks of the next ones: they are overwritten then,
 * and most syncs have nothing but data to write. To a reader zeros are what was there before. Not where an overwritten
 * block goes elsewhere: it would need room that is not there on a full disk. Not all that do so are known: that there is none
 * fails no group, which is written by then. */
static int write_ahead(struct log *log, size_t group, uint64_t end) {
    struct writer *w = &log->writer;
    if (log->files->moves || end <= w->written)
        return 0;
    uint64_t size = group > AHEAD_GROUP ? 0 : MIN(MAX(AHEAD_GROUPS * group, AHEAD_LEAST), AHEAD_MOST);
    size = MIN(size, MIN(w->header.size - end, w->header.size / AHEAD_SHARE / SECTOR * SECTOR));
    w->written = end + size;
    int r = files_write_zeros(log->files, w->file, size, end);
    return r == -ENOSPC ? 0 : r;
}

static int write_group(struct log *log, struct batch *batch, uint64_t now_ms) {
    struct writer *w = &log->writer;
    const struct file_operations *op = log->files->operations;
    size_t whole = sector_up(batch->size);
    uint64_t ordinal = w->builder.ordinals;
    uint8_t kind;

    int r = builder_reserve(&w->builder, batch->n_items, batch->n_changes);
    if (r == 0)
        r = doubts_reserve(w, batch->n_items);
    if (r < 0)
        return r;
    struct group_header header = {
        .salt = w->header.salt,
        .number = ++w->number,
        .durable = w->offset,
        .at_ms = now_ms,
        .size = (uint32_t)(batch->size - GROUP_HEADER),
        .records = batch->n_records,
    };
    uint32_t seed = record_seed(header.salt);
    for (size_t at = GROUP_HEADER, next; at < batch->size; at = next) {
        next = batch_step(batch, at, &kind);
        record_finish(batch->bytes + at, seed, kind == RECORD_CHANGE ? 0 : (uint32_t)ordinal++);
    }
    group_finish(batch->bytes, &header);
    r = op->write(log->files, w->file, batch->bytes, whole, w->offset);
    if (r == 0)
        r = write_ahead(log, whole, w->offset + whole);
    if (r == 0)
        r = op->sync(log->files, w->file);
    if (r < 0) {
        writer_abandon(log);
        doubt_moves(w, batch);
        return r;
    }
    batch->segment = w->header.sequence;
    batch->offset = w->offset;
    for (size_t at = GROUP_HEADER; at < batch->size;) {
        struct record record;
        r = record_look(batch->bytes + at, batch->size - at, &record);
        if (r == 0)
            r = builder_add(&w->builder, &record, w->offset + at);
        if (r < 0)
            abort(); /* we wrote it; going on would lose it silently */
        at += record.padded;
    }
    w->offset += whole;
    log->groups++;
    log->written_bytes += whole;
    return 0;
}

/* A segment that takes the batch, perhaps without its accepts, is in use: 0. */
static int make_ready(struct log *log, struct batch *batch, uint64_t now_ms) {
    int r;
    if (batch->n_accepts > 0 && log->full != 0) {
        r = log->full;
        batch_filter(batch, no_accept, r);
    }
    if (batch->n_records == 0 || fits(log, batch, DROP_SECTORS))
        return 0;
    if (batch->n_accepts > 0) {
        r = writer_begin(log, false, now_ms, batch);
        if (r == 0)
            return 0;
        __atomic_store_n(&log->full, r, __ATOMIC_RELEASE);
        batch_filter(batch, no_accept, r);
        if (batch->n_records == 0 || fits(log, batch, DROP_SECTORS))
            return 0;
    }
    return writer_begin(log, true, now_ms, batch);
}

static void write_batch(struct log *log, struct batch *batch, uint64_t now_ms) {
    int r = make_ready(log, batch, now_ms);
    if (batch->n_records == 0)
        return;
    if (r == 0) {
        r = write_group(log, batch, now_ms);
        if (r == 0)
            return;
        batch_fail(batch, r);
        batch->changes_result = r;
        /* At once: the successor's header says that this group does not count. */
        if (log->writer.file < 0 && batch->begun == NULL)
            (void)writer_begin(log, true, now_ms, batch);
        return;
    }
    /* No room for records: states where their events are, and the removal of a segment in what is kept for it. Moves
     * have to wait. */
    batch_filter(batch, is_change, r);
    r = put_all_states(log, batch);
    if (r < 0) {
        batch->changes_result = r;
        return;
    }
    batch_filter(batch, is_removal, 0);
    struct writer *w = &log->writer;
    if (batch->n_records > 0 && w->file < 0 && !w->spare && !w->next) {
        /* There is no segment to say it in, and no file to make one of but that which goes: it says so itself. */
        memcpy(&w->unsaid, batch->bytes + GROUP_HEADER + 16, 8);
        return;
    }
    if (batch->n_records > 0)
        batch->changes_result = fits(log, batch, 0) ? write_group(log, batch, now_ms) : -ENOSPC;
}

static void hand_over(struct log *log, struct batch *batch) {
    static const uint64_t one = 1;
    pthread_mutex_lock(&log->mutex);
    batch->next = NULL;
    *log->done_end = batch;
    log->done_end = &batch->next;
    pthread_mutex_unlock(&log->mutex);
    if (log->wake_fd >= 0)
        (void)!write(log->wake_fd, &one, sizeof(one));
}

/* Tries to accept again. */
static int recover_room(struct log *log, uint64_t now_ms) {
    int r;
    if (log->writer.file >= 0) {
        r = writer_ensure_room(log);
    } else {
        struct batch *batch = calloc(1, sizeof(*batch));
        r = batch == NULL ? -ENOMEM : writer_begin(log, true, now_ms, batch);
        if (r == 0 || (batch != NULL && batch->sealed != 0))
            hand_over(log, batch);
        else
            batch_free(batch);
        if (r == 0)
            r = writer_ensure_room(log);
    }
    if (log->full != r)
        __atomic_store_n(&log->full, r, __ATOMIC_RELEASE);
    return r == 0;
}

/* There is a segment again: what could not be said when there was none, before the file goes that says it. */
static void say_removal(struct log *log, uint64_t now_ms) {
    struct writer *w = &log->writer;
    struct record_change change = {.place = {w->unsaid, ORDINAL_ALL}, .phase = PHASE_SETTLED, .at_ms = now_ms};
    uint8_t bytes[SECTOR];
    struct batch batch = {.bytes = bytes, .capacity = sizeof(bytes), .n_records = 1, .n_changes = 1};

    batch.size = GROUP_HEADER + record_put_change(bytes + GROUP_HEADER, &change);
    if (fits(log, &batch, 0) && write_group(log, &batch, now_ms) == 0)
        w->unsaid = 0;
}

int log_flush(struct log *log, uint64_t now_ms) {
    struct batch *batch;
    uint64_t remove;

    pthread_mutex_lock(&log->mutex);
    remove = log->remove;
    /* On a full disk room comes first: a batch that does not fit would come again and again. */
    batch = log->full != 0 && log->writer.oldest <= remove ? NULL : log->open;
    if (batch != NULL) {
        log->open = batch->next;
        if (log->open == NULL)
            log->open_last = NULL;
    }
    pthread_mutex_unlock(&log->mutex);
    if (batch != NULL) {
        write_batch(log, batch, now_ms);
        hand_over(log, batch);
        return 1;
    }
    /* A second removal would overwrite what the first one left. */
    if (log->writer.file < 0 && (log->writer.spare || log->writer.next)) {
        (void)recover_room(log, now_ms);
        if (log->writer.file >= 0)
            return 1;
    }
    if (log->writer.oldest <= remove) {
        if (log->writer.oldest <= log->writer.unsaid && log->writer.file >= 0)
            say_removal(log, now_ms);
        /* Failing to remove costs room, no more: the record of it is on the disk, the next start removes it. */
        (void)writer_remove(log, log->writer.oldest);
        log->writer.oldest++;
        return 1;
    }
    return log->full != 0 ? recover_room(log, now_ms) : 0;
}
