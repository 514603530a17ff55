/* An exchange: what a caller is owed, exactly one answer. It lives from CALL until its ANSWER was handed to the
 * connection or the connection is gone; the invocation may outlive it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "protocol/wire.h"

struct connection;
struct dispatch;
struct invocation;
struct request;

struct exchange {
    struct dispatch *dispatch;
    struct connection *connection;
    uint64_t call;
    uint64_t principal;            /* who asks; 0: the unix socket's peer; waits for authorisation */
    struct list node;              /* in connection.exchanges */
    struct request *request;       /* while its body is coming; then the invocation's */
    struct invocation *invocation; /* once admitted */
    uint64_t complete_us;
};

struct answer {
    uint16_t status;
    uint8_t outcome;                     /* enum wire_outcome */
    const char *code, *reason, *message; /* NULL: empty */
    const uint8_t *id;                   /* NULL: zeros */
    const char *version;
    uint64_t duration_us, init_us;
    struct wire_slice log_tail;
    struct wire_slice body;
    uint8_t *owned;   /* the body's memory when it may be kept: taken over */
    uint32_t charged; /* of the budget, for `owned`: taken over too */
};

/* CALL, whole or in part: routes, refuses early what needs no body, begins the invocation when the body is there. */
void exchange_begin(struct connection *connection, const struct wire_header *header, const struct wire_call *call);
/* 0, 1 when more is to come, or -EBADMSG: the connection must end. */
int exchange_append(struct exchange *exchange, struct wire_slice data);
void exchange_cancel(struct exchange *exchange);
/* The connection is gone: nobody waits any more; what waits in a queue is dropped, what runs goes on. */
void exchange_abandon(struct exchange *exchange);
/* The one answer; frees the exchange. */
void exchange_answer(struct exchange *exchange, struct answer *answer);
void exchange_refuse(
    struct exchange *exchange, uint16_t status, const char *code, const char *reason, const char *message);
