/* Runs: the events of one queue in one segment, by due time. See queue.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "queue_parts.h"

#define CLOCK_BACK_MS 1000u /* less is the clock's own discipline */

struct run *runs_find(struct log_segment *segment, const struct queue *queue) {
    const struct run *youngest = queue->youngest;
    if (youngest != NULL && youngest->segment->sequence <= segment->sequence)
        return youngest->segment == segment ? queue->youngest : NULL;
    /* From the end: what was made last is wanted again. */
    for (struct list *node = segment->runs.previous; node != &segment->runs; node = node->previous) {
        struct run *run = list_entry(node, struct run, in_segment);
        if (run->queue == queue)
            return run;
    }
    return NULL;
}

static void drop_entries(struct queues *q, struct run *run) {
    if (run->segment->sealed && run->entries != NULL)
        q->n_windows--;
    free(run->entries);
    run->entries = NULL;
    run->n_entries = run->capacity = run->at = 0;
}

/* A window that is not worked on: what is left of it is read again when it is. */
static void drop_window(struct queues *q, struct run *run) {
    if (run->entries != NULL) {
        run->cursor -= run->n_entries - run->at;
        drop_entries(q, run);
    }
}

static void run_free(struct queues *q, struct run *run) {
    drop_entries(q, run);
    list_remove(&run->in_segment);
    list_remove(&run->in_queue);
    if (run->queue->youngest == run)
        run->queue->youngest = NULL;
    queue_rouse(q, run->queue);
    free(run);
}

static struct run *run_make(struct queues *q, struct log_segment *segment, const uint8_t uid[16]) {
    struct queue *queue = queues_find(q, uid);
    struct run *run = queue != NULL ? runs_find(segment, queue) : NULL;
    if (run != NULL || queue == NULL)
        return run;
    run = calloc(1, sizeof(*run));
    if (run == NULL)
        return NULL;
    run->queue = queue;
    run->segment = segment;
    list_init(&run->in_queue);
    list_push_back(&segment->runs, &run->in_segment);
    if (queue->youngest == NULL || queue->youngest->segment->sequence < segment->sequence)
        queue->youngest = run;
    return run;
}

static void due_now(struct queues *q, struct run *run) {
    if (list_empty(&run->in_queue))
        list_push_back(&run->queue->runs, &run->in_queue);
    queue_rouse(q, run->queue);
}

/* ---- the heap of an open segment ------------------------------------------------------------------------------- */

static bool before(const struct footer_event *a, const struct footer_event *b) {
    return event_due(a) != event_due(b) ? event_due(a) < event_due(b) : event_ordinal(a) < event_ordinal(b);
}

static int heap_push(struct run *run, const struct footer_event *event) {
    if (run->n_entries == run->capacity) {
        uint32_t capacity = MAX(16u, 2 * run->capacity);
        struct footer_event *more = realloc(run->entries, capacity * sizeof(*more));
        if (more == NULL)
            return -ENOMEM;
        run->entries = more;
        run->capacity = capacity;
    }
    uint32_t i = run->n_entries++;
    for (; i > 0 && before(event, &run->entries[(i - 1) / 2]); i = (i - 1) / 2)
        run->entries[i] = run->entries[(i - 1) / 2];
    run->entries[i] = *event;
    return 0;
}

static void heap_pop(struct run *run) {
    struct footer_event last = run->entries[--run->n_entries];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= run->n_entries)
            break;
        if (child + 1 < run->n_entries && before(&run->entries[child + 1], &run->entries[child]))
            child++;
        if (before(&last, &run->entries[child]))
            break;
        run->entries[i] = run->entries[child];
        i = child;
    }
    if (run->n_entries > 0)
        run->entries[i] = last;
}

/* ---- what the log tells ---------------------------------------------------------------------------------------- */

int runs_event(void *context, struct log_segment *segment, const uint8_t uid[16], const struct footer_event *event) {
    struct queues *q = context;
    struct run *run = run_make(q, segment, uid);
    if (run == NULL)
        return -ENOMEM;
    int r = heap_push(run, event);
    if (r < 0)
        return r;
    if (run->scheduled_ms == 0 || event_due(event) < run->scheduled_ms)
        due_now(q, run);
    return 0;
}

int runs_sealed(void *context, struct log_segment *segment, const struct footer_queue *queues, uint32_t n) {
    struct queues *q = context;
    for (uint32_t i = 0; i < n; i++) {
        struct run *run = run_make(q, segment, queues[i].uid);
        if (run == NULL)
            return -ENOMEM;
        free(run->entries); /* of the open segment: not a window */
        run->entries = NULL;
        run->n_entries = run->capacity = run->at = run->cursor = 0;
        run->first = queues[i].first;
        run->count = queues[i].count;
        if (run->scheduled_ms == 0)
            due_now(q, run);
    }
    return 0;
}

/* The run begins anew: what is taken or settled is skipped. That of an open segment does so when it is sealed. */
void runs_returned(void *context, struct log_segment *segment, const uint8_t uid[16]) {
    struct queues *q = context;
    struct queue *queue = queues_find(q, uid);
    struct run *run = queue != NULL && segment->sealed ? runs_find(segment, queue) : NULL;
    if (run == NULL)
        return;
    drop_entries(q, run);
    run->cursor = 0;
    due_now(q, run);
}

void runs_removed(void *context, struct log_segment *segment) {
    struct queues *q = context;
    list_for_each_safe(node, &segment->runs) {
        run_free(q, list_entry(node, struct run, in_segment));
    }
}

/* ---- taking ---------------------------------------------------------------------------------------------------- */

/* Windows are given up at need: what they had is read again. */
static void make_room(struct queues *q) {
    for (uint32_t i = 0; i < q->n && q->n_windows >= WINDOWS_MAX; i++)
        list_for_each(node, &q->all[i]->runs) {
            struct run *run = list_entry(node, struct run, in_queue);
            if (run->segment->sealed)
                drop_window(q, run);
        }
}

static int load_window(struct queues *q, struct run *run) {
    uint32_t n = MIN(run->count - run->cursor, WINDOW);
    drop_entries(q, run);
    if (n == 0)
        return 0;
    make_room(q);
    run->entries = malloc(n * sizeof(*run->entries));
    if (run->entries == NULL)
        return -ENOMEM;
    q->n_windows++;
    int r = log_read_entries(&q->log, run->segment, run->first + run->cursor, n, run->entries);
    if (r < 0) {
        drop_entries(q, run);
        return r;
    }
    run->n_entries = n;
    run->cursor += n;
    return 1;
}

/* The first entry, not taken off. 1, 0 or an error. */
static int run_peek(struct queues *q, struct run *run, struct footer_event *ret_entry) {
    if (run->segment->states == NULL)
        return 0;
    if (!run->segment->sealed) {
        if (run->n_entries == 0)
            return 0;
        *ret_entry = run->entries[0];
        return 1;
    }
    if (run->at == run->n_entries) {
        int r = load_window(q, run);
        if (r <= 0)
            return r;
    }
    *ret_entry = run->entries[run->at];
    return 1;
}

static void run_pop(struct run *run) {
    if (run->segment->sealed)
        run->at++;
    else
        heap_pop(run);
}

static bool holds(const struct log_segment *segment, const struct footer_event *entry) {
    uint8_t state = event_ordinal(entry) < segment->ordinals ? segment->states[event_ordinal(entry)] : EVENT_TAKEN;
    return (state & EVENT_TAKEN) == 0 && state_phase(state) != PHASE_SETTLED;
}

/* When the entry may be taken, by the clock as it is. */
static uint64_t due_of(const struct queues *q, const struct log_segment *segment, const struct footer_event *entry) {
    uint64_t due = event_due(entry), by = 0;
    if (due <= q->now_ms || state_attempts(segment->states[event_ordinal(entry)]) == 0)
        return due;
    for (uint32_t i = 0; i < q->n_backs; i++) {
        const struct place *place = &q->backs[i].place;
        if (segment->sequence < place->segment ||
            (segment->sequence == place->segment && event_ordinal(entry) < place->ordinal))
            by += q->backs[i].by_ms;
    }
    return due - MIN(due, by);
}

void runs_clock_back(struct queues *q, uint64_t by_ms) {
    const struct log_segment *last = q->log.last;
    if (by_ms < CLOCK_BACK_MS || last == NULL)
        return;
    if (q->n_backs == CLOCK_BACKS) { /* the two oldest become one: what lies between comes early */
        q->backs[1].by_ms += q->backs[0].by_ms;
        memmove(q->backs, q->backs + 1, --q->n_backs * sizeof(q->backs[0]));
    }
    q->backs[q->n_backs++] = (struct clock_back){{last->sequence, last->ordinals}, by_ms};
    list_for_each(node, &q->log.segments) {
        list_for_each(run_node, &list_entry(node, struct log_segment, node)->runs) {
            struct run *run = list_entry(run_node, struct run, in_segment);
            run->scheduled_ms = 0;
            due_now(q, run);
        }
    }
}

int run_next(struct queues *q, struct run *run, struct footer_event *ret_entry) {
    int r;
    while ((r = run_peek(q, run, ret_entry)) > 0) {
        if (!holds(run->segment, ret_entry)) {
            run_pop(run);
            continue;
        }
        const uint64_t due = due_of(q, run->segment, ret_entry);
        if (due <= q->now_ms) {
            run_pop(run);
            return 1;
        }
        struct timed timed = {
            .due_ms = due, .segment = run->segment->sequence, .queue = run->queue->number, .kind = TIMED_RUN};
        r = wheel_add(&q->wheel, &timed);
        if (r == 0)
            run->scheduled_ms = timed.due_ms;
        break;
    }
    if (r <= 0) {
        list_remove(&run->in_queue);
        if (run->segment->sealed)
            drop_window(q, run);
    }
    return r < 0 ? r : 0;
}
