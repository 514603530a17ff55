/* Queues: what is taken next, what becomes of it, and what time brings. See queue.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "queue_parts.h"

#define QUANTUM 65536   /* bytes' worth of events that a queue may take before the next one's turn */
#define EVENT_COST 4096 /* of an event besides its bytes */
#define COMPACT_BYTES (1u << 20)

/* ---- time ------------------------------------------------------------------------------------------------------ */

static void time_came(struct queues *q, const struct timed *timed) {
    struct queue *queue = q->all[timed->queue];
    struct log_segment *segment;
    struct run *run;

    if (timed->kind == TIMED_GATE) {
        if (queue->gate_ms != 0 && queue->gate_ms <= q->now_ms)
            queue->gate_ms = 0;
        queue_rouse(q, queue);
        return;
    }
    segment = log_segment_of(&q->log, timed->segment);
    if (timed->kind == TIMED_RETRY) {
        struct taken taken = {.queue = queue, .place = {timed->segment, timed->ordinal}, .where = timed->where};
        q->retries_near--;
        if (segment != NULL && state_phase(log_state(&q->log, taken.place)) != PHASE_SETTLED)
            (void)queue_back(q, queue, &taken);
        return;
    }
    run = segment != NULL ? runs_find(segment, queue) : NULL;
    if (run == NULL || run->scheduled_ms != timed->due_ms)
        return;
    run->scheduled_ms = 0;
    if (list_empty(&run->in_queue))
        list_push_back(&queue->runs, &run->in_queue);
    queue_rouse(q, queue);
}

void queues_turn(struct queues *q, uint64_t now_ms) {
    struct timed timed;
    log_collect(&q->log, now_ms);  /* retries among it are due by the clock as it was */
    if (now_ms < q->wheel.at_ms) { /* the clock was set back: no delay becomes longer than it may be */
        runs_clock_back(q, q->wheel.at_ms - now_ms);
        wheel_reset_clock(&q->wheel, now_ms, 1u << TIMED_RETRY | 1u << TIMED_GATE, now_ms + RETRY_NEAR_MS);
        for (uint32_t i = 0; i < q->n; i++)
            q->all[i]->gate_ms = MIN(q->all[i]->gate_ms, now_ms + RETRY_NEAR_MS);
    }
    q->now_ms = now_ms;
    wheel_advance(&q->wheel, now_ms);
    while (wheel_take(&q->wheel, &timed))
        time_came(q, &timed);
    uint64_t window = q->idempotency.window_s * 1000ull;
    log_discard(&q->log, now_ms - MIN(now_ms, window), now_ms + window);
    (void)log_compact(&q->log, now_ms, COMPACT_BYTES);
}

uint64_t queues_next(struct queues *q) {
    return wheel_next(&q->wheel);
}

/* ---- taking ---------------------------------------------------------------------------------------------------- */

static struct log_segment *take_mark(struct queues *q, const struct taken *taken) {
    struct log_segment *segment = log_segment_of(&q->log, taken->place.segment);
    if (segment == NULL || segment->states == NULL || taken->place.ordinal >= segment->ordinals ||
        state_phase(segment->states[taken->place.ordinal]) == PHASE_SETTLED)
        return NULL;
    segment->states[taken->place.ordinal] |= EVENT_TAKEN;
    return segment;
}

/* The next event of this queue: 1; 0: it has none now, and is out of the circle. */
static int take_from(struct queues *q, struct queue *queue, struct taken *ret_taken) {
    while (queue->n_back > 0) {
        struct taken taken = queue->back[queue->back_at];
        queue->back_at = (queue->back_at + 1) % queue->back_capacity;
        queue->n_back--;
        if (take_mark(q, &taken) != NULL) {
            *ret_taken = taken;
            return 1;
        }
    }
    while (!list_empty(&queue->runs)) {
        struct run *run = list_entry(queue->runs.next, struct run, in_queue);
        struct footer_event entry;
        int r = run_next(q, run, &entry);
        if (r < 0)
            return r;
        if (r == 0)
            continue;
        *ret_taken = (struct taken){.queue = queue,
            .place = {run->segment->sequence, event_ordinal(&entry)},
            .where = entry.where,
            .size = entry.size};
        (void)take_mark(q, ret_taken);
        return 1;
    }
    queue_rouse(q, queue);
    return 0;
}

/* The file is kept, and the event given up, so that others of its segment are not kept for its sake. Where there is no room
 * for the file the event stays taken, and the next start finds it. */
static int drop_unreadable(struct queues *q, struct log_segment *segment, const struct taken *taken) {
    int r = log_keep_copy(&q->log, segment);
    if (r == 0)
        r = queues_settle(q, taken->queue, taken->place);
    q->unreadable += r == 0;
    return r < 0 && r != -ENOENT ? r : -EBADMSG;
}

int queues_take(struct queues *q, struct taken *ret_taken, struct record *ret_record, struct decision *ret_decision) {
    while (!list_empty(&q->active)) {
        struct queue *queue = list_entry(q->active.next, struct queue, active);
        struct taken taken;
        if (queue->deficit <= 0) {
            queue->deficit += QUANTUM;
            list_remove(&queue->active);
            list_push_back(&q->active, &queue->active);
            continue;
        }
        int r = take_from(q, queue, &taken);
        if (r < 0)
            return r;
        if (r == 0) {
            queue->deficit = 0; /* nothing is saved up while there is nothing to do */
            continue;
        }
        struct log_segment *segment = log_segment_of(&q->log, taken.place.segment);
        r = segment == NULL
            ? -ENOENT
            : log_read(&q->log, segment, taken.where, taken.size, &q->buffer, &q->buffer_capacity, ret_record);
        if (r == -EBADMSG || r == -EIO)
            return drop_unreadable(q, segment, &taken);
        if (r < 0) { /* for want of memory: later again */
            (void)queue_back(q, queue, &taken);
            return r;
        }
        uint8_t state = log_state(&q->log, taken.place);
        taken.size = ret_record->size;
        taken.attempts = state_attempts(state);
        taken.phase = state_phase(state);
        queue->deficit -= EVENT_COST + (int64_t)taken.size;
        queue->in_flight++;
        queue_rouse(q, queue);
        *ret_decision = (struct decision){.verdict = VERDICT_INVOKE, .attempts = taken.attempts};
        if (taken.phase == PHASE_WAITING)
            *ret_decision = policy_before(&queue->policy, taken.attempts, ret_record->event.accepted_ms, q->now_ms);
        *ret_taken = taken;
        return 1;
    }
    return 0;
}

/* ---- afterwards ------------------------------------------------------------------------------------------------ */

static void release(struct queues *q, struct queue *queue) {
    queue->in_flight--;
    queue_rouse(q, queue);
}

static int settle(struct queues *q, const struct taken *taken) {
    struct record_change change = {.place = taken->place, .phase = PHASE_SETTLED, .at_ms = q->now_ms};
    int r = log_change(&q->log, &change, NULL);
    if (r < 0 && r != -ENOENT)
        return r;
    taken->queue->depth -= r == 0 && taken->queue->depth > 0;
    release(q, taken->queue);
    return 0;
}

int queues_delivered(struct queues *q, const struct taken *taken) {
    return settle(q, taken);
}

int queues_put_back(struct queues *q, const struct taken *taken) {
    int r = queue_back(q, taken->queue, taken);
    if (r == 0)
        release(q, taken->queue);
    return r;
}

/* The outcome is on its way to the disk; the event comes back as one to be delivered. */
static int deliver(struct queues *q, const struct taken *taken, const struct decision *decision) {
    struct record_change change = {.place = taken->place,
        .attempts = decision->attempts,
        .phase = decision->condition == CONDITION_SUCCESS ? PHASE_SUCCEEDED : PHASE_FAILED,
        .at_ms = q->now_ms};
    int r = log_change(&q->log, &change, NULL);
    return r < 0 ? r : queues_put_back(q, taken);
}

/* Written anew, with its due time, where a run will find it. */
static int retry_far(struct queues *q, const struct taken *taken, const struct decision *decision) {
    struct log_segment *segment = log_segment_of(&q->log, taken->place.segment);
    struct record record;
    if (segment == NULL)
        return -ENOENT;
    int r = log_read(&q->log, segment, taken->where, taken->size, &q->buffer, &q->buffer_capacity, &record);
    if (r < 0)
        return r;
    struct record_event event = record.event;
    event.origin = taken->place;
    event.attempts = decision->attempts;
    event.due_ms = decision->due_ms;
    event.key = 0; /* its name is taken where it was first */
    return log_move(&q->log, &event, TAG_RETRY | taken->where);
}

static int retry_near(struct queues *q, const struct taken *taken, const struct decision *decision) {
    struct record_change change = {.place = taken->place,
        .attempts = decision->attempts,
        .phase = PHASE_WAITING,
        .due_ms = decision->due_ms,
        .at_ms = q->now_ms};
    struct timed timed = {.due_ms = decision->due_ms,
        .segment = taken->place.segment,
        .where = taken->where,
        .queue = taken->queue->number,
        .ordinal = (uint16_t)taken->place.ordinal,
        .kind = TIMED_RETRY};
    int r = wheel_add(&q->wheel, &timed);
    if (r < 0)
        return r;
    q->retries_near++;
    return log_change(&q->log, &change, NULL);
}

/* Where it cannot be written anew (no room, or its record is damaged) a far retry waits in the wheel, as a near one does:
 * a start before it is due makes it due sooner. */
static int retry(struct queues *q, const struct taken *taken, const struct decision *decision) {
    bool far = decision->due_ms > q->now_ms + RETRY_NEAR_MS || q->retries_near >= RETRIES_NEAR_MAX;
    return far && retry_far(q, taken, decision) == 0 ? 0 : retry_near(q, taken, decision);
}

void queue_retry_failed(struct queues *q, const struct batch_item *item) {
    struct taken taken = {.queue = queues_find(q, item->queue), .place = item->origin, .where = (uint32_t)item->tag};
    const struct decision decision = {.attempts = item->attempts, .due_ms = item->due_ms};
    struct log_segment *segment = log_segment_of(&q->log, item->origin.segment);
    if (taken.queue == NULL || segment == NULL || retry_near(q, &taken, &decision) < 0)
        return; /* it is tried again at once */
    segment->states[item->origin.ordinal] |= EVENT_TAKEN;
}

static int gate(struct queues *q, const struct taken *taken, const struct decision *decision) {
    struct queue *queue = taken->queue;
    struct timed timed = {.due_ms = decision->due_ms, .queue = queue->number, .kind = TIMED_GATE};
    int r = wheel_add(&q->wheel, &timed);
    if (r < 0)
        return r;
    queue->gate_ms = MAX(queue->gate_ms, decision->due_ms);
    queue->gates++;
    return queues_put_back(q, taken);
}

int queues_apply(struct queues *q, const struct taken *taken, const struct decision *decision) {
    int r;
    switch (decision->verdict) {
    case VERDICT_SETTLE:
        return settle(q, taken);
    case VERDICT_DELIVER:
        return deliver(q, taken, decision);
    case VERDICT_RETRY:
        r = retry(q, taken, decision);
        if (r == 0)
            release(q, taken->queue);
        return r;
    case VERDICT_GATE:
        return gate(q, taken, decision);
    case VERDICT_INVOKE:
        break;
    }
    return -EINVAL;
}

int queues_end(struct queues *q, const struct taken *taken, enum outcome outcome, uint64_t accepted_ms, uint32_t random,
    struct decision *ret_decision) {
    struct queue *queue = taken->queue;
    *ret_decision =
        policy_after(&queue->policy, outcome, taken->attempts, accepted_ms, q->now_ms, queue->gates, random);
    if (outcome != OUTCOME_THROTTLED)
        queue->gates = 0;
    return queues_apply(q, taken, ret_decision);
}
