/* Queues: what is taken next, and what becomes of it. See queue.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "queue_parts.h"

/* ---- the circle ------------------------------------------------------------------------------------------------ */

void queue_rouse(struct queues *q, struct queue *queue) {
    bool has = queue->n_back > 0 || !list_empty(&queue->runs);
    bool may = has && !queue->paused && queue->gate_ms == 0 && queue->in_flight < queue->cap;
    if (may && list_empty(&queue->active))
        list_push_back(&q->active, &queue->active);
    else if (!may)
        list_remove(&queue->active);
}

int queue_back(struct queues *q, struct queue *queue, const struct taken *taken) {
    if (queue->n_back == queue->back_capacity) {
        uint32_t capacity = MAX(8u, 2 * queue->back_capacity);
        struct taken *ring = malloc(capacity * sizeof(*ring));
        if (ring == NULL)
            return -ENOMEM;
        for (uint32_t i = 0; i < queue->n_back; i++)
            ring[i] = queue->back[(queue->back_at + i) % queue->back_capacity];
        free(queue->back);
        queue->back = ring;
        queue->back_capacity = capacity;
        queue->back_at = 0;
    }
    queue->back[(queue->back_at + queue->n_back++) % queue->back_capacity] = *taken;
    queue_rouse(q, queue);
    return 0;
}

static uint32_t spread(const uint8_t uid[16]) {
    uint64_t a, b;
    memcpy(&a, uid, 8);
    memcpy(&b, uid + 8, 8);
    return (uint32_t)(((a ^ b) * 0x9e3779b97f4a7c15u) >> 32);
}

static int index_queue(struct queues *q, struct queue *queue) {
    if (4u * (q->n + 1) > 3u * q->by_uid_capacity) {
        uint32_t capacity = MAX(64u, 2 * q->by_uid_capacity);
        uint32_t *index = calloc(capacity, sizeof(*index));
        if (index == NULL)
            return -ENOMEM;
        free(q->by_uid);
        q->by_uid = index;
        q->by_uid_capacity = capacity;
        for (uint32_t i = 0; i < q->n; i++) {
            uint32_t at = spread(q->all[i]->uid);
            while (index[at & (capacity - 1)] != 0)
                at++;
            index[at & (capacity - 1)] = i + 1;
        }
    }
    uint32_t at = spread(queue->uid);
    while (q->by_uid[at & (q->by_uid_capacity - 1)] != 0)
        at++;
    q->by_uid[at & (q->by_uid_capacity - 1)] = queue->number + 1;
    return 0;
}

struct queue *queues_find(struct queues *q, const uint8_t uid[16]) {
    if (q->by_uid_capacity > 0)
        for (uint32_t at = spread(uid);; at++) {
            uint32_t found = q->by_uid[at & (q->by_uid_capacity - 1)];
            if (found == 0)
                break;
            if (memcmp(q->all[found - 1]->uid, uid, 16) == 0)
                return q->all[found - 1];
        }
    if (q->n == q->capacity) {
        uint32_t capacity = MAX(16u, 2 * q->capacity);
        struct queue **more = realloc(q->all, capacity * sizeof(struct queue *));
        if (more == NULL)
            return NULL;
        q->all = more;
        q->capacity = capacity;
    }
    struct queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return NULL;
    memcpy(queue->uid, uid, 16);
    queue->number = q->n;
    queue->policy = q->policy;
    queue->cap = q->cap;
    list_init(&queue->active);
    list_init(&queue->runs);
    if (index_queue(q, queue) < 0) {
        free(queue);
        return NULL;
    }
    q->all[q->n++] = queue;
    return queue;
}

void queue_configure(struct queues *q, struct queue *queue, const struct policy *policy, uint32_t cap) {
    queue->policy = *policy;
    queue->cap = cap;
    queue_rouse(q, queue);
}

void queue_pause(struct queues *q, struct queue *queue, bool paused) {
    queue->paused = paused;
    queue_rouse(q, queue);
}

/* ---- the log's news -------------------------------------------------------------------------------------------- */

static int retry_found(void *context, struct log_segment *segment, const uint8_t uid[16],
    const struct footer_event *event, uint64_t due_ms) {
    struct queues *q = context;
    struct queue *queue = queues_find(q, uid);
    struct timed timed = {.due_ms = MIN(due_ms, q->now_ms + RETRY_NEAR_MS),
        .segment = segment->sequence,
        .where = event->where,
        .ordinal = (uint16_t)event_ordinal(event),
        .kind = TIMED_RETRY};
    if (queue == NULL)
        return -ENOMEM;
    timed.queue = queue->number;
    q->retries_near++;
    return wheel_add(&q->wheel, &timed);
}

static int key_found(void *context, uint64_t key, struct log_segment *segment, const struct footer_event *event) {
    struct queues *q = context;
    struct record record;
    if (segment->keyed_ms < q->keep_keys_ms)
        return 0;
    int r = log_read(&q->log, segment, event->where, event->size, &q->buffer, &q->buffer_capacity, &record);
    if (r < 0 || record.event.accepted_ms < q->keep_keys_ms)
        return r == -EBADMSG ? 0 : r;
    r = idempotency_restore(&q->idempotency, key, record.event.digest, record.event.accepted_ms, q->now_ms);
    return r == -ENOBUFS ? 0 : r;
}

static int waiting_found(void *context, const uint8_t uid[16], uint32_t n) {
    struct queue *queue = queues_find(context, uid);
    if (queue == NULL)
        return -ENOMEM;
    queue->depth += n;
    return 0;
}

static void accepted(void *context, const struct batch_item *item, int result, struct place place) {
    struct queues *q = context;
    if (item->origin.segment != 0) {
        if (result < 0 && (item->tag & ~(uint64_t)UINT32_MAX) == TAG_RETRY)
            queue_retry_failed(q, item);
        return;
    }
    if (item->key != 0)
        idempotency_end(&q->idempotency, item->key, result == 0);
    struct queue *queue = queues_find(q, item->queue);
    if (queue != NULL)
        queue->depth += result == 0;
    if (q->accepted != NULL)
        q->accepted(q->context, item->tag, result, place);
}

static void queues_done(struct queues *q) {
    for (uint32_t i = 0; i < q->n; i++) {
        free(q->all[i]->back);
        free(q->all[i]);
    }
    free(q->all);
    free(q->by_uid);
    free(q->buffer);
    wheel_done(&q->wheel);
    idempotency_done(&q->idempotency);
}

int queues_open(struct queues *q, struct files *files, const struct queues_options *options, uint64_t now_ms,
    struct log_found *ret_report) {
    struct log_sink sink = {.context = q,
        .event = runs_event,
        .sealed = runs_sealed,
        .retry = retry_found,
        .keyed = key_found,
        .waiting = waiting_found,
        .accepted = accepted,
        .returned = runs_returned,
        .removed = runs_removed};
    *q = (struct queues){.policy = options->policy,
        .cap = options->cap,
        .now_ms = now_ms,
        .accepted = options->accepted,
        .context = options->context};
    list_init(&q->active);
    wheel_init(&q->wheel, now_ms);
    idempotency_init(&q->idempotency, options->key_window_s, options->keys_most);
    q->keep_keys_ms = now_ms - MIN(now_ms, options->key_window_s * 1000ull);
    int r = log_open(&q->log, files, &options->log, &sink, now_ms, ret_report);
    if (r < 0)
        queues_done(q);
    else if (ret_report->latest_ms > now_ms) /* while nobody looked, and by that much at least */
        runs_clock_back(q, ret_report->latest_ms - now_ms);
    return r;
}

void queues_close(struct queues *q) {
    log_close(&q->log);
    queues_done(q);
}

int queues_accept(struct queues *q, const struct record_event *event, uint64_t tag) {
    if (event->key != 0) {
        int known = idempotency_begin(&q->idempotency, event->key, event->digest, event->accepted_ms);
        if (known != KNOWN_NEW)
            return known < 0               ? known
                : known == KNOWN_DUPLICATE ? -EALREADY
                : known == KNOWN_PENDING   ? -EINPROGRESS
                                           : -EEXIST;
    }
    int r = log_accept(&q->log, event, tag);
    if (r < 0 && event->key != 0)
        idempotency_end(&q->idempotency, event->key, 0);
    return r;
}
