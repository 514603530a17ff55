/* Lambda's rules for asynchronous events; see the header. */
#include "queue/policy.h"

#include "base/cleanup.h"

static struct decision ended(const struct policy *p, enum condition condition, uint8_t attempts) {
    bool deliver = condition == CONDITION_SUCCESS ? p->deliver_success : p->deliver_failure;
    return (struct decision){
        .verdict = deliver ? VERDICT_DELIVER : VERDICT_SETTLE, .condition = condition, .attempts = attempts};
}

/* A clock that was set back makes no event older. */
static uint64_t age(uint64_t accepted_ms, uint64_t now_ms) {
    return now_ms > accepted_ms ? now_ms - accepted_ms : 0;
}

struct decision policy_before(const struct policy *p, uint8_t attempts, uint64_t accepted_ms, uint64_t now_ms) {
    if (p->refused)
        return ended(p, CONDITION_RETRIES_EXHAUSTED, attempts);
    if (age(accepted_ms, now_ms) > p->max_age_ms)
        return ended(p, CONDITION_EVENT_AGE_EXCEEDED, attempts);
    return (struct decision){.verdict = VERDICT_INVOKE, .attempts = attempts};
}

struct decision policy_after(const struct policy *p, enum outcome outcome, uint8_t attempts, uint64_t accepted_ms,
    uint64_t now_ms, uint32_t gates, uint32_t random) {
    if (outcome == OUTCOME_SUCCESS)
        return ended(p, CONDITION_SUCCESS, attempts + 1);
    if (outcome == OUTCOME_THROTTLED) {
        uint64_t full = MIN((uint64_t)GATE_MIN_MS << MIN(gates, 20u), (uint64_t)GATE_MAX_MS);
        uint64_t wait = full / 2 + random % (full / 2 + 1); /* from half of it to all */
        return (struct decision){.verdict = VERDICT_GATE, .attempts = attempts, .due_ms = now_ms + wait};
    }
    if (attempts >= MIN(p->retries, RETRIES_MAX))
        return ended(p, CONDITION_RETRIES_EXHAUSTED, attempts + 1);
    uint64_t delay = p->base_delay_ms * (attempts + 1u);
    if (age(accepted_ms, now_ms + delay) > p->max_age_ms)
        return ended(p, CONDITION_EVENT_AGE_EXCEEDED, attempts + 1);
    return (struct decision){.verdict = VERDICT_RETRY, .attempts = attempts + 1, .due_ms = now_ms + delay};
}
