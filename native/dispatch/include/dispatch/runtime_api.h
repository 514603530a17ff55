/* The rules of Lambda's Runtime API, pure: what a request asks for, in which state it may, and what its error type
 * counts as. runtime_connection.c reads and writes, runtime_calls.c carries out.
 *
 * States are the runtime's own view of the environment that it runs in (environment.h): STARTED while INITIALIZING,
 * READY while IDLE, RUNNING while BUSY, STREAMING while REPLYING, ANSWERED while SETTLING. Who is STREAMING ends that on
 * the connection that it began on; until then no call is allowed. A call that the table does not list is refused with
 * 403 InvalidStateTransition and changes nothing. */
#pragma once

#include <stdint.h>

#include "protocol/wire.h"

/* clang-format off */
#define RUNTIME_STATES(X) /* with the names that errors give them */ \
    X(STARTED,     "Started")      /* no call yet */ \
    X(READY,       "Ready")        /* wants an event */ \
    X(RUNNING,     "Running")      /* has one */ \
    X(STREAMING,   "InvocationResponse") /* is answering it in parts */ \
    X(ANSWERED,    "ResponseSent") \
    X(INIT_FAILED, "InitError")

#define RUNTIME_CALLS(X) /* with the state that each wants to reach */ \
    X(NEXT,       "Ready") \
    X(RESPONSE,   "InvocationResponse") \
    X(ERROR,      "InvocationErrorResponse") \
    X(INIT_ERROR, "InitError") \
    X(ASSIGN,     "Running")      /* ours: an event for it */

/*         state     call        next         actions */
#define RUNTIME_TRANSITIONS(T) \
    T(STARTED,  NEXT,       READY,       RUNTIME_INITIALIZED) \
    T(STARTED,  INIT_ERROR, INIT_FAILED, RUNTIME_FAIL_INIT) \
    T(READY,    ASSIGN,     RUNNING,     RUNTIME_DELIVER) \
    T(READY,    NEXT,       READY,       0) /* only when the one that waited has hung up */ \
    T(RUNNING,  NEXT,       RUNNING,     RUNTIME_DELIVER) /* the same event again */ \
    T(RUNNING,  RESPONSE,   ANSWERED,    RUNTIME_ANSWER) \
    T(RUNNING,  ERROR,      ANSWERED,    RUNTIME_ANSWER) \
    T(ANSWERED, NEXT,       READY,       RUNTIME_SETTLED)
/* clang-format on */

enum runtime_state {
#define X(name, text) RUNTIME_##name,
    RUNTIME_STATES(X)
#undef X
        RUNTIME_STATES_N
};

enum runtime_call {
#define X(name, text) RUNTIME_CALL_##name,
    RUNTIME_CALLS(X)
#undef X
        RUNTIME_CALLS_N
};

enum runtime_action {
    RUNTIME_INITIALIZED = 1, /* the init phase is over: INIT_DONE */
    RUNTIME_FAIL_INIT = 2,   /* INIT_ERROR */
    RUNTIME_DELIVER = 4,     /* the event to who waits */
    RUNTIME_ANSWER = 8,      /* RESULT */
    RUNTIME_SETTLED = 16,    /* READY */
};

struct runtime_transition {
    enum runtime_state next;
    uint32_t actions; /* of enum runtime_action */
};

/* 0, or -EPROTO for a pair that is not listed. */
int runtime_next(enum runtime_state state, enum runtime_call call, struct runtime_transition *ret_transition);
const char *runtime_state_name(enum runtime_state state);
const char *runtime_call_name(enum runtime_call call);

enum runtime_path {
    RUNTIME_PATH_CALL,
    RUNTIME_PATH_PING,
    RUNTIME_PATH_UNKNOWN, /* 404 */
    RUNTIME_PATH_METHOD,  /* known, but not with this method: 405 */
};

#define RUNTIME_ID_MAX 64u

/* *ret_id, for RESPONSE and ERROR: what stands for the invocation's id in the path, whatever it is; else empty. */
enum runtime_path runtime_path_read(
    struct wire_slice method, struct wire_slice target, enum runtime_call *ret_call, struct wire_slice *ret_id);

/* The error type that a runtime's header gives, as it is counted and logged: as it is when it names a type of Runtime
 * or Function, else Function.Unknown or Runtime.Unknown. Never longer than WIRE_RESULT_ERROR_TYPE_MAX. */
void runtime_error_type(struct wire_slice given, char ret_type[WIRE_RESULT_ERROR_TYPE_MAX + 1]);
