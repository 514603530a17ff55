/* An attempt at an event, as its loop sees it: an invocation that nobody waits for. See events.h.
 *
 * Callers who wait come first: an event joins a target only where an environment is idle or nothing waits, and leaves a
 * part of the account's concurrency to them. Where it may not join it goes back to its queue, which then tries less. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/exchange.h"
#include "dispatch/invocation.h"
#include "dispatch/schedule.h"
#include "event_parts.h"

#define TRACE_SIZE (WIRE_CALL_TRACE_MAX + 1)

static void end(struct attempt *attempt, enum attempt_result result) {
    free(attempt->bytes);
    attempt->bytes = NULL;
    attempt->result = result;
    events_post(attempt->dispatch->loops->events, &attempt->note, events_finish);
}

static bool may_join(struct dispatch *dispatch, const struct target *target) {
    if (dispatch_in_use(dispatch->loops) >= EVENTS_CONCURRENCY(dispatch->loops->account.limit))
        return false;
    return schedule_idle(target) != NULL || target->n_waiting == 0;
}

static int make_request(
    struct dispatch *dispatch, const struct attempt *attempt, const struct target *target, struct request **ret) {
    char trace[TRACE_SIZE];
    struct call call = {
        .name = attempt->head.name,
        .qualifier = attempt->head.qualifier,
        .tenant = attempt->head.tenant,
        .total = attempt->payload.size,
        .body = attempt->payload,
        .share = target_share(target),
    };
    uint32_t size =
        event_trace(attempt->head.trace, attempt->uid, (uint8_t)MIN(attempt->depth + 1u, 255u), trace, sizeof(trace));
    call.trace = (struct wire_slice){(const uint8_t *)trace, size};
    return request_new(ret, &dispatch->budget, &call);
}

void attempt_begin(struct dispatch *dispatch, struct mail *mail) {
    struct attempt *attempt = list_entry(mail, struct attempt, note.mail);
    struct invocation *invocation;
    struct request *request;
    struct target *target;
    enum admission admission;
    uint32_t tokens;

    if (dispatch->draining) {
        end(attempt, ATTEMPT_BACK);
        return;
    }
    target = target_resolve(dispatch, attempt->head.name, attempt->head.qualifier);
    if (target == NULL || memcmp(target->function->uid, attempt->uid, 16) != 0) {
        end(attempt, ATTEMPT_GONE);
        return;
    }
    if (target->function->common->concurrency.reserved == 0) {
        end(attempt, ATTEMPT_REFUSED);
        return;
    }
    if (!may_join(dispatch, target)) {
        end(attempt, ATTEMPT_BUSY);
        return;
    }
    admission = dispatch_admit(dispatch, target, &tokens);
    if (admission != ADMISSION_GRANTED) {
        end(attempt, ATTEMPT_BUSY);
        return;
    }
    invocation =
        make_request(dispatch, attempt, target, &request) < 0 ? NULL : invocation_new(target, request, NULL, tokens);
    if (invocation == NULL) {
        dispatch_give_back(dispatch, target, tokens);
        end(attempt, ATTEMPT_BUSY);
        return;
    }
    free(attempt->bytes);
    attempt->bytes = NULL;
    invocation->attempt = attempt;
    memcpy(invocation->id, attempt->id, sizeof(invocation->id));
    count_one(&target->slot->calls);
    levels_account(dispatch);
    schedule_invocation(invocation);
}

void events_attempted(struct invocation *invocation, const struct answer *answer) {
    struct attempt *attempt = invocation->attempt;
    invocation->attempt = NULL;
    end(attempt,
        answer == NULL                                ? ATTEMPT_BACK
            : answer->outcome == WIRE_OUTCOME_SUCCESS ? ATTEMPT_SUCCESS
            : answer->outcome == WIRE_OUTCOME_REFUSED ? ATTEMPT_TROUBLE
                                                      : ATTEMPT_ERROR);
}
