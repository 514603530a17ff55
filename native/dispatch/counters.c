/* The counters page; layout in the header. */
#include "dispatch/counters.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

static_assert(sizeof(struct counters_head) <= COUNTERS_NODE_OFFSET, "head");
static_assert(COUNTERS_NODE_OFFSET + sizeof(struct counters_node) <= COUNTERS_HISTOGRAMS_OFFSET, "node counters");
static_assert(COUNTERS_HISTOGRAMS_OFFSET + sizeof(struct counters_histograms) <= COUNTERS_SLOTS_OFFSET, "histograms");
static_assert(offsetof(struct counters_slot, duration_us) == 256, "slot");
static_assert(sizeof(struct counters_slot) == COUNTERS_SLOT_SIZE, "slot");
static_assert(sizeof(struct counters_idle) == COUNTERS_IDLE_SIZE, "idle");

static void begin_region(uint8_t *at, unsigned region, unsigned loops, uint64_t started_us) {
    struct counters_slot *slots = (void *)(at + COUNTERS_SLOTS_OFFSET);
    struct counters_head head = {
        .magic = COUNTERS_MAGIC,
        .version = COUNTERS_VERSION,
        .size = COUNTERS_SIZE,
        .slots = COUNTERS_SLOTS,
        .slot_size = COUNTERS_SLOT_SIZE,
        .buckets = HISTOGRAM_BUCKETS,
        .n_node = sizeof(struct counters_node) / 8,
        .n_node_histograms = sizeof(struct counters_histograms) / sizeof(struct histogram),
#define X(name) +1
        .n_slot = 0 COUNTERS_SLOT(X),
#undef X
        .slots_offset = COUNTERS_SLOTS_OFFSET,
        .started_us = started_us,
        .regions = loops + 1,
        .region = region,
        .loops = loops,
        .idle_offset = COUNTERS_IDLE_OFFSET,
        .idle_size = COUNTERS_IDLE_SIZE,
        .idle_bins = IDLE_BINS,
        .idle_kinds = 2,
    };
    memcpy(at, &head, sizeof(head));
    slots[0].target = UINT64_MAX;
}

static void use_region(uint8_t *at, struct counters *ret_counters) {
    ret_counters->head = (void *)at;
    ret_counters->node = (void *)(at + COUNTERS_NODE_OFFSET);
    ret_counters->histograms = (void *)(at + COUNTERS_HISTOGRAMS_OFFSET);
    ret_counters->slots = (void *)(at + COUNTERS_SLOTS_OFFSET);
    ret_counters->idle = (void *)(at + COUNTERS_IDLE_OFFSET);
    ret_counters->free_from = 1;
}

int counters_open(struct counters *ret_counters, unsigned loops, uint64_t started_us) {
    _cleanup_close_ int fd = memfd_create("runtimed-counters", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const unsigned regions = loops + 1;
    const size_t size = (size_t)regions * COUNTERS_SIZE;
    uint8_t *page;

    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return -errno;
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    /* Our mapping stays writable, no other can become so. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0) {
        int error = -errno;
        munmap(page, size);
        return error;
    }
    for (unsigned region = 0; region < regions; region++)
        begin_region(page + (size_t)region * COUNTERS_SIZE, region, loops, started_us);
    *ret_counters = (struct counters){.page = page, .regions = regions, .fd = steal_fd(&fd)};
    use_region(page, ret_counters);
    return 0;
}

void counters_region(const struct counters *first, unsigned region, struct counters *ret_counters) {
    *ret_counters = (struct counters){.fd = -1, .regions = first->regions};
    use_region(first->page + (size_t)region * COUNTERS_SIZE, ret_counters);
}

void counters_close(struct counters *counters) {
    if (counters->page == NULL)
        return;
    munmap(counters->page, (size_t)counters->regions * COUNTERS_SIZE);
    cleanup_close(&counters->fd);
    counters->page = NULL;
}

struct counters_slot *counters_take(struct counters *counters, uint64_t target, const uint8_t function_uid[16]) {
    for (uint32_t index = counters->free_from; index < COUNTERS_SLOTS; index++) {
        struct counters_slot *slot = &counters->slots[index];
        counters->free_from = index + 1;
        if (slot->target != 0)
            continue;
        memset(slot, 0, sizeof(*slot));
        if (counters->idle[index].gaps != 0)
            memset(&counters->idle[index], 0, sizeof(counters->idle[index]));
        memcpy(slot->function_uid, function_uid, 16);
        atomic_store_explicit(&slot->target, target, memory_order_release);
        if (index > atomic_load_explicit(&counters->head->slots_high, memory_order_relaxed))
            atomic_store_explicit(&counters->head->slots_high, index, memory_order_release);
        return slot;
    }
    return &counters->slots[0];
}

void counters_give_back(struct counters *counters, struct counters_slot *slot) {
    if (slot == &counters->slots[0])
        return;
    atomic_store_explicit(&slot->target, 0, memory_order_release);
    counters->free_from = MIN(counters->free_from, (uint32_t)(slot - counters->slots));
}

struct counters_idle *counters_idle_of(const struct counters *counters, const struct counters_slot *slot) {
    return slot != &counters->slots[0] ? &counters->idle[slot - counters->slots] : NULL;
}

void counters_waited(struct counters_slot *slot, uint64_t us) {
    count_add(&slot->wait_us, us);
    count_one(us <= 1000    ? &slot->waits_1ms
            : us <= 10000   ? &slot->waits_10ms
            : us <= 100000  ? &slot->waits_100ms
            : us <= 1000000 ? &slot->waits_1s
                            : &slot->waits_longer);
}

unsigned histogram_bucket(uint64_t value) {
    unsigned magnitude, bucket;
    if (value < 8)
        return (unsigned)value;
    magnitude = 63u - (unsigned)__builtin_clzll(value);
    bucket = (magnitude - 2) * 8 + (unsigned)((value >> (magnitude - 3)) & 7);
    return MIN(bucket, HISTOGRAM_BUCKETS - 1);
}

uint64_t histogram_floor(unsigned bucket) {
    if (bucket < 8)
        return bucket;
    return (uint64_t)(8 + bucket % 8) << (bucket / 8 - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value) {
    count_one(&histogram->buckets[histogram_bucket(value)]);
}

uint64_t histogram_count(const struct histogram *histogram) {
    uint64_t total = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        total += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
    return total;
}

uint64_t histogram_quantile(const struct histogram *histogram, unsigned per_mille) {
    uint64_t rank = histogram_count(histogram) * per_mille / 1000, seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        if (seen > rank)
            return i < 8 ? i : (histogram_floor(i) + histogram_floor(i + 1)) / 2;
    }
    return 0;
}
