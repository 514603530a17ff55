/* The counters page: a memfd made by the dispatcher, written by its threads, read by the control plane, which gets
 * the descriptor with HELLO and maps it read-only. Nothing is sent per invocation; who wants to know looks here.
 *
 * Each loop of the dispatcher has a region of its own, COUNTERS_SIZE bytes, one behind the other, all of the layout below:
 * who reads adds them up (slots by their target). Levels, too: one loop's may be below 0, the sum modulo 2^64 is right.
 * One more, the last, belongs to no loop: what the dispatchers before this one counted, so that no counter ever goes back
 * when one takes over from another (inherit.h).
 *
 * Layout of a region (little-endian, every field naturally aligned, size COUNTERS_SIZE, sealed against resizing and against new
 * writable mappings):
 *
 *      0  struct counters_head: magic "RTCP", version, where the parts are, since when is counted
 *    256  node counters: u64 each, in the order of COUNTERS_NODE
 *   1024  node histograms: HISTOGRAM_BUCKETS u64 each, in the order of COUNTERS_NODE_HISTOGRAMS
 *  16384  COUNTERS_SLOTS slots of 4,096 bytes, one per target: struct counters_slot. target 0: the slot is free. A slot
 *         is given to another target only after its own was retired, and is zero then. Slot 0 takes all targets that
 *         found none free, its `target` is 2^64-1. The lowest free slot is given first, and none above the head's
 *         `slots_high` was ever given: readers stop there, for what nobody touched takes no memory.
 *  64 MiB + 16384 for each slot, in the same order, struct counters_idle: the gaps of its target (idle_times.h); those
 *         of slot 0 are not used
 *
 * A histogram is log-linear: values below 8 have a bucket each, above them every power of two is divided into eight,
 * so that a bucket is at most 12.5 % wide. histogram_bucket() is the rule; microseconds; the last bucket takes what
 * is above.
 *
 * Counters only grow, except where marked "level". Writers use relaxed atomics: each value is whole, the page is not
 * a snapshot. A new version number means that the layout changed; appending counters does not change it. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define COUNTERS_MAGIC 0x50435452u /* "RTCP" */
#define COUNTERS_VERSION 1u
#define COUNTERS_NODE_OFFSET 256u
#define COUNTERS_HISTOGRAMS_OFFSET 1024u
#define COUNTERS_SLOTS_OFFSET 16384u
#define COUNTERS_SLOT_SIZE 4096u
#define COUNTERS_SLOTS 16384u
#define COUNTERS_IDLE_OFFSET (COUNTERS_SLOTS_OFFSET + COUNTERS_SLOTS * COUNTERS_SLOT_SIZE)
#define COUNTERS_IDLE_SIZE 1152u
#define COUNTERS_SIZE (COUNTERS_IDLE_OFFSET + COUNTERS_SLOTS * COUNTERS_IDLE_SIZE)
#define HISTOGRAM_BUCKETS 240u
#define IDLE_BINS 138u

/* clang-format off */
#define COUNTERS_NODE(X) \
    X(calls)                   /* CALLs taken from invokers, dry runs included */ \
    X(answers_success)         /* calls = answers of the three kinds + calls_open + abandoned */ \
    X(answers_function_error) \
    X(answers_refused) \
    X(abandoned)               /* the connection went away before the answer */ \
    X(cancelled)               /* released by CANCEL; counted in answers_refused too */ \
    X(calls_open)              /* level: taken and not answered */ \
    X(throttled_account)       /* refused: the account's concurrency */ \
    X(throttled_function)      /* refused: the function's reserved concurrency */ \
    X(throttled_target)        /* refused: environments and waiting queue of the target are full */ \
    X(refused_not_found) \
    X(refused_too_large) \
    X(refused_malformed)       /* body is not JSON */ \
    X(refused_memory)          /* the node's budget for payloads */ \
    X(refused_draining) \
    X(invocations)             /* INVOKEs sent */ \
    X(invocations_in_flight)   /* level: environments at work, whether or not somebody still waits */ \
    X(waiting)                 /* level: invocations in waiting queues */ \
    X(waited_too_long) \
    X(launches) \
    X(launch_failures) \
    X(cold_starts)             /* first invocations of an environment */ \
    X(environments)            /* level: from LAUNCH to the end */ \
    X(environments_idle)       /* level */ \
    X(environments_frozen)     /* level */ \
    X(environments_ended) \
    X(init_errors)             /* init phases that ended in INIT_ERROR or exit */ \
    X(init_timeouts)           /* init phases over their limit, repeated inside an invocation */ \
    X(timeouts) \
    X(exits)                   /* environments that left while they owed something */ \
    X(out_of_memory) \
    X(violations)              /* environments ended for breaking the channel's protocol */ \
    X(responses_too_large) \
    X(logic_errors)            /* transitions that must not happen: a bug of ours */ \
    X(payload_bytes)           /* level: memory in use for payloads */ \
    X(connections)             /* level: invokers */ \
    X(connections_refused) \
    X(connections_dropped)     /* malformed packets, or too slow in reading */ \
    X(log_lines) \
    X(log_bytes)               /* of lines */ \
    X(log_records_dropped)     /* by a full ring, or a full disk */ \
    X(log_bytes_written) \
    X(log_throttled)           /* times a log pipe was left unread for its token bucket */ \
    X(log_write_errors) \
    X(control_messages) \
    X(control_refused)         /* NACKs */ \
    X(loop_turns) \
    X(loop_spins)              /* turns that found their work by spinning */ \
    X(http_requests)           /* heads read */ \
    X(http_malformed)          /* heads refused; the connection ended */ \
    X(http_slow)               /* requests that took too long to arrive */ \
    X(http_denied)             /* requests without a valid key or signature, or of other users */ \
    X(arenas)                  /* level: environments that have one */ \
    X(arena_payloads)          /* bodies that went through one, either way */ \
    X(streams)                 /* responses that came in parts */ \
    X(forwarded)               /* requests passed to the control plane with their connections */ \
    X(forwards_refused)        /* those that it had no room for, or was not there for */ \
    X(environment_rests)       /* times an environment was left unread for what it had the loop do: ration.h */ \
    X(events_accepted)         /* 202, on the disk */ \
    X(events_duplicate)        /* 202 again, for a name that was accepted before */ \
    X(events_refused)          /* after routing: full disk, log not open, another payload under the same name */ \
    X(events_attempts)         /* taken from a queue to be invoked */ \
    X(events_succeeded)        /* attempts */ \
    X(events_failed)           /* attempts that the function failed */ \
    X(events_throttled)        /* attempts that found no place, or a node in trouble: none is consumed */ \
    X(events_retried)          /* to be tried again later */ \
    X(events_dead)             /* given up */ \
    X(events_dropped)          /* of these, and of those waiting: removed, by the limit or on demand */ \
    X(events_chains_cut)       /* given up for the length of their chain of functions */ \
    X(events_waiting)          /* level: in the log, not given up */ \
    X(events_full)             /* level: 1 while the log takes no event */ \
    X(event_groups)            /* writes to the log, one sync each */ \
    X(event_bytes)             /* of them */ \
    X(events_unreadable)       /* lost: their records on the disk could not be read */ \
    X(events_damaged_files)    /* level: files of the log that are kept aside, damaged; found when it was opened or since */ \
    X(environments_reclaimed)  /* idle ones that ended for want of memory */ \
    X(environments_parked)     /* level: idle ones that were launched ahead of demand and have served nobody */ \
    X(environments_provisioned) /* level: provisioned ones that are through their init phase */ \
    X(provisioned_in_use)      /* level: those of them that are at work */ \
    X(throttled_burst)         /* refused: more environments than the function may get in time */ \
    X(connections_moved)       /* from one loop to another */

#define COUNTERS_NODE_HISTOGRAMS(X) \
    X(call_us)                 /* CALL complete until ANSWER handed to the socket */ \
    X(overhead_us)             /* the same without the time in the environment and in the queue */ \
    X(wait_us)                 /* in the waiting queue, of those that waited */ \
    X(launch_us)               /* LAUNCH until LAUNCHED */ \
    X(init_us)                 /* START until INIT_DONE */ \
    X(duration_us)             /* INVOKE until RESULT complete */

#define COUNTERS_SLOT(X) \
    X(calls) \
    X(success) \
    X(function_errors)         /* by the handler */ \
    X(timeouts) \
    X(exits) \
    X(throttles) \
    X(cold_starts) \
    X(init_errors) \
    X(waited) \
    X(request_bytes) \
    X(response_bytes) \
    X(billed_ms) \
    X(log_lines) \
    X(log_bytes) \
    X(peak_kb)                 /* level: the highest peak memory seen */ \
    X(environments_frozen)     /* level; the other states come with DEMAND */ \
    X(failures)                /* invocations answered with a failure that is not the handler's own error */ \
    X(wait_us)                 /* in the waiting queue, of those that an environment took from it: all together... */ \
    X(waits_1ms)               /* ...and how many waited up to a millisecond, */ \
    X(waits_10ms)              /* longer and up to ten, */ \
    X(waits_100ms) \
    X(waits_1s) \
    X(waits_longer) \
    X(provisioned)             /* invocations that a provisioned environment took */ \
    X(spillover)               /* those that another one took, where some are provisioned */ \
    X(environments_parked)     /* level: as of the node */ \
    X(provisioned_in_use)      /* level: likewise */
/* clang-format on */

struct counters_head {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t slots;
    uint32_t slot_size;
    uint32_t buckets;
    uint32_t n_node;
    uint32_t n_node_histograms;
    uint32_t n_slot;
    uint32_t slots_offset;
    _Atomic uint64_t
        started_us; /* since the epoch: this dispatcher, or the first of those whose counts it goes on with */
    _Atomic uint64_t slots_high; /* level: the highest slot ever given; 0: none */
    uint32_t regions;            /* in the page, this one included; 0: one */
    uint32_t region;             /* which one this is */
    uint32_t loops;              /* regions that are a loop's; 0: all */
    uint32_t idle_offset, idle_size, idle_bins;
    uint32_t idle_kinds; /* arrays of as many bins; 0: one, of all ranks together */
};

struct histogram {
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
};

struct counters_slot {
    _Atomic uint64_t target; /* object of PUT_TARGET */
    uint8_t function_uid[16];
    uint64_t reserved;
#define X(name) _Atomic uint64_t name;
    COUNTERS_SLOT(X)
#undef X
    uint8_t padding[256 - 32 - 27 * 8];
    struct histogram duration_us; /* at 256 */
    struct histogram init_us;     /* at 2176 */
};

struct counters_idle {
    _Atomic uint64_t gaps;              /* all of them */
    _Atomic uint32_t bins[IDLE_BINS];   /* those of rank 0, modulo 2^32 */
    _Atomic uint32_t others[IDLE_BINS]; /* those of all other ranks */
    uint8_t padding[COUNTERS_IDLE_SIZE - 8 - 2 * IDLE_BINS * 4];
};

struct counters_node {
#define X(name) _Atomic uint64_t name;
    COUNTERS_NODE(X)
#undef X
};

struct counters_histograms {
#define X(name) struct histogram name;
    COUNTERS_NODE_HISTOGRAMS(X)
#undef X
};

struct counters {
    int fd;           /* of the first region's; -1 */
    uint8_t *page;    /* all of it, of the first region's; NULL */
    unsigned regions; /* one a loop, and the inherited one */
    struct counters_head *head;
    struct counters_node *node;
    struct counters_histograms *histograms;
    struct counters_slot *slots;
    struct counters_idle *idle;
    uint32_t free_from; /* no slot below it is free */
};

/* Makes the page; the first region is opened. */
int counters_open(struct counters *ret_counters, unsigned loops, uint64_t started_us);
/* Another one, as long as the first is open; number `loops` is the inherited one. */
void counters_region(const struct counters *first, unsigned region, struct counters *ret_counters);
void counters_close(struct counters *counters);

/* Never NULL: slot 0 when all are taken. */
struct counters_slot *counters_take(struct counters *counters, uint64_t target, const uint8_t function_uid[16]);
void counters_give_back(struct counters *counters, struct counters_slot *slot);
/* Where the slot's gaps are counted; NULL: the shared one's are not. */
struct counters_idle *counters_idle_of(const struct counters *counters, const struct counters_slot *slot);

/* Each counter has one thread that writes it, so that adding needs no locked instruction... */
static inline void count_add(_Atomic uint64_t *counter, uint64_t n) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void count_one(_Atomic uint64_t *counter) {
    count_add(counter, 1);
}
static inline void count_less(_Atomic uint64_t *counter, uint64_t n) {
    count_add(counter, -n);
}
/* ...but for log_records_dropped, which the loop and the log writer both write. */
static inline void count_shared(_Atomic uint64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

void counters_waited(struct counters_slot *slot, uint64_t us);

unsigned histogram_bucket(uint64_t value);
/* The smallest value that falls into the bucket. */
uint64_t histogram_floor(unsigned bucket);
void histogram_add(struct histogram *histogram, uint64_t value);
/* The value below which `per_mille` of all lie, to the bucket's middle; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, unsigned per_mille);
uint64_t histogram_count(const struct histogram *histogram);
