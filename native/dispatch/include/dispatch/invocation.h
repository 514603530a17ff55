/* An invocation: one event on its way through an environment. It lives from admission until its environment is ready
 * again or gone; its exchange (who waits for the answer) may end before it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/render.h"
#include "dispatch/request.h"

struct attempt;
struct caller_load;
struct environment;
struct exchange;
struct target;
struct environment_detail;

/* Environments that end without having read it are tried so many times. */
#define INVOCATION_RETURNS_MAX 8u

struct invocation {
    uint8_t id[16];
    struct target *target;
    struct environment *environment; /* NULL: waiting */
    struct exchange *exchange;       /* NULL: answered, or nobody waits any more */
    struct request *request;
    struct attempt *attempt;  /* of an event; NULL: a caller's, or its outcome is known */
    struct caller_load *load; /* NULL: not counted */
    struct list waiting;
    uint32_t tokens;   /* TOKEN_*: held until it is over */
    uint32_t returned; /* times, by environments that had not read it */
    bool logged_start;
    bool first; /* of its environment: bears the init */
    bool is_waiting;
    bool reinit;         /* its deadline runs already: the init is repeated inside it */
    uint64_t arrived_us; /* the call was complete */
    uint64_t waited_us;  /* in the queue */
    uint64_t sent_us;    /* INVOKE */
    uint64_t deadline_us;
    uint64_t init_us;      /* 0: warm */
    struct log_tail *tail; /* NULL: not asked for */

    /* The result while its chunks come. */
    uint8_t *result;
    uint32_t result_total, result_size;
    uint32_t result_charge; /* of the budget */
    bool result_error, result_ready;
    bool result_discarded; /* too large, or no memory for it: read and forgotten */
    bool result_refused;   /* no memory: the caller has been told */
    char error_type[WIRE_RESULT_ERROR_TYPE_MAX + 1];

    struct stream *stream; /* its response comes in parts; NULL: it does not, or has not begun */
};

/* Takes the request; answers nothing. exchange NULL: an event's. NULL: out of memory. */
struct invocation *invocation_new(
    struct target *target, struct request *request, struct exchange *exchange, uint32_t tokens);
/* From an environment that ended before it read it; the log says so. */
void invocation_return(struct invocation *invocation, struct environment *environment);
/* Its tokens; it goes on. */
void invocation_give_back(struct invocation *invocation);
/* Gives back tokens and memory; nobody may be waiting any more. */
void invocation_free(struct invocation *invocation);

/* To whoever still waits; once. Also drains the log pipe and writes END and REPORT; a log tail waits for that. */
void invocation_answer_result(struct invocation *invocation, const struct environment_detail *detail);
/* environment: in which it failed, also when it was not bound to it yet. log_status: enum log_status. */
void invocation_answer_failure(struct invocation *invocation, struct environment *environment, const char *type,
    struct wire_slice body, uint8_t log_status);
/* An API error rather than a function error. */
void invocation_refuse(
    struct invocation *invocation, uint16_t status, const char *code, const char *reason, const char *message);
/* Its stream has more than may be: the caller is told; the rest is forgotten. */
void invocation_tell_too_large(struct invocation *invocation);
/* Gives back the memory of a result that came so far. */
void invocation_drop_result(struct invocation *invocation);
/* The function's ARN as the caller named it. */
void invocation_arn(const struct invocation *invocation, char *ret_arn, size_t size);
