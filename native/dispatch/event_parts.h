/* What the files of asynchronous invocation share. */
#pragma once

#include "base/list.h"
#include "dispatch/counters.h"
#include "dispatch/dispatch.h"
#include "dispatch/events.h"
#include "dispatch/table.h"
#include "queue/queue.h"

/* From a loop to the thread; the same goes back by its mail. */
struct note {
    struct mail mail;
    void (*handle)(struct events *events, struct note *note);
};

/* ---- event_head.c: the record's head --------------------------------------------------------------------------- */

#define EVENT_HEAD_MAX                                                                                                 \
    (1u + 4u * 2u + WIRE_CALL_NAME_MAX + WIRE_CALL_QUALIFIER_MAX + WIRE_CALL_TRACE_MAX + WIRE_CALL_TENANT_MAX)

struct event_head {
    struct wire_slice name, qualifier, trace, tenant;
};

uint32_t event_head_put(const struct event_head *head, uint8_t ret_bytes[EVENT_HEAD_MAX]);
/* -EBADMSG. Slices into `bytes`. */
int event_head_read(const void *bytes, uint32_t size, struct event_head *ret_head);
/* How many functions of a chain were invoked before: of X-Amzn-Trace-Id's Lineage; 0: it has none. */
uint8_t event_depth(struct wire_slice trace);
/* The trace for the next one, cut to `size`; returns its length. */
uint32_t event_trace(struct wire_slice trace, const uint8_t uid[16], uint8_t depth, char *ret_trace, uint32_t size);

/* ---- event_clock.c ---------------------------------------------------------------------------------------------- */

#define CLOCK_STEPS 8

/* Where the wall clock was set forward. */
struct event_clock {
    int64_t offset_ms; /* of the wall clock from that of the machine's running, when it was last looked at */
    struct {
        uint64_t before_ms, by_ms; /* what it said then; by how much */
    } steps[CLOCK_STEPS];
    unsigned n;
};

void event_clock_begin(struct event_clock *clock);
/* To be called now and then: how the two clocks stand. */
void event_clock_look(struct event_clock *clock);
/* When an event was accepted, as the wall clock would have said had it been what it is now: so that nothing is too old
 * because the clock was set. */
uint64_t event_clock_accepted(const struct event_clock *clock, uint64_t accepted_ms);

/* ---- rules ------------------------------------------------------------------------------------------------------ */

struct rule {
    struct note note;
    struct rule *next; /* of the same function and qualifier, or the same hash of them */
    uint64_t object;
    uint32_t mark;
    uint8_t uid[16];
    bool remove, paused;
    uint32_t retries, chain_max, dead_max;
    uint64_t base_delay_ms, max_age_ms;
    uint16_t qualifier_size;
    char qualifier[WIRE_PUT_ASYNC_QUALIFIER_MAX];
};

struct rules {
    struct table by_object;
    struct table by_name; /* hash of function and qualifier: what an event is looked up by */
    struct rule node;     /* of all that have none */
};

/* Of those that were put before there were queues. */
void events_apply_pauses(struct events *events);
void rules_init(struct rules *rules);
void rules_done(struct rules *rules);
/* Takes the rule over; replaces one of the same object. -ENOMEM: it stays the caller's, and one that was there is gone. */
int rules_put(struct rules *rules, struct rule *rule);
/* The caller's from then on; NULL: there is none. */
struct rule *rules_take(struct rules *rules, uint64_t object);
const struct rule *rules_find(const struct rules *rules, const uint8_t uid[16], struct wire_slice qualifier);

/* ---- the thread's ------------------------------------------------------------------------------------------------ */

enum events_state { EVENTS_WAITING, EVENTS_OPEN, EVENTS_CLOSED };

/* A queue's, beside the library's. */
struct queue_view {
    uint64_t dead;
    bool dirty;
    uint64_t last_ms; /* told */
    struct queue_scan oldest;
};

/* An event that was given up, and is kept for whoever asks. */
struct dead_event {
    struct list node;
    struct taken taken;
};

struct events {
    struct loops *loops;
    struct files files;
    int directory, lock;
    struct queues_options options;
    pthread_t thread;
    pthread_barrier_t confined;
    int (*confine)(void);
    struct mailbox box;
    struct mail stop;

    enum events_state state;
    int broken; /* why it is not open */
    uint64_t retry_us;
    bool stopping, serving, giving, quiet;
    uint64_t giving_us;
    struct list waiting; /* accepts, for the log or for an original that is on its way */
    struct queues queues;
    struct rules rules;
    struct table attempts; /* by place */
    uint64_t attempt_bytes;
    uint64_t changed_us; /* the oldest change that is not on the disk; 0: none */
    uint64_t room_us;    /* when room was last looked for */

    struct table dead; /* by place */
    struct list dead_order;
    struct queue_view *views; /* by number */
    uint32_t n_views;
    uint64_t told_us;
    bool dirty;
    struct randomness randomness;
    struct event_clock clock;
    uint64_t groups, bytes, unreadable; /* counted */
    uint64_t damaged_files, copies;
};

static inline uint64_t place_key(struct place place) {
    return place.segment << 17 | (uint64_t)place.ordinal << 1 | 1;
}

/* event_notes.c */
void events_post(struct events *events, struct note *note, void (*handle)(struct events *events, struct note *note));
void events_reply(
    struct dispatch *dispatch, struct mail *mail, void (*deliver)(struct dispatch *dispatch, struct mail *mail));
void events_bundle(struct events_bundle *bundle, struct mail *mail);
void events_post_bundle(struct events_bundle *bundle, struct mailbox *box);
/* What was found out in this turn, to the loops. */
void events_answer(struct events *events);

/* events.c */
struct counters_node *events_counters(const struct events *events);
void events_changed(struct events *events);

/* event_accept.c */
struct accept {
    struct note note;
    struct dispatch *dispatch;
    struct exchange *exchange; /* the loop's; NULL: nobody waits */
    struct request *request;
    struct list node; /* in events.waiting */
    uint8_t id[16], uid[16];
    uint64_t key, digest;
    int result;
};

void accept_try(struct events *events, struct accept *accept);
void accept_done(struct events *events, struct accept *accept, int result);
/* The library's callback. */
void accept_stored(void *context, uint64_t tag, int result, struct place place);

/* event_attempt.c */
enum attempt_result {
    ATTEMPT_SUCCESS,
    ATTEMPT_ERROR,
    ATTEMPT_BUSY,
    ATTEMPT_TROUBLE,
    ATTEMPT_GONE,
    ATTEMPT_REFUSED,
    ATTEMPT_BACK
};

struct attempt {
    struct note note;
    struct dispatch *dispatch;
    struct taken taken;
    uint64_t accepted_ms;
    uint8_t id[16], uid[16];
    uint8_t depth;
    struct event_head head; /* of `bytes`, but for the qualifier, which is looked for when they are gone */
    uint8_t qualifier[WIRE_CALL_QUALIFIER_MAX];
    struct wire_slice payload;
    uint8_t *bytes; /* head and payload; the loop's to free */
    uint32_t size;
    enum attempt_result result;
};

void attempt_begin(struct dispatch *dispatch, struct mail *mail);

/* event_queues.c */
void events_finish(struct events *events, struct note *note);
void events_take(struct events *events);
/* Of one that is in flight. */
int dead_add(struct events *events, const struct taken *taken, struct place origin);
/* Of one that waits. -ENOENT: it is settled. */
int event_give_up(struct events *events, const struct taken *taken, struct place origin);
void dead_remove(struct events *events, struct place place, bool settle);
void dead_done(struct events *events);
struct queue_view *queue_view(struct events *events, const struct queue *queue);
void queue_dirty(struct events *events, const struct queue *queue);

/* event_ops.c */
void events_tell(struct events *events, uint64_t now_us);
