/* The index of a segment in the making; see the header. */
#include "queue/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

void builder_reset(struct builder *b, uint64_t sequence) {
    b->sequence = sequence;
    b->n_events = b->n_changes = 0;
    b->keyed_ms = 0;
    b->ordinals = 0;
}

void builder_done(struct builder *b) {
    free(b->events);
    free(b->changes);
    *b = (struct builder){0};
}

static int grow(void **array, uint32_t *capacity, uint64_t wanted, size_t size) {
    uint64_t more = MAX(wanted, MAX(64u, 2ull * *capacity));
    if (wanted <= *capacity)
        return 0;
    void *grown = more > UINT32_MAX ? NULL : realloc(*array, more * size);
    if (grown == NULL)
        return -ENOMEM;
    *array = grown;
    *capacity = (uint32_t)more;
    return 0;
}

int builder_reserve(struct builder *b, uint32_t events, uint32_t changes) {
    void *e = b->events, *c = b->changes;
    int r = grow(&e, &b->events_capacity, (uint64_t)b->n_events + events, sizeof(*b->events));
    b->events = e;
    if (r < 0)
        return r;
    r = grow(&c, &b->changes_capacity, (uint64_t)b->n_changes + changes, sizeof(*b->changes));
    b->changes = c;
    return r;
}

static void add_change(struct builder *b, const struct record_change *c, uint32_t own) {
    b->changes[b->n_changes++] = (struct footer_change){
        .due_attempts_phase =
            MIN(c->due_ms, (uint64_t)DUE_MASK) | (uint64_t)c->attempts << 48 | (uint64_t)c->phase << 56,
        .segment = c->place.segment,
        .ordinal = c->place.ordinal,
        .own = own,
    };
}

int builder_add(struct builder *b, const struct record *record, uint64_t offset) {
    bool change = record->kind == RECORD_CHANGE;
    int r = builder_reserve(b, !change, 2);
    if (r < 0)
        return r;
    if (change) {
        add_change(b, &record->change, 0);
        return 0;
    }
    if (record->ordinal >= SEGMENT_EVENTS_MAX || offset % 8 != 0 || offset / 8 > UINT32_MAX)
        return -EBADMSG;
    struct built_event *built = &b->events[b->n_events++];
    memcpy(built->uid, record->event.queue, 16);
    built->event = (struct footer_event){
        .due_ordinal = MIN(record->event.due_ms, (uint64_t)DUE_MASK) | (uint64_t)record->ordinal << 48,
        .where = (uint32_t)(offset / 8),
        .size = record->size,
        .key = record->event.key,
    };
    if (record->event.key != 0)
        b->keyed_ms = MAX(b->keyed_ms, record->event.accepted_ms);
    b->ordinals = MAX(b->ordinals, (uint64_t)record->ordinal + 1);
    if (record->kind == RECORD_MOVED) {
        struct record_change self = {
            .place = {b->sequence, record->ordinal},
            .attempts = record->event.attempts,
            .phase = record->event.phase,
        };
        struct record_change origin = {.place = record->event.origin, .phase = PHASE_SETTLED};
        if (self.attempts != 0 || self.phase != PHASE_WAITING)
            add_change(b, &self, 1);
        add_change(b, &origin, 0);
    }
    return 0;
}

static int by_queue_and_due(const void *a, const void *b) {
    const struct built_event *x = a, *y = b;
    int r = memcmp(x->uid, y->uid, 16);
    if (r != 0)
        return r;
    if (event_due(&x->event) != event_due(&y->event))
        return event_due(&x->event) < event_due(&y->event) ? -1 : 1;
    return event_ordinal(&x->event) < event_ordinal(&y->event) ? -1 : 1;
}

int builder_footer(struct builder *b, struct footer *ret_footer) {
    struct footer f = {
        .n_events = b->n_events, .n_changes = b->n_changes, .keyed_ms = b->keyed_ms, .ordinals = b->ordinals};
    uint32_t sorted = 1; /* of one queue they mostly are */
    while (sorted < b->n_events && by_queue_and_due(&b->events[sorted - 1], &b->events[sorted]) < 0)
        sorted++;
    if (sorted < b->n_events)
        qsort(b->events, b->n_events, sizeof(*b->events), by_queue_and_due);
    for (uint32_t i = 0; i < b->n_events; i++)
        f.n_queues += i == 0 || memcmp(b->events[i].uid, b->events[i - 1].uid, 16) != 0;
    f.queues = malloc((size_t)FOOTER_ITEM * ((size_t)f.n_queues + f.n_events + f.n_changes) + 1);
    if (f.queues == NULL)
        return -ENOMEM;
    f.events = (struct footer_event *)(void *)(f.queues + f.n_queues);
    f.changes = (struct footer_change *)(void *)(f.events + f.n_events);
    struct footer_queue *queue = f.queues - 1;
    for (uint32_t i = 0; i < b->n_events; i++) {
        if (i == 0 || memcmp(b->events[i].uid, b->events[i - 1].uid, 16) != 0) {
            *++queue = (struct footer_queue){.first = i};
            memcpy(queue->uid, b->events[i].uid, 16);
        }
        queue->count++;
        f.events[i] = b->events[i].event;
    }
    if (b->n_changes > 0)
        memcpy(f.changes, b->changes, (size_t)b->n_changes * FOOTER_ITEM);
    *ret_footer = f;
    return 0;
}
