/* An exchange: what a caller is owed, exactly one answer. It lives from a call's beginning until its answer was handed
 * to the connection or the connection is gone; the invocation may outlive it. Transports make exchanges, feed them the
 * body, and are handed the answer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "protocol/wire.h"

struct accept;
struct answer;
struct call;
struct dispatch;
struct exchange;
struct invocation;
struct request;

/* What several callers of one connection cost together. Outlives them while an invocation goes on. */
struct caller_load {
    unsigned running; /* invocations that are not over, also those that nobody waits for any more */
    bool done;        /* the connection is gone */
};

/* Who asks: the part of a connection that exchanges know. */
struct caller {
    /* The one answer; the exchange is freed afterwards. Takes over answer->owned and its charge. May be called from
     * within exchange_start, exchange_finish and whatever else reads the connection. */
    void (*answer)(struct exchange *exchange, struct answer *answer);
    /* Of a response that comes in parts, before its answer, which is then its end: head (id, version, content type)
     * and parts, copied. 0; 1: nothing more for now, until exchange_more; a negative errno: it cannot go on, and the
     * exchange may be gone. NULL: this caller takes all responses whole. */
    int (*begin)(struct exchange *exchange, const struct answer *head);
    int (*chunk)(struct exchange *exchange, struct wire_slice data);
    struct dispatch *dispatch;
    struct list exchanges;    /* not answered yet */
    struct caller_load *load; /* NULL: not counted */
};

struct exchange {
    struct dispatch *dispatch;
    struct caller *caller;
    uint64_t number;               /* the caller's own for it */
    uint64_t principal;            /* who asks; 0: the unix socket's peer; waits for authorisation */
    struct list node;              /* in caller.exchanges */
    struct request *request;       /* while its body is coming; then the invocation's */
    struct invocation *invocation; /* once admitted */
    struct accept *accept;         /* of an event that is on its way to the log */
    uint64_t complete_us;
    bool stream; /* it takes a response that comes in parts */
    bool begun;  /* and has its head */
};

struct answer {
    uint16_t status;
    uint8_t outcome;                     /* enum wire_outcome */
    const char *code, *reason, *message; /* NULL: empty */
    const uint8_t *id;                   /* NULL: zeros */
    const char *version;
    const char *error_type;         /* of a function error; NULL: not said */
    struct wire_slice content_type; /* of a stream's head; empty: not said */
    uint64_t duration_us, init_us;
    struct wire_slice log_tail;
    struct wire_slice body;
    uint8_t *owned;   /* the body's memory when it may be kept: taken over */
    uint32_t charged; /* of the budget, for `owned`: taken over too */
};

void caller_init(struct caller *caller, struct dispatch *dispatch, void (*answer)(struct exchange *, struct answer *));
/* The connection is gone: abandons what it waits for. */
void caller_done(struct caller *caller);
/* Freed with its last invocation. NULL is allowed. */
void caller_load_done(struct caller_load *load);
void caller_load_leave(struct caller_load *load);

/* Counted and owed from now on. NULL: no memory, counted as abandoned; the connection should end. */
struct exchange *exchange_new(struct caller *caller, uint64_t number);
/* Routes and refuses early what needs no body, else takes its first part. 1: more of the body, or exchange_finish, is
 * awaited; 0: it has been answered. */
int exchange_start(struct exchange *exchange, const struct call *call);
/* A further part of the body. 0; -EBADMSG when it is more than was announced, -EMSGSIZE and -ENOMEM of an open-ended
 * one: nothing has been answered. */
int exchange_append(struct exchange *exchange, struct wire_slice data);
/* Does its body lack nothing? */
bool exchange_complete(const struct exchange *exchange);
/* The body is over: admission, and the invocation. */
void exchange_finish(struct exchange *exchange);
void exchange_refuse_body(struct exchange *exchange, int error);
void exchange_cancel(struct exchange *exchange);
/* The connection is gone: nobody waits any more; what waits in a queue is dropped, what runs goes on. */
void exchange_abandon(struct exchange *exchange);
/* A response that comes in parts, of an exchange that takes it so: as caller.begin and .chunk. */
int exchange_begin(struct exchange *exchange, struct wire_slice content_type);
int exchange_chunk(struct exchange *exchange, struct wire_slice data);
/* The caller has room for more of it. */
void exchange_more(struct exchange *exchange);
/* The one answer; frees the exchange. */
void exchange_answer(struct exchange *exchange, struct answer *answer);
void exchange_refuse(
    struct exchange *exchange, uint16_t status, const char *code, const char *reason, const char *message);
