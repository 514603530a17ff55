/* What the loops have in common of functions and targets: limits, the log's file, and what each loop shows the others of
 * its own environments. Made and freed by the first loop while the others stand still; in between, pools and views are
 * all that changes. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dispatch/admission.h"
#include "dispatch/logs.h"

struct loops;

struct common_function {
    uint8_t uid[16];
    struct common_function *next; /* another with the same hash */
    struct concurrency concurrency;
    struct log_file *log;
    struct bucket log_bucket;
    _Atomic uint64_t burst_us; /* worth.h */
    uint32_t users;            /* loops that have it */
};

/* Written by its loop, looked at by the others: may be out of date by the time that they act on it, never wrong for
 * long. What they look at with each invocation has a line that hardly ever changes. */
struct common_view {
    _Alignas(64) _Atomic uint32_t hungry;   /* invocations that waited long enough and can have no new environment */
    _Alignas(64) _Atomic uint64_t since_us; /* when the oldest of those arrived */
    _Atomic uint32_t idle;                  /* environments in the idle stack */
    _Atomic uint32_t established;           /* of which one may free up */
};

struct common_target {
    uint64_t id;
    struct version_pools pools; /* of invocations */
    _Atomic uint32_t live;      /* environments that are not ending */
    /* Of these, provisioned ones (ahead.h); and which of them are through their init phase. */
    _Atomic uint32_t provisioned, provisioned_ready;
    _Atomic uint32_t ahead_failures; /* environments ahead of demand that could not be made, one after the other */
    _Atomic uint64_t ahead_retry_us; /* for that reason none is launched before */
    uint32_t users;
    struct common_view *views; /* one a loop; NULL: a single loop */
};

/* NULL: no memory. */
struct common_function *common_function_take(struct loops *loops, const uint8_t uid[16]);
void common_function_let_go(struct loops *loops, struct common_function *function);
struct common_target *common_target_take(struct loops *loops, uint64_t id);
void common_target_let_go(struct loops *loops, struct common_target *target);

/* One more, unless there are as many as may be. */
bool common_claim(_Atomic uint32_t *count, uint32_t most);
/* The same of a target's environments. */
bool common_target_claim(struct common_target *target, uint32_t max_environments);
