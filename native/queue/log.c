/* The loop's side of the event log; see the header. */
#include "queue/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "log_parts.h"

/* ---- segments as the loop knows them --------------------------------------------------------------------------- */

struct log_segment *log_segment_new(const struct segment_header *header, int file) {
    struct log_segment *segment = calloc(1, sizeof(*segment));
    if (segment == NULL)
        return NULL;
    segment->sequence = header->sequence;
    segment->header = *header;
    segment->file = file;
    list_init(&segment->node);
    list_init(&segment->runs);
    return segment;
}

void log_segment_free(struct log *log, struct log_segment *segment) {
    if (log->sink.removed != NULL)
        log->sink.removed(log->sink.context, segment);
    list_remove(&segment->node);
    if (log->recent[segment->sequence % LOG_RECENT] == segment)
        log->recent[segment->sequence % LOG_RECENT] = NULL;
    if (segment->file >= 0)
        log->files->operations->close(log->files, segment->file);
    free(segment->states);
    free(segment);
}

int log_segment_grow(struct log_segment *segment, uint32_t ordinals) {
    if (ordinals > segment->capacity) {
        uint32_t capacity = MAX(ordinals, MIN(2 * segment->capacity + 64, segment->header.events_max));
        uint8_t *states = realloc(segment->states, capacity);
        if (states == NULL)
            return -ENOMEM;
        memset(states + segment->capacity, PHASE_SETTLED << 5, capacity - segment->capacity);
        segment->states = states;
        segment->capacity = capacity;
    }
    segment->ordinals = MAX(segment->ordinals, ordinals);
    return 0;
}

struct log_segment *log_segment_of(struct log *log, uint64_t sequence) {
    struct log_segment *recent = log->recent[sequence % LOG_RECENT];
    if (recent != NULL && recent->sequence == sequence)
        return recent;
    /* From the end: what changes is mostly young. */
    for (struct list *node = log->segments.previous; node != &log->segments; node = node->previous) {
        struct log_segment *segment = list_entry(node, struct log_segment, node);
        if (segment->sequence < sequence)
            return NULL;
        if (segment->sequence == sequence)
            return log->recent[sequence % LOG_RECENT] = segment;
    }
    return NULL;
}

uint8_t log_state(struct log *log, struct place place) {
    struct log_segment *segment = log_segment_of(log, place.segment);
    if (segment == NULL || segment->states == NULL || place.ordinal >= segment->ordinals)
        return PHASE_SETTLED << 5;
    return segment->states[place.ordinal];
}

void log_segment_forget(struct log_segment *segment) {
    free(segment->states);
    segment->states = NULL;
    segment->capacity = 0;
}

void log_settled(struct log *log, struct log_segment *segment, uint32_t ordinal) {
    if (segment->states == NULL || ordinal >= segment->ordinals ||
        state_phase(segment->states[ordinal]) == PHASE_SETTLED)
        return;
    segment->states[ordinal] = PHASE_SETTLED << 5;
    segment->live--;
    log->live--;
    if (segment->live == 0 && segment->sealed)
        log_segment_forget(segment);
}

/* ---- batches --------------------------------------------------------------------------------------------------- */

void batch_free(struct batch *batch) {
    if (batch == NULL)
        return;
    footer_done(&batch->sealed_footer);
    free(batch->bytes);
    free(batch->items);
    free(batch);
}

size_t batch_step(const struct batch *batch, size_t at, uint8_t *ret_kind) {
    uint32_t size;
    memcpy(&size, batch->bytes + at + 4, 4);
    *ret_kind = batch->bytes[at + 8];
    return at + record_padded(size);
}

static struct batch *batch_new(struct log *log) {
    struct batch *batch = log->free_batch;
    log->free_batch = NULL;
    if (batch == NULL)
        return calloc(1, sizeof(*batch));
    *batch = (struct batch){.bytes = batch->bytes,
        .capacity = batch->capacity,
        .items = batch->items,
        .items_capacity = batch->items_capacity};
    return batch;
}

/* Room for one more record of `padded` bytes in the last batch, with the mutex held. */
static int batch_room(struct log *log, size_t padded, bool event, uint32_t changes, struct batch **ret_batch) {
    struct batch *batch = log->open_last;
    if (batch == NULL || batch->size + padded > log->options.group_bytes ||
        batch->n_items + event > log->options.segment_events ||
        batch->n_changes + changes > log->options.segment_events) {
        batch = batch_new(log);
        if (batch == NULL)
            return -ENOMEM;
        batch->number = ++log->batches;
        batch->size = GROUP_HEADER;
        if (log->open_last != NULL)
            log->open_last->next = batch;
        else
            log->open = batch;
        log->open_last = batch;
    }
    size_t wanted = sector_up(batch->size + padded);
    if (wanted > batch->capacity) {
        size_t capacity = MAX(wanted, MIN(2 * batch->capacity, (size_t)log->options.group_bytes + SECTOR));
        uint8_t *bytes = realloc(batch->bytes, capacity);
        if (bytes == NULL)
            return -ENOMEM;
        batch->bytes = bytes;
        batch->capacity = capacity;
    }
    if (event && batch->n_items == batch->items_capacity) {
        uint32_t capacity = 2 * batch->items_capacity + 64;
        struct batch_item *items = realloc(batch->items, capacity * sizeof(*items));
        if (items == NULL)
            return -ENOMEM;
        batch->items = items;
        batch->items_capacity = capacity;
    }
    *ret_batch = batch;
    return 0;
}

static int append_event(struct log *log, const struct record_event *event, uint64_t tag) {
    bool moved = event->origin.segment != 0;
    uint64_t padded = record_event_padded(event);
    uint64_t room = log->options.segment_bytes - segment_footer_max(log->options.segment_events) -
        segment_start(log->options.segment_events) - DROP_SECTORS * SECTOR;
    struct batch *batch;

    if (padded == UINT64_MAX || sector_up(GROUP_HEADER + padded) > room)
        return -EMSGSIZE;
    if (log->pending + padded > log->options.pending_bytes && log->pending > 0)
        return -ENOBUFS;
    pthread_mutex_lock(&log->mutex);
    int r = batch_room(log, padded, true, moved ? 2 : 0, &batch);
    if (r == 0) {
        struct batch_item *item = &batch->items[batch->n_items++];
        *item = (struct batch_item){.at = (uint32_t)batch->size,
            .size = (uint32_t)padded,
            .tag = tag,
            .key = event->key,
            .origin = event->origin,
            .due_ms = event->due_ms,
            .attempts = event->attempts};
        memcpy(item->queue, event->queue, 16);
        record_put_event(batch->bytes + batch->size, event);
        batch->size += padded;
        batch->n_records++;
        batch->n_accepts += !moved;
        batch->n_changes += moved ? 2 : 0;
        pthread_cond_signal(&log->wake);
    }
    pthread_mutex_unlock(&log->mutex);
    if (r == 0)
        log->pending += padded;
    return r;
}

int log_accept(struct log *log, const struct record_event *event, uint64_t tag) {
    int full = __atomic_load_n(&log->full, __ATOMIC_ACQUIRE);
    if (full != 0)
        return full;
    if (event->origin.segment != 0)
        return -EINVAL;
    return append_event(log, event, tag);
}

int log_move(struct log *log, const struct record_event *event, uint64_t tag) {
    return event->origin.segment == 0 ? -EINVAL : append_event(log, event, tag);
}

int log_append_change(struct log *log, const uint8_t *record, uint64_t *ret_batch) {
    struct batch *batch;
    pthread_mutex_lock(&log->mutex);
    int r = batch_room(log, RECORD_CHANGE_SIZE, false, 1, &batch);
    if (r == 0) {
        memcpy(batch->bytes + batch->size, record, RECORD_CHANGE_SIZE);
        batch->size += RECORD_CHANGE_SIZE;
        batch->n_records++;
        batch->n_changes++;
        if (ret_batch != NULL)
            *ret_batch = batch->number;
        pthread_cond_signal(&log->wake);
    }
    pthread_mutex_unlock(&log->mutex);
    return r;
}

int log_change(struct log *log, const struct record_change *change, uint64_t *ret_batch) {
    uint8_t record[RECORD_CHANGE_SIZE];
    struct log_segment *segment = log_segment_of(log, change->place.segment);
    if (segment == NULL || segment->states == NULL || change->place.ordinal >= segment->ordinals ||
        state_phase(segment->states[change->place.ordinal]) == PHASE_SETTLED)
        return -ENOENT;
    record_put_change(record, change);
    int r = log_append_change(log, record, ret_batch);
    if (r < 0)
        return r;
    uint8_t *state = &segment->states[change->place.ordinal];
    if (change->phase == PHASE_SETTLED)
        log_settled(log, segment, change->place.ordinal);
    else
        *state = (uint8_t)(state_merged(*state, state_of(change->attempts, change->phase)) | (*state & EVENT_TAKEN));
    return 0;
}

/* ---- collecting ------------------------------------------------------------------------------------------------ */

static void collect_event(struct log *log, struct batch *batch, struct batch_item *item, struct log_segment *segment) {
    struct place place = {.segment = batch->segment};
    struct place origin = item->origin;
    struct footer_event entry;
    struct log_segment *from;
    const uint8_t *record = batch->bytes + item->at;
    int r = item->result;

    if (r == 0) {
        uint64_t due, accepted;
        memcpy(&place.ordinal, record + 12, 4);
        memcpy(&due, record + 56, 8);
        memcpy(&accepted, record + 48, 8);
        memcpy(&entry.key, record + 64, 8);
        memcpy(&entry.size, record + 4, 4);
        entry.where = (uint32_t)((batch->offset + item->at) / 8);
        entry.due_ordinal = MIN(due, (uint64_t)DUE_MASK) | (uint64_t)place.ordinal << 48;
        r = log_segment_grow(segment, place.ordinal + 1);
        if (r == 0) {
            segment->states[place.ordinal] = state_of(record[10], record[11]);
            segment->live++;
            log->live++;
            if (entry.key != 0)
                segment->keyed_ms = MAX(segment->keyed_ms, accepted);
        }
        from = origin.segment != 0 ? log_segment_of(log, origin.segment) : NULL;
        if (from != NULL)
            log_settled(log, from, origin.ordinal);
        if (r == 0)
            (void)log->sink.event(log->sink.context, segment, record + 32, &entry);
    } else if (origin.segment != 0 && (from = log_segment_of(log, origin.segment)) != NULL && from->states != NULL &&
        origin.ordinal < from->ordinals) {
        from->states[origin.ordinal] &= (uint8_t)~EVENT_TAKEN;
        if (log->sink.returned != NULL)
            log->sink.returned(log->sink.context, from, item->queue);
    }
    if (item->tag == TAG_MOVE) {
        log->moving--;
        log->stuck = log->stuck || r < 0;
    }
    if (item->tag != TAG_MOVE && log->sink.accepted != NULL)
        log->sink.accepted(log->sink.context, item, r, place);
}

static void collect_batch(struct log *log, struct batch *batch) {
    struct log_segment *segment;
    uint8_t kind;

    if (batch->sealed != 0 && (segment = log_segment_of(log, batch->sealed)) != NULL) {
        segment->sealed = true;
        segment->end = batch->sealed_end;
        segment->entries = batch->sealed_footer.n_events;
        if (segment->live == 0)
            log_segment_forget(segment);
        (void)log->sink.sealed(log->sink.context, segment, batch->sealed_footer.queues, batch->sealed_footer.n_queues);
    }
    if (batch->begun != NULL) {
        list_push_back(&log->segments, &batch->begun->node);
        log->last = batch->begun;
    }
    segment = batch->n_items > 0 ? log_segment_of(log, batch->segment) : NULL;
    for (uint32_t i = 0; i < batch->n_items; i++) {
        log->pending -= MIN(log->pending, batch->items[i].size);
        collect_event(log, batch, &batch->items[i], segment);
    }
    /* What changed has changed: it goes with a later group. */
    log->change_failures += batch->changes_result < 0;
    if (batch->changes_result < 0)
        for (size_t at = GROUP_HEADER, next; at < batch->size; at = next) {
            next = batch_step(batch, at, &kind);
            uint64_t again;
            if (kind == RECORD_CHANGE && log_append_change(log, batch->bytes + at, &again) < 0)
                abort(); /* no memory for 40 bytes: start anew from the log */
            uint32_t ordinal;
            memcpy(&ordinal, batch->bytes + at + 12, 4);
            if (kind == RECORD_CHANGE && ordinal == ORDINAL_ALL)
                log->dropping_batch = again;
        }
    if (batch->number != 0)
        log->collected = batch->number;
}

int log_collect(struct log *log, uint64_t now_ms) {
    int n = 0;
    (void)now_ms;
    pthread_mutex_lock(&log->mutex);
    struct batch *batch = log->done;
    log->done = NULL;
    log->done_end = &log->done;
    pthread_mutex_unlock(&log->mutex);
    for (struct batch *next; batch != NULL; batch = next, n++) {
        next = batch->next;
        collect_batch(log, batch);
        footer_done(&batch->sealed_footer);
        if (log->free_batch == NULL && batch->capacity <= (size_t)log->options.group_bytes + SECTOR)
            log->free_batch = batch;
        else
            batch_free(batch);
    }
    return n;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

int log_read(struct log *log, const struct log_segment *segment, uint32_t where, uint32_t size, uint8_t **buffer,
    size_t *capacity, struct record *ret_record) {
    int64_t n;
    if (size == 0) {
        uint8_t prefix[RECORD_PREFIX];
        n = log->files->operations->read(log->files, segment->file, prefix, sizeof(prefix), where * 8ull);
        if (n < (int64_t)sizeof(prefix))
            return n < 0 ? (int)n : -EBADMSG;
        memcpy(&size, prefix + 4, 4);
    }
    if (size < RECORD_PREFIX || size > RECORD_MAX)
        return -EBADMSG;
    uint64_t padded = record_padded(size);
    if (padded > *capacity) {
        uint8_t *more = realloc(*buffer, padded);
        if (more == NULL)
            return -ENOMEM;
        *buffer = more;
        *capacity = padded;
    }
    n = log->files->operations->read(log->files, segment->file, *buffer, padded, where * 8ull);
    if (n < 0)
        return (int)n;
    return n < (int64_t)padded ? -EBADMSG
                               : record_parse(*buffer, padded, record_seed(segment->header.salt), ret_record);
}

int log_read_entries(struct log *log, const struct log_segment *segment, uint32_t first, uint32_t count,
    struct footer_event *ret_events) {
    uint8_t head[FOOTER_HEADER];
    struct footer sizes;
    const struct file_operations *op = log->files->operations;
    int64_t n = op->read(log->files, segment->file, head, sizeof(head), segment->end);
    if (n < 0)
        return (int)n;
    if (n < (int64_t)sizeof(head) || footer_found(head, segment->header.salt, segment->end, &sizes) < 0 ||
        first > sizes.n_events || count > sizes.n_events - first)
        return -EBADMSG;
    uint64_t at = segment->end + FOOTER_HEADER + (uint64_t)FOOTER_ITEM * ((uint64_t)sizes.n_queues + first);
    n = op->read(log->files, segment->file, ret_events, (size_t)count * FOOTER_ITEM, at);
    if (n < 0)
        return (int)n;
    return n == (int64_t)count * FOOTER_ITEM ? 0 : -EBADMSG;
}
