/* The invoke transport: SOCK_SEQPACKET connections on RUN/dispatch.sock, messages CALL, CALL_CHUNK, CANCEL, ANSWER,
 * ANSWER_CHUNK of the control protocol. Runs in the dispatcher's loop.
 *
 * Rules for whoever connects:
 * - peer credentials: uid 0, or one of RUNTIMED_ALLOW_UIDS (decimal, comma-separated) of the dispatcher's
 *   environment; others are closed at once.
 * - `object` of CALL is the caller's number of the call, unique among the calls of its connection that are not
 *   answered yet. Several calls may be under way; answers come in any order; CALL_CHUNKs of different calls may be
 *   interleaved.
 * - CALL carries the first part of `total` bytes, CALL_CHUNKs the rest. CALL_CHUNK and CANCEL for a number that is
 *   not under way are ignored (an early refusal crosses them).
 * - every CALL gets exactly one ANSWER, followed by ANSWER_CHUNKs until `total` bytes of body are there. Chunks of
 *   different answers may be interleaved: `object` says whose they are. (While the dispatcher is replaced, two of them
 *   answer on the same connection.) A cancelled call is answered with status 499, code RequestCancelled
 *   (unless its answer was on the way).
 * - a malformed packet, a duplicate number, a body that is longer than announced: the connection is closed.
 * - more than TRANSPORT_CALLS_MAX unanswered calls on one connection: 429, CallerRateLimitExceeded.
 * - who does not read: answers wait in a buffer within the node's memory budget while environments go on; at
 *   TRANSPORT_UNREAD_MAX bytes, or after loops.stall_us without progress, the connection is closed.
 *
 * status and code as in Lambda's API (200 with outcome function_error when the function failed; 204 for a dry run;
 * 400 InvalidRequestContentException, 404 ResourceNotFoundException, 413 RequestTooLargeException, 429
 * TooManyRequestsException with `reason`, 500 and 503 ServiceException). Before the first SYNC_END connections wait
 * in the listener's backlog. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/exchange.h"
#include "dispatch/loop.h"
#include "dispatch/table.h"

#define TRANSPORT_CALLS_MAX 4096u
#define TRANSPORT_UNREAD_MAX (64u << 20)
#define TRANSPORT_CONNECTIONS_MAX 4096u /* each loop has its share */
#define TRANSPORT_ALLOW_MAX 16

struct transport {
    struct watch listener;
    struct list connections;
    struct list closed; /* freed after the batch */
    struct list broken; /* closed after the batch */
    unsigned n_connections;
    uint32_t allow[TRANSPORT_ALLOW_MAX]; /* uids besides 0 */
    unsigned n_allow;
    bool listening;
    struct timer pause; /* accepting failed */
};

struct connection {
    struct caller caller;
    struct watch watch;
    struct dispatch *dispatch;
    struct list node;   /* in transport.connections, or .closed */
    struct table calls; /* number → exchange, those not answered yet */
    struct list unsent; /* answers that the socket did not take: struct outgoing */
    struct list broken; /* in transport.broken: cannot go on */
    struct timer stall;
    uint64_t unsent_bytes;
    uint64_t used_us;  /* last read from */
    uint64_t moved_us; /* came from another loop; 0: never */
    uint32_t uid;
    bool writing; /* watched for EPOLLOUT */
    bool closed;
    bool owed;  /* who gave it to us has still to answer calls on it */
    bool given; /* another dispatcher reads it; answers to what was read before are still ours */
};

void transport_init(struct transport *transport, int listener, const char *allow_uids);
/* May this user call? */
bool transport_allows(const struct transport *transport, uint32_t uid);
/* Begins to accept; idempotent. */
int transport_listen(struct transport *transport);
/* Accepts no more. */
void transport_deafen(struct transport *transport);
void transport_done(struct transport *transport);
/* Everything answered has left: nothing unsent on any connection. */
bool transport_flushed(const struct transport *transport);
/* answers.c. Sends on what is unsent. 0, or a negative errno: the connection cannot go on. */
int answers_send(struct connection *connection);
void answers_forget(struct connection *connection);
/* Of the connection's caller: sends the answer, unregisters the exchange. */
void transport_answer(struct exchange *exchange, struct answer *answer);
/* Marks for closing after the batch: from inside of walks over the connection's calls. */
void connection_break(struct connection *connection);
/* Another dispatcher has it now, too: nothing more is read. */
void connection_give(struct connection *connection);
/* One that another dispatcher accepted: who it is, is asked anew. 0 or a negative errno. */
int transport_take(struct transport *transport, int fd);
/* Frees what was closed during the batch. */
void transport_collect(struct transport *transport);
/* To another loop, if it can go now: no call is open, and it was not moved lately. True: it is gone. */
bool connection_move(struct connection *connection, unsigned to, uint64_t now);
/* A connection that is there already, whether or not there is room for one more. */
int transport_adopt(struct transport *transport, int fd, uint32_t uid);
