/* Looking through the queues, and single events of them: see queue.h. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "queue_parts.h"

#define ENTRIES 64u /* of a footer, read at a time */

void queues_let_go(struct queues *q, const struct taken *taken) {
    struct log_segment *segment = log_segment_of(&q->log, taken->place.segment);
    if (segment != NULL && segment->states != NULL && taken->place.ordinal < segment->ordinals)
        segment->states[taken->place.ordinal] &= (uint8_t)~EVENT_TAKEN;
    taken->queue->in_flight--;
    queue_rouse(q, taken->queue);
}

int queues_settle(struct queues *q, struct queue *queue, struct place place) {
    struct record_change change = {.place = place, .phase = PHASE_SETTLED, .at_ms = q->now_ms};
    int r = log_change(&q->log, &change, NULL);
    if (r == 0 && queue->depth > 0)
        queue->depth--;
    return r;
}

int queues_renew(struct queues *q, struct place place, uint32_t where, uint32_t size) {
    struct log_segment *segment = log_segment_of(&q->log, place.segment);
    struct record record;
    if (segment == NULL || state_phase(log_state(&q->log, place)) == PHASE_SETTLED)
        return -ENOENT;
    int r = log_read(&q->log, segment, where, size, &q->buffer, &q->buffer_capacity, &record);
    if (r < 0)
        return r;
    struct record_event event = record.event;
    event.origin = place;
    event.accepted_ms = q->now_ms; /* its age begins anew */
    event.attempts = 0;
    event.phase = PHASE_WAITING;
    event.due_ms = 0;
    event.key = 0; /* its name is taken where it was first */
    r = log_move(&q->log, &event, UINT64_MAX);
    if (r == 0)
        segment->states[place.ordinal] |= EVENT_TAKEN; /* not to be moved twice */
    return r;
}

static struct log_segment *next_segment(struct queues *q, uint64_t sequence) {
    list_for_each(node, &q->log.segments) {
        struct log_segment *segment = list_entry(node, struct log_segment, node);
        if (segment->sequence >= sequence)
            return segment;
    }
    return NULL;
}

/* How many entries of the segment may be of this queue (NULL: of any), and those from `index` on: n of them. */
static int load(struct queues *q, struct log_segment *segment, const struct queue *queue, uint32_t index,
    struct footer_event ret[ENTRIES], uint32_t *ret_n, bool *ret_more) {
    uint32_t first = 0, count = segment->entries;
    const struct builder *builder = &q->log.writer.builder;

    *ret_n = 0;
    *ret_more = false;
    if (segment->states == NULL)
        return 0;
    if (segment->sealed) {
        if (queue != NULL) {
            const struct run *run = runs_find(segment, queue);
            first = run != NULL ? run->first : 0;
            count = run != NULL ? run->count : 0;
        }
        if (index >= count)
            return 0;
        *ret_n = MIN(count - index, ENTRIES);
        *ret_more = index + *ret_n < count;
        return log_read_entries(&q->log, segment, first + index, *ret_n, ret);
    }
    if (builder->sequence != segment->sequence || index >= builder->n_events)
        return 0;
    *ret_n = MIN(builder->n_events - index, ENTRIES);
    *ret_more = index + *ret_n < builder->n_events;
    for (uint32_t i = 0; i < *ret_n; i++) {
        ret[i] = builder->events[index + i].event;
        if (queue != NULL && memcmp(builder->events[index + i].uid, queue->uid, 16) != 0)
            ret[i].size = 0; /* another queue's */
    }
    return 0;
}

int queues_scan(struct queues *q, const struct queue *queue, struct queue_scan *scan, uint32_t *left,
    int (*each)(void *context, const struct queue_found *found), void *context) {
    struct footer_event entries[ENTRIES];
    struct log_segment *segment;

    while ((segment = next_segment(q, scan->segment)) != NULL) {
        if (segment->sequence != scan->segment || segment->sealed != scan->sealed)
            *scan = (struct queue_scan){.segment = segment->sequence, .sealed = segment->sealed};
        uint32_t n;
        bool more;
        int r = load(q, segment, queue, scan->index, entries, &n, &more);
        if (r < 0)
            return r;
        for (uint32_t i = 0; i < n; i++) {
            struct queue_found found = {.place = {segment->sequence, event_ordinal(&entries[i])},
                .where = entries[i].where,
                .size = entries[i].size,
                .due_ms = event_due(&entries[i])};
            uint8_t state = found.size == 0 ? PHASE_SETTLED << 5 : log_state(&q->log, found.place);
            found.attempts = state_attempts(state);
            found.phase = state_phase(state);
            if (found.phase != PHASE_SETTLED) {
                if (*left == 0)
                    return 1;
                --*left;
                r = each(context, &found);
                if (r != 0)
                    return r;
            }
            scan->index++;
        }
        if (!more)
            *scan = (struct queue_scan){.segment = segment->sequence + 1};
    }
    return 0;
}

int queues_read(struct queues *q, struct place place, uint32_t where, uint32_t size, struct record *ret_record) {
    struct log_segment *segment = log_segment_of(&q->log, place.segment);
    return segment == NULL ? -ENOENT
                           : log_read(&q->log, segment, where, size, &q->buffer, &q->buffer_capacity, ret_record);
}
