/* Execution environments: the state table, pure, and the structure.
 *
 * A transition is (state, event) → next state and commands; environment.c does nothing else. perform.c carries the
 * commands out; whoever sees something happen (channel, launcher link, timers, scheduler) calls environment_handle.
 * What the table does not list cannot happen by our own doing; from the environment it is a violation of the
 * channel's protocol, which ends it.
 *
 * The walk test proves over all sequences to a depth: from INVOKE to RELEASE exactly one answer, to TAKE_BACK none; one
 * of both for every INVOKE, on every path; at most one OFFER per readiness; START once; END at most once; nothing after DEAD.
 *
 *   LAUNCHING ─LAUNCHED→ INITIALIZING ─INIT_DONE→ IDLE ─ASSIGN→ BUSY ─RESULT_READY→ IDLE
 *                                                              ├─RESULT→ SETTLING ─READY→ IDLE
 *                                                              └─RESULT_PART→ REPLYING ─BODY_DONE(_READY)→ ...
 *   HANGUP while something is owed: INIT_FAILING or FAILING, until EXITED tells why. Every other end: STOPPING, as is
 *   UNREAD: nobody is told of it, since who takes the invocation back still answers it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/arena.h"
#include "dispatch/logs.h"
#include "dispatch/loop.h"
#include "dispatch/mailbox.h"
#include "dispatch/ration.h"
#include "protocol/wire.h"

/* clang-format off */
#define ENVIRONMENT_STATES(X) \
    X(LAUNCHING)    /* LAUNCH is on its way */ \
    X(INITIALIZING) /* START sent: the init phase */ \
    X(IDLE) \
    X(BUSY)         /* INVOKE sent; with more capacity than one: as many as it takes */ \
    X(REPLYING)     /* RESULT came, CHUNKs of its body outstanding */ \
    X(SETTLING)     /* answered; READY outstanding (runtime and extensions: all of the ready mask) */ \
    X(INIT_FAILING) /* hung up during init */ \
    X(FAILING)      /* hung up while it owed a result */ \
    X(STOPPING)     /* told to end; owes nothing */ \
    X(DEAD)

#define ENVIRONMENT_EVENTS(X) \
    X(LAUNCHED)       /* launcher: descriptors came */ \
    X(LAUNCH_FAILED) \
    X(EXITED) \
    X(INIT_DONE)      /* environment: */ \
    X(INIT_ERROR) \
    X(RESULT)         /* whole, without the ready flag */ \
    X(RESULT_READY)   /* whole, ready for more */ \
    X(RESULT_PART)    /* the first part */ \
    X(BODY_DONE)      /* the last chunk */ \
    X(BODY_DONE_READY) \
    X(READY) \
    X(VIOLATION)      /* anything it may not send */ \
    X(HANGUP)         /* its end of the channel is closed */ \
    X(UNREAD)         /* the same, and it never read the INVOKE */ \
    X(ASSIGN)         /* ours: an invocation for it */ \
    X(INIT_TIMEOUT)   /* init limit, or the launcher did not answer */ \
    X(TIMEOUT)        /* the deadline of the invocation that it owes (or, in FAILING, of the wait for EXITED) */ \
    X(RETIRE)         /* not needed any more: keep-alive, target gone, drain */ \
    X(GIVEN)          /* it belongs to another dispatcher now */

#define ENVIRONMENT_COMMANDS(X) \
    X(START)             /* take the descriptors, send START, arm the init limit */ \
    X(INVOKE)            /* send INVOKE, arm the deadline */ \
    X(ANSWER_RESULT)     /* to the caller: what the environment said */ \
    X(ANSWER_INIT_ERROR) /* to one caller: of the invocation it was reserved for, or the head of the queue */ \
    X(ANSWER_TIMEOUT) \
    X(ANSWER_EXIT)       /* Runtime.ExitError and its like */ \
    X(ANSWER_VIOLATION)  /* Sandbox.Failure */ \
    X(ANSWER_LAUNCH)     /* try again later, or the platform's error to one caller */ \
    X(RELEASE)           /* the invocation is over: tokens back */ \
    X(TAKE_BACK)         /* it is not: another environment takes it, for this one has seen nothing of it */ \
    X(END)               /* END to the launcher; channel closed */ \
    X(AWAIT_EXIT)        /* EXITED should come by itself; END after a moment; the log pipe stays open until then */ \
    X(REINIT)            /* suppressed init: again, inside an invocation */ \
    X(OFFER)             /* free for work: the queue's head, or the idle stack, or retire if marked */ \
    X(MARK)              /* retire when free */ \
    X(GONE)              /* release everything */
/* clang-format on */

enum environment_state {
#define X(name) ENVIRONMENT_##name,
    ENVIRONMENT_STATES(X)
#undef X
        ENVIRONMENT_STATES_N
};

enum environment_event {
#define X(name) EVENT_##name,
    ENVIRONMENT_EVENTS(X)
#undef X
        ENVIRONMENT_EVENTS_N
};

enum environment_command_bit {
#define X(name) COMMAND_BIT_##name,
    ENVIRONMENT_COMMANDS(X)
#undef X
};

enum environment_command {
#define X(name) COMMAND_##name = 1u << COMMAND_BIT_##name,
    ENVIRONMENT_COMMANDS(X)
#undef X
};

struct transition {
    enum environment_state next;
    uint32_t commands;
};

/* 0, or -EPROTO for a pair that is not listed. */
int environment_next(enum environment_state state, enum environment_event event, struct transition *ret_transition);
/* Can the environment itself cause it by what it sends? */
bool environment_event_is_its_own(enum environment_event event);
const char *environment_state_name(enum environment_state state);
const char *environment_event_name(enum environment_event event);
/* As the control plane sees it: enum wire_environment_state. */
uint8_t environment_state_wire(enum environment_state state);

/* ---- the structure --------------------------------------------------------------------------------------------- */

struct dispatch;
struct invocation;
struct target;

#define ENVIRONMENT_CAPACITY 1u      /* invocations at once; the table below waits for managed concurrency */
#define ENVIRONMENT_PARTICIPANTS 11u /* the runtime and ten extensions */

enum freezer {
    FREEZER_RUNNING,
    FREEZER_FREEZING, /* waits: reading back is not needed as long as nobody depends on the moment */
    FREEZER_FROZEN,
    FREEZER_THAWING, /* waits, likewise */
};

struct wish;      /* travel.c */
struct runtime;   /* runtime_connection.h */
struct telemetry; /* subscription and bounded ring, early records kept; waits for the Telemetry API */

struct environment {
    uint64_t id; /* `object` between us, the launcher and the control plane; milliseconds << 20 | count | loop */
    struct dispatch *dispatch;
    struct target *target;
    enum environment_state state;
    uint8_t init_type;    /* enum wire_init_type */
    uint64_t provision;   /* (function, qualifier) it is provisioned for, exact count; waits; 0 */
    uint64_t tenant;      /* key of the idle stack it belongs to; waits for tenant isolation; 0 */
    uint32_t incarnation; /* inits of the same logical environment: 1 is an init repeated inside an invocation */
    struct invocation *reserved_for; /* of an init inside an invocation: its deadline counts, an error is its own */
    uint32_t capacity, in_flight;
    struct invocation *invocations[ENVIRONMENT_CAPACITY]; /* by id; errors go to the one that the id names */
    uint16_t participants,
        ready; /* masks: bit 0 the runtime, others extensions, which wait; the slot returns when equal */
    enum freezer freezer;
    struct telemetry *telemetry; /* waits; NULL */
    bool retire;                 /* when free */
    bool given;                  /* it goes on in another dispatcher */
    bool ahead;                  /* launched before anybody asked */
    uint64_t served;

    struct watch channel; /* fd -1: closed */
    bool channel_writing; /* watched for EPOLLOUT: an INVOKE that did not fit */
    bool channel_paused;  /* not watched: a stream of its has to wait, or it rests */
    bool sending_head;    /* INVOKE itself is not sent yet */
    uint32_t sent;        /* bytes of the body that are */
    bool body_in_arena;   /* all of them, that is */
    struct arena arena;
    struct ration ration;
    struct runtime *runtime; /* of a target that speaks the Runtime API; NULL: the channel is all */
    struct log_pipe log;
    int freeze_fd, peak_fd, listener_fd; /* -1: none; listener: the Runtime API's */
    uint32_t uid;

    struct timer timer; /* what it means depends on the state, see perform.c */
    uint64_t launched_us, started_us, init_us, idle_us;
    uint64_t peak_kb, peak_read_us;
    uint8_t end_reason; /* enum wire_end_reason of the END on its way */
    bool launch_unsent, arena_unsent, end_unsent;
    bool answered;        /* the launcher answered LAUNCH */
    bool ended;           /* END was sent, or EXITED has come: no other END */
    struct list outbox;   /* in launcher.outbox: something for the launcher that its socket did not take */
    struct list node;     /* in target.environments */
    struct list in_order; /* in dispatch.in_order */
    struct list idle;     /* in target.idle, or target.ahead.idle */
    struct list by_use;   /* in room.idle */
    struct list dirty;    /* in levels.environments */

    /* On its way to another loop: travel.h. */
    struct mail mail;
    struct wish *wish;   /* that it goes for; NULL: none */
    uint64_t destined;   /* the target's id; 0: it never went */
    uint8_t destination; /* which loop */
    bool departing;      /* in dispatch.departing, through `idle` */
    char reason[192];    /* of its end, for the control plane */
};

/* What came with an event. */
struct environment_detail {
    struct wire_slice body;       /* result or init error */
    uint8_t *owned;               /* the body's memory, when it is its own: taken over */
    struct wire_slice error_type; /* empty: no error */
    bool error;
    uint32_t status; /* EXITED: as wait(2) gives it */
    bool out_of_memory;
    bool retryable;
    uint32_t errno_value; /* of the failed step */
    struct wire_slice step;
    const char *what;              /* for people: the violation, the reason */
    struct invocation *invocation; /* ASSIGN */
    const int *fds;                /* LAUNCHED: channel, log, freeze, peak, listener, -1 where absent; taken over */
};
