/* Invocations and their answers; see the header. Runs in the loop. */
#include "dispatch/invocation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/events.h"
#include "dispatch/exchange.h"
#include "dispatch/failure.h"
#include "dispatch/perform.h"
#include "dispatch/schedule.h"
#include "dispatch/stream.h"

/* The p50 that the start rule uses is read from the target's histogram at first often, then now and then. */
#define P50_EVERY 64u

struct invocation *invocation_new(
    struct target *target, struct request *request, struct exchange *exchange, uint32_t tokens) {
    struct invocation *invocation = calloc(1, sizeof(*invocation));
    if (invocation == NULL)
        return NULL;
    if (request->flags & WIRE_CALL_LOG_TAIL) {
        invocation->tail = malloc(sizeof(*invocation->tail));
        if (invocation->tail == NULL) {
            free(invocation);
            return NULL;
        }
        invocation->tail->written = 0;
    }
    random_uuid(&target->dispatch->randomness, invocation->id);
    invocation->target = target;
    invocation->request = request;
    invocation->exchange = exchange;
    invocation->tokens = tokens;
    invocation->arrived_us = exchange != NULL ? exchange->complete_us : clock_monotonic_us();
    list_init(&invocation->waiting);
    target->in_flight++;
    ahead_rise(target);
    if (exchange == NULL)
        return invocation;
    exchange->invocation = invocation;
    invocation->load = exchange->caller->load;
    if (invocation->load != NULL)
        invocation->load->running++;
    exchange->request = NULL;
    return invocation;
}

void invocation_drop_result(struct invocation *invocation) {
    free(invocation->result);
    budget_give_back(&invocation->target->dispatch->budget, invocation->result_charge);
    invocation->result = NULL;
    invocation->result_charge = invocation->result_size = 0;
}

void invocation_give_back(struct invocation *invocation) {
    struct dispatch *dispatch = invocation->target->dispatch;
    dispatch_give_back(dispatch, invocation->target, invocation->tokens);
    invocation->tokens = 0;
    levels_account(dispatch);
}

void invocation_free(struct invocation *invocation) {
    struct target *target = invocation->target;

    if (invocation->attempt != NULL)
        events_attempted(invocation, NULL);
    schedule_unqueue(invocation);
    invocation_give_back(invocation);
    target->in_flight--;
    ahead_fall(target);
    levels_target(target);
    invocation_drop_result(invocation);
    stream_free(invocation);
    request_free(invocation->request);
    caller_load_leave(invocation->load);
    free(invocation->tail);
    free(invocation);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

struct ending {
    uint8_t status; /* enum log_status */
    const char *error_type;
    uint64_t ended_us;
};

static uint64_t duration_of(const struct invocation *invocation, uint64_t ended_us) {
    return invocation->sent_us != 0 && ended_us > invocation->sent_us ? ended_us - invocation->sent_us : 0;
}

static void report(struct invocation *invocation, struct environment *environment, const struct ending *ending) {
    const struct target *target = environment->target;
    struct log_report report = {
        .duration_us = duration_of(invocation, ending->ended_us),
        .init_us = invocation->init_us,
        .memory_mb = target->memory_mb,
        .status = ending->status,
        .init_type = environment->init_type,
        .error_type = ending->error_type,
        .error_type_size = ending->error_type != NULL ? (uint16_t)strlen(ending->error_type) : 0,
    };
    environment_sample(environment);
    report.peak_mb = (uint32_t)((environment->peak_kb + 1023) / 1024);
    report.billed_ms = (report.duration_us + report.init_us + 999) / 1000;
    count_add(&target->slot->billed_ms, report.billed_ms);
    if (!invocation->logged_start)
        logs_start(environment, invocation);
    invocation->logged_start = true;
    logs_report(environment, invocation, &report);
}

/* Hands the answer to the exchange; after it nobody waits. */
static void deliver(struct invocation *invocation, struct answer *answer, uint64_t ended_us) {
    struct dispatch *dispatch = invocation->target->dispatch;
    struct exchange *exchange = invocation->exchange;
    uint64_t total, inside = duration_of(invocation, ended_us) + invocation->init_us + invocation->waited_us;
    char tail[LOG_TAIL_MAX];

    if (invocation->attempt != NULL)
        events_attempted(invocation, answer);
    if (exchange == NULL) {
        free(answer->owned);
        budget_give_back(&dispatch->budget, answer->charged);
        return;
    }
    invocation->exchange = NULL;
    exchange->invocation = NULL;
    answer->id = invocation->id;
    answer->version = invocation->target->version;
    answer->duration_us = duration_of(invocation, ended_us);
    answer->init_us = invocation->init_us;
    if (invocation->tail != NULL)
        answer->log_tail = (struct wire_slice){(uint8_t *)tail, (uint32_t)log_tail_copy(invocation->tail, tail)};
    exchange_answer(exchange, answer);
    stream_resume(invocation);
    total = clock_monotonic_us() - invocation->arrived_us;
    histogram_add(&dispatch->counters.histograms->call_us, total);
    histogram_add(&dispatch->counters.histograms->overhead_us, total > inside ? total - inside : 0);
}

static void learn_p50(struct target *target) {
    uint32_t age = ++target->p50_age;
    if (age < 8 || age % P50_EVERY == 0)
        target->p50_us = MAX(histogram_quantile(&target->slot->duration_us, 500), 1u);
}

static void count_result(struct invocation *invocation, uint64_t duration_us, bool failed, uint64_t size) {
    struct target *target = invocation->target;
    count_one(failed ? &target->slot->function_errors : &target->slot->success);
    count_add(&target->slot->response_bytes, size);
    histogram_add(&target->slot->duration_us, duration_us);
    histogram_add(&target->dispatch->counters.histograms->duration_us, duration_us);
    learn_p50(target);
}

void invocation_answer_result(struct invocation *invocation, const struct environment_detail *detail) {
    struct environment *environment = invocation->environment;
    uint64_t now = clock_monotonic_us();
    struct failure too_large;
    char type[WIRE_RESULT_ERROR_TYPE_MAX + 1] = "";
    struct ending ending = {.status = detail->error ? LOG_STATUS_ERROR : LOG_STATUS_SUCCESS, .ended_us = now};
    struct answer answer = {
        .status = 200,
        .outcome = detail->error ? WIRE_OUTCOME_FUNCTION_ERROR : WIRE_OUTCOME_SUCCESS,
        .body = detail->body,
    };

    if (detail->error)
        snprintf(type, sizeof(type), "%.*s", (int)detail->error_type.size, (const char *)detail->error_type.data);
    if (invocation->result_discarded && !invocation->result_refused) {
        failure_response_too_large(&too_large);
        count_one(&invocation->target->dispatch->counters.node->responses_too_large);
        snprintf(type, sizeof(type), "%s", too_large.type);
        ending.status = LOG_STATUS_ERROR;
        answer.outcome = WIRE_OUTCOME_FUNCTION_ERROR;
        answer.body = (struct wire_slice){(const uint8_t *)too_large.body, (uint32_t)too_large.size};
    } else if (invocation->stream != NULL && invocation->stream->too_large) {
        /* The caller knows it already. */
        snprintf(type, sizeof(type), "%s", FAILURE_TOO_LARGE);
        ending.status = LOG_STATUS_ERROR;
        answer.outcome = WIRE_OUTCOME_FUNCTION_ERROR;
    } else if (invocation->result != NULL) {
        answer.owned = steal_pointer(invocation->result);
        answer.charged = invocation->result_charge;
        invocation->result_charge = 0;
    }
    ending.error_type = answer.error_type = type[0] != '\0' ? type : NULL;
    count_result(invocation, duration_of(invocation, now), answer.outcome != WIRE_OUTCOME_SUCCESS,
        invocation->stream != NULL ? invocation->stream->bytes : answer.body.size);
    /* The caller first, unless it wants the log as well. */
    if (invocation->tail == NULL)
        deliver(invocation, &answer, now);
    logs_drain(environment);
    report(invocation, environment, &ending);
    if (invocation->tail != NULL)
        deliver(invocation, &answer, now);
}

void invocation_answer_failure(struct invocation *invocation, struct environment *environment, const char *type,
    struct wire_slice body, uint8_t log_status) {
    uint64_t now = clock_monotonic_us();
    struct ending ending = {.status = log_status, .error_type = type, .ended_us = now};
    struct answer answer = {.status = 200, .outcome = WIRE_OUTCOME_FUNCTION_ERROR, .body = body, .error_type = type};

    count_one(&invocation->target->slot->failures);
    logs_drain(environment);
    logs_hand_over(environment, invocation);
    if (invocation->environment == NULL && environment->started_us != 0)
        invocation->init_us = MAX(now - environment->started_us, 1u);
    report(invocation, environment, &ending);
    deliver(invocation, &answer, now);
}

void invocation_return(struct invocation *invocation, struct environment *environment) {
    const struct ending ending = {
        .status = LOG_STATUS_FAILURE, .error_type = "Runtime.ExitError", .ended_us = invocation->sent_us};

    invocation->init_us = 0;
    report(invocation, environment, &ending);
    if (invocation->tail != NULL)
        invocation->tail->written = 0;
    invocation->logged_start = false;
    invocation->environment = NULL;
    invocation->sent_us = 0;
    invocation->returned++;
}

void invocation_tell_too_large(struct invocation *invocation) {
    struct dispatch *dispatch = invocation->target->dispatch;
    struct failure failure;
    struct answer answer = {.status = 200, .outcome = WIRE_OUTCOME_FUNCTION_ERROR, .error_type = FAILURE_TOO_LARGE};

    failure_stream_too_large(&failure, dispatch->loops->stream_limits.bytes);
    answer.body = (struct wire_slice){(const uint8_t *)failure.body, (uint32_t)failure.size};
    count_one(&dispatch->counters.node->responses_too_large);
    deliver(invocation, &answer, clock_monotonic_us());
}

void invocation_refuse(
    struct invocation *invocation, uint16_t status, const char *code, const char *reason, const char *message) {
    struct answer answer = {
        .status = status, .outcome = WIRE_OUTCOME_REFUSED, .code = code, .reason = reason, .message = message};
    deliver(invocation, &answer, clock_monotonic_us());
}

/* arn:partition:lambda:region:account:function:name, and :qualifier when the caller named one. */
void invocation_arn(const struct invocation *invocation, char *ret_arn, size_t size) {
    const char *arn = invocation->target->arn, *at = arn;
    struct wire_slice qualifier = invocation->request->qualifier;
    size_t length;

    for (unsigned colons = 0; *at != '\0'; at++)
        if (*at == ':' && ++colons == 7)
            break;
    length = MIN((size_t)(at - arn), size - 1);
    memcpy(ret_arn, arn, length);
    if (qualifier.size > 0 && length + 1 < size) {
        ret_arn[length++] = ':';
        qualifier.size = MIN(qualifier.size, (uint32_t)(size - 1 - length));
        memcpy(ret_arn + length, qualifier.data, qualifier.size);
        length += qualifier.size;
    }
    ret_arn[length] = '\0';
}
