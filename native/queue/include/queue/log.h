/* The event log: what was accepted is on the disk and stays until it is settled.
 *
 * Two sides. The *loop's*: append, collect, look up, read. The *flusher's* (log_flush): takes all that was appended
 * meanwhile as one group, one write and one fdatasync, so that a group is as large as the disk is slow; it also makes,
 * seals and removes segments. They share `struct batch`es and a few flags under one mutex; log_flush runs in a thread of
 * its own (flusher.h) or, in tests, wherever they call it.
 *
 * Invariants
 *  - An event is told of (sink->accepted with 0) only after the sync that covers it, and exists for the queue only then.
 *  - A segment is removed only when it is the oldest, nothing in it lives, and a record that says so is on the disk. So
 *    every change stands in a younger segment than its event and lives at least as long.
 *  - After a failed write or sync a segment is never written or synced again. Its successor says where it ends, so that
 *    what was answered with an error does not come back. As long as there is no room for a successor, what changes about
 *    an event is also said of the copy of it that the failed group may have brought to the disk.
 *  - Events are accepted only while, besides the segment in use, a whole spare one is allocated: changes and compaction
 *    go on in it when the disk is full. When it is full too, changes go to the state areas of the segments of their
 *    events, which were allocated with them. So settling cannot meet a full disk.
 *
 * What a crash leaves: at most one group that nobody was told of, whole (then it counts) or torn (then not); perhaps a
 * file `new` (removed), `spare` or `next` (used again); a segment already done with, which is removed. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "base/list.h"
#include "queue/file.h"
#include "queue/index.h"
#include "queue/record.h"

#define EVENT_TAKEN 0x80u /* in a state byte, in memory only: not to be found through its run */

#define LOG_RECENT 16u

struct log_options {
    uint64_t segment_bytes;  /* of a file */
    uint32_t segment_events; /* at most SEGMENT_EVENTS_MAX */
    uint32_t group_bytes;    /* at most so many in one group (a larger record goes alone) */
    uint64_t pending_bytes;  /* appended and not yet on the disk; above it -ENOBUFS */
    uint64_t (*salt)(void *context);
    void *salt_context;
};

struct log_segment {
    struct list node; /* in log.segments, by sequence */
    uint64_t sequence, end;
    struct segment_header header;
    int file;
    uint8_t *states; /* of `ordinals` events: state_of(), EVENT_TAKEN; NULL when all are settled */
    uint32_t ordinals, capacity, live;
    uint64_t keyed_ms; /* the last accept with a key */
    bool sealed, damaged, copied;
    uint32_t entries; /* in its footer */
    struct list runs; /* the queue's */
};

/* What recovery found. */
struct log_found {
    uint64_t segments, events, waiting, settled, bytes, microseconds;
    uint64_t torn_bytes;
    uint64_t damaged_segments, damaged_bytes, missing_segments, unknown_places;
    uint64_t salvaged;         /* events, out of damaged segments */
    uint64_t unsaved_segments; /* damaged ones whose events could not be moved for want of room: the next start tries */
    uint64_t latest_ms;        /* the last time that was written */
    uint64_t damaged_files;    /* that are kept: of this start, and of others before */
};

struct batch_item {
    uint32_t at, size; /* the record, in the batch */
    int result;
    uint64_t tag, key;
    struct place origin;
    uint64_t due_ms; /* with `attempts`: of an event that moves */
    uint8_t attempts;
    uint8_t queue[16];
};

/* The loop's side hears of what is there through these, never from another thread. */
struct log_sink {
    void *context;
    /* An event lives in a segment that has no footer yet. */
    int (*event)(void *context, struct log_segment *segment, const uint8_t uid[16], const struct footer_event *event);
    /* A segment got its footer, or was found with one: where the events of each queue stand in it. */
    int (*sealed)(void *context, struct log_segment *segment, const struct footer_queue *queues, uint32_t n);
    /* A retry that was waiting at the crash. Its event is EVENT_TAKEN. */
    int (*retry)(void *context, struct log_segment *segment, const uint8_t uid[16], const struct footer_event *event,
        uint64_t due_ms);
    /* An accepted event with a key, from the footers: for the table of idempotency. */
    int (*keyed)(void *context, uint64_t key, struct log_segment *segment, const struct footer_event *event);
    /* At the start, of each queue in each segment: how many events live. */
    int (*waiting)(void *context, const uint8_t uid[16], uint32_t n);
    /* The fate of a log_accept or log_move: 0 and the event stands at `place`, or a negative errno. */
    void (*accepted)(void *context, const struct batch_item *item, int result, struct place place);
    /* A move failed: the event is where it was and not taken any more. */
    void (*returned)(void *context, struct log_segment *segment, const uint8_t uid[16]);
    void (*removed)(void *context, struct log_segment *segment);
};

struct batch {
    struct batch *next;
    uint64_t number;
    uint8_t *bytes; /* GROUP_HEADER, then records */
    size_t size, capacity;
    struct batch_item *items; /* events */
    uint32_t n_items, items_capacity;
    uint32_t n_accepts, n_records, n_changes; /* n_changes: what they are in a footer, at most */
    /* set by the flusher */
    int changes_result;
    uint64_t segment, offset; /* of the group */
    /* what happened to segments before the group was written */
    struct log_segment *begun;
    uint64_t sealed, sealed_end; /* 0: none */
    struct footer sealed_footer; /* its queues */
};

/* An event that a group was to move, and the ordinal that it has if the group is on the disk after all. */
struct doubt {
    struct place origin;
    uint32_t ordinal;
};

struct writer {
    struct segment_header header;
    int file; /* -1: there is none */
    uint64_t number, offset;
    uint64_t written; /* the file's blocks up to here were written before: see flush.c */
    struct builder builder;
    uint64_t sequence; /* the highest ever used */
    uint64_t oldest, previous, previous_end;
    uint64_t unsaid; /* removals up to this segment are on record nowhere */
    bool spare, next;
    bool spare_used, next_used; /* they were segments */
    struct doubt *doubts; /* of segment `previous`, whose last group failed and has no successor that disowns it */
    uint32_t n_doubts, doubts_capacity;
};

struct log {
    struct files *files;
    struct log_options options;
    struct log_sink sink;
    struct list segments;
    struct log_segment *last;               /* the loop's idea of the one in use; NULL: none yet */
    struct log_segment *recent[LOG_RECENT]; /* that were looked up, by sequence; NULL: none */
    uint64_t live;
    uint64_t dropping, dropping_batch; /* a segment whose end is being recorded; 0: none */
    uint64_t compacting;               /* where compaction is in the oldest segment's footer */
    uint64_t moved;                    /* events, by compaction */
    uint64_t moving;                   /* under way */
    uint64_t copies;                   /* of files with records that cannot be read */
    bool stuck;                        /* there was no room for a move: not again before there may be */
    uint64_t batches;                  /* number of the open batch */
    uint64_t collected;                /* all batches up to this number are done */
    uint64_t pending;                  /* bytes */
    uint64_t change_failures;          /* batches whose changes had to go again, with a later batch */
    struct batch *free_batch;

    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct batch *open, *open_last; /* to be written, the oldest first; records go to the last */
    struct batch *done, **done_end;
    uint64_t remove; /* segments up to this one may be removed */
    bool stop;
    int wake_fd; /* an eventfd that is raised when there is something to collect; -1: none */
    int full;    /* accepts are refused: 0, -ENOSPC, or what broke (written by the flusher) */

    struct writer writer; /* the flusher's */
    uint64_t groups, syncs, written_bytes;
};

/* Recovers what is in the directory; the sink hears of it before this returns. Nothing is written to what was found but
 * the footers of segments that ended without; damaged ones are copied from and renamed to NAME.damaged. */
int log_open(struct log *log, struct files *files, const struct log_options *options, const struct log_sink *sink,
    uint64_t now_ms, struct log_found *ret_report);
/* When no flusher runs. What was appended and not flushed is dropped; the segment in use is sealed. */
void log_close(struct log *log);

/* -EMSGSIZE, -ENOBUFS (too much under way: later again), -ENOSPC or another error while accepting is refused. After 0,
 * sink->accepted comes once with this tag. */
int log_accept(struct log *log, const struct record_event *event, uint64_t tag);
/* The same for an event that stands at event->origin, which is settled by it. Not refused by a full disk until there is
 * no room left for changes either. */
int log_move(struct log *log, const struct record_event *event, uint64_t tag);
/* At once in memory; on the disk with batch *ret_batch (may be NULL): when log->collected has reached it. */
int log_change(struct log *log, const struct record_change *change, uint64_t *ret_batch);
/* Takes what the flusher finished; calls the sink. Returns how many batches. */
int log_collect(struct log *log, uint64_t now_ms);
/* Removal of segments that are done with. Those whose last keyed event was accepted between the two times are kept. */
void log_discard(struct log *log, uint64_t keep_from_ms, uint64_t keep_to_ms);

/* Moves what lives in the oldest segment to the youngest, about so many bytes of it, when less than half of all that is
 * kept lives. Events that are taken stay where they are. Returns how many are on their way. */
int log_compact(struct log *log, uint64_t now_ms, uint64_t bytes);

/* A record of the segment cannot be read: its file is copied to copy-NAME.damaged, for a person to look at; what cannot
 * be read is zeros there. Once for a segment. */
int log_keep_copy(struct log *log, struct log_segment *segment);

struct log_segment *log_segment_of(struct log *log, uint64_t sequence);
/* State byte of an event; PHASE_SETTLED for one that is not there. */
uint8_t log_state(struct log *log, struct place place);
/* The record at `where` * 8, of that size (0: whatever it says); `buffer` is grown by realloc. -EBADMSG when it is damaged. */
int log_read(struct log *log, const struct log_segment *segment, uint32_t where, uint32_t size, uint8_t **buffer,
    size_t *capacity, struct record *ret_record);
/* Reads `count` entries of a sealed segment's footer from `first` on. */
int log_read_entries(struct log *log, const struct log_segment *segment, uint32_t first, uint32_t count,
    struct footer_event *ret_events);

/* The flusher's turn: one group, or what has to be done beside. 1: did something, 0: nothing to do. */
int log_flush(struct log *log, uint64_t now_ms);
