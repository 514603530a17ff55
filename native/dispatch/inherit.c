/* What the dispatchers before this one counted; see the header. */
#include "dispatch/inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"

#define NODE_COUNTERS (sizeof(struct counters_node) / 8)
#define NODE_HISTOGRAMS (sizeof(struct counters_histograms) / sizeof(struct histogram))
#define SLOT_HEAD offsetof(struct counters_slot, calls)
#define SLOT_COUNTERS ((offsetof(struct counters_slot, padding) - SLOT_HEAD) / 8)
#define ALIGNMENT 64u
#define AT(type, name) (offsetof(struct type, name) / 8)

/* One target's in one region of the page. */
struct part {
    uint64_t target;
    const uint8_t *slot;
};

/* ---- the page ---------------------------------------------------------------------------------------------------- */

/* What does not match, or NULL. Regions may be of any length: what comes behind the slots is not taken over. */
static const char *wrong_head(const struct counters_head *head, uint64_t size) {
    if (head->magic != COUNTERS_MAGIC || head->version != COUNTERS_VERSION)
        return "its version";
    if (head->size < COUNTERS_IDLE_OFFSET || head->size % ALIGNMENT != 0 || head->slots != COUNTERS_SLOTS ||
        head->slot_size != COUNTERS_SLOT_SIZE || head->buckets != HISTOGRAM_BUCKETS ||
        head->slots_offset != COUNTERS_SLOTS_OFFSET)
        return "its layout";
    if (head->regions == 0 || head->regions > LOOPS_MAX + 1 || size != (uint64_t)head->regions * head->size)
        return "its size";
    return NULL;
}

static const char *map_page(struct inheritance *inheritance, int fd, uint64_t *ret_started_us) {
    const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
    struct counters_head head;
    struct stat about;
    const char *wrong;
    void *page;

    if (fstat(fd, &about) < 0 || (fcntl(fd, F_GET_SEALS) & needed) != needed ||
        about.st_size < (off_t)COUNTERS_IDLE_OFFSET)
        return "its kind";
    page = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return strerror(errno);
    memcpy(&head, page, sizeof(head));
    wrong = wrong_head(&head, (uint64_t)about.st_size);
    if (wrong != NULL) {
        munmap(page, (size_t)about.st_size);
        return wrong;
    }
    inheritance->page = page;
    inheritance->size = (size_t)about.st_size;
    inheritance->regions = head.regions;
    inheritance->stride = head.size;
    inheritance->n_node = (unsigned)MIN(head.n_node, NODE_COUNTERS);
    inheritance->n_histograms = (unsigned)MIN(head.n_node_histograms, NODE_HISTOGRAMS);
    inheritance->n_slot = (unsigned)MIN(head.n_slot, SLOT_COUNTERS);
    *ret_started_us = head.started_us;
    return NULL;
}

static void let_go(struct inheritance *inheritance) {
    if (inheritance->page != NULL)
        munmap((void *)(uintptr_t)inheritance->page, inheritance->size);
    inheritance->page = NULL;
}

/* ---- copying ------------------------------------------------------------------------------------------------------ */

static uint64_t load(const uint8_t *at, size_t index) {
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)at + index, memory_order_relaxed);
}

static void raise_to(_Atomic uint64_t *counter, uint64_t value) {
    if (value > atomic_load_explicit(counter, memory_order_relaxed))
        atomic_store_explicit(counter, value, memory_order_relaxed);
}

static bool is_level(size_t index) {
    return index == AT(counters_node, calls_open) || index == AT(counters_node, invocations_in_flight) ||
        index == AT(counters_node, waiting) || index == AT(counters_node, environments) ||
        index == AT(counters_node, environments_idle) || index == AT(counters_node, environments_frozen) ||
        index == AT(counters_node, payload_bytes) || index == AT(counters_node, connections) ||
        index == AT(counters_node, arenas) || index == AT(counters_node, events_waiting) ||
        index == AT(counters_node, environments_parked) || index == AT(counters_node, environments_provisioned) ||
        index == AT(counters_node, provisioned_in_use) || index == AT(counters_node, events_full) ||
        index == AT(counters_node, events_damaged_files);
}

static void copy_node(struct inheritance *inheritance) {
    _Atomic uint64_t *node = (void *)inheritance->own.node, *buckets = (void *)inheritance->own.histograms;

    for (size_t i = 0; i < inheritance->n_node; i++) {
        uint64_t sum = 0;
        for (unsigned region = 0; region < inheritance->regions; region++)
            sum += load(inheritance->page + region * inheritance->stride + COUNTERS_NODE_OFFSET, i);
        if (!is_level(i))
            raise_to(&node[i], sum);
    }
    for (size_t i = 0; i < (size_t)inheritance->n_histograms * HISTOGRAM_BUCKETS; i++) {
        uint64_t sum = 0;
        for (unsigned region = 0; region < inheritance->regions; region++)
            sum += load(inheritance->page + region * inheritance->stride + COUNTERS_HISTOGRAMS_OFFSET, i);
        raise_to(&buckets[i], sum);
    }
}

/* Where one target's counts are kept; NULL: nowhere. */
static struct counters_slot *slot_of(struct dispatch *dispatch, uint64_t target) {
    struct inheritance *inheritance = &dispatch->inheritance;
    const struct target *known = target_find(dispatch, target);
    struct counters_slot *slot;

    if (known == NULL)
        return NULL;
    slot = table_get(&inheritance->slots, target);
    if (slot != NULL)
        return slot;
    slot = counters_take(&inheritance->own, target, known->function->uid);
    if (slot == &inheritance->own.slots[0])
        return NULL;
    if (table_put(&inheritance->slots, target, slot) == 0)
        return slot;
    counters_give_back(&inheritance->own, slot);
    return NULL;
}

/* All parts of one target: as many words behind the slot's head as there are, summed up. */
static void copy_words(
    struct counters_slot *slot, const struct part *parts, size_t n_parts, size_t from, size_t words) {
    _Atomic uint64_t *own = (void *)slot;

    for (size_t i = from; i < from + words; i++) {
        uint64_t sum = 0, highest = 0;
        for (size_t k = 0; k < n_parts; k++) {
            const uint64_t value = load(parts[k].slot, i);
            sum += value;
            highest = MAX(highest, value);
        }
        if (i != AT(counters_slot, environments_frozen) && i != AT(counters_slot, environments_parked) &&
            i != AT(counters_slot, provisioned_in_use))
            raise_to(&own[i], i == AT(counters_slot, peak_kb) ? highest : sum);
    }
}

static void copy_target(struct dispatch *dispatch, const struct part *parts, size_t n_parts) {
    struct counters_slot *slot = slot_of(dispatch, parts->target);

    if (slot == NULL)
        return;
    copy_words(slot, parts, n_parts, SLOT_HEAD / 8, dispatch->inheritance.n_slot);
    copy_words(slot, parts, n_parts, AT(counters_slot, duration_us), 2 * HISTOGRAM_BUCKETS);
}

static int by_target(const void *left, const void *right) {
    const struct part *a = left, *b = right;
    return (a->target > b->target) - (a->target < b->target);
}

static size_t highest_slot(const uint8_t *region) {
    const struct counters_head *head = (const void *)region;
    return (size_t)MIN(atomic_load_explicit(&head->slots_high, memory_order_acquire), (uint64_t)COUNTERS_SLOTS - 1);
}

static void copy_targets(struct dispatch *dispatch) {
    const struct inheritance *inheritance = &dispatch->inheritance;
    _cleanup_free_ struct part *parts = NULL;
    size_t most = 0, n = 0;

    for (unsigned region = 0; region < inheritance->regions; region++)
        most += highest_slot(inheritance->page + region * inheritance->stride);
    parts = most == 0 ? NULL : malloc(most * sizeof(*parts));
    if (parts == NULL)
        return;
    for (unsigned region = 0; region < inheritance->regions; region++) {
        const uint8_t *at = inheritance->page + region * inheritance->stride;
        const size_t high = highest_slot(at);
        for (size_t i = 1; i <= high && n < most; i++) {
            const uint8_t *slot = at + COUNTERS_SLOTS_OFFSET + i * COUNTERS_SLOT_SIZE;
            const uint64_t target = load(slot, 0);
            if (target != 0)
                parts[n++] = (struct part){target, slot};
        }
    }
    qsort(parts, n, sizeof(*parts), by_target);
    for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && parts[next].target == parts[i].target; next++)
            ;
        copy_target(dispatch, &parts[i], next - i);
    }
}

/* The one that has ended answers nothing any more. It may have died between two counts that belong together. */
static void settle(struct counters_node *node) {
    const uint64_t answers = node->answers_success + node->answers_function_error + node->answers_refused;

    raise_to(&node->calls, answers + node->abandoned);
    raise_to(&node->abandoned, node->calls - answers);
}

static void copy_all(struct dispatch *dispatch) {
    struct inheritance *inheritance = &dispatch->inheritance;
    const uint64_t began = clock_monotonic_us();

    copy_node(inheritance);
    copy_targets(dispatch);
    if (!inheritance->alive) {
        settle(inheritance->own.node);
        let_go(inheritance);
        timer_clear(&inheritance->timer);
        return;
    }
    /* A twentieth of the time at most. */
    timer_set(&dispatch->loop.timers, &inheritance->timer,
        dispatch->loop.now_us + MAX(INHERIT_US, 20 * (clock_monotonic_us() - began)));
}

static void on_timer(struct timer *timer, uint64_t now) {
    struct dispatch *dispatch = list_entry(timer, struct dispatch, inheritance.timer);
    (void)now;
    if (dispatch->inheritance.page != NULL)
        copy_all(dispatch);
}

/* ---- when --------------------------------------------------------------------------------------------------------- */

void inherit_from(struct dispatch *dispatch, int fd, bool alive) {
    struct inheritance *inheritance = &dispatch->inheritance;
    struct counters *counters = &dispatch->counters;
    uint64_t started_us = 0;
    const char *wrong;

    if (inheritance->given)
        return;
    inheritance->given = true;
    wrong = map_page(inheritance, fd, &started_us);
    if (wrong != NULL) {
        fprintf(stderr, "runtimed-dispatch: the counters of the one before cannot be read (%s): all start at zero\n",
            wrong);
        return;
    }
    inheritance->alive = alive;
    timer_init(&inheritance->timer, on_timer);
    counters_region(counters, counters->regions - 1, &inheritance->own);
    if (started_us < counters->head->started_us)
        counters->head->started_us = started_us;
}

bool inherit_expected(const struct dispatch *dispatch) {
    return dispatch->inheritance.given && !dispatch->inheritance.begun;
}

void inherit_begin(struct dispatch *dispatch) {
    struct inheritance *inheritance = &dispatch->inheritance;
    const bool first = !inheritance->begun;

    inheritance->begun = true;
    if (first && inheritance->page != NULL)
        copy_all(dispatch);
}

void inherit_finish(struct dispatch *dispatch) {
    struct inheritance *inheritance = &dispatch->inheritance;
    inheritance->alive = false;
    if (inheritance->page != NULL && inheritance->begun)
        copy_all(dispatch);
}

void inherit_forget(struct dispatch *dispatch, uint64_t target) {
    struct inheritance *inheritance = &dispatch->inheritance;
    struct counters_slot *slot = table_remove(&inheritance->slots, target);
    if (slot != NULL)
        counters_give_back(&inheritance->own, slot);
}

void inherit_close(struct dispatch *dispatch) {
    struct inheritance *inheritance = &dispatch->inheritance;
    timer_drop(&dispatch->loop.timers, &inheritance->timer);
    let_go(inheritance);
    table_done(&inheritance->slots);
}
