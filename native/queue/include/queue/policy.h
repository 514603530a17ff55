/* What becomes of an event after an attempt. Pure; Lambda's rules, with the numbers free. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct policy {
    uint32_t retries;                      /* after the first attempt; Lambda: 0 to 2; at most 30 */
    uint64_t base_delay_ms;                /* before the first retry; before the n-th n times that. Lambda: a minute */
    uint64_t max_age_ms;                   /* from the accept on; Lambda: 60 s to 6 h */
    bool deliver_success, deliver_failure; /* there is a destination, or a dead-letter queue */
    bool refused;                          /* reserved concurrency 0: no attempt is made */
};

#define RETRIES_MAX 30u
#define GATE_MIN_MS 1000u
#define GATE_MAX_MS 300000u

enum outcome { OUTCOME_SUCCESS, OUTCOME_ERROR, OUTCOME_THROTTLED };
enum verdict { VERDICT_INVOKE, VERDICT_SETTLE, VERDICT_DELIVER, VERDICT_RETRY, VERDICT_GATE };
/* The destination record's condition. */
enum condition { CONDITION_SUCCESS, CONDITION_RETRIES_EXHAUSTED, CONDITION_EVENT_AGE_EXCEEDED };

struct decision {
    enum verdict verdict;
    enum condition condition; /* of SETTLE and DELIVER */
    uint8_t attempts;         /* of RETRY, and made in all otherwise */
    uint64_t due_ms;          /* of RETRY; of GATE: the queue's gate opens */
};

/* Before an attempt: INVOKE, or the failure path at once. */
struct decision policy_before(const struct policy *policy, uint8_t attempts, uint64_t accepted_ms, uint64_t now_ms);
/* After it. `gates`: how often in a row the queue was throttled before; `random`: any 32 bits, for jitter. Throttles and
 * trouble of the node consume no attempt. */
struct decision policy_after(const struct policy *policy, enum outcome outcome, uint8_t attempts, uint64_t accepted_ms,
    uint64_t now_ms, uint32_t gates, uint32_t random);
