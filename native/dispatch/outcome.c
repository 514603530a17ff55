/* Whom the end of an environment concerns, and what it is told: the ANSWER commands of the state table, except for
 * results. Runs in the loop. */
#include "dispatch/outcome.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/failure.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"
#include "dispatch/schedule.h"

/* What an environment says when a hook after its restoring raises (bootstrap/snapshots.py). */
#define AFTER_RESTORE_ERROR "Runtime.AfterRestoreError"

static void note(struct environment *environment, const char *text) {
    if (environment->reason[0] == '\0')
        memccpy(environment->reason, text, '\0', sizeof(environment->reason) - 1);
}

/* Whom an end concerns: who is bound; during init, whom it was reserved for, or else the head of the queue. */
static struct invocation *victim_of(struct environment *environment) {
    struct invocation *invocation = environment->invocations[0];
    if (invocation != NULL)
        return invocation;
    invocation = environment->reserved_for;
    environment->reserved_for = NULL;
    return invocation != NULL ? invocation : schedule_pop(environment->target);
}

/* A victim that was never bound is over with its answer. */
static void dismiss(struct environment *environment, struct invocation *victim) {
    if (victim != environment->invocations[0])
        invocation_free(victim);
}

static void fail(struct environment *environment, const struct failure *failure, uint8_t log_status) {
    struct wire_slice body = {(const uint8_t *)failure->body, (uint32_t)failure->size};
    struct invocation *victim = victim_of(environment);
    if (victim != NULL) {
        invocation_answer_failure(victim, environment, failure->type, body, log_status);
        dismiss(environment, victim);
    }
}

static void refuse(struct environment *environment, const char *message) {
    struct invocation *victim = victim_of(environment);
    if (victim != NULL) {
        invocation_refuse(victim, 500, "ServiceException", NULL, message);
        dismiss(environment, victim);
    }
}

/* Its invocation stays in the queue, or goes back to it; the target waits a little. */
static void try_again(struct environment *environment, const char *why) {
    struct target *target = environment->target;
    struct invocation *reserved = environment->reserved_for;

    environment->reserved_for = NULL;
    if (reserved != NULL)
        schedule_push_back(reserved);
    target->backoff_ms = MAX(SCHEDULE_BACKOFF_MIN_MS, MIN(target->backoff_ms * 2, SCHEDULE_BACKOFF_MAX_MS));
    target->retry_us = environment->dispatch->loop.now_us + (uint64_t)target->backoff_ms * 1000;
    note(environment, why);
}

/* The id that goes into the text, before the victim is unqueued. */
static const uint8_t *victim_id(struct environment *environment) {
    static const uint8_t none[16];
    const struct invocation *invocation = environment->invocations[0];
    if (invocation == NULL)
        invocation = environment->reserved_for;
    if (invocation == NULL && !list_empty(&environment->target->waiting))
        invocation = list_entry(environment->target->waiting.next, struct invocation, waiting);
    return invocation != NULL ? invocation->id : none;
}

static void init_failed(struct environment *environment, const char *type) {
    struct log_report report = {.duration_us = environment->dispatch->loop.now_us - environment->started_us,
        .memory_mb = environment->target->memory_mb,
        .status = LOG_STATUS_FAILURE,
        .init_type = environment->init_type,
        .error_type = type,
        .error_type_size = (uint16_t)strlen(type)};
    count_one(&environment->dispatch->counters.node->init_errors);
    count_one(&environment->target->slot->init_errors);
    environment_sample(environment);
    report.peak_mb = (uint32_t)((environment->peak_kb + 1023) / 1024);
    logs_drain(environment);
    logs_init_report(environment, &report);
}

void outcome_init_error(struct environment *environment, const struct environment_detail *detail) {
    char type[WIRE_INIT_ERROR_ERROR_TYPE_MAX + 1];
    struct invocation *victim;

    snprintf(type, sizeof(type), "%.*s", (int)detail->error_type.size, (const char *)detail->error_type.data);
    init_failed(environment, type);
    note(environment, type);
    victim = victim_of(environment);
    if (victim == NULL)
        return;
    /* As Lambda answers; of an event it is an attempt that failed. */
    if (strcmp(type, AFTER_RESTORE_ERROR) == 0 && victim->exchange != NULL) {
        logs_drain(environment);
        invocation_refuse(victim, 400, "SnapStartException", NULL,
            "A hook that runs after restoring raised an error, which the function's log shows.");
    } else {
        invocation_answer_failure(victim, environment, type, detail->body, LOG_STATUS_INIT_ERROR);
    }
    dismiss(environment, victim);
}

/* ---- restoring ------------------------------------------------------------------------------------------------- */

static void report_restore(struct environment *environment, uint8_t status, uint64_t duration_us) {
    const struct log_report report = {.duration_us = duration_us,
        .memory_mb = environment->target->memory_mb,
        .status = status,
        .init_type = environment->init_type};
    logs_init_report(environment, &report);
}

void outcome_restored(struct environment *environment) {
    report_restore(environment, LOG_STATUS_SUCCESS, environment->init_us);
}

void outcome_restore_timeout(struct environment *environment) {
    struct invocation *victim;
    struct failure failure;

    report_restore(environment, LOG_STATUS_TIMEOUT, environment->dispatch->loop.now_us - environment->started_us);
    failure_timed_out(&failure, victim_id(environment), OUTCOME_RESTORE_US / 1000);
    note(environment, "restoring it took too long");
    victim = victim_of(environment);
    if (victim == NULL)
        return;
    if (victim->exchange != NULL)
        invocation_refuse(victim, 408, "SnapStartTimeoutException", NULL,
            "Restoring the snapshot and the hooks that run then took too long.");
    else
        invocation_answer_failure(victim, environment, failure.type,
            (struct wire_slice){(const uint8_t *)failure.body, (uint32_t)failure.size}, LOG_STATUS_TIMEOUT);
    dismiss(environment, victim);
}

uint64_t outcome_init_limit_us(const struct environment *environment) {
    const uint64_t limit_us = (uint64_t)environment->target->init_timeout_ms * 1000;
    return environment->init_type == WIRE_INIT_TYPE_SNAP_START ? MIN(limit_us, OUTCOME_RESTORE_US) : limit_us;
}

/* ---- other ends ------------------------------------------------------------------------------------------------ */

/* The launcher's words (launcher/exits.c) are "zygote": it died before it told of the process; "shell": the one it was to
 * be forked into died. */
static bool is_step(const struct environment_detail *detail, const char *step) {
    return detail->step.size == strlen(step) && memcmp(detail->step.data, step, detail->step.size) == 0;
}

void outcome_exit(struct environment *environment, const struct environment_detail *detail) {
    struct dispatch *dispatch = environment->dispatch;
    bool initializing = environment->invocations[0] == NULL;
    struct failure failure;
    char text[256];

    count_one(&dispatch->counters.node->exits);
    count_one(&environment->target->slot->exits);
    if (initializing && is_step(detail, "zygote")) {
        try_again(environment, "its zygote died");
        return;
    }
    if (initializing && is_step(detail, "shell")) {
        try_again(environment, "its shell died");
        return;
    }
    if (detail->step.size > 0 && !is_step(detail, "zygote")) {
        /* The jail was not finished: no code of the function has run, the fault is the node's. */
        snprintf(text, sizeof(text), "Sandbox.Failure: %.*s: %s", (int)detail->step.size,
            (const char *)detail->step.data, strerror((int)detail->errno_value));
        note(environment, text);
        refuse(environment, text);
        return;
    }
    if (detail->out_of_memory)
        count_one(&dispatch->counters.node->out_of_memory);
    if (detail->what != NULL)
        failure_sandbox(&failure, victim_id(environment), detail->what);
    else
        failure_exited(&failure, victim_id(environment), detail->status, detail->out_of_memory);
    note(environment, failure.type);
    if (initializing)
        init_failed(environment, failure.type);
    fail(environment, &failure, LOG_STATUS_FAILURE);
}

void outcome_unread(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    struct invocation *invocation = environment->invocations[0];

    note(environment, "it ended before it read an event");
    invocation_return(invocation, environment);
    environment->invocations[0] = NULL;
    environment->in_flight--;
    environment->ready = environment->participants;
    dispatch->in_flight--;
    count_less(&dispatch->counters.node->invocations_in_flight, 1);
    schedule_again(invocation);
}

void outcome_timeout(struct environment *environment) {
    struct failure failure;
    count_one(&environment->dispatch->counters.node->timeouts);
    count_one(&environment->target->slot->timeouts);
    failure_timed_out(&failure, victim_id(environment), environment->target->timeout_ms);
    note(environment, failure.type);
    fail(environment, &failure, LOG_STATUS_TIMEOUT);
}

void outcome_violation(struct environment *environment, const struct environment_detail *detail) {
    struct failure failure;
    char text[192];
    snprintf(text, sizeof(text), "The environment broke the channel's protocol: %s", detail->what);
    failure_sandbox(&failure, victim_id(environment), text);
    note(environment, text);
    if (environment->invocations[0] == NULL)
        init_failed(environment, failure.type);
    fail(environment, &failure, LOG_STATUS_FAILURE);
}

void outcome_launch(struct environment *environment, const struct environment_detail *detail) {
    char text[384];

    count_one(&environment->dispatch->counters.node->launch_failures);
    if (detail->retryable) {
        try_again(environment, "the launcher has no room");
        return;
    }
    snprintf(text, sizeof(text), "Sandbox.Failure: %.*s: %s", (int)detail->step.size, (const char *)detail->step.data,
        detail->what != NULL && detail->what[0] != '\0' ? detail->what : strerror((int)detail->errno_value));
    note(environment, text);
    refuse(environment, text);
}
