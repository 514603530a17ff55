/* Recovery's view of events: their states, the sink's news of them, and what is saved of damaged segments. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "queue/scan.h"
#include "recover_parts.h"

static struct found *find(struct recovery *r, uint64_t sequence) {
    size_t low = 0, high = r->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->found[middle].sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->n && r->found[low].sequence == sequence ? &r->found[low] : NULL;
}

static int keep_retry(struct recovery *r, const struct footer_change *c, uint8_t attempts) {
    if (r->n_retries == r->retries_capacity) {
        size_t capacity = 2 * r->retries_capacity + 64;
        struct retry *more = realloc(r->retries, capacity * sizeof(*more));
        if (more == NULL)
            return -ENOMEM;
        r->retries = more;
        r->retries_capacity = capacity;
    }
    r->retries[r->n_retries++] = (struct retry){
        .place = {c->segment, c->ordinal}, .attempts = attempts, .due_ms = c->due_attempts_phase & DUE_MASK};
    return 0;
}

static int apply(struct recovery *r, const struct footer_change *c) {
    uint8_t attempts = (uint8_t)(c->due_attempts_phase >> 48) & 31u,
            phase = (uint8_t)(c->due_attempts_phase >> 56) & 3u;
    struct found *target;
    if (c->ordinal == ORDINAL_ALL) {
        r->done_with = MAX(r->done_with, c->segment);
        return 0;
    }
    target = find(r, c->segment);
    if (target == NULL || target->segment == NULL)
        return 0;
    if (c->ordinal >= target->segment->ordinals) {
        r->report->unknown_places++;
        return 0;
    }
    uint8_t *state = &target->segment->states[c->ordinal];
    *state = state_merged(*state, state_of(attempts, phase));
    return phase == PHASE_WAITING && attempts > 0 && !c->own ? keep_retry(r, c, attempts) : 0;
}

int recover_changes(struct recovery *r, struct found *found) {
    struct log_segment *segment = found->segment;
    struct footer footer = {0};
    int s = recover_load(r, found, &footer);
    if (s < 0)
        return s;
    segment->keyed_ms = footer.keyed_ms;
    if (footer.ordinals > segment->header.events_max)
        s = -EBADMSG;
    if (s == 0 && footer.ordinals > 0)
        s = log_segment_grow(segment, (uint32_t)footer.ordinals);
    for (uint32_t i = 0; i < footer.n_events && s == 0; i++)
        segment->states[event_ordinal(&footer.events[i])] = state_of(0, PHASE_WAITING);
    if (s == 0 && footer.ordinals > 0)
        s = states_read(r->log->files, segment->file, &segment->header, segment->states, segment->ordinals);
    for (uint32_t i = 0; i < footer.n_changes && s == 0; i++)
        s = apply(r, &footer.changes[i]);
    r->report->segments++;
    r->report->events += footer.n_events;
    footer_done(&footer);
    return s;
}

static int by_place(const void *a, const void *b) {
    const struct retry *x = a, *y = b;
    if (x->place.segment != y->place.segment)
        return x->place.segment < y->place.segment ? -1 : 1;
    return x->place.ordinal < y->place.ordinal ? -1 : x->place.ordinal > y->place.ordinal;
}

/* Only the last retry of an event holds. */
static void sift_retries(struct recovery *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_retries; i++) {
        struct retry *retry = &r->retries[i];
        struct found *found = find(r, retry->place.segment);
        if (found == NULL || found->segment == NULL || retry->place.ordinal >= found->segment->ordinals)
            continue;
        if (found->segment->states[retry->place.ordinal] == state_of(retry->attempts, PHASE_WAITING))
            r->retries[n++] = *retry;
    }
    r->n_retries = n;
    if (n > 0)
        qsort(r->retries, n, sizeof(*r->retries), by_place);
}

int recover_remove(struct recovery *r) {
    int s = 0;
    for (size_t i = 0; i < r->n && s == 0; i++) {
        struct found *found = &r->found[i];
        if (found->segment == NULL || found->sequence > r->done_with)
            continue;
        log_segment_free(r->log, found->segment);
        found->segment = NULL;
        s = writer_remove(r->log, found->sequence); /* a file that is kept goes on saying so */
    }
    for (size_t i = 0; i < r->n; i++) {
        const struct log_segment *segment = r->found[i].segment;
        if (segment != NULL && segment->header.previous > r->done_with && find(r, segment->header.previous) == NULL)
            r->report->missing_segments++;
    }
    sift_retries(r);
    return s;
}

/* ---- to the sink ----------------------------------------------------------------------------------------------- */

static int announce_event(
    struct recovery *r, struct log_segment *segment, const uint8_t uid[16], const struct footer_event *event) {
    struct log *log = r->log;
    uint8_t *state = &segment->states[event_ordinal(event)];
    struct retry wanted = {.place = {segment->sequence, event_ordinal(event)}}, *retry = NULL;
    int s = 0;

    if (event->key != 0 && log->sink.keyed != NULL)
        s = log->sink.keyed(log->sink.context, event->key, segment, event);
    if (state_phase(*state) == PHASE_SETTLED) {
        r->report->settled++;
        return s;
    }
    segment->live++;
    log->live++;
    r->report->waiting++;
    r->report->bytes += event->size;
    if (state_phase(*state) == PHASE_WAITING && state_attempts(*state) > 0 && r->n_retries > 0)
        retry = bsearch(&wanted, r->retries, r->n_retries, sizeof(wanted), by_place);
    if (s == 0 && retry != NULL && log->sink.retry != NULL) {
        *state |= EVENT_TAKEN;
        s = log->sink.retry(log->sink.context, segment, uid, event, retry->due_ms);
    } else if (s == 0 && !segment->sealed) {
        s = log->sink.event(log->sink.context, segment, uid, event);
    }
    return s;
}

int recover_announce(struct recovery *r, struct found *found) {
    struct log_segment *segment = found->segment;
    struct log *log = r->log;
    struct footer footer = {0};
    int s;

    if (segment->damaged)
        return 0; /* what lives in it is moved first */
    s = recover_load(r, found, &footer);
    if (s < 0)
        return s;
    segment->entries = footer.n_events;
    list_push_back(&log->segments, &segment->node);
    for (uint32_t q = 0; q < footer.n_queues && s == 0; q++) {
        uint32_t before = segment->live;
        for (uint32_t i = 0; i < footer.queues[q].count && s == 0; i++)
            s = announce_event(r, segment, footer.queues[q].uid, &footer.events[footer.queues[q].first + i]);
        if (s == 0 && log->sink.waiting != NULL)
            s = log->sink.waiting(log->sink.context, footer.queues[q].uid, segment->live - before);
    }
    if (s == 0 && segment->sealed)
        s = log->sink.sealed(log->sink.context, segment, footer.queues, footer.n_queues);
    if (segment->live == 0 && segment->sealed)
        log_segment_forget(segment);
    footer_done(&footer);
    return s;
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

struct salvage {
    struct recovery *r;
    struct log_segment *segment;
    uint64_t now_ms;
};

static void settle_down(struct log *log, uint64_t now_ms) {
    while (log_flush(log, now_ms) > 0 && log_collect(log, now_ms) > 0)
        ;
}

static int salvage_record(void *context, const struct record *record, uint64_t offset) {
    struct salvage *s = context;
    struct log *log = s->r->log;
    (void)offset;
    if (record->kind == RECORD_CHANGE) {
        uint8_t bytes[RECORD_CHANGE_SIZE];
        const struct found *target = find(s->r, record->change.place.segment);
        if (target == NULL || target->segment == NULL || target->segment->damaged)
            return 0;
        record_put_change(bytes, &record->change);
        return log_append_change(log, bytes, NULL);
    }
    uint8_t state =
        record->ordinal < s->segment->ordinals ? s->segment->states[record->ordinal] : state_of(0, PHASE_SETTLED);
    if (record->kind == RECORD_MOVED && find(s->r, record->event.origin.segment) != NULL) {
        struct record_change origin = {.place = record->event.origin, .phase = PHASE_SETTLED, .at_ms = s->now_ms};
        uint8_t bytes[RECORD_CHANGE_SIZE];
        record_put_change(bytes, &origin);
        int r = log_append_change(log, bytes, NULL);
        if (r < 0)
            return r;
    }
    if (state_phase(state) == PHASE_SETTLED)
        return 0;
    struct record_event event = record->event;
    event.origin = (struct place){s->segment->sequence, record->ordinal};
    event.attempts = state_attempts(state);
    event.phase = state_phase(state);
    event.due_ms = event.attempts > record->event.attempts ? s->now_ms : event.due_ms;
    int r = log_move(log, &event, TAG_MOVE);
    if (r == -ENOBUFS) {
        settle_down(log, s->now_ms);
        r = log_move(log, &event, TAG_MOVE);
    }
    if (r == 0) {
        log->moving++;
        s->r->report->salvaged++;
        s->r->report->waiting++;
    }
    return r;
}

/* A segment that could not be saved now, for want of room, is as it was at the next start. */
int recover_salvage(struct recovery *r, uint64_t now_ms) {
    struct log *log = r->log;
    for (size_t i = 0; i < r->n; i++) {
        struct log_segment *segment = r->found[i].segment;
        struct salvage salvage = {.r = r, .segment = segment, .now_ms = now_ms};
        struct scan_sink sink = {.context = &salvage, .record = salvage_record};
        struct scan scan;
        if (segment == NULL || !segment->damaged)
            continue;
        uint64_t failures = log->change_failures, live = log->live, salvaged = r->report->salvaged;
        int s = segment_scan(log->files, segment->file, &segment->header, recover_end(r, &r->found[i]), &sink, &scan);
        settle_down(log, now_ms);
        if (s < 0 && s != -ENOSPC)
            return s;
        if (s == 0 && failures == log->change_failures && log->live - live == r->report->salvaged - salvaged) {
            s = recover_set_aside(log, segment->sequence);
            r->report->damaged_files += s == 0;
        } else {
            r->report->unsaved_segments++;
        }
        if (s < 0 && s != -ENOSPC)
            return s;
    }
    return 0;
}
