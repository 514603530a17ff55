/* The state table of environments, pure; see the header. */
#include "dispatch/environment.h"

#include <errno.h>

#include "base/cleanup.h"

#define C(name) COMMAND_##name

/* clang-format off */
#define TRANSITIONS(T) \
    /*state         event            next          commands */ \
    T(LAUNCHING,    LAUNCHED,        INITIALIZING, C(START)) \
    T(LAUNCHING,    LAUNCH_FAILED,   DEAD,         C(ANSWER_LAUNCH) | C(GONE)) \
    T(LAUNCHING,    INIT_TIMEOUT,    STOPPING,     C(ANSWER_LAUNCH) | C(END)) \
    T(LAUNCHING,    TIMEOUT,         STOPPING,     C(ANSWER_TIMEOUT) | C(END)) \
    T(LAUNCHING,    RETIRE,          STOPPING,     C(END)) \
    \
    T(INITIALIZING, INIT_DONE,       IDLE,         C(OFFER)) \
    T(INITIALIZING, INIT_ERROR,      STOPPING,     C(ANSWER_INIT_ERROR) | C(END)) \
    T(INITIALIZING, INIT_TIMEOUT,    STOPPING,     C(END) | C(REINIT)) \
    T(INITIALIZING, TIMEOUT,         STOPPING,     C(ANSWER_TIMEOUT) | C(END)) \
    T(INITIALIZING, VIOLATION,       STOPPING,     C(ANSWER_VIOLATION) | C(END)) \
    T(INITIALIZING, HANGUP,          INIT_FAILING, C(AWAIT_EXIT)) \
    T(INITIALIZING, EXITED,          DEAD,         C(ANSWER_EXIT) | C(GONE)) \
    T(INITIALIZING, RETIRE,          STOPPING,     C(END)) \
    \
    T(IDLE,         ASSIGN,          BUSY,         C(INVOKE)) \
    T(IDLE,         RETIRE,          STOPPING,     C(END)) \
    T(IDLE,         VIOLATION,       STOPPING,     C(END)) \
    T(IDLE,         HANGUP,          STOPPING,     C(END)) \
    T(IDLE,         EXITED,          DEAD,         C(GONE)) \
    T(IDLE,         GIVEN,           DEAD,         C(GONE)) \
    \
    T(BUSY,         RESULT_READY,    IDLE,         C(ANSWER_RESULT) | C(RELEASE) | C(OFFER)) \
    T(BUSY,         RESULT,          SETTLING,     C(ANSWER_RESULT)) \
    T(BUSY,         RESULT_PART,     REPLYING,     0) \
    T(BUSY,         TIMEOUT,         STOPPING,     C(ANSWER_TIMEOUT) | C(RELEASE) | C(END)) \
    T(BUSY,         VIOLATION,       STOPPING,     C(ANSWER_VIOLATION) | C(RELEASE) | C(END)) \
    T(BUSY,         HANGUP,          FAILING,      C(AWAIT_EXIT)) \
    T(BUSY,         UNREAD,          STOPPING,     C(TAKE_BACK) | C(END)) \
    T(BUSY,         EXITED,          DEAD,         C(ANSWER_EXIT) | C(RELEASE) | C(GONE)) \
    T(BUSY,         RETIRE,          BUSY,         C(MARK)) \
    \
    T(REPLYING,     BODY_DONE_READY, IDLE,         C(ANSWER_RESULT) | C(RELEASE) | C(OFFER)) \
    T(REPLYING,     BODY_DONE,       SETTLING,     C(ANSWER_RESULT)) \
    T(REPLYING,     TIMEOUT,         STOPPING,     C(ANSWER_TIMEOUT) | C(RELEASE) | C(END)) \
    T(REPLYING,     VIOLATION,       STOPPING,     C(ANSWER_VIOLATION) | C(RELEASE) | C(END)) \
    T(REPLYING,     HANGUP,          FAILING,      C(AWAIT_EXIT)) \
    T(REPLYING,     EXITED,          DEAD,         C(ANSWER_EXIT) | C(RELEASE) | C(GONE)) \
    T(REPLYING,     RETIRE,          REPLYING,     C(MARK)) \
    \
    T(SETTLING,     READY,           IDLE,         C(RELEASE) | C(OFFER)) \
    T(SETTLING,     TIMEOUT,         STOPPING,     C(RELEASE) | C(END)) \
    T(SETTLING,     VIOLATION,       STOPPING,     C(RELEASE) | C(END)) \
    T(SETTLING,     HANGUP,          STOPPING,     C(RELEASE) | C(END)) \
    T(SETTLING,     EXITED,          DEAD,         C(RELEASE) | C(GONE)) \
    T(SETTLING,     RETIRE,          SETTLING,     C(MARK)) \
    \
    T(INIT_FAILING, EXITED,          DEAD,         C(ANSWER_EXIT) | C(GONE)) \
    T(INIT_FAILING, TIMEOUT,         STOPPING,     C(ANSWER_EXIT) | C(END)) \
    T(INIT_FAILING, RETIRE,          INIT_FAILING, C(MARK)) \
    \
    T(FAILING,      EXITED,          DEAD,         C(ANSWER_EXIT) | C(RELEASE) | C(GONE)) \
    T(FAILING,      TIMEOUT,         STOPPING,     C(ANSWER_EXIT) | C(RELEASE) | C(END)) \
    T(FAILING,      RETIRE,          FAILING,      C(MARK)) \
    \
    T(STOPPING,     LAUNCHED,        STOPPING,     0) /* crossed our END: its descriptors are closed */ \
    T(STOPPING,     LAUNCH_FAILED,   DEAD,         C(GONE)) \
    T(STOPPING,     EXITED,          DEAD,         C(GONE)) \
    T(STOPPING,     RETIRE,          STOPPING,     0)
/* clang-format on */

struct cell {
    uint8_t listed, next;
    uint32_t commands;
};

static const struct cell cells[ENVIRONMENT_STATES_N][ENVIRONMENT_EVENTS_N] = {
#define T(state, event, to, what) [ENVIRONMENT_##state][EVENT_##event] = {1, ENVIRONMENT_##to, what},
    TRANSITIONS(T)
#undef T
};

int environment_next(enum environment_state state, enum environment_event event, struct transition *ret_transition) {
    const struct cell *cell = &cells[state][event];
    if (!cell->listed)
        return -EPROTO;
    *ret_transition = (struct transition){.next = cell->next, .commands = cell->commands};
    return 0;
}

bool environment_event_is_its_own(enum environment_event event) {
    switch (event) {
    case EVENT_INIT_DONE:
    case EVENT_INIT_ERROR:
    case EVENT_RESULT:
    case EVENT_RESULT_READY:
    case EVENT_RESULT_PART:
    case EVENT_BODY_DONE:
    case EVENT_BODY_DONE_READY:
    case EVENT_READY:
        return true;
    default:
        return false;
    }
}

const char *environment_state_name(enum environment_state state) {
    static const char *const names[] = {
#define X(name) #name,
        ENVIRONMENT_STATES(X)
#undef X
    };
    return (size_t)state < ARRAY_SIZE(names) ? names[state] : "?";
}

const char *environment_event_name(enum environment_event event) {
    static const char *const names[] = {
#define X(name) #name,
        ENVIRONMENT_EVENTS(X)
#undef X
    };
    return (size_t)event < ARRAY_SIZE(names) ? names[event] : "?";
}

uint8_t environment_state_wire(enum environment_state state) {
    switch (state) {
    case ENVIRONMENT_LAUNCHING:
        return WIRE_ENVIRONMENT_STATE_LAUNCHING;
    case ENVIRONMENT_INITIALIZING:
        return WIRE_ENVIRONMENT_STATE_INITIALIZING;
    case ENVIRONMENT_IDLE:
        return WIRE_ENVIRONMENT_STATE_IDLE;
    case ENVIRONMENT_BUSY:
    case ENVIRONMENT_REPLYING:
    case ENVIRONMENT_SETTLING:
        return WIRE_ENVIRONMENT_STATE_BUSY;
    case ENVIRONMENT_DEAD:
        return WIRE_ENVIRONMENT_STATE_DEAD;
    default:
        return WIRE_ENVIRONMENT_STATE_STOPPING;
    }
}
