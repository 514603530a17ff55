/* The event log under power cuts: runs a random load over files in memory, cuts the power at the n-th operation, for
 * every n, and prints what the disk then has, what the log had promised, and what its recovery finds. tests/native/
 * test_event_log.py judges, with a reader of its own.
 *
 *   print_power FIRST LAST [STRIDE [FAULT]]     seeds from FIRST to below LAST; every STRIDE-th operation; a planted fault
 *
 * Lines: case SEED N EPOCH | file NAME HEX | acked, asked (to be settled), settled ID | tried ID ATTEMPTS |
 *        live ID ATTEMPTS PHASE (by recovery) | report ... | failed ERRNO | end */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "planted_faults.h"
#include "queue/log.h"

enum { EVENTS = 512, STEPS = 60, ENTRIES = 4096, PAYLOAD = 1500 };

struct tracked {
    bool submitted, acked, asked, settled, dead; /* dead: the log does not have it */
    uint8_t attempts;                            /* that are on the disk */
    struct place place;
};

struct promise {
    uint32_t id;
    uint64_t batch;
    uint8_t attempts;
    bool settled;
};

struct entry {
    uint64_t segment;
    struct footer_event event;
};

struct world {
    struct memory memory;
    struct log log;
    bool open;
    struct tracked events[EVENTS];
    uint32_t n_events;
    struct promise promises[4 * EVENTS];
    uint32_t n_promises;
    struct entry entries[ENTRIES];
    uint32_t n_entries;
    uint64_t failures, now_ms, random;
    struct log_found report;
};

static uint64_t draw(struct world *w, uint64_t below) {
    uint64_t z = (w->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static uint32_t id_of(const uint8_t id[16]) {
    uint32_t n;
    memcpy(&n, id, 4);
    return n;
}

/* ---- the sink -------------------------------------------------------------------------------------------------- */

static int seen_event(
    void *context, struct log_segment *segment, const uint8_t uid[16], const struct footer_event *event) {
    struct world *w = context;
    (void)uid;
    if (w->n_entries == ENTRIES)
        abort();
    w->entries[w->n_entries++] = (struct entry){segment->sequence, *event};
    return 0;
}

static int seen_sealed(void *context, struct log_segment *segment, const struct footer_queue *queues, uint32_t n) {
    (void)context;
    (void)segment;
    (void)queues;
    (void)n;
    return 0;
}

static int seen_retry(void *context, struct log_segment *segment, const uint8_t uid[16],
    const struct footer_event *event, uint64_t due_ms) {
    (void)due_ms;
    segment->states[event_ordinal(event)] &= (uint8_t)~EVENT_TAKEN;
    return segment->sealed ? 0 : seen_event(context, segment, uid, event);
}

static void accepted(void *context, const struct batch_item *item, int result, struct place place) {
    struct world *w = context;
    struct tracked *event = &w->events[item->tag];
    if (result == 0) {
        event->acked = true;
        event->place = place;
        event->dead = false;
    }
}

static uint64_t salt(void *context) {
    struct world *w = context;
    return w->memory.fault == FAULT_SALT ? 7 : memory_random(&w->memory);
}

/* ---- the load -------------------------------------------------------------------------------------------------- */

static const struct log_options OPTIONS = {
    .segment_bytes = 12288, .segment_events = 12, .group_bytes = 4096, .pending_bytes = 1u << 20, .salt = salt};

static int open_log(struct world *w) {
    struct log_options options = OPTIONS;
    struct log_sink sink = {
        .context = w, .event = seen_event, .sealed = seen_sealed, .retry = seen_retry, .accepted = accepted};
    options.salt_context = w;
    w->n_entries = 0;
    w->n_promises = 0;
    w->failures = 0;
    int r = log_open(&w->log, &w->memory.files, &options, &sink, w->now_ms, &w->report);
    w->open = r == 0;
    return r;
}

/* As by kill -9: nothing is written any more. */
static void drop_log(struct world *w) {
    if (w->open) {
        w->log.writer.file = -1;
        log_close(&w->log);
    }
    w->open = false;
}

static void payload_of(uint32_t id, uint8_t *ret_bytes, uint32_t size) {
    for (uint32_t i = 0; i < size; i++)
        ret_bytes[i] = (uint8_t)(id * 31u + i * 7u + (i >> 8));
}

static uint32_t size_of(uint32_t id) {
    return id % 7 == 0 ? id * 37 % PAYLOAD : id * 13 % 120;
}

static void accept_one(struct world *w) {
    uint8_t payload[PAYLOAD];
    uint32_t id = w->n_events;
    if (id == EVENTS)
        return;
    struct record_event event = {.accepted_ms = w->now_ms,
        .due_ms = id % 3 ? 0 : w->now_ms + id,
        .key = id % 5,
        .digest = id,
        .payload = payload,
        .payload_size = size_of(id),
        .head = "head",
        .head_size = id % 4};
    memcpy(event.id, &id, 4);
    event.queue[0] = (uint8_t)(id % 3);
    payload_of(id, payload, event.payload_size);
    w->events[id].submitted = true;
    w->n_events++;
    if (log_accept(&w->log, &event, id) == 0 && w->memory.fault == FAULT_EARLY)
        w->events[id].acked = true;
}

static void collect(struct world *w) {
    uint32_t kept = 0;
    log_collect(&w->log, w->now_ms);
    if (w->log.change_failures != w->failures) { /* they go again; what was promised is open */
        w->failures = w->log.change_failures;
        w->n_promises = 0;
        return;
    }
    for (uint32_t i = 0; i < w->n_promises; i++) {
        struct promise *p = &w->promises[i];
        struct tracked *event = &w->events[p->id];
        if (p->batch > w->log.collected)
            w->promises[kept++] = *p;
        else if (p->settled)
            event->settled = true;
        else
            event->attempts = MAX(event->attempts, p->attempts);
    }
    w->n_promises = kept;
}

static void change_one(struct world *w, bool settle) {
    uint32_t id = w->n_events > 0 ? (uint32_t)draw(w, w->n_events) : 0;
    while (settle && id > 0 && !w->events[id - 1].asked && draw(w, 8) > 0)
        id--; /* mostly the oldest, so that segments come to their end */
    struct tracked *event = &w->events[id];
    struct promise promise = {.id = id, .settled = settle};
    if (w->n_events == 0 || !event->acked || event->asked || event->dead || w->n_promises == 4 * EVENTS)
        return;
    uint8_t state = log_state(&w->log, event->place); /* taken: on its way to another place */
    if (state_phase(state) == PHASE_SETTLED || (state & EVENT_TAKEN) != 0)
        return;
    struct record_change change = {.place = event->place, .at_ms = w->now_ms, .due_ms = w->now_ms + 60000};
    change.attempts = promise.attempts = (uint8_t)(state_attempts(state) + !settle);
    change.phase = settle ? PHASE_SETTLED : state_phase(state);
    if (promise.attempts > 3 || log_change(&w->log, &change, &promise.batch) < 0)
        return;
    event->asked = event->asked || settle;
    w->promises[w->n_promises++] = promise;
}

/* Where everything that lives stands, and what it is. */
static int enumerate(struct world *w,
    void (*each)(struct world *, uint32_t id, struct place, uint8_t state, const struct record_event *)) {
    uint8_t *buffer = NULL;
    size_t capacity = 0;
    int r = 0;
    list_for_each(node, &w->log.segments) {
        struct log_segment *segment = list_entry(node, struct log_segment, node);
        struct footer_event entries[64];
        uint32_t n = 0;
        if (segment->states == NULL)
            continue;
        if (segment->sealed)
            r = log_read_entries(&w->log, segment, 0, n = segment->entries, entries);
        for (uint32_t i = 0; i < w->n_entries && !segment->sealed; i++)
            if (w->entries[i].segment == segment->sequence)
                entries[n++] = w->entries[i].event;
        for (uint32_t i = 0; i < n && r == 0; i++) {
            struct place place = {segment->sequence, event_ordinal(&entries[i])};
            struct record record;
            uint8_t state = log_state(&w->log, place);
            if (state_phase(state) == PHASE_SETTLED)
                continue;
            r = log_read(&w->log, segment, entries[i].where, entries[i].size, &buffer, &capacity, &record);
            if (r == 0)
                each(w, id_of(record.event.id), place, state, &record.event);
        }
        if (r < 0)
            break;
    }
    free(buffer);
    return r;
}

static void place_one(
    struct world *w, uint32_t id, struct place place, uint8_t state, const struct record_event *event) {
    (void)state;
    (void)event;
    if (id < EVENTS) {
        w->events[id].place = place;
        w->events[id].dead = false;
    }
}

static void find_places(struct world *w) {
    for (uint32_t id = 0; id < EVENTS; id++)
        w->events[id].dead = true;
    (void)enumerate(w, place_one);
}

static void run_steps(struct world *w) {
    for (int i = 0; i < STEPS && !w->memory.crashed; i++) {
        uint64_t what = draw(w, 16);
        w->now_ms += draw(w, 50);
        if (what < 6) {
            for (uint64_t n = draw(w, 5) + 1; n > 0; n--)
                accept_one(w);
        } else if (what < 9) {
            for (uint64_t n = draw(w, 12) + 1; n > 0; n--)
                change_one(w, draw(w, 4) > 0);
        } else if (what < 10) {
            (void)log_compact(&w->log, w->now_ms, 2000);
            log_discard(&w->log, UINT64_MAX, 0);
        } else if (what < 11 && w->log.writer.file >= 0 &&
            draw(w, 4) == 0) { /* a new process; by stopping, or by kill -9 */
            if (draw(w, 2) == 0)
                log_close(&w->log);
            else
                drop_log(w);
            w->open = false;
            if (open_log(w) < 0)
                return;
            find_places(w);
        } else {
            while (log_flush(&w->log, w->now_ms) > 0 && !w->memory.crashed && draw(w, 8) > 0)
                collect(w);
            collect(w);
            if (w->log.moved > 0)
                find_places(w);
            log_discard(&w->log, UINT64_MAX, 0);
        }
    }
}

/* ---- printing -------------------------------------------------------------------------------------------------- */

static void print_file(const struct memory *m, const char *name) {
    static const char digits[] = "0123456789abcdef";
    const struct memory_file *file = memory_find(m, name);
    uint64_t size = file->size;
    while (size > 0 && file->now[size - 1] == 0)
        size--;
    printf("file %s ", name);
    for (uint64_t i = 0; i < size; i++) {
        putchar(digits[file->now[i] >> 4]);
        putchar(digits[file->now[i] & 15]);
    }
    putchar('\n');
}

static void print_image(struct world *w, uint64_t seed, uint64_t n, int epoch) {
    printf("case %llu %llu %d\n", (unsigned long long)seed, (unsigned long long)n, epoch);
    for (int i = 0; i < MEMORY_NAMES; i++)
        if (w->memory.now[i].name[0] != '\0' && w->memory.now[i].file >= 0)
            print_file(&w->memory, w->memory.now[i].name);
    for (uint32_t id = 0; id < w->n_events; id++) {
        const struct tracked *event = &w->events[id];
        if (event->acked)
            printf("acked %u\n", id);
        if (event->asked)
            printf("asked %u\n", id);
        if (event->settled)
            printf("settled %u\n", id);
        if (event->attempts > 0)
            printf("tried %u %u\n", id, event->attempts);
    }
    printf("submitted %u\n", w->n_events);
}

static void print_live(
    struct world *w, uint32_t id, struct place place, uint8_t state, const struct record_event *event) {
    uint8_t payload[PAYLOAD];
    (void)w;
    (void)place;
    payload_of(id, payload, size_of(id));
    bool good = event->payload_size == size_of(id) && memcmp(event->payload, payload, event->payload_size) == 0;
    printf("live %u %u %u %s\n", id, state_attempts(state), state_phase(state), good ? "good" : "bad");
}

static void print_recovered(struct world *w, int r) {
    if (r < 0)
        printf("failed %d\n", -r);
    if (w->open && (r = enumerate(w, print_live)) < 0)
        printf("failed %d\n", -r);
    printf("report %llu %llu %llu %llu\nend\n", (unsigned long long)w->report.damaged_segments,
        (unsigned long long)w->report.missing_segments, (unsigned long long)w->report.salvaged,
        (unsigned long long)w->report.unsaved_segments);
}

/* What was promised before the cut and had not been heard of by then stays open: asked, not settled. */
static void cut(struct world *w) {
    drop_log(w);
    memory_cut(&w->memory);
}

/* Returns whether the cut came before the load's end. */
static bool run_case(struct world *w, uint64_t seed, uint64_t n, enum fault fault) {
    *w = (struct world){.random = seed, .now_ms = 1700000000000u};
    memory_init(&w->memory, seed * 1000003u + n);
    w->memory.fault = planted_fault = fault;
    w->memory.crash_at = n;
    if (seed % 4 == 1)
        w->memory.room = OPTIONS.segment_bytes * (3 + seed / 4 % 4);
    if (seed % 4 == 2 || seed % 8 == 1) {
        w->memory.fail_at = 10 + seed * 7 % 60;
        w->memory.fail_for = 1 + seed / 8 % 6;
        w->memory.fail_with = seed % 16 == 2 ? -ENOSPC : -EIO;
        w->memory.fail_syncs_only = seed % 3 == 0;
    }
    bool hit = true;
    for (int epoch = 0; epoch < 3; epoch++) {
        if (open_log(w) == 0) {
            find_places(w);
            run_steps(w);
        }
        hit = epoch > 0 ? hit : w->memory.crashed;
        if (!hit)
            break;
        cut(w);
        w->memory.fail_at = 0;
        print_image(w, seed, n, epoch);
        /* What recovery makes of it; perhaps the power goes in the middle of that as well. */
        if (epoch < 2 && draw(w, 2) == 0) {
            printf("end\n");
            w->memory.crash_at = w->memory.operations + 1 + draw(w, 25);
            continue;
        }
        print_recovered(w, open_log(w));
        if (epoch < 2 && w->open) {
            drop_log(w);
            w->memory.crash_at = w->memory.operations + 1 + draw(w, 60);
        }
    }
    drop_log(w);
    memory_done(&w->memory);
    return hit;
}

int main(int argc, char **argv) {
    static const char *const faults[] = {"none", "sync", "directory", "salt", "early", "checksum", "settle"};
    struct world *w = malloc(sizeof(*w));
    uint64_t stride = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    enum fault fault = FAULT_NONE;

    if (argc < 3 || w == NULL)
        return 2;
    for (unsigned i = 0; argc > 4 && i < ARRAY_SIZE(faults); i++)
        if (strcmp(argv[4], faults[i]) == 0)
            fault = (enum fault)i;
    for (uint64_t seed = strtoull(argv[1], NULL, 10); seed < strtoull(argv[2], NULL, 10); seed++)
        for (uint64_t n = 1 + seed % stride; run_case(w, seed, n, fault); n += stride)
            ;
    free(w);
    return 0;
}
