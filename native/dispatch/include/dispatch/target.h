/* Targets: one immutable function version as deployed, with its limits, idle environments and waiting queue; and
 * functions, which their versions share: reservation, log. Each loop has its own structures of both; what the loops have
 * in common of them is in common.h.
 *
 * A target is retired when it is deleted or not put again: no route leads to it any more, its idle environments end,
 * what waits or runs is finished; the structure goes with its last environment and invocation, of several loops' by
 * loops_reap. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/ahead.h"
#include "dispatch/common.h"
#include "dispatch/counters.h"
#include "dispatch/environment.h"
#include "dispatch/idle_times.h"
#include "dispatch/logs.h"
#include "dispatch/table.h"
#include "dispatch/timers.h"
#include "protocol/wire.h"

struct dispatch;

struct function {
    uint8_t uid[16];
    struct function *next; /* another with the same hash */
    struct common_function *common;
    uint64_t log_window, log_recent, log_before; /* bytes of lines in the ring's present half and the one before */
    uint64_t lost_records, lost_bytes;           /* that the log ring did not take, until a DROPPED record says so */
    uint32_t targets;
};

struct target {
    uint64_t id, generation;
    uint32_t mark;
    bool retired;
    struct dispatch *dispatch;
    struct function *function;
    struct common_target *common;
    struct counters_slot *slot;

    uint64_t plan;
    char function_name[WIRE_PUT_TARGET_FUNCTION_NAME_MAX + 1];
    char version[WIRE_PUT_TARGET_FUNCTION_VERSION_MAX + 1];
    uint32_t version_number; /* 0: $LATEST */
    char arn[WIRE_PUT_TARGET_ARN_MAX + 1];
    uint32_t memory_mb, timeout_ms, init_timeout_ms, keep_alive_ms, freeze_after_ms;
    uint32_t max_environments, max_waiting;
    uint8_t log_format;
    bool runtime_api; /* its environments speak the Runtime API; their channel ends when they execute the runtime */
    uint8_t *configuration;
    uint32_t configuration_size;

    uint32_t in_state[ENVIRONMENT_STATES_N]; /* environments */
    uint32_t reserved_starting;              /* of the starting ones, those that will not take from the queue */
    struct list environments;
    struct list idle;    /* most recently used first, never used ones last; provisioned ones are in ahead.idle */
    struct list waiting; /* invocations, oldest first */
    uint32_t n_waiting;
    uint32_t in_flight; /* waiting or bound */
    uint32_t missing;   /* environments that the node has no room for */
    uint32_t departing; /* idle environments that are about to go to other loops */
    uint32_t wished;    /* those that other loops were asked for and did not refuse yet */
    struct demand_elsewhere
        *elsewhere;            /* as the other loops said last, one a loop; the first loop's; NULL: nobody did */
    struct list room;          /* in room.waiting */
    struct list idle_room;     /* in room.targets */
    struct worth_table *worth; /* of its idle times; NULL: nobody asked yet */

    struct timer timer; /* the head gets ripe, or has waited too long, or a launch may be tried again */
    uint64_t retry_us;  /* no launch before: the launcher had no room */
    uint32_t backoff_ms;
    uint64_t p50_us; /* of durations; 0: not known */
    uint32_t p50_age;

    struct ahead ahead;
    struct idle_times idle_times;
    uint64_t
        pauses_us[2]; /* without any invocation: the last one, and the one before; UINT64_MAX: there was none yet */

    bool demand_dirty;
    struct list dirty; /* in levels.targets */
};

struct demand_elsewhere {
    uint32_t waiting, busy, idle, starting;
};

struct targets {
    struct table by_id;
    uint32_t n_retired;
    struct table functions; /* by the first 8 bytes of the uid */
};

/* Newer generation wins. On -EINVAL *ret_field names what is wrong. */
int target_put(struct dispatch *dispatch, const struct wire_header *header, const struct wire_put_target *message,
    const char **ret_field);
void target_del(struct dispatch *dispatch, uint64_t id);
void targets_sweep(struct dispatch *dispatch);
/* By its function's name, along the route; NULL: there is none. */
struct target *target_resolve(struct dispatch *dispatch, struct wire_slice name, struct wire_slice qualifier);
/* Of the budget for payloads. */
uint16_t target_share(const struct target *target);
/* NULL: unknown or retired. */
struct target *target_find(struct dispatch *dispatch, uint64_t id);
/* Is it of this region and account, as far as they are given? By its ARN. */
bool target_is_at(const struct target *target, struct wire_slice region, struct wire_slice account);
/* Frees a retired target that has nothing left. */
void target_settle(struct target *target);
void targets_done(struct dispatch *dispatch);

/* An environment goes from one state to another. */
void target_count(struct target *target, enum environment_state before, enum environment_state next);
/* Shows the other loops what this one has. */
void target_show(struct target *target);
/* Of all loops. */
uint32_t target_established_anywhere(const struct target *target);
/* It is retired, and no loop has any use for it. */
void targets_forget(struct dispatch *dispatch, uint64_t id);
uint32_t target_starting(const struct target *target);
uint32_t target_established(const struct target *target);
uint32_t target_busy(const struct target *target);
