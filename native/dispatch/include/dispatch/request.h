/* An event and what came with it, in one block of memory, counted against the node's budget for payloads. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch/pool.h"
#include "protocol/wire.h"

#define REQUEST_BODY_MAX (6u << 20)           /* Lambda: synchronous payload */
#define RESPONSE_BODY_MAX ((6u << 20) + 100u) /* the runtime API's ceiling */

#define BUDGET_SHARES 1024u

/* Memory for payloads, both directions, of the node. Several loops draw on what they have in common, a chunk at a time,
 * and keep at most two chunks that they do not use: a refusal may come so much too early, never too late. */
struct budget_common {
    uint64_t limit;
    _Atomic uint64_t left; /* not drawn by any loop */
    /* Of events that are coming or at work, by function: each may hold as much as then is left for all others, so one
     * that is flooded has half of all, two have a third each, and there is always some for the next. Functions whose
     * uids fall together share. By loop, each of which writes its own alone: what all hold together is added up where it
     * may matter, once half of all is in use. */
    _Atomic uint64_t shares[LOOPS_MAX][BUDGET_SHARES];
};
struct budget {
    uint64_t limit; /* drawn */
    uint64_t used;
    struct budget_common *common; /* NULL: the limit is all there is */
    unsigned loop;                /* whose it is */
};
#define BUDGET_CHUNK (1ull << 20)
#define BUDGET_MIN (64ull << 20)
#define BUDGET_MAX (512ull << 20)

bool budget_take(struct budget *budget, uint64_t size);
/* Is one part in so many of it in use? */
#define BUDGET_PRESSED_PARTS 4u
bool budget_is_pressed(const struct budget *budget);
/* For an event of a function: from its share too. */
bool budget_take_share(struct budget *budget, uint16_t share, uint64_t size);
void budget_give_back_share(struct budget *budget, uint16_t share, uint64_t size);
/* Is there so much just now? */
bool budget_has(struct budget *budget, uint64_t size);
/* What is in use already changes hands: never refused. */
void budget_take_over(struct budget *budget, uint64_t size);
void budget_give_back(struct budget *budget, uint64_t size);

/* What a caller asks for, as its transport read it; slices last as long as the reading does. */
struct call {
    uint8_t flags; /* WIRE_CALL_* */
    struct wire_slice name, qualifier, trace, client_context, tenant;
    struct wire_slice event_id;        /* the caller's name for an event; empty: none */
    struct wire_slice region, account; /* of the ARN that the caller gave; empty: not said */
    uint32_t total;                    /* bytes of the body */
    uint16_t share;                    /* of the function that it is for, below BUDGET_SHARES */
    bool open_ended;                   /* nobody said how many: total is what there is room for at first */
    struct wire_slice body;            /* the first part */
};

struct request {
    struct budget *budget;
    size_t charge;
    uint16_t share;
    bool open_ended;
    uint8_t flags; /* WIRE_CALL_* */
    struct wire_slice name, qualifier, trace, client_context, tenant, event_id;
    struct wire_slice cognito_identity; /* waits for the SDK gateway; empty */
    uint32_t lineage_depth;             /* recursion guard: hops of this trace; waits for event sources */
    struct wire_slice execution_arn;    /* waits for durable executions; empty */
    uint32_t total, received;           /* open-ended: total is the room, until request_close */
    uint8_t *body;                      /* total bytes: behind the texts, or when it grew, memory of its own */
    bool body_apart;
    uint8_t data[];
};

/* Copies all slices and the first part of the body. -ENOMEM when over budget or out of memory, -EMSGSIZE. */
int request_new(struct request **ret_request, struct budget *budget, const struct call *call);
/* -EBADMSG when it is more than was announced, or nothing; of an open-ended one -EMSGSIZE when it is more than may
 * be, -ENOMEM as above. */
int request_append(struct request *request, struct wire_slice data);
/* An open-ended body is over: what came is all. */
void request_close(struct request *request);
void request_free(struct request *request);
