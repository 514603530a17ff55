/* The ring between a loop, which puts records in, and the log writer's thread, which takes them out. One producer, one
 * consumer, no locks; a full ring drops (the caller counts). The consumer of several rings has them in a chain, and
 * sleeps on the bell of the first. An entry never wraps: what does not fit at the end
 * is preceded by a filler.
 *
 * The consumer sleeps when there is nothing; the first entry wakes it, and it then rests for RING_REST_US before it
 * looks, so that a busy node pays a hundred wake-ups a second and not one per record. A ring that is half full cuts
 * the rest short. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_SIZE (8u << 20)
#define RING_RESERVE 65536u /* for entries that must not be lost */
#define RING_REST_US 10000u

struct log_file;

struct ring_entry {
    uint32_t size; /* whole, this header included, a multiple of 8; 0: filler up to the ring's end */
    uint32_t payload_size;
    struct log_file *file;
    uint8_t payload[]; /* none: the file is not needed any more */
};

struct log_ring {
    _Alignas(64) _Atomic uint64_t head;   /* written by the producer: bytes put in, ever */
    _Alignas(64) _Atomic uint64_t tail;   /* written by the consumer: bytes taken out */
    struct log_ring *first, *next;        /* of the chain; first: NULL for the first itself */
    _Alignas(64) _Atomic uint32_t asleep; /* the bell. Futex: 1 while the consumer sleeps without a limit */
    _Atomic uint32_t hurry;               /* futex: 1 cuts a rest short */
    _Atomic uint32_t stop;
    _Alignas(64) uint8_t data[RING_SIZE];
};

/* Empty; to be freed. NULL: no memory. */
struct log_ring *ring_new(void);
/* Behind the last of the chain that `first` begins; before anything uses it. */
void ring_chain(struct log_ring *first, struct log_ring *ring);

/* Room for a record, to be filled and committed; NULL when full. `vital`: may use the reserve. */
struct ring_entry *ring_reserve(struct log_ring *ring, uint32_t payload_size, bool vital);
/* Bytes put in and not taken out yet. */
uint64_t ring_used(const struct log_ring *ring);
void ring_commit(struct log_ring *ring, const struct ring_entry *entry);

/* The consumer's: the next entry or NULL; to be released before the next is asked for. */
const struct ring_entry *ring_peek(struct log_ring *ring);
void ring_release(struct log_ring *ring, const struct ring_entry *entry);
/* Sleeps until there is something in any ring of the chain and a rest is over, at most limit_us. */
void ring_wait(struct log_ring *first, uint64_t limit_us);
/* No more will come in any ring of the chain. */
void ring_stop(struct log_ring *first);
