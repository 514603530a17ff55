/* Exchanges: from CALL to admission, and the one answer; see the header. Runs in the loop. */
#include "dispatch/exchange.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/events.h"
#include "dispatch/invocation.h"
#include "dispatch/json.h"
#include "dispatch/request.h"
#include "dispatch/schedule.h"
#include "dispatch/stream.h"

#define THROTTLED "TooManyRequestsException"
#define LONG_BODY 65536u

void exchange_answer(struct exchange *exchange, struct answer *answer) {
    struct counters_node *node = exchange->dispatch->counters.node;

    if (answer->outcome == WIRE_OUTCOME_SUCCESS)
        count_one(&node->answers_success);
    else if (answer->outcome == WIRE_OUTCOME_FUNCTION_ERROR)
        count_one(&node->answers_function_error);
    else
        count_one(&node->answers_refused);
    count_less(&node->calls_open, 1);
    list_remove(&exchange->node);
    exchange->caller->answer(exchange, answer);
    request_free(exchange->request);
    free(exchange);
}

void exchange_refuse(
    struct exchange *exchange, uint16_t status, const char *code, const char *reason, const char *message) {
    struct answer answer = {
        .status = status, .outcome = WIRE_OUTCOME_REFUSED, .code = code, .reason = reason, .message = message};
    exchange_answer(exchange, &answer);
}

static void refuse_not_found(struct exchange *exchange, struct wire_slice name, struct wire_slice qualifier) {
    char message[512];
    snprintf(message, sizeof(message), "Function not found: %.*s%s%.*s. %s.", (int)name.size, (const char *)name.data,
        qualifier.size > 0 ? ":" : "", (int)qualifier.size, (const char *)qualifier.data,
        qualifier.size > 0 ? "`runtimectl versions` and `runtimectl aliases` list what a function has"
                           : "`runtimectl functions` lists those that exist");
    count_one(&exchange->dispatch->counters.node->refused_not_found);
    exchange_refuse(exchange, 404, "ResourceNotFoundException", NULL, message);
}

static void refuse_too_large(struct exchange *exchange, uint32_t total) {
    char message[160];
    snprintf(message, sizeof(message),
        "Request must be smaller than %u bytes for the InvokeFunction operation; it has %u.", REQUEST_BODY_MAX, total);
    count_one(&exchange->dispatch->counters.node->refused_too_large);
    exchange_refuse(exchange, 413, "RequestTooLargeException", NULL, message);
}

static void throttle(struct exchange *exchange, struct target *target, enum admission admission) {
    struct counters_node *node = exchange->dispatch->counters.node;
    count_one(&target->slot->throttles);
    switch (admission) {
    case ADMISSION_FUNCTION:
        count_one(&node->throttled_function);
        exchange_refuse(exchange, 429, THROTTLED, "ReservedFunctionConcurrentInvocationLimitExceeded",
            "Rate Exceeded: the function's reserved concurrency is in use.");
        break;
    case ADMISSION_ACCOUNT:
        count_one(&node->throttled_account);
        exchange_refuse(exchange, 429, THROTTLED, "ConcurrentInvocationLimitExceeded",
            "Rate Exceeded: the account's concurrency is in use.");
        break;
    case ADMISSION_BURST:
        count_one(&node->throttled_burst);
        exchange_refuse(exchange, 429, THROTTLED, "ConcurrentInvocationLimitExceeded",
            "Rate Exceeded: the function gets as many more execution environments as it may in time, and more "
            "invocations wait for them than will be served.");
        break;
    default:
        count_one(&node->throttled_target);
        exchange_refuse(exchange, 429, THROTTLED, "ConcurrentInvocationLimitExceeded",
            "Rate Exceeded: every execution environment of the function is at work and its waiting queue is full.");
        break;
    }
}

static void dry_run(struct exchange *exchange, const struct target *target) {
    struct answer answer = {.status = 204, .outcome = WIRE_OUTCOME_SUCCESS, .version = target->version};
    exchange_answer(exchange, &answer);
}

static void refuse_memory(struct exchange *exchange) {
    count_one(&exchange->dispatch->counters.node->refused_memory);
    exchange_refuse(exchange, 503, "ServiceException", NULL, "The node's memory for payloads is in use; try again.");
}

/* Route, check, admit, go. */
void exchange_finish(struct exchange *exchange) {
    struct dispatch *dispatch = exchange->dispatch;
    struct request *request = exchange->request;
    struct target *target = target_resolve(dispatch, request->name, request->qualifier);
    struct invocation *invocation;
    enum admission admission;
    uint32_t tokens;

    exchange->complete_us = clock_monotonic_us();
    if (target == NULL) {
        refuse_not_found(exchange, request->name, request->qualifier);
        return;
    }
    count_one(&target->slot->calls);
    count_add(&target->slot->request_bytes, request->total);
    if (request->total > 0 && !json_valid(request->body, request->total)) {
        count_one(&dispatch->counters.node->refused_malformed);
        exchange_refuse(exchange, 400, "InvalidRequestContentException", NULL,
            "Could not parse request body into json: the payload is not valid JSON.");
        return;
    }
    if (request->flags & WIRE_CALL_DRY_RUN) {
        dry_run(exchange, target);
        return;
    }
    if (request->flags & WIRE_CALL_EVENT) {
        events_accept(exchange, target);
        return;
    }
    admission = dispatch_admit(dispatch, target, &tokens);
    if (admission != ADMISSION_GRANTED) {
        throttle(exchange, target, admission);
        return;
    }
    invocation = invocation_new(target, request, exchange, tokens);
    if (invocation == NULL) {
        dispatch_give_back(dispatch, target, tokens);
        refuse_memory(exchange);
        return;
    }
    levels_account(dispatch);
    schedule_invocation(invocation);
}

void caller_init(struct caller *caller, struct dispatch *dispatch, void (*answer)(struct exchange *, struct answer *)) {
    *caller = (struct caller){.answer = answer, .dispatch = dispatch};
    list_init(&caller->exchanges);
}

void caller_done(struct caller *caller) {
    struct list *node;
    while ((node = list_pop_front(&caller->exchanges)) != NULL)
        exchange_abandon(list_entry(node, struct exchange, node));
}

void caller_load_done(struct caller_load *load) {
    if (load == NULL)
        return;
    load->done = true;
    if (load->running == 0)
        free(load);
}

void caller_load_leave(struct caller_load *load) {
    if (load != NULL && --load->running == 0 && load->done)
        free(load);
}

struct exchange *exchange_new(struct caller *caller, uint64_t number) {
    struct counters_node *node = caller->dispatch->counters.node;
    struct exchange *exchange = calloc(1, sizeof(*exchange));

    count_one(&node->calls);
    if (exchange == NULL) {
        /* Without memory for an exchange there is none for an answer. */
        count_one(&node->abandoned);
        return NULL;
    }
    count_one(&node->calls_open);
    exchange->dispatch = caller->dispatch;
    exchange->caller = caller;
    exchange->number = number;
    list_push_back(&caller->exchanges, &exchange->node);
    return exchange;
}

/* Much of its body is to come. */
static bool is_long(const struct call *call) {
    return (call->flags & WIRE_CALL_DRY_RUN) == 0 && call->total <= REQUEST_BODY_MAX &&
        (call->open_ended || call->total - MIN(call->body.size, call->total) > LONG_BODY);
}

/* Where memory is in demand, refused at once, before its body takes some, when it would be refused now; otherwise its
 * connection is spared the end that an unread body means. It is admitted when all is there. */
static bool is_throttled(struct exchange *exchange, struct target *target) {
    uint32_t tokens;
    enum admission admission = dispatch_admit(exchange->dispatch, target, &tokens);

    if (admission == ADMISSION_GRANTED) {
        dispatch_give_back(exchange->dispatch, target, tokens);
        return false;
    }
    count_one(&target->slot->calls);
    throttle(exchange, target, admission);
    return true;
}

int exchange_start(struct exchange *exchange, const struct call *call) {
    struct dispatch *dispatch = exchange->dispatch;
    struct target *target;
    struct call told;
    int r;

    if (dispatch->draining) {
        count_one(&dispatch->counters.node->refused_draining);
        exchange_refuse(exchange, 503, "ServiceException", NULL, "The node is shutting down.");
        return 0;
    }
    /* Early, before the rest of the body is taken. */
    target = target_resolve(dispatch, call->name, call->qualifier);
    if (target == NULL || !target_is_at(target, call->region, call->account)) {
        refuse_not_found(exchange, call->name, call->qualifier);
        return 0;
    }
    if ((call->flags & WIRE_CALL_EVENT) && !call->open_ended && call->total > EVENT_PAYLOAD_MAX) {
        events_refuse_size(exchange, call->total);
        return 0;
    }
    if ((call->flags & WIRE_CALL_EVENT) == 0 && is_long(call) && budget_is_pressed(&dispatch->budget) &&
        is_throttled(exchange, target))
        return 0;
    exchange->stream = (call->flags & WIRE_CALL_STREAM) != 0 && exchange->caller->begin != NULL;
    told = *call;
    told.share = target_share(target);
    r = request_new(&exchange->request, &dispatch->budget, &told);
    if (r < 0) {
        if (r == -EMSGSIZE)
            refuse_too_large(exchange, call->total);
        else
            refuse_memory(exchange);
        return 0;
    }
    return 1;
}

int exchange_begin(struct exchange *exchange, struct wire_slice content_type) {
    const struct invocation *invocation = exchange->invocation;
    const struct answer head = {
        .status = 200,
        .id = invocation->id,
        .version = invocation->target->version,
        .content_type = content_type,
    };
    exchange->begun = true;
    return exchange->caller->begin(exchange, &head);
}

int exchange_chunk(struct exchange *exchange, struct wire_slice data) {
    return exchange->caller->chunk(exchange, data);
}

void exchange_more(struct exchange *exchange) {
    if (exchange->invocation != NULL)
        stream_resume(exchange->invocation);
}

int exchange_append(struct exchange *exchange, struct wire_slice data) {
    /* Without a request it is complete already: more than was announced. */
    return exchange->request != NULL ? request_append(exchange->request, data) : -EBADMSG;
}

bool exchange_complete(const struct exchange *exchange) {
    return exchange->request == NULL ||
        (!exchange->request->open_ended && exchange->request->received == exchange->request->total);
}

void exchange_refuse_body(struct exchange *exchange, int error) {
    if (error == -EMSGSIZE)
        refuse_too_large(exchange, exchange->request->received);
    else
        refuse_memory(exchange);
}

/* Takes the invocation's mind off this exchange. What waits has nobody to wait for. */
static void detach(struct exchange *exchange) {
    struct invocation *invocation = exchange->invocation;
    struct target *target;

    if (exchange->accept != NULL)
        events_forget(exchange->accept);
    exchange->accept = NULL;
    if (invocation == NULL)
        return;
    exchange->invocation = NULL;
    invocation->exchange = NULL;
    if (!invocation->is_waiting) {
        stream_resume(invocation); /* to its end, into nothing */
        return;
    }
    target = invocation->target;
    invocation_free(invocation);
    schedule_target(target);
    target_settle(target);
}

void exchange_cancel(struct exchange *exchange) {
    count_one(&exchange->dispatch->counters.node->cancelled);
    detach(exchange);
    exchange_refuse(exchange, 499, "RequestCancelled", NULL, "The caller cancelled the call.");
}

void exchange_abandon(struct exchange *exchange) {
    struct counters_node *node = exchange->dispatch->counters.node;
    count_less(&node->calls_open, 1);
    count_one(&node->abandoned);
    detach(exchange);
    request_free(exchange->request);
    free(exchange);
}
