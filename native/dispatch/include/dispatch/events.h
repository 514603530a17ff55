/* Asynchronous invocation: events are accepted into the event log (queue/), taken from their functions' queues when it is
 * their turn, invoked, and retried or settled. All in the dispatcher; the control plane only tells rules.
 *
 * One thread of its own has the log and the queues, reads and writes its files, and nothing else touches them. A group of
 * the log is what came while it wrote the one before. Loops and thread exchange notes; on a loop, nothing waits for a disk.
 *
 *   events.c         the thread: the lock, the log's opening, its turns, its end
 *   event_notes.c    what goes between it and the loops
 *   event_accept.c   a caller's event: into the log, and 202 once it is on the disk
 *   event_attempt.c  the loops' side of an attempt: admission, invocation, outcome
 *   event_queues.c   the thread's side: what is taken, what becomes of it, events that were given up
 *   event_rules.c    how often, how long: what the control plane put
 *   event_ops.c      lists, cancels, puts back; tells the queues' states
 *   event_clock.c    what a clock that is set does to ages
 *   event_head.c     what of a call is kept beside its payload
 *
 * The log's directory has a file `lock` that is locked while the log is open. A dispatcher that is to replace another
 * waits for it, and answers its callers when it has the log; the old one lets go once its attempts have ended, after
 * EVENTS_GIVE_US at the latest: what still runs there then runs again here. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dispatch/mailbox.h"
#include "protocol/wire.h"

#define EVENT_PAYLOAD_MAX (1u << 20) /* Lambda's */
#define EVENTS_GIVE_US 2000000u
#define EVENTS_ATTEMPTS_MAX 1024u          /* at a time, of the node */
#define EVENTS_ATTEMPT_BYTES (32ull << 20) /* and of their payloads, until they are admitted */
#define EVENTS_QUEUE_FIRST 16u             /* attempts of one function at a time, at first */
#define EVENTS_QUEUE_MOST 1000u
#define EVENTS_SETTLE_US 20000u /* what was settled is on the disk so much later, or with the next event */
#define EVENTS_STATE_US 250000u /* the queues' states are told so often */
#define EVENTS_CONCURRENCY(limit) ((limit) - (limit) / 10) /* the rest of the account's is for callers who wait */

struct accept;
struct answer;
struct attempt;
struct counters;
struct dispatch;
struct events;
struct exchange;
struct invocation;
struct loops;
struct target;

struct events_options {
    int directory;          /* of the log, taken over */
    uint64_t segment_bytes; /* of a file; 0: this node has no event log */
    int (*confine)(void);   /* applies the seccomp filter to the calling thread; NULL: none */
};

/* What goes together: one waking for all. Linked from the newest to the oldest. */
struct events_bundle {
    struct mail *newest, *oldest;
};

/* A loop's end of the exchange of notes. */
struct events_port {
    struct mailbox box;
    struct dispatch *dispatch;
    struct events_bundle accepts; /* the loop's, of this turn */
    struct events_bundle answers; /* the thread's, of one group */
    unsigned waiting;             /* callers, for their event to be on the disk */
};

/* Before the process is confined. *ret_events NULL: there is no directory. */
int events_start(struct events **ret_events, struct loops *loops, const struct events_options *options);
/* Of each loop; harmless without events. */
int events_port_open(struct dispatch *dispatch);
void events_port_close(struct dispatch *dispatch);
/* Writes what is on its way, closes the log, ends the thread. No loop runs; invocations are freed. Then the ports are
 * closed, and nothing is left of it. */
void events_stop(struct events *events);
void events_free(struct events *events);

/* SYNC_END: deliveries begin. */
void events_serve(struct dispatch *dispatch);
/* DRAIN, and its end. */
void events_pause_all(struct dispatch *dispatch);
/* Another dispatcher waits for the log. quiet: nobody is about to bring an event any more. */
void events_give(struct dispatch *dispatch, bool quiet);

/* Instead of admission; takes the exchange's request. It goes to the thread at the end of the loop's turn, with all that
 * came in the same turn: a group of the log is as large as what is there when the thread wakes. */
void events_accept(struct exchange *exchange, const struct target *target);
/* The end of a loop's turn. */
void events_depart(struct dispatch *dispatch);
void events_refuse_size(struct exchange *exchange, uint32_t total);
/* Nobody waits any more. */
void events_forget(struct accept *accept);

/* An invocation of an event has its outcome; answer NULL: it has none, and the event goes back. */
void events_attempted(struct invocation *invocation, const struct answer *answer);

/* Tables: put and removed by the control plane; swept at SYNC_END. */
int events_put_rule(struct dispatch *dispatch, uint64_t object, const struct wire_put_async *message, uint32_t mark);
void events_del_rule(struct dispatch *dispatch, uint64_t object);
void events_sweep_rules(struct dispatch *dispatch, uint32_t mark);
/* QUEUE_OP. */
int events_operate(struct dispatch *dispatch, uint64_t request, const struct wire_queue_op *message);
/* What is to be told to the control plane: as control_send. */
int events_send(struct dispatch *dispatch);
/* A control plane that knows nothing: states are told anew, and what was left over for another one is dropped. */
void events_drop_told(struct dispatch *dispatch);
void events_tell_all(struct dispatch *dispatch);
