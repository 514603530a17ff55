/* What is asked about the queues, and told of them unasked: lists, cancels, beginning again, states. See events.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/levels.h"
#include "event_parts.h"

#define TELL_MOST 512u        /* states in one mail */
#define LIST_BYTES (1u << 20) /* of payloads in one page */

/* ---- what goes to the control plane ------------------------------------------------------------------------------ */

/* Packets, one behind the other, each behind its length. */
struct told {
    struct mail mail;
    struct list node;
    uint32_t size, capacity, at;
    uint8_t *bytes;
};

static struct told *told_new(void) {
    struct told *told = calloc(1, sizeof(*told));
    if (told != NULL)
        list_init(&told->node);
    return told;
}

static void told_free(struct told *told) {
    list_remove(&told->node);
    free(told->bytes);
    free(told);
}

/* Room for one more packet of at most `most` bytes; NULL: no memory. */
static uint8_t *told_room(struct told *told, uint32_t most) {
    if (told->capacity - told->size < most + 4) {
        uint32_t capacity = MAX(2 * told->capacity, told->size + most + 4);
        uint8_t *bytes = realloc(told->bytes, capacity);
        if (bytes == NULL)
            return NULL;
        told->bytes = bytes;
        told->capacity = capacity;
    }
    return told->bytes + told->size + 4;
}

static void told_add(struct told *told, int size) {
    uint32_t n = (uint32_t)size;
    if (size <= 0)
        return;
    memcpy(told->bytes + told->size, &n, 4);
    told->size += 4 + n;
}

/* On the loop that has the link. */
static void keep_told(struct dispatch *dispatch, struct mail *mail) {
    struct told *told = list_entry(mail, struct told, mail);
    if (dispatch->control.watch.fd < 0) {
        told_free(told);
        return;
    }
    list_push_back(&dispatch->events_told, &told->node);
}

static void post_told(struct events *events, struct told *told) {
    if (told->size == 0)
        told_free(told);
    else
        events_reply(events->loops->each[0], &told->mail, keep_told);
}

int events_send(struct dispatch *dispatch) {
    while (!list_empty(&dispatch->events_told)) {
        struct told *told = list_entry(dispatch->events_told.next, struct told, node);
        while (told->at < told->size) {
            uint32_t n;
            memcpy(&n, told->bytes + told->at, 4);
            memcpy(dispatch->packet_out, told->bytes + told->at + 4, n);
            int r = control_send(&dispatch->control, (int)n, NULL, 0);
            if (r < 0)
                return r;
            told->at += 4 + n;
        }
        told_free(told);
    }
    return 0;
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static int first(void *context, const struct queue_found *found) {
    *(struct queue_found *)context = *found;
    return found->phase == PHASE_WAITING ? -EEXIST : 0;
}

/* When the oldest event that waits was accepted; 0: none does. */
static uint64_t oldest(struct events *events, const struct queue *queue, struct queue_view *view) {
    uint32_t left = UINT32_MAX;
    struct queue_found found;
    struct record record;
    if (queue->depth <= view->dead ||
        queues_scan(&events->queues, queue, &view->oldest, &left, first, &found) != -EEXIST ||
        queues_read(&events->queues, found.place, found.where, found.size, &record) < 0)
        return 0;
    return record.event.accepted_ms;
}

static void tell_queue(struct events *events, const struct queue *queue, struct queue_view *view, struct told *told) {
    struct wire_header header = {.object = queue->number + 1};
    struct wire_queue_state state = {
        .depth = queue->depth > view->dead ? queue->depth - view->dead : 0,
        .dead = view->dead,
        .in_flight = queue->in_flight,
        .paused = queue->paused,
        .gated_until_ms = queue->gate_ms,
        .oldest_ms = oldest(events, queue, view),
    };
    uint8_t *at = told_room(told, WIRE_HEADER_SIZE + 96);
    memcpy(state.function_uid, queue->uid, 16);
    if (at != NULL)
        told_add(told, wire_queue_state_encode(&header, &state, at, WIRE_HEADER_SIZE + 96));
    view->dirty = false;
}

void events_tell(struct events *events, uint64_t now_us) {
    struct told *told;
    uint32_t n = 0;

    if (!events->dirty || now_us < events->told_us + EVENTS_STATE_US)
        return;
    told = told_new();
    if (told == NULL)
        return;
    events->told_us = now_us;
    events->dirty = false;
    for (uint32_t i = 0; i < events->queues.n; i++) {
        struct queue_view *view = queue_view(events, events->queues.all[i]);
        if (view == NULL || !view->dirty)
            continue;
        if (n++ == TELL_MOST) {
            events->dirty = true;
            break;
        }
        tell_queue(events, events->queues.all[i], view, told);
    }
    post_told(events, told);
}

static void tell_all(struct events *events, struct note *note) {
    free(note);
    if (events->state != EVENTS_OPEN)
        return;
    for (uint32_t i = 0; i < events->queues.n; i++)
        queue_dirty(events, events->queues.all[i]);
    events->told_us = 0;
}

void events_drop_told(struct dispatch *dispatch) {
    while (!list_empty(&dispatch->events_told))
        told_free(list_entry(dispatch->events_told.next, struct told, node));
}

void events_tell_all(struct dispatch *dispatch) {
    struct note *note = dispatch->loops->events != NULL ? calloc(1, sizeof(*note)) : NULL;
    events_drop_told(dispatch);
    if (note != NULL)
        events_post(dispatch->loops->events, note, tell_all);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

struct operation {
    struct note note;
    uint64_t request;
    uint8_t what, state;
    bool payload;
    uint8_t uid[16], event[16];
    uint32_t limit;
    struct queue_scan scan;
    /* while it is done */
    struct events *events;
    struct told *told;
    uint64_t matched, busy, bytes;
};

static const uint8_t zeros[16];

static bool wanted(const struct operation *operation, const struct record *record, uint8_t state) {
    if (operation->state != WIRE_EVENT_STATE_ANY && operation->state != state)
        return false;
    return memcmp(operation->event, zeros, 16) == 0 || memcmp(operation->event, record->event.id, 16) == 0;
}

static int list_one(
    struct operation *operation, const struct queue_found *found, const struct record *record, uint8_t state) {
    const struct record_event *event = &record->event;
    struct wire_header header = {.object = operation->request};
    struct event_head head = {0};
    struct wire_queue_event message = {.state = state,
        .attempts = found->attempts,
        .depth = event->depth,
        .accepted_ms = event->accepted_ms,
        .due_ms = found->due_ms,
        .total = event->payload_size};
    uint32_t most = WIRE_HEADER_SIZE + 1024;

    (void)event_head_read(event->head, event->head_size, &head);
    message.name = head.name;
    message.qualifier = head.qualifier;
    message.trace = head.trace;
    memcpy(message.event, event->id, 16);
    memcpy(message.function_uid, event->queue, 16);
    if (operation->payload)
        message.payload = (struct wire_slice){event->payload, MIN(event->payload_size, WIRE_QUEUE_EVENT_PAYLOAD_MAX)};
    most += message.payload.size;
    uint8_t *at = told_room(operation->told, most);
    if (at == NULL)
        return -ENOMEM;
    told_add(operation->told, wire_queue_event_encode(&header, &message, at, most));
    operation->bytes += most;
    operation->matched++;
    return operation->bytes >= LIST_BYTES ? 1 : 0;
}

static int renew(struct events *events, const struct queue_found *found) {
    int r = queues_renew(&events->queues, found->place, found->where, found->size);
    if (r == 0)
        dead_remove(events, found->place, false);
    return r;
}

static int settle(struct events *events, const struct queue_found *found, struct queue *queue) {
    int r = queues_settle(&events->queues, queue, found->place);
    dead_remove(events, found->place, false);
    count_one(&events_counters(events)->events_dropped);
    return r == -ENOENT ? 0 : r;
}

static int give_up(
    struct events *events, const struct queue_found *found, const struct record *record, struct queue *queue) {
    const struct taken taken = {.queue = queue,
        .place = found->place,
        .where = found->where,
        .size = found->size,
        .attempts = found->attempts,
        .phase = PHASE_FAILED};
    int r = event_give_up(events, &taken, record->event.origin);
    return r == -ENOENT ? 0 : r;
}

static int one(void *context, const struct queue_found *found) {
    struct operation *operation = context;
    struct events *events = operation->events;
    struct record record;
    struct queue *queue;
    int r;

    r = queues_read(&events->queues, found->place, found->where, found->size, &record);
    if (r < 0)
        return r == -EBADMSG ? 0 : r;
    uint8_t state = found->phase != PHASE_WAITING                       ? WIRE_EVENT_STATE_DEAD
        : table_get(&events->attempts, place_key(found->place)) != NULL ? WIRE_EVENT_STATE_RUNNING
                                                                        : WIRE_EVENT_STATE_WAITING;
    if (!wanted(operation, &record, state))
        return 0;
    if (operation->what == WIRE_QUEUE_OPERATION_LIST) {
        r = list_one(operation, found, &record, state);
        if (r == 1)
            operation->limit = 0; /* this one is in the page: the next begins behind it */
        return r < 0 ? r : 0;
    }
    if (operation->what == WIRE_QUEUE_OPERATION_GIVE_UP && state == WIRE_EVENT_STATE_DEAD)
        return 0;
    if (state == WIRE_EVENT_STATE_RUNNING ||
        (operation->what == WIRE_QUEUE_OPERATION_REDRIVE && state != WIRE_EVENT_STATE_DEAD)) {
        operation->busy++;
        return 0;
    }
    queue = queues_find(&events->queues, record.event.queue);
    if (queue == NULL)
        return -ENOMEM;
    r = operation->what == WIRE_QUEUE_OPERATION_REDRIVE   ? renew(events, found)
        : operation->what == WIRE_QUEUE_OPERATION_GIVE_UP ? give_up(events, found, &record, queue)
                                                          : settle(events, found, queue);
    if (r == 0)
        operation->matched++;
    queue_dirty(events, queue);
    return r;
}

static void operate(struct events *events, struct note *note) {
    struct operation *operation = list_entry(note, struct operation, note);
    struct wire_header header = {.object = operation->request};
    struct wire_queue_done done = {0};
    const struct queue *queue = NULL;
    int r = events->state == EVENTS_OPEN ? 0 : events->broken != 0 ? events->broken : -EAGAIN;

    operation->events = events;
    operation->told = told_new();
    if (operation->told == NULL) {
        free(operation);
        return;
    }
    if (r == 0 && memcmp(operation->uid, zeros, 16) != 0) {
        queue = queues_find(&events->queues, operation->uid);
        r = queue == NULL ? -ENOMEM : 0;
    }
    if (r == 0) {
        r = queues_scan(&events->queues, queue, &operation->scan, &operation->limit, one, operation);
        events_changed(events);
    }
    done.matched = operation->matched;
    done.busy = operation->busy;
    done.more = r > 0;
    done.at_segment = operation->scan.segment;
    done.at_index = operation->scan.index | (operation->scan.sealed ? 1u << 31 : 0);
    done.error = r < 0 ? (uint32_t)-r : 0;
    uint8_t *at = told_room(operation->told, WIRE_HEADER_SIZE + 64);
    if (at != NULL)
        told_add(operation->told, wire_queue_done_encode(&header, &done, at, WIRE_HEADER_SIZE + 64));
    post_told(events, operation->told);
    free(operation);
}

int events_operate(struct dispatch *dispatch, uint64_t request, const struct wire_queue_op *message) {
    struct operation *operation;
    if (dispatch->loops->events == NULL)
        return -EOPNOTSUPP;
    operation = calloc(1, sizeof(*operation));
    if (operation == NULL)
        return -ENOMEM;
    operation->request = request;
    operation->what = message->operation;
    operation->state = message->state;
    operation->payload = message->payload != 0;
    memcpy(operation->uid, message->function_uid, 16);
    memcpy(operation->event, message->event, 16);
    operation->limit = MIN(message->limit, 4096u);
    operation->scan = (struct queue_scan){.segment = message->at_segment,
        .index = message->at_index & ~(1u << 31),
        .sealed = (message->at_index & (1u << 31)) != 0};
    events_post(dispatch->loops->events, &operation->note, operate);
    return 0;
}
