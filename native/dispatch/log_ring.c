/* The ring; see the header. */
#include "dispatch/log_ring.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t limit_us) {
    struct timespec limit = {.tv_sec = (time_t)(limit_us / 1000000), .tv_nsec = (long)(limit_us % 1000000) * 1000};
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &limit, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

struct log_ring *ring_new(void) {
    struct log_ring *ring = aligned_alloc(64, (sizeof(*ring) + 63) & ~(size_t)63);
    /* The data part is not touched: memory comes with use. */
    if (ring != NULL)
        memset(ring, 0, offsetof(struct log_ring, data));
    return ring;
}

void ring_chain(struct log_ring *first, struct log_ring *ring) {
    ring->first = first;
    while (first->next != NULL)
        first = first->next;
    first->next = ring;
}

struct ring_entry *ring_reserve(struct log_ring *ring, uint32_t payload_size, bool vital) {
    uint32_t size = (uint32_t)(sizeof(struct ring_entry) + payload_size + 7u) & ~7u;
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    uint64_t room = RING_SIZE - (head - tail), at = head % RING_SIZE, left = RING_SIZE - at;
    uint64_t needed = size + (left < size ? left : 0);
    struct ring_entry *entry;

    if (needed + (vital ? 0 : RING_RESERVE) > room)
        return NULL;
    if (left < size) {
        if (left >= sizeof(struct ring_entry))
            ((struct ring_entry *)(void *)(ring->data + at))->size = 0;
        head += left;
        /* Published with the entry that follows. The consumer skips fillers, and ends too short for a header. */
        atomic_store_explicit(&ring->head, head, memory_order_release);
        at = 0;
    }
    entry = (void *)(ring->data + at);
    entry->size = size;
    entry->payload_size = payload_size;
    return entry;
}

uint64_t ring_used(const struct log_ring *ring) {
    return atomic_load_explicit(&ring->head, memory_order_relaxed) -
        atomic_load_explicit(&ring->tail, memory_order_relaxed);
}

void ring_commit(struct log_ring *ring, const struct ring_entry *entry) {
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed) + entry->size;
    uint64_t used = head - atomic_load_explicit(&ring->tail, memory_order_relaxed);
    struct log_ring *bell = ring->first != NULL ? ring->first : ring;

    /* In one total order with ring_wait's "asleep, then look once more": one of the two sees the other. */
    atomic_store(&ring->head, head);
    if (atomic_load(&bell->asleep) != 0) {
        atomic_store(&bell->asleep, 0);
        futex_wake(&bell->asleep);
    } else if (used > RING_SIZE / 2 && atomic_load_explicit(&bell->hurry, memory_order_relaxed) == 0) {
        atomic_store(&bell->hurry, 1);
        futex_wake(&bell->hurry);
    }
}

const struct ring_entry *ring_peek(struct log_ring *ring) {
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    for (;;) {
        uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire), at = tail % RING_SIZE;
        const struct ring_entry *entry = (const void *)(ring->data + at);
        if (tail == head)
            return NULL;
        if (RING_SIZE - at >= sizeof(struct ring_entry) && entry->size != 0)
            return entry;
        tail += RING_SIZE - at;
        atomic_store_explicit(&ring->tail, tail, memory_order_release);
    }
}

void ring_release(struct log_ring *ring, const struct ring_entry *entry) {
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    atomic_store_explicit(&ring->tail, tail + entry->size, memory_order_release);
}

/* The most that is in any ring of the chain. */
static uint64_t most_used(struct log_ring *ring) {
    uint64_t most = 0;
    for (; ring != NULL; ring = ring->next)
        most = MAX(most, atomic_load(&ring->head) - atomic_load_explicit(&ring->tail, memory_order_relaxed));
    return most;
}

void ring_wait(struct log_ring *first, uint64_t limit_us) {
    atomic_store(&first->asleep, 1);
    if (most_used(first) == 0 && atomic_load(&first->stop) == 0)
        futex_wait(&first->asleep, 1, limit_us);
    atomic_store(&first->asleep, 0);
    if (most_used(first) == 0 || atomic_load(&first->stop) != 0)
        return;
    atomic_store(&first->hurry, 0);
    if (most_used(first) <= RING_SIZE / 2)
        futex_wait(&first->hurry, 0, RING_REST_US);
}

void ring_stop(struct log_ring *first) {
    atomic_store(&first->stop, 1);
    atomic_store(&first->asleep, 0);
    futex_wake(&first->asleep);
    atomic_store(&first->hurry, 1);
    futex_wake(&first->hurry);
}
