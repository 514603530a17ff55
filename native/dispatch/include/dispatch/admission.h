/* Admission and the start rule: what the dispatcher decides about numbers, pure, with a twin in Python in the tests.
 *
 * Concurrency as Lambda counts it: a function with a reservation may use exactly that much, taken out of the
 * account's pool beforehand; all others share what is left. A reservation of 0 stops the function; unset is not 0. A
 * token is taken when a call is accepted and given back when its environment is ready again (or will never be), not
 * when its caller has the answer. What is provisioned for a version is its own too: taken out of the account's pool
 * beforehand, unless its function has a reservation, of which it is a part; what comes beyond it spills over into what
 * all others share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dispatch/pool.h"

#define RESERVED_UNSET UINT32_MAX

/* Tokens that an invocation holds, one bit each. */
#define TOKEN_ACCOUNT 1u   /* of the unreserved pool */
#define TOKEN_FUNCTION 2u  /* of the function's own count, always */
#define TOKEN_PROVISION 4u /* of what is provisioned for the version; then none of the account's */
#define TOKEN_MAPPING 8u   /* waits for event source mappings */

/* Changed while all loops but one stand still; what is in use is in the pools, which all of them draw on. */
struct account {
    uint32_t limit;
    uint32_t reserved;      /* sum over functions with a reservation */
    uint32_t provisioned;   /* sum over versions of functions without one */
    struct pool unreserved; /* what is left for all others */
};

struct concurrency { /* of one function */
    uint32_t reserved;
    uint32_t provisioned; /* sum over its versions */
    struct pool pool;     /* of every invocation; endless without a reservation */
};

/* Of one version: as many as may wait or be at work, and how many of them are provisioned for. */
struct version_pools {
    struct pool load, provision;
};

enum admission {
    ADMISSION_GRANTED,
    ADMISSION_ACCOUNT,  /* ConcurrentInvocationLimitExceeded */
    ADMISSION_FUNCTION, /* ReservedFunctionConcurrentInvocationLimitExceeded */
    ADMISSION_TARGET,   /* environments and waiting queue are full: ConcurrentInvocationLimitExceeded */
    ADMISSION_BURST,    /* the function grows as fast as it may, and it would wait too long: likewise */
};

/* 0 or -ENOMEM. */
int account_init(struct account *account, unsigned loops, uint32_t limit);
void account_done(struct account *account);
void account_limit(struct account *account, uint32_t limit);
int concurrency_init(struct concurrency *function, unsigned loops);
void concurrency_done(struct concurrency *function);

int version_pools_init(struct version_pools *version, unsigned loops);
void version_pools_done(struct version_pools *version);

/* Takes the tokens when granted, and says which. */
enum admission admission_take(struct account *account, struct concurrency *function, struct version_pools *version,
    unsigned loop, uint32_t *ret_tokens);
void admission_give_back(struct account *account, struct concurrency *function, struct version_pools *version,
    unsigned loop, uint32_t tokens);
/* Changes a function's reservation, or what is provisioned for a version; tokens already taken stay what they were. */
void admission_reserve(struct account *account, struct concurrency *function, uint32_t reserved);
void admission_provision(
    struct account *account, struct concurrency *function, struct version_pools *version, uint32_t provisioned);

/* A function that may have no other environment now, for it has got as many as it may in time (worth.h). */
struct burst_view {
    uint32_t waiting;     /* in its queue, the new one included */
    uint32_t starting;    /* environments on the way */
    uint32_t established; /* environments that are through their init phase */
    uint32_t left;        /* environments that it may still have, by its own limit */
    uint64_t p50_us;      /* of its durations; 0: not known */
    uint64_t first_us;    /* until it may have another environment */
    uint64_t each_us;     /* and so long until the next */
    uint64_t limit_us;    /* as long as an invocation may wait */
};

/* Will all that wait be served before they have waited too long, as far as can be told? In doubt they will. */
bool burst_serves(const struct burst_view *view);

struct start_view {
    uint32_t waiting;     /* in the queue */
    uint32_t ripe;        /* of them, those that waited for start_patience_us() or longer */
    uint32_t starting;    /* environments on the way that will take from the queue */
    uint32_t established; /* environments that are through their init phase: one of them may free up */
    uint32_t live;        /* environments that are not ending */
    uint32_t max_environments;
};

/* How many environments to launch now. One that frees up is better than a new one, so as long as there is one at work
 * a new one is started only for those who waited long enough; at once when none could free up. */
uint32_t start_count(const struct start_view *view);
/* How long the head waits for an environment to free up: min(the function's p50, 2 ms). p50 0: not known. */
#define START_PATIENCE_US 2000u
uint64_t start_patience_us(uint64_t p50_us);
