/* The data plane process. Takes calls from invokers, finds them an environment, answers; keeps the functions' logs;
 * asks the launcher for environments within what the control plane granted it. Needs the control plane only to learn
 * what exists.
 *
 * Started by the launcher as its own user with
 *   fd 3  SOCK_SEQPACKET to the launcher
 *   fd 4  the listener of RUN/dispatch.sock, SOCK_SEQPACKET
 *   fd 5  the logs directory
 *   fd 6  the listener of RUN/invoke.sock, SOCK_STREAM, when RUNTIMED_HTTP_GROUP says who may call there
 *   fd 7  the listener of a TCP port, when RUNTIMED_HTTP_TCP is set too: callers there need a key
 *   last  the event log's directory, when RUNTIMED_EVENTS_SEGMENT_MB is set: how large its files are
 * and nothing else; all later descriptors arrive in messages. Applies its seccomp filter before it reads a byte. One
 * thread a loop (loops.h), the log writer's thread, and the event log's. A loop's state is in its struct dispatch; a crash
 * loses all of them, and with them the environments: the launcher ends them, callers see their connection close, the
 * listener stays.
 *
 * Leaves with 0 when the launcher's socket closes, drained after its DRAIN, or replaced by another after its HAND_OVER. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/admission.h"
#include "dispatch/control.h"
#include "dispatch/counters.h"
#include "dispatch/events.h"
#include "dispatch/forward.h"
#include "dispatch/handover.h"
#include "dispatch/http.h"
#include "dispatch/inherit.h"
#include "dispatch/launcher.h"
#include "dispatch/log_sweep.h"
#include "dispatch/logs.h"
#include "dispatch/loop.h"
#include "dispatch/loops.h"
#include "dispatch/principal.h"
#include "dispatch/random.h"
#include "dispatch/request.h"
#include "dispatch/room.h"
#include "dispatch/route.h"
#include "dispatch/spread.h"
#include "dispatch/target.h"
#include "dispatch/transport.h"

#define ACCOUNT_CONCURRENCY_DEFAULT 1000u

/* It is answered when it has been to every loop: each turns. */
struct beat {
    struct mail mail;
    uint32_t seq;
    bool away;
};

struct dispatch {
    struct loops *loops;
    unsigned number; /* of this loop; 0: the first */
    struct loop loop;
    struct mailbox mailbox;
    struct mail stop, room_mail; /* on their way to this loop, or not */
    _Atomic bool room_told;      /* room_mail is */
    struct beat beat;            /* of the launcher's, going around: the first loop's */
    struct counters counters;
    struct randomness randomness;
    struct logs logs;
    struct launcher_link launcher;
    struct control control;
    struct transport transport;
    struct http http;
    struct forwards forwards;
    struct handover handover;
    struct inheritance inheritance; /* of the first loop */
    struct events_port events;
    struct list events_told; /* to the control plane, when its socket takes it */

    _Atomic uint64_t in_use; /* invocations that hold tokens */
    _Atomic bool is_over;    /* nothing is left to do: for the first loop to know */
    struct spread spread;
    struct budget budget;
    struct room room;
    struct routes routes;
    struct targets targets;
    struct principals principals;
    struct table environments;   /* by id, until DEAD */
    struct list in_order;        /* the same, oldest first */
    struct list dead;            /* freed after the batch */
    struct list departing;       /* environments that go to other loops after the batch */
    struct list runtime_closed;  /* connections, freed likewise */
    uint64_t account_generation; /* of the limit */
    uint64_t last_environment;
    uint32_t in_flight; /* invocations bound to environments */

    uint8_t *packet_in, *packet_out; /* WIRE_MESSAGE_MAX each; hold nothing across calls */
    bool synced;                     /* a SYNC_END was seen: serving */
    bool draining;                   /* no new calls */
    bool leave_drained;              /* and leave when the last one is done */
    bool leave;
};

struct dispatch_options {
    unsigned loops;               /* 0: one; LOOPS_MAX at most */
    int launcher, listener, logs; /* descriptors, taken over */
    int http;                     /* the listener of RUN/invoke.sock, or -1; taken over */
    int http_tcp;                 /* the listener of a port, or -1; taken over */
    uint32_t http_group;          /* whose members may call there; 2^32-1: none */
    const char *allow_uids;       /* NULL: only root may connect */
    struct log_limits log_limits; /* what is kept of logs */
    uint32_t busy;                /* per mille of a core at which a loop is; 0: connections go where the fewest are */
    uint64_t payload_bytes;       /* memory for payloads; 0: a quarter of the machine's, BUDGET_MIN to BUDGET_MAX */
    struct events_options events; /* its `confine` is the one below */
    int (*confine)(void);         /* applies the seccomp filter to the calling thread; NULL: none */
};

/* Opens everything, the other loops too, then confines all threads. This one is the first loop. 0 or a negative errno. */
int dispatch_open(struct dispatch *dispatch, const struct dispatch_options *options);
/* One turn of a loop and what comes after a batch. 0, a negative errno, or 1: time to leave. */
int dispatch_turn(struct dispatch *dispatch, uint64_t patience_us);
void dispatch_close(struct dispatch *dispatch);
/* Drained, or replaced: this loop has nothing left to do. */
bool dispatch_is_over(const struct dispatch *dispatch);
/* DRAIN. */
void dispatch_drain(struct dispatch *dispatch, bool leave);

/* Admission, and its end. */
enum admission dispatch_admit(struct dispatch *dispatch, struct target *target, uint32_t *ret_tokens);
void dispatch_give_back(struct dispatch *dispatch, struct target *target, uint32_t tokens);
/* Invocations of all loops that hold tokens. */
uint64_t dispatch_in_use(const struct loops *loops);
