/* Admission and the start rule: what the dispatcher decides about numbers, pure, with a twin in Python in the tests.
 *
 * Concurrency as Lambda counts it: a function with a reservation may use exactly that much, taken out of the
 * account's pool beforehand; all others share what is left. A reservation of 0 stops the function; unset is not 0. A
 * token is taken when a call is accepted and given back when its environment is ready again (or will never be), not
 * when its caller has the answer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RESERVED_UNSET UINT32_MAX

/* Tokens that an invocation holds, one bit each. */
#define TOKEN_ACCOUNT 1u   /* of the unreserved pool */
#define TOKEN_FUNCTION 2u  /* of the function's own count, always */
#define TOKEN_PROVISION 4u /* waits for provisioned concurrency */
#define TOKEN_MAPPING 8u   /* waits for event source mappings */

struct account {
    uint32_t limit;
    uint32_t reserved; /* sum over functions with a reservation */
    uint32_t in_use;   /* all invocations that hold a token */
    uint32_t unreserved_in_use;
};

struct concurrency { /* of one function */
    uint32_t reserved;
    uint32_t in_use;
};

enum admission {
    ADMISSION_GRANTED,
    ADMISSION_ACCOUNT,  /* ConcurrentInvocationLimitExceeded */
    ADMISSION_FUNCTION, /* ReservedFunctionConcurrentInvocationLimitExceeded */
    ADMISSION_TARGET,   /* environments and waiting queue are full: ConcurrentInvocationLimitExceeded */
};

struct load {           /* of one target */
    uint32_t in_flight; /* waiting, or bound to an environment */
    uint32_t max_environments;
    uint32_t max_waiting;
};

/* Takes the tokens when granted, and says which. */
enum admission admission_take(
    struct account *account, struct concurrency *function, const struct load *load, uint32_t *ret_tokens);
void admission_give_back(struct account *account, struct concurrency *function, uint32_t tokens);
/* Changes a function's reservation; tokens already taken stay what they were. */
void admission_reserve(struct account *account, struct concurrency *function, uint32_t reserved);

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
