/* What is in the directory becomes the log again; see log.h. Runs before there is a flusher.
 *
 * Order: 1 headers; 2 each segment, the oldest first: footer, or groups where there is none; changes are applied to the
 * states of their events, which stand in the same segment or before; 3 the last one is synced, since a process that was
 * killed may not have done so; 4 what was done with is removed; 5 the sink hears of what lives; 6 a new
 * segment begins, never an old one goes on; 7 what lives in damaged segments is copied into it, and they are set aside.
 * Done twice, by a crash in between, it is the same.
 *
 * Not covered: a sync fails, the process dies before it could begin another segment, and the group that nobody was told
 * of is still in the page cache but not on the disk. It then counts as accepted, and is reported as damage should the
 * power fail as well. */
#include "recover_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "queue/scan.h"

#define DAMAGED ".damaged"

/* ---- 1: the directory ------------------------------------------------------------------------------------------ */

static void each_name(void *context, const char *name) {
    struct recovery *r = context;
    uint64_t sequence = segment_sequence(name);
    char segment[SEGMENT_NAME_SIZE];
    bool aside = false;
    if (sequence == 0 && strlen(name) == SEGMENT_NAME_SIZE - 1 + strlen(DAMAGED) &&
        strcmp(name + SEGMENT_NAME_SIZE - 1, DAMAGED) == 0) {
        memcpy(segment, name, SEGMENT_NAME_SIZE - 1);
        segment[SEGMENT_NAME_SIZE - 1] = '\0';
        sequence = segment_sequence(segment);
        aside = true;
    }
    size_t length = strlen(name), ending = strlen(DAMAGED);
    if (length > ending && strcmp(name + length - ending, DAMAGED) == 0)
        r->report->damaged_files++;
    if (strcmp(name, "spare") == 0)
        r->log->writer.spare = true;
    if (strcmp(name, "next") == 0)
        r->log->writer.next = true;
    if (sequence == 0 || r->error < 0)
        return;
    if (r->n == r->capacity) {
        size_t capacity = 2 * r->capacity + 16;
        struct found *more = realloc(r->found, capacity * sizeof(*more));
        if (more == NULL) {
            r->error = -ENOMEM;
            return;
        }
        r->found = more;
        r->capacity = capacity;
    }
    r->found[r->n++] = (struct found){.sequence = sequence, .aside = aside};
    r->highest = MAX(r->highest, sequence);
}

static int by_sequence(const void *a, const void *b) {
    const struct found *x = a, *y = b;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

/* The file keeps its content under another name, for a person to look at. */
int recover_set_aside(struct log *log, uint64_t sequence) {
    char name[SEGMENT_NAME_SIZE], aside[SEGMENT_NAME_SIZE + sizeof(DAMAGED)];
    segment_name(name, sequence);
    memcpy(aside, name, SEGMENT_NAME_SIZE - 1);
    memcpy(aside + SEGMENT_NAME_SIZE - 1, DAMAGED, sizeof(DAMAGED));
    int r = log->files->operations->rename(log->files, name, aside);
    return r < 0 ? r : log->files->operations->sync_directory(log->files);
}

/* What a header says of the segments before it; it may be the only word of its own one's removal. */
static void former(struct recovery *r, const struct segment_header *header) {
    r->done_with = MAX(r->done_with, header->oldest - 1);
    r->report->latest_ms = MAX(r->report->latest_ms, header->created_ms);
    if (header->oldest > header->sequence)
        r->log->writer.unsaid = MAX(r->log->writer.unsaid, header->sequence);
}

/* Opens one; what is no segment is set aside, what became the next segment's file before its name did is removed. */
static int open_segment(struct recovery *r, struct found *found) {
    struct log *log = r->log;
    const struct file_operations *op = log->files->operations;
    uint8_t bytes[HEADER_SIZE];
    struct segment_header header;
    char name[SEGMENT_NAME_SIZE];
    uint64_t unreadable = 0;

    segment_name(name, found->sequence);
    int file = op->open(log->files, name, 0);
    if (file < 0)
        return file;
    int64_t n = files_read_most(log->files, file, bytes, sizeof(bytes), 0, &unreadable);
    int s = n < 0 ? (int)n : n < (int64_t)sizeof(bytes) ? -EBADMSG : segment_parse_header(bytes, &header);
    if (s == 0 && header.sequence == found->sequence) {
        found->segment = log_segment_new(&header, file);
        if (found->segment != NULL) {
            former(r, &header);
            return 0;
        }
        s = -ENOMEM;
    }
    op->close(log->files, file);
    if (s == 0)
        return op->remove(log->files, name);
    if (s != -EBADMSG)
        return s;
    r->report->damaged_segments++;
    r->report->damaged_bytes += log->options.segment_bytes;
    r->report->damaged_files++;
    return recover_set_aside(log, found->sequence);
}

/* ---- 2: segments ----------------------------------------------------------------------------------------------- */

static int scanned(void *context, const struct record *record, uint64_t offset) {
    return builder_add(context, record, offset);
}

/* From the successor's header, 0: there is none. */
uint64_t recover_end(const struct recovery *r, const struct found *found) {
    for (const struct found *next = found + 1; next < r->found + r->n; next++)
        if (next->segment != NULL && next->segment->header.previous == found->sequence)
            return next->segment->header.previous_end;
    return 0;
}

static int write_footer(struct log *log, struct log_segment *segment, const struct footer *footer, uint64_t end) {
    const struct file_operations *op = log->files->operations;
    uint8_t *bytes;
    size_t size;
    int r = footer_encode(footer, segment->header.salt, end, &bytes, &size);
    if (r < 0)
        return r;
    r = op->write(log->files, segment->file, bytes, size, end);
    free(bytes);
    if (r == 0)
        r = op->sync(log->files, segment->file);
    if (r == 0)
        segment->sealed = true;
    return r;
}

/* Without footer: by its groups, and the footer is written now. */
static int load_groups(struct recovery *r, struct found *found, uint64_t known_end, struct footer *ret_footer) {
    struct log *log = r->log;
    struct log_segment *segment = found->segment;
    struct scan_sink sink = {.context = &r->builder, .record = scanned};
    struct scan scan;

    builder_reset(&r->builder, segment->sequence);
    int s = segment_scan(log->files, segment->file, &segment->header, known_end, &sink, &scan);
    if (s < 0)
        return s;
    segment->damaged = scan.damaged_areas > 0;
    r->report->latest_ms = MAX(r->report->latest_ms, scan.latest_ms);
    if (!r->counted) {
        r->report->torn_bytes += scan.torn_bytes;
        r->report->damaged_bytes += scan.damaged_bytes;
        r->report->damaged_segments += segment->damaged;
    }
    segment->end = known_end != 0 ? known_end : scan.end;
    if (scan.footer != 0 && !segment->damaged) {
        segment->end = scan.footer;
        if (footer_read(log->files, segment->file, segment->header.salt, scan.footer, ret_footer) == 0) {
            segment->sealed = true;
            return 0;
        }
    }
    if (known_end == 0)
        s = log->files->operations->sync(log->files, segment->file); /* 3 */
    if (s == 0)
        s = builder_footer(&r->builder, ret_footer);
    if (s == 0 && !segment->damaged) {
        s = write_footer(log, segment, ret_footer, segment->end);
        if (s < 0)
            footer_done(ret_footer);
    }
    return s;
}

int recover_load(struct recovery *r, struct found *found, struct footer *ret_footer) {
    uint64_t known_end = recover_end(r, found);
    struct log_segment *segment = found->segment;
    uint64_t end = segment->sealed ? segment->end : known_end;

    if (end != 0 && footer_read(r->log->files, segment->file, segment->header.salt, end, ret_footer) == 0) {
        segment->sealed = true;
        segment->end = end;
        return 0;
    }
    return load_groups(r, found, known_end, ret_footer);
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

static int begin_segment(struct log *log, uint64_t now_ms) {
    struct batch *batch = calloc(1, sizeof(*batch));
    if (batch == NULL)
        return -ENOMEM;
    int r = writer_begin(log, false, now_ms, batch);
    log->full = r;
    if (r < 0)
        r = writer_begin(log, true, now_ms, batch);
    if (batch->begun != NULL) {
        list_push_back(&log->segments, &batch->begun->node);
        log->last = batch->begun;
        batch->begun = NULL;
    }
    batch_free(batch);
    /* Without room the log is there, and refuses: what it has can be taken and settled. */
    return r == -ENOSPC || r == -EDQUOT ? 0 : r;
}

/* A file kept for later that is too small, by a power cut or by other settings, is no use. */
static int check_kept(struct log *log, const char *name, bool *there) {
    const struct file_operations *op = log->files->operations;
    uint64_t size = 0;
    if (!*there)
        return 0;
    int file = op->open(log->files, name, 0);
    if (file < 0)
        return file;
    int r = op->size(log->files, file, &size);
    op->close(log->files, file);
    if (r == 0 && size < log->options.segment_bytes) {
        r = op->remove(log->files, name);
        *there = false;
    }
    return r;
}

/* What the header of a kept file says to be done with: removal may have left no other word of it. */
static int check_former(struct recovery *r, const char *name) {
    const struct file_operations *op = r->log->files->operations;
    uint8_t bytes[HEADER_SIZE];
    struct segment_header header;
    int file = op->open(r->log->files, name, 0);
    if (file < 0)
        return file == -ENOENT ? 0 : file;
    uint64_t unreadable = 0;
    int64_t n = files_read_most(r->log->files, file, bytes, sizeof(bytes), 0, &unreadable);
    op->close(r->log->files, file);
    if (n == (int64_t)sizeof(bytes) && segment_parse_header(bytes, &header) == 0)
        former(r, &header);
    return n < 0 ? (int)n : 0;
}

static int check_files(struct log *log) {
    int r = log->files->operations->remove(log->files, "new");
    if (r < 0 && r != -ENOENT)
        return r;
    r = check_kept(log, "spare", &log->writer.spare);
    return r < 0 ? r : check_kept(log, "next", &log->writer.next);
}

static int find_segments(struct recovery *r) {
    const struct file_operations *op = r->log->files->operations;
    int s = op->list(r->log->files, each_name, r);
    if (s == 0)
        s = r->error;
    if (s == 0)
        s = check_former(r, "spare");
    if (s == 0)
        s = check_former(r, "next");
    if (s == 0)
        s = check_files(r->log);
    if (r->n > 0)
        qsort(r->found, r->n, sizeof(*r->found), by_sequence);
    for (size_t i = 0; i < r->n && s == 0; i++)
        s = r->found[i].aside ? 0 : open_segment(r, &r->found[i]);
    return s;
}

static void recovery_done(struct recovery *r) {
    for (size_t i = 0; i < r->n; i++)
        if (r->found[i].segment != NULL && list_empty(&r->found[i].segment->node))
            log_segment_free(r->log, r->found[i].segment);
    free(r->found);
    free(r->retries);
    builder_done(&r->builder);
}

int log_recover(struct log *log, uint64_t now_ms, struct log_found *report) {
    struct recovery r = {.log = log, .report = report};
    struct writer *w = &log->writer;
    uint64_t begun_us = clock_monotonic_us();

    *report = (struct log_found){0};
    w->file = -1;
    int s = find_segments(&r);
    for (size_t i = 0; i < r.n && s == 0; i++)
        if (r.found[i].segment != NULL)
            s = recover_changes(&r, &r.found[i]);
    if (s == 0)
        s = recover_remove(&r);
    r.counted = true;
    for (size_t i = 0; i < r.n && s == 0; i++)
        if (r.found[i].segment != NULL)
            s = recover_announce(&r, &r.found[i]);
    w->sequence = r.highest;
    w->oldest = r.done_with + 1;
    for (size_t i = r.n; i-- > 0;)
        if (r.found[i].segment != NULL && w->previous == 0) {
            w->previous = r.found[i].sequence;
            w->previous_end = r.found[i].segment->end;
            log->last = r.found[i].segment;
        }
    if (s == 0)
        s = begin_segment(log, now_ms);
    if (s == 0)
        s = recover_salvage(&r, now_ms);
    report->microseconds = clock_monotonic_us() - begun_us;
    recovery_done(&r);
    return s;
}
