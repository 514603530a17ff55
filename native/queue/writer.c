/* The flusher's segments: making, sealing, giving up, removing. Runs in the flusher, or where none runs.
 *
 * A segment is made in a file that was one before, `next`, or in `new`, or in `spare`, which is always there but on a full
 * disk: allocated whole, its header written and synced, then renamed, then the directory synced. A crash between leaves `new` (removed at the next
 * start), `spare`, or an empty segment that nobody's `previous` names. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "log_parts.h"

#define NEW "new"
#define SPARE "spare"
#define NEXT "next"

uint64_t writer_limit(const struct segment_header *header) {
    return header->size - segment_footer_max(header->events_max);
}

static int make_file(struct log *log, const char *name) {
    const struct file_operations *op = log->files->operations;
    int file = op->open(log->files, name, 1);
    if (file == -EEXIST) {
        int r = op->remove(log->files, name);
        file = r < 0 ? r : op->open(log->files, name, 1);
    }
    if (file < 0)
        return file;
    int r = op->allocate(log->files, file, log->options.segment_bytes);
    if (r < 0) {
        op->close(log->files, file);
        (void)op->remove(log->files, name);
        return r;
    }
    return file;
}

static int ensure(struct log *log, const char *name, bool *there, bool *used) {
    if (*there)
        return 0;
    *used = false;
    int file = make_file(log, name);
    if (file < 0)
        return file;
    /* The allocation has to be on the disk as well: it is what a full disk is met with. */
    int r = log->files->operations->sync(log->files, file);
    log->files->operations->close(log->files, file);
    if (r == 0)
        r = log->files->operations->sync_directory(log->files);
    *there = r == 0;
    if (r < 0)
        (void)log->files->operations->remove(log->files, name);
    return r;
}

static int ensure_spare(struct log *log) {
    return ensure(log, SPARE, &log->writer.spare, &log->writer.spare_used);
}

int writer_ensure_room(struct log *log) {
    int r = ensure_spare(log);
    return r < 0 ? r : ensure(log, NEXT, &log->writer.next, &log->writer.next_used);
}

void writer_abandon(struct log *log) {
    struct writer *w = &log->writer;
    w->previous = w->header.sequence;
    w->previous_end = w->offset;
    w->file = -1;
}

int writer_seal(struct log *log, struct batch *batch) {
    struct writer *w = &log->writer;
    const struct file_operations *op = log->files->operations;
    struct footer footer = {0};
    uint8_t *bytes = NULL;
    size_t size = 0;

    int r = builder_footer(&w->builder, &footer);
    if (r == 0)
        r = footer_encode(&footer, w->header.salt, w->offset, &bytes, &size);
    if (r == 0)
        r = op->write(log->files, w->file, bytes, size, w->offset);
    /* Not synced: callers wait. What a power cut leaves of it is recognised, and made anew of the groups. */
    free(bytes);
    if (r == 0 && batch != NULL) {
        batch->sealed = w->header.sequence;
        batch->sealed_end = w->offset;
        batch->sealed_footer = footer;
    } else {
        footer_done(&footer);
    }
    /* Without footer it is read by its groups after the next start; nothing is lost. */
    writer_abandon(log);
    return r;
}

/* Returns the file; *ret_name is what it is called; *ret_used: it was a segment. */
static int acquire(struct log *log, bool spare_allowed, const char **ret_name, bool *ret_used) {
    int r = spare_allowed ? 0 : ensure_spare(log);
    if (r < 0)
        return r;
    *ret_used = log->writer.next && log->writer.next_used;
    if (log->writer.next) {
        log->writer.next = false;
        *ret_name = NEXT;
        int next = log->files->operations->open(log->files, NEXT, 0);
        if (next >= 0)
            return next;
    }
    int file = make_file(log, NEW);
    *ret_name = NEW;
    *ret_used = false;
    if (file >= 0 || !spare_allowed || !log->writer.spare)
        return file;
    *ret_name = SPARE;
    *ret_used = log->writer.spare_used;
    log->writer.spare = false;
    return log->files->operations->open(log->files, SPARE, 0);
}

/* A file that was a segment may bear the only word of that one's removal (mark_removed), in the first copy of its header:
 * then the second copy is on the disk before the first one goes. */
static int write_header(struct log *log, int file, const struct segment_header *header) {
    const struct file_operations *op = log->files->operations;
    uint8_t bytes[HEADER_SIZE];
    size_t size = HEADER_SIZE;
    int r = 0;

    segment_put_header(bytes, header);
    if (log->writer.unsaid != 0) {
        size = SECTOR;
        r = op->write(log->files, file, bytes + SECTOR, SECTOR, SECTOR);
        if (r == 0)
            r = op->sync(log->files, file);
    }
    if (r == 0)
        r = op->write(log->files, file, bytes, size, 0);
    return r < 0 ? r : op->sync(log->files, file);
}

int writer_begin(struct log *log, bool spare_allowed, uint64_t now_ms, struct batch *batch) {
    struct writer *w = &log->writer;
    const struct file_operations *op = log->files->operations;
    char name[SEGMENT_NAME_SIZE];
    const char *from;
    bool used;

    int file = acquire(log, spare_allowed, &from, &used);
    if (file < 0)
        return file;
    if (w->file >= 0)
        (void)writer_seal(log, batch);
    struct segment_header header = {
        .salt = log->options.salt(log->options.salt_context),
        .sequence = ++w->sequence,
        .size = log->options.segment_bytes,
        .events_max = log->options.segment_events,
        .oldest = w->oldest,
        .previous = w->previous,
        .previous_end = w->previous_end,
        .created_ms = now_ms,
    };
    segment_name(name, header.sequence);
    int r = write_header(log, file, &header);
    if (r == 0) {
        r = op->rename(log->files, from, name);
        if (r == 0) {
            from = name;
            r = op->sync_directory(log->files);
        }
    }
    batch->begun = r < 0 ? NULL : log_segment_new(&header, file);
    if (r == 0 && batch->begun == NULL)
        r = -ENOMEM;
    if (r < 0) {
        op->close(log->files, file);
        (void)op->remove(log->files, from);
        return r;
    }
    if (header.oldest > w->unsaid)
        w->unsaid = 0; /* it is said here */
    w->header = header;
    w->file = file;
    w->n_doubts = 0; /* its header says where the failed one ends */
    w->number = 0;
    w->offset = segment_start(header.events_max);
    w->written = used ? header.size : 0; /* mostly: where it was not it is slower, no more */
    builder_reset(&w->builder, header.sequence);
    return 0;
}

/* Without a segment in use there is no record of the removal: the file's own header says it. */
static int mark_removed(struct log *log, int file) {
    const struct file_operations *op = log->files->operations;
    uint8_t bytes[HEADER_SIZE];
    struct segment_header header;
    int64_t n = op->read(log->files, file, bytes, sizeof(bytes), 0);
    int r = n < 0 ? (int)n : n < (int64_t)sizeof(bytes) ? -EBADMSG : segment_parse_header(bytes, &header);
    if (r < 0)
        return r;
    if (header.oldest > header.sequence) /* by a process before this one, which may not have lived to sync it */
        return op->sync(log->files, file);
    header.oldest = header.sequence + 1;
    segment_put_header(bytes, &header);
    r = op->write(log->files, file, bytes, SECTOR, 0); /* the second copy stays as it is, should this one be torn */
    return r < 0 ? r : op->sync(log->files, file);
}

int writer_remove(struct log *log, uint64_t sequence) {
    struct writer *w = &log->writer;
    const struct file_operations *op = log->files->operations;
    char name[SEGMENT_NAME_SIZE];
    uint64_t size = 0;
    int r;

    segment_name(name, sequence);
    int file = op->open(log->files, name, 0);
    if (file == -ENOENT)
        return 0;
    if (file < 0)
        return file;
    r = op->size(log->files, file, &size);
    if (r == 0 && sequence <= w->unsaid)
        r = mark_removed(log, file);
    op->close(log->files, file);
    bool *kept = size < log->options.segment_bytes ? NULL : !w->spare ? &w->spare : !w->next ? &w->next : NULL;
    if (r == 0 && kept != NULL)
        r = op->rename(log->files, name, kept == &w->spare ? SPARE : NEXT);
    else if (r == 0)
        r = op->remove(log->files, name);
    if (r < 0)
        return r;
    r = op->sync_directory(log->files);
    /* Not used again before it has lost its name for good: a power cut may bring that back. But what bears the only word
     * of its removal is kept, and write_header is careful with it. */
    if (kept != NULL && (r == 0 || sequence <= w->unsaid)) {
        *kept = true;
        *(kept == &w->spare ? &w->spare_used : &w->next_used) = true;
    }
    return r;
}
