/* The functions' queues over the event log. All of it runs in the loop.
 *
 * A queue is told apart by its function's uid. What it has to do stands in *runs*: the events of one queue in one segment,
 * sorted by due time in the segment's footer (a heap in memory while the segment has none), of which a window of up to
 * WINDOW entries is in memory while it is worked on. A run waits in the wheel until its first event is due, so that
 * millions of waiting events cost a state byte each and nothing else. Single events are in the wheel only when they were
 * retried and are due within RETRY_NEAR_MS; a retry further away is written to the log anew and comes back through a run.
 *
 * Order: among queues deficit round robin, each with a cap of attempts in flight; within a queue first what is retried or
 * was put back, then the oldest run. A throttled event is put back in memory and its queue gated: no record is written.
 *
 * Invariants: an event that is in flight, in the wheel or put back is EVENT_TAKEN and is not found through its run;
 * in_flight counts what queues_take gave and queues_end, queues_delivered or queues_put_back did not get back. */
#pragma once

#include "queue/idempotency.h"
#include "queue/log.h"
#include "queue/policy.h"
#include "queue/wheel.h"

#define WINDOW 1024u
#define WINDOWS_MAX 128u
#define RETRY_NEAR_MS 300000u
#define RETRIES_NEAR_MAX 250000u
#define CLOCK_BACKS 8u

struct run {
    struct list in_segment, in_queue; /* in_queue: of those that are due */
    struct queue *queue;
    struct log_segment *segment;
    struct footer_event *entries;     /* heap, or window; NULL: none in memory */
    uint32_t n_entries, capacity, at; /* at: of the window */
    uint32_t first, count, cursor;    /* in the footer; cursor: how many the window has gone past */
    uint64_t scheduled_ms;            /* in the wheel for then; 0: not */
};

struct taken {
    struct queue *queue;
    struct place place;
    uint32_t where, size;
    uint8_t attempts, phase;
};

struct queue {
    struct list active;   /* in queues.active while there is something to take */
    struct list runs;     /* that are due */
    struct run *youngest; /* in the youngest segment that has one; NULL: not known */
    uint8_t uid[16];
    uint32_t number;
    struct policy policy;
    uint32_t cap; /* attempts in flight */
    uint32_t in_flight;
    bool paused;
    int64_t deficit;
    uint64_t gate_ms;   /* nothing is taken before; 0: open */
    uint32_t gates;     /* throttles in a row */
    struct taken *back; /* retries that are due, and what was put back: a ring */
    uint32_t back_at, n_back, back_capacity;
    uint64_t depth; /* events that live */
};

/* The clock was set back: due times of what stands before this place are of one that was ahead by so much. */
struct clock_back {
    struct place place;
    uint64_t by_ms;
};

struct queues {
    struct log log;
    struct wheel wheel;
    struct idempotency idempotency;
    struct queue **all; /* by number */
    uint32_t n, capacity;
    uint32_t *by_uid; /* open addressing: number + 1 */
    uint32_t by_uid_capacity;
    struct list active;
    struct policy policy; /* of queues that nobody configured */
    uint32_t cap;
    uint32_t n_windows, retries_near;
    uint64_t keep_keys_ms, now_ms;
    struct clock_back backs[CLOCK_BACKS];
    uint32_t n_backs;
    uint64_t unreadable; /* events that were settled because their records could not be read */
    uint8_t *buffer;
    size_t buffer_capacity;
    void (*accepted)(void *context, uint64_t tag, int result, struct place place);
    void *context;
};

struct queues_options {
    struct log_options log;
    struct policy policy;
    uint32_t cap;
    uint32_t key_window_s, keys_most; /* idempotency; Lambda-like: 300, a million */
    void (*accepted)(void *context, uint64_t tag, int result, struct place place); /* see log_sink */
    void *context;
};

int queues_open(struct queues *queues, struct files *files, const struct queues_options *options, uint64_t now_ms,
    struct log_found *ret_report);
/* When no flusher runs. */
void queues_close(struct queues *queues);

/* Makes it when it is not there. NULL: no memory. */
struct queue *queues_find(struct queues *queues, const uint8_t uid[16]);
void queue_configure(struct queues *queues, struct queue *queue, const struct policy *policy, uint32_t cap);
void queue_pause(struct queues *queues, struct queue *queue, bool paused);

/* log_accept, and idempotency for events with a key: -EALREADY when the same was accepted (its answer: success), -EINPROGRESS when
 * it is on its way, -EEXIST when it had another payload. */
int queues_accept(struct queues *queues, const struct record_event *event, uint64_t tag);
/* What the flusher finished and what time brought; removal and compaction, a little. */
void queues_turn(struct queues *queues, uint64_t now_ms);
/* When to call queues_turn at the latest. */
uint64_t queues_next(struct queues *queues);

/* 1 and an event to be invoked (phase waiting) or delivered, or 0. `ret_record` is valid until the next call. An event
 * that may not be tried any more is handed out too: see ret_decision, which otherwise says VERDICT_INVOKE. An event whose
 * record cannot be read is settled, once a copy of its file is kept: -EBADMSG; there may be others to take. */
int queues_take(
    struct queues *queues, struct taken *ret_taken, struct record *ret_record, struct decision *ret_decision);
/* After an attempt, or a decision against one. Performs what policy_after says; ret_decision has it. */
int queues_end(struct queues *queues, const struct taken *taken, enum outcome outcome, uint64_t accepted_ms,
    uint32_t random, struct decision *ret_decision);
int queues_apply(struct queues *queues, const struct taken *taken, const struct decision *decision);
/* The destination has it. */
int queues_delivered(struct queues *queues, const struct taken *taken);
/* Nothing was done with it. */
int queues_put_back(struct queues *queues, const struct taken *taken);

/* ---- looking through them: look.c ------------------------------------------------------------------------------ */

/* Lets go of a taken event without a change: it counts as in flight no more, and is not found again before its segment is
 * sealed or it is moved; at the next start it is. */
void queues_let_go(struct queues *queues, const struct taken *taken);
/* Settles one that is not in flight. -ENOENT: it was. */
int queues_settle(struct queues *queues, struct queue *queue, struct place place);
/* From the beginning: as if it had just been accepted, without its name. */
int queues_renew(struct queues *queues, struct place place, uint32_t where, uint32_t size);
/* The record, valid until the next call. */
int queues_read(struct queues *queues, struct place place, uint32_t where, uint32_t size, struct record *ret_record);

struct queue_scan {
    uint64_t segment; /* zeros: from the oldest on */
    uint32_t index;
    bool sealed;
};
struct queue_found {
    struct place place;
    uint32_t where, size;
    uint64_t due_ms;
    uint8_t attempts, phase;
};
/* Hands out what is not settled, of one queue or of all (NULL), about in the order of acceptance, `left` events at most.
 * `each` returns 0 to go on; otherwise the scan stops before that event and returns the same. 1: there may be more from
 * `scan` on; 0: that was all. Only where log_flush and this run in one thread. */
int queues_scan(struct queues *queues, const struct queue *queue, struct queue_scan *scan, uint32_t *left,
    int (*each)(void *context, const struct queue_found *found), void *context);
