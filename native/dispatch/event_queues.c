/* What is taken from the queues, and what becomes of it: the thread's side of attempts. See events.h.
 *
 * How many attempts of one function run at a time is found out: one more after each that ended while all were in use,
 * fewer when a target had no place. Where nothing of the function runs and there is no place either, its queue waits for
 * a moment, each time longer. What cannot be routed (its alias or function is gone) is tried again on its own, so
 * that nothing stands behind it.
 *
 * An event that was given up (its attempts are used up, it is too old, its function may not run, its chain is too long)
 * stays in the log as one that failed, up to the rule's `dead_max` of them, the oldest going first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "event_parts.h"

#define BUSY_MIN_MS 2u
#define BUSY_MAX_MS 256u
#define GONE_MS 60000u
#define TAKE_MOST 256u /* in one turn */

/* ---- views ------------------------------------------------------------------------------------------------------ */

struct queue_view *queue_view(struct events *events, const struct queue *queue) {
    if (queue->number >= events->n_views) {
        uint32_t n = MAX(64u, 2 * (queue->number + 1));
        struct queue_view *views = realloc(events->views, n * sizeof(*views));
        if (views == NULL)
            return NULL;
        memset(views + events->n_views, 0, (n - events->n_views) * sizeof(*views));
        events->views = views;
        events->n_views = n;
    }
    return &events->views[queue->number];
}

void queue_dirty(struct events *events, const struct queue *queue) {
    struct queue_view *view = queue_view(events, queue);
    if (view != NULL)
        view->dirty = true;
    events->dirty = true;
}

/* ---- those that were given up ----------------------------------------------------------------------------------- */

void dead_remove(struct events *events, struct place place, bool settle) {
    struct dead_event *dead = table_remove(&events->dead, place_key(place));
    if (dead == NULL)
        return;
    struct queue *queue = dead->taken.queue;
    struct queue_view *view = queue_view(events, queue);
    if (view != NULL && view->dead > 0)
        view->dead--;
    if (settle)
        (void)queues_settle(&events->queues, queue, place);
    queue_dirty(events, queue);
    list_remove(&dead->node);
    free(dead);
}

void dead_done(struct events *events) {
    for (struct list *node; (node = list_pop_front(&events->dead_order)) != NULL;)
        free(list_entry(node, struct dead_event, node));
    table_done(&events->dead);
    events->dead = (struct table){0};
}

static int dead_keep(struct events *events, const struct taken *taken, struct place origin) {
    struct queue_view *view = queue_view(events, taken->queue);
    struct dead_event *dead;

    if (table_get(&events->dead, place_key(taken->place)) != NULL)
        return 0;            /* its segment was sealed, and it was found again */
    if (origin.segment != 0) /* it was moved */
        dead_remove(events, origin, false);
    dead = view != NULL ? calloc(1, sizeof(*dead)) : NULL;
    if (dead == NULL || table_put(&events->dead, place_key(taken->place), dead) < 0) {
        free(dead);
        return -ENOMEM;
    }
    dead->taken = *taken;
    list_push_back(&events->dead_order, &dead->node);
    view->dead++;
    queue_dirty(events, taken->queue);
    while (events->dead.size > events->rules.node.dead_max) {
        dead = list_entry(events->dead_order.next, struct dead_event, node);
        count_one(&events_counters(events)->events_dropped);
        dead_remove(events, dead->taken.place, true);
    }
    return 0;
}

int dead_add(struct events *events, const struct taken *taken, struct place origin) {
    queues_let_go(&events->queues, taken);
    return dead_keep(events, taken, origin);
}

int event_give_up(struct events *events, const struct taken *taken, struct place origin) {
    struct record_change change = {
        .place = taken->place, .attempts = taken->attempts, .phase = PHASE_FAILED, .at_ms = events->queues.now_ms};
    int r = log_change(&events->queues.log, &change, NULL);
    if (r < 0)
        return r;
    events_changed(events);
    count_one(&events_counters(events)->events_dead);
    return dead_keep(events, taken, origin);
}

/* ---- what becomes of an attempt --------------------------------------------------------------------------------- */

static struct policy policy_of(const struct rule *rule) {
    return (struct policy){.retries = rule->retries,
        .base_delay_ms = rule->base_delay_ms,
        .max_age_ms = rule->max_age_ms,
        .deliver_failure = true};
}

static void apply(struct events *events, const struct taken *taken, const struct decision *decision) {
    struct counters_node *node = events_counters(events);
    int r = queues_apply(&events->queues, taken, decision);
    if (r == -ENOENT) { /* it was settled meanwhile */
        queues_let_go(&events->queues, taken);
        r = 0;
    }
    if (r < 0) {
        fprintf(stderr, "runtimed-dispatch: event log: an outcome cannot be kept: %s\n", strerror(-r));
        abort(); /* going on would lose it silently: start anew from the log */
    }
    events_changed(events);
    if (decision->verdict == VERDICT_RETRY)
        count_one(&node->events_retried);
    if (decision->verdict == VERDICT_DELIVER)
        count_one(&node->events_dead);
}

/* No place for it. */
static void busy(struct events *events, const struct taken *taken) {
    struct queue *queue = taken->queue;
    struct decision gate = {.verdict = VERDICT_GATE, .attempts = taken->attempts};
    uint32_t random;

    count_one(&events_counters(events)->events_throttled);
    queue->cap = MAX(queue->in_flight - 1, 1u);
    if (queue->in_flight > 1) { /* when one of the others ends */
        if (queues_put_back(&events->queues, taken) < 0)
            abort();
        return;
    }
    const uint64_t full = MIN(BUSY_MIN_MS << MIN(queue->gates, 16u), BUSY_MAX_MS);
    random_bytes(&events->randomness, (uint8_t *)&random, sizeof(random));
    gate.due_ms = events->queues.now_ms + full / 2 + random % (full / 2 + 1); /* from half of it to all */
    apply(events, taken, &gate);
}

static void ended(struct events *events, const struct attempt *attempt, enum outcome outcome) {
    struct queue *queue = attempt->taken.queue;
    const struct rule *rule = rules_find(&events->rules, attempt->uid, attempt->head.qualifier);
    const struct policy policy = policy_of(rule);
    uint32_t random;

    random_bytes(&events->randomness, (uint8_t *)&random, sizeof(random));
    struct decision decision = policy_after(&policy, outcome, attempt->taken.attempts,
        event_clock_accepted(&events->clock, attempt->accepted_ms), events->queues.now_ms, queue->gates, random);
    if (outcome != OUTCOME_THROTTLED) {
        queue->gates = 0;
        if (queue->in_flight >= queue->cap && queue->cap < EVENTS_QUEUE_MOST)
            queue->cap++;
    }
    apply(events, &attempt->taken, &decision);
}

static void gone(struct events *events, const struct attempt *attempt) {
    const struct rule *rule = rules_find(&events->rules, attempt->uid, attempt->head.qualifier);
    uint64_t due = events->queues.now_ms + GONE_MS;
    struct decision decision = {.verdict = VERDICT_RETRY, .attempts = attempt->taken.attempts, .due_ms = due};
    if (due > event_clock_accepted(&events->clock, attempt->accepted_ms) + rule->max_age_ms)
        decision.verdict = VERDICT_DELIVER, decision.condition = CONDITION_EVENT_AGE_EXCEEDED;
    apply(events, &attempt->taken, &decision);
}

void events_finish(struct events *events, struct note *note) {
    struct attempt *attempt = list_entry(note, struct attempt, note);
    struct counters_node *node = events_counters(events);
    static const struct decision refused = {.verdict = VERDICT_DELIVER, .condition = CONDITION_RETRIES_EXHAUSTED};
    struct decision decision = refused;

    events->attempt_bytes -= attempt->size;
    (void)table_remove(&events->attempts, place_key(attempt->taken.place));
    if (events->state != EVENTS_OPEN) { /* another dispatcher has the log: it is invoked again */
        free(attempt);
        return;
    }
    event_clock_look(&events->clock);
    events->queues.now_ms = MAX(events->queues.now_ms, clock_real_us() / 1000);
    queue_dirty(events, attempt->taken.queue);
    switch (attempt->result) {
    case ATTEMPT_SUCCESS:
        count_one(&node->events_succeeded);
        ended(events, attempt, OUTCOME_SUCCESS);
        break;
    case ATTEMPT_ERROR:
        count_one(&node->events_failed);
        ended(events, attempt, OUTCOME_ERROR);
        break;
    case ATTEMPT_TROUBLE:
        count_one(&node->events_throttled);
        ended(events, attempt, OUTCOME_THROTTLED);
        break;
    case ATTEMPT_BUSY:
        busy(events, &attempt->taken);
        break;
    case ATTEMPT_GONE:
        gone(events, attempt);
        break;
    case ATTEMPT_REFUSED:
        decision.attempts = attempt->taken.attempts;
        apply(events, &attempt->taken, &decision);
        break;
    case ATTEMPT_BACK:
        if (queues_put_back(&events->queues, &attempt->taken) < 0)
            abort();
        break;
    }
    free(attempt);
}

/* ---- taking ----------------------------------------------------------------------------------------------------- */

static struct attempt *make(const struct taken *taken, const struct record *record) {
    const struct record_event *event = &record->event;
    uint32_t size = event->head_size + event->payload_size;
    struct attempt *attempt = calloc(1, sizeof(*attempt));

    if (attempt == NULL)
        return NULL;
    attempt->bytes = malloc(MAX(size, 1u));
    if (attempt->bytes == NULL) {
        free(attempt);
        return NULL;
    }
    memcpy(attempt->bytes, event->head, event->head_size);
    if (event->payload_size > 0)
        memcpy(attempt->bytes + event->head_size, event->payload, event->payload_size);
    attempt->payload = (struct wire_slice){attempt->bytes + event->head_size, event->payload_size};
    attempt->size = size;
    attempt->taken = *taken;
    attempt->accepted_ms = event->accepted_ms;
    attempt->depth = event->depth;
    memcpy(attempt->id, event->id, 16);
    memcpy(attempt->uid, event->queue, 16);
    return attempt;
}

/* A function's events stay with one loop, until they are many. */
static struct dispatch *loop_for(const struct events *events, const struct taken *taken) {
    return events->loops->each[(taken->queue->uid[0] + taken->queue->in_flight / 64u) % events->loops->n];
}

/* 0, or a negative errno: it is as if it had not been taken. */
static int begin(struct events *events, const struct taken *taken, const struct record *record) {
    struct decision decision = {.verdict = VERDICT_DELIVER, .condition = CONDITION_RETRIES_EXHAUSTED};
    uint32_t chain_max = events->rules.node.chain_max;
    struct attempt *attempt;

    if (taken->phase != PHASE_WAITING)
        return dead_add(events, taken, record->event.origin);
    attempt = make(taken, record);
    if (attempt == NULL)
        return -ENOMEM;
    if (event_head_read(attempt->bytes, record->event.head_size, &attempt->head) < 0 ||
        attempt->head.qualifier.size > sizeof(attempt->qualifier))
        goto give_up;
    if (attempt->head.qualifier.size > 0)
        memcpy(attempt->qualifier, attempt->head.qualifier.data, attempt->head.qualifier.size);
    attempt->head.qualifier.data = attempt->qualifier;
    const struct policy policy = policy_of(rules_find(&events->rules, attempt->uid, attempt->head.qualifier));
    decision = policy_before(
        &policy, taken->attempts, event_clock_accepted(&events->clock, attempt->accepted_ms), events->queues.now_ms);
    if (decision.verdict == VERDICT_INVOKE && chain_max > 0 && attempt->depth >= chain_max) {
        count_one(&events_counters(events)->events_chains_cut);
        decision.verdict = VERDICT_DELIVER;
    }
    if (decision.verdict != VERDICT_INVOKE)
        goto give_up;
    if (table_put(&events->attempts, place_key(taken->place), attempt) < 0) {
        free(attempt->bytes);
        free(attempt);
        return -ENOMEM;
    }
    events->attempt_bytes += attempt->size;
    attempt->dispatch = loop_for(events, taken);
    count_one(&events_counters(events)->events_attempts);
    events_reply(attempt->dispatch, &attempt->note.mail, attempt_begin);
    return 0;
give_up:
    free(attempt->bytes);
    free(attempt);
    decision.attempts = taken->attempts;
    apply(events, taken, &decision);
    return 0;
}

static void say_unreadable(struct events *events, int error) {
    struct counters_node *node = events_counters(events);
    uint64_t n = events->queues.unreadable - events->unreadable;

    if (n == 0) {
        fprintf(stderr,
            "runtimed-dispatch: event log: DAMAGED: an event cannot be read, and no copy of its file be kept (%s): it "
            "waits for the next start\n",
            strerror(-error));
        return;
    }
    events->unreadable += n;
    count_add(&node->events_unreadable, n);
    fprintf(stderr,
        "runtimed-dispatch: event log: DAMAGED: an event cannot be read and is lost; a copy of its file is kept as "
        "copy-*.damaged\n");
    if (events->queues.log.copies != events->copies)
        events->damaged_files += events->queues.log.copies - events->copies;
    events->copies = events->queues.log.copies;
    atomic_store_explicit(&node->events_damaged_files, events->damaged_files, memory_order_relaxed);
}

void events_take(struct events *events) {
    struct taken taken;
    struct record record;
    struct decision ignored;

    for (unsigned i = 0;
         i < TAKE_MOST && events->attempts.size < EVENTS_ATTEMPTS_MAX && events->attempt_bytes < EVENTS_ATTEMPT_BYTES;
         i++) {
        int r = queues_take(&events->queues, &taken, &record, &ignored);
        if (r == 0)
            return;
        if (r < 0 && r != -ENOMEM) {
            say_unreadable(events, r);
            continue;
        }
        if (r < 0)
            return;
        queue_dirty(events, taken.queue);
        r = begin(events, &taken, &record);
        if (r < 0) {
            if (queues_put_back(&events->queues, &taken) < 0)
                abort();
            return;
        }
    }
}
