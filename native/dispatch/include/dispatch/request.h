/* An event and what came with it, in one block of memory, counted against the node's budget for payloads. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

#define REQUEST_BODY_MAX (6u << 20)           /* Lambda: synchronous payload */
#define RESPONSE_BODY_MAX ((6u << 20) + 100u) /* the runtime API's ceiling */

/* Memory for payloads, both directions, of the node. */
struct budget {
    uint64_t limit;
    uint64_t used;
};
#define BUDGET_MIN (64ull << 20)
#define BUDGET_MAX (512ull << 20)

bool budget_take(struct budget *budget, uint64_t size);
void budget_give_back(struct budget *budget, uint64_t size);

struct request {
    struct budget *budget;
    size_t charge;
    uint8_t flags; /* WIRE_CALL_* */
    struct wire_slice name, qualifier, trace, client_context, tenant;
    struct wire_slice cognito_identity; /* waits for the SDK gateway; empty */
    uint32_t lineage_depth;             /* recursion guard: hops of this trace; waits for event sources */
    struct wire_slice execution_arn;    /* waits for durable executions; empty */
    uint32_t total, received;
    uint8_t *body; /* total bytes */
    uint8_t data[];
};

/* Copies all slices and the first part of the body. -ENOMEM when over budget or out of memory, -EMSGSIZE. */
int request_new(struct request **ret_request, struct budget *budget, const struct wire_call *call);
/* -EBADMSG when it is more than was announced, or nothing. */
int request_append(struct request *request, struct wire_slice data);
void request_free(struct request *request);
