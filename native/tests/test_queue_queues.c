/* The queues over a log in memory: Lambda's retries, throttles, ages, destinations, fairness, names given once, restarts. */
#include "queue_stage.h"

static void test_retries(void) {
    struct taken taken;
    struct decision d;
    uint32_t id;
    begin(0);
    uint64_t accepted_ms = now;
    CHECK(accept_one(1, 7, 100, 0) == 0);
    CHECK(!take(&taken, &id, &d)); /* not on the disk yet */
    turn();
    CHECK(n_accepted == 1 && take(&taken, &id, &d) && id == 7 && d.verdict == VERDICT_INVOKE);
    CHECK(!take(&taken, &id, &d));
    finish(&taken, OUTCOME_ERROR, accepted_ms, &d);
    CHECK(d.verdict == VERDICT_RETRY);
    turn();
    now += 59999;
    turn();
    CHECK(!take(&taken, &id, &d));
    restart(); /* the retry is on the disk */
    turn();
    CHECK(!take(&taken, &id, &d) && report.waiting == 1);
    CHECK(queues_next(&queues) <= now + 1);
    now += 1;
    turn();
    CHECK(take(&taken, &id, &d) && taken.attempts == 1);
    finish(&taken, OUTCOME_ERROR, accepted_ms, &d);
    CHECK(d.verdict == VERDICT_RETRY && d.due_ms == now + 120000);
    now += 120000;
    turn();
    CHECK(take(&taken, &id, &d) && taken.attempts == 2);
    finish(&taken, OUTCOME_ERROR, accepted_ms, &d);
    CHECK(d.verdict == VERDICT_SETTLE && d.attempts == 3);
    turn();
    restart();
    CHECK(report.waiting == 0 && queues.log.live == 0);
    end();
}

static void test_far_retry_and_destination(void) {
    struct taken taken;
    struct decision d;
    uint32_t id;
    struct policy policy = {.retries = 5, .base_delay_ms = 3600000, .max_age_ms = 864000000, .deliver_success = true};
    begin(0);
    accept_one(1, 7, 300, 0);
    turn();
    for (int round = 0; round < 2; round++) {
        uint8_t uid[16] = {1};
        queue_configure(&queues, queues_find(&queues, uid), &policy, 10);
        CHECK(take(&taken, &id, &d) && taken.attempts == round);
        finish(&taken, OUTCOME_ERROR, now, &d);
        turn();
        CHECK(queues.log.live == 1 && queues.wheel.n <= 1); /* the run's, no event's */
        now += 3600000u * (unsigned)(round + 1) - 1;
        restart();
        turn();
        CHECK(!take(&taken, &id, &d));
        now += 1;
        turn();
    }
    uint8_t uid[16] = {1};
    queue_configure(&queues, queues_find(&queues, uid), &policy, 10);
    CHECK(take(&taken, &id, &d) && taken.attempts == 2 && id == 7);
    finish(&taken, OUTCOME_SUCCESS, now, &d);
    CHECK(d.verdict == VERDICT_DELIVER);
    turn();
    restart(); /* between the outcome and its delivery */
    turn();
    CHECK(take(&taken, &id, &d) && taken.phase == PHASE_SUCCEEDED && taken.attempts == 3);
    CHECK(queues_put_back(&queues, &taken) == 0 && take(&taken, &id, &d));
    CHECK(queues_delivered(&queues, &taken) == 0);
    turn();
    restart();
    CHECK(report.waiting == 0);
    end();
}

/* Of an hour, whether the clock is set back by a year while it waits, or while nobody looks. */
static void test_far_retry_and_a_clock_set_back(bool looks) {
    const uint64_t year = 365ull * 86400 * 1000;
    struct policy policy = {.retries = 5, .base_delay_ms = 3600000, .max_age_ms = 10 * year};
    struct taken taken;
    struct decision d;
    uint8_t uid[16] = {1};
    uint32_t id;
    begin(0);
    accept_one(1, 7, 300, 0);
    turn();
    queue_configure(&queues, queues_find(&queues, uid), &policy, 10);
    CHECK(take(&taken, &id, &d));
    finish(&taken, OUTCOME_ERROR, now, &d);
    turn();
    now -= year;
    if (looks)
        turn();
    restart();
    turn();
    CHECK(!take(&taken, &id, &d) && queues_next(&queues) <= now + 3600000);
    accept_one(1, 8, 10, 0); /* what comes after it is not moved by it */
    turn();
    CHECK(take(&taken, &id, &d) && id == 8);
    queue_configure(&queues, queues_find(&queues, uid), &policy, 10);
    finish(&taken, OUTCOME_ERROR, now, &d);
    turn();
    now += 3599000;
    turn();
    CHECK(!take(&taken, &id, &d));
    now += 1000;
    turn();
    CHECK(take(&taken, &id, &d) && taken.attempts == 1 && take(&taken, &id, &d) && taken.attempts == 1);
    CHECK(!take(&taken, &id, &d));
    end();
}

static void test_throttle_pause_cap_age(void) {
    struct taken taken, second;
    struct decision d;
    uint32_t id;
    uint8_t uid[16] = {1};
    begin(0);
    for (uint32_t i = 0; i < 10; i++)
        accept_one(1, i, 10, 0);
    turn();
    struct queue *queue = queues_find(&queues, uid);
    queue_configure(&queues, queue, &queue->policy, 2);
    CHECK(queue->depth == 10 && take(&taken, &id, &d) && take(&second, &id, &d));
    struct taken none;
    CHECK(!take(&none, &id, &d)); /* the cap */
    uint64_t records = queues.log.batches;
    finish(&taken, OUTCOME_THROTTLED, now, &d);
    finish(&second, OUTCOME_THROTTLED, now, &d);
    CHECK(!take(&none, &id, &d) && queues.log.batches == records && queue->in_flight == 0); /* no record */
    now += 1000;
    turn();
    CHECK(take(&taken, &id, &d) && taken.attempts == 0);
    finish(&taken, OUTCOME_SUCCESS, now, NULL);
    queue_pause(&queues, queue, true);
    CHECK(!take(&taken, &id, &d));
    queue_pause(&queues, queue, false);
    now += 21600001;
    turn();
    CHECK(take(&taken, &id, &d) && d.verdict == VERDICT_SETTLE && d.condition == CONDITION_EVENT_AGE_EXCEEDED);
    CHECK(queues_apply(&queues, &taken, &d) == 0);
    CHECK(queue->depth == 8 && queue->in_flight == 0);
    end();
}

static void test_fairness(void) {
    struct taken taken;
    struct decision d;
    uint32_t id, seen[201] = {0};
    begin(0);
    for (uint32_t i = 0; i < 3000; i++) /* one floods, two hundred have five each */
        accept_one(i < 2000 ? 0 : 1 + i % 200, i < 2000 ? 0 : 1 + i % 200, 50, 0);
    turn();
    for (int i = 0; i < 201 * 20; i++) {
        if (!take(&taken, &id, &d))
            break;
        seen[id]++;
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
        if (i == 1500) /* by then all of the small ones had their turn */
            for (int q = 1; q <= 200; q++)
                CHECK(seen[q] == 5);
    }
    CHECK(seen[0] == 2000);
    turn();
    CHECK(queues.log.live == 0);
    end();
}

static void test_names(void) {
    begin(0);
    CHECK(accept_one(1, 7, 10, 99) == 0);
    CHECK(accept_one(1, 7, 10, 99) == -EINPROGRESS);
    turn();
    CHECK(accept_one(1, 7, 10, 99) == -EALREADY && accept_one(1, 8, 10, 99) == -EEXIST);
    struct taken taken;
    struct decision d;
    uint32_t id;
    CHECK(take(&taken, &id, &d));
    finish(&taken, OUTCOME_SUCCESS, now, NULL);
    turn();
    restart(); /* handled, and its name is known still */
    CHECK(accept_one(1, 7, 10, 99) == -EALREADY);
    now += 301000;
    CHECK(accept_one(1, 7, 10, 99) == 0);
    turn();
    CHECK(queues.log.live == 1);
    end();
}

int main(void) {
    test_retries();
    test_far_retry_and_destination();
    test_far_retry_and_a_clock_set_back(true);
    test_far_retry_and_a_clock_set_back(false);
    test_throttle_pause_cap_age();
    test_fairness();
    test_names();
    return 0;
}
