/* Requests; see the header. */
#include "dispatch/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool budget_take(struct budget *budget, uint64_t size) {
    if (size > budget->limit - budget->used)
        return false;
    budget->used += size;
    return true;
}

void budget_give_back(struct budget *budget, uint64_t size) {
    budget->used -= size;
}

static struct wire_slice keep(uint8_t **at, struct wire_slice slice) {
    struct wire_slice kept = {.data = *at, .size = slice.size};
    if (slice.size > 0)
        memcpy(*at, slice.data, slice.size);
    *at += slice.size;
    return kept;
}

int request_new(struct request **ret_request, struct budget *budget, const struct wire_call *call) {
    size_t charge = sizeof(struct request) + call->name.size + call->qualifier.size + call->trace.size +
        call->client_context.size + call->tenant.size + call->total;
    struct request *request;
    uint8_t *at;

    if (call->total > REQUEST_BODY_MAX || call->body.size > call->total)
        return -EMSGSIZE;
    if (!budget_take(budget, charge))
        return -ENOMEM;
    request = malloc(charge);
    if (request == NULL) {
        budget_give_back(budget, charge);
        return -ENOMEM;
    }
    *request = (struct request){.budget = budget, .charge = charge, .flags = call->flags, .total = call->total};
    at = request->data;
    request->name = keep(&at, call->name);
    request->qualifier = keep(&at, call->qualifier);
    request->trace = keep(&at, call->trace);
    request->client_context = keep(&at, call->client_context);
    request->tenant = keep(&at, call->tenant);
    request->body = at;
    if (call->body.size > 0)
        memcpy(at, call->body.data, call->body.size);
    request->received = call->body.size;
    *ret_request = request;
    return 0;
}

int request_append(struct request *request, struct wire_slice data) {
    if (data.size == 0 || data.size > request->total - request->received)
        return -EBADMSG;
    memcpy(request->body + request->received, data.data, data.size);
    request->received += data.size;
    return 0;
}

void request_free(struct request *request) {
    if (request == NULL)
        return;
    budget_give_back(request->budget, request->charge);
    free(request);
}
