/* Long days of the queues over a log in memory: a million events that always fail, a thousand functions, clocks that are
 * set, sectors that cannot be read, a disk that fills up beside retries far away. */
#include "queue_stage.h"

#define YEAR_MS (365ull * 86400 * 1000)
#define FAILING 60000u /* RUNTIMED_QUEUE_EVENTS says another number */

static uint64_t failing(void) {
    const char *text = getenv("RUNTIMED_QUEUE_EVENTS");
    return text != NULL ? strtoull(text, NULL, 10) : FAILING;
}

static void configure(unsigned queue, uint32_t retries, uint64_t delay_ms, uint64_t age_ms) {
    uint8_t uid[16] = {(uint8_t)queue, (uint8_t)(queue >> 8)};
    struct policy policy = {.retries = retries, .base_delay_ms = delay_ms, .max_age_ms = age_ms};
    queue_configure(&queues, queues_find(&queues, uid), &policy, 1000);
}

/* Each is tried three times, no more and no less, a minute and two after; what is in memory does not follow their number. */
static void test_all_fail(uint64_t n) {
    struct options options = {.segment_bytes = 4u << 20, .segment_events = 16384, .group_bytes = 256u << 10};
    struct taken taken;
    struct decision d;
    uint32_t id, high = 0;
    uint64_t tried[4] = {0}, settled = 0;
    uint8_t *times = calloc(n, 1);
    CHECK(times != NULL);
    begin_with(0, &options);
    for (uint64_t i = 0; i < n; i++) {
        CHECK(accept_one(1, (uint32_t)i, 40, 0) == 0);
        if (i % 1000 == 999)
            turn();
    }
    turn();
    CHECK(n_accepted == n && queues.log.live == n);
    uint64_t begun = now;
    for (int pass = 0; pass < 3; pass++) {
        while (take(&taken, &id, &d)) {
            CHECK(d.verdict == VERDICT_INVOKE && taken.attempts == times[id]);
            tried[++times[id]]++;
            finish(&taken, OUTCOME_ERROR, begun, &d);
            settled += d.verdict == VERDICT_SETTLE;
            if (queues.wheel.n > high)
                high = queues.wheel.n;
            if ((tried[1] + tried[2] + tried[3]) % 1000 == 0)
                turn();
        }
        turn();
        CHECK(tried[pass + 1] == n && queues.n_windows <= WINDOWS_MAX);
        now += 60000u * (unsigned)(pass + 1) - 1;
        turn();
        CHECK(!take(&taken, &id, &d));
        now += 1;
        turn();
    }
    CHECK(settled == n && queues.log.live == 0 && high <= RETRIES_NEAR_MAX + 1000);
    for (int i = 0; i < 10; i++)
        turn();
    restart();
    CHECK(report.waiting == 0 && report.segments <= 3);
    free(times);
    end();
}

/* A thousand functions with a hundred events each, beside one with thirty thousand and one whose events are large: at no
 * time has one of the same size got far ahead of another. */
static void test_thousand_functions(void) {
    enum { FUNCTIONS = 1000, EACH = 30, FLOOD = 30000, LARGE = 300 };
    static uint32_t seen[FUNCTIONS + 2];
    struct options options = {.segment_bytes = 4u << 20, .segment_events = 16384, .group_bytes = 256u << 10};
    struct taken taken;
    struct decision d;
    uint32_t id, n = 0;
    begin_with(0, &options);
    memset(seen, 0, sizeof(seen));
    for (uint32_t i = 0; i < FLOOD; i++) {
        CHECK(accept_one(FUNCTIONS, FUNCTIONS, 20, 0) == 0);
        if (i < LARGE)
            CHECK(accept_one(FUNCTIONS + 1, FUNCTIONS + 1, 8000, 0) == 0);
        if (i % 50 == 0)
            turn();
    }
    for (uint32_t i = 0; i < FUNCTIONS * EACH; i++) {
        CHECK(accept_one(i % FUNCTIONS, i % FUNCTIONS, 20, 0) == 0);
        if (i % 1000 == 0)
            turn();
    }
    turn();
    while (n < FUNCTIONS * EACH + FLOOD + LARGE && take(&taken, &id, &d)) {
        seen[id]++;
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
        if (++n % 1000 == 0)
            turn();
        if (n % 997 == 0 && seen[0] < EACH) {
            uint32_t low = UINT32_MAX, high = 0;
            for (uint32_t i = 0; i < FUNCTIONS; i++) {
                low = seen[i] < low ? seen[i] : low;
                high = seen[i] > high ? seen[i] : high;
            }
            /* A turn is 64 KiB: sixteen small events; large ones cost by their bytes. */
            CHECK(high - low <= 17 && seen[FUNCTIONS] <= high + 17 && seen[FUNCTIONS + 1] <= seen[FUNCTIONS]);
        }
    }
    for (uint32_t i = 0; i < FUNCTIONS; i++)
        CHECK(seen[i] == EACH);
    CHECK(seen[FUNCTIONS] == FLOOD && seen[FUNCTIONS + 1] == LARGE && queues.log.live == 0);
    end();
}

static void test_clock_set(void) {
    struct taken taken;
    struct decision d;
    uint32_t id;
    uint64_t before = now;
    begin(0);
    /* Back by a year while a retry and a gate wait: neither waits longer than five minutes. */
    accept_one(1, 1, 10, 0);
    accept_one(2, 2, 10, 0);
    turn();
    CHECK(take(&taken, &id, &d));
    finish(&taken, OUTCOME_ERROR, now, &d);
    CHECK(d.verdict == VERDICT_RETRY && take(&taken, &id, &d));
    finish(&taken, OUTCOME_THROTTLED, now, &d);
    CHECK(d.verdict == VERDICT_GATE);
    turn();
    now -= YEAR_MS;
    turn();
    CHECK(!take(&taken, &id, &d) && queues_next(&queues) <= now + RETRY_NEAR_MS);
    restart(); /* with the clock as it is now */
    turn();
    CHECK(report.waiting == 2 && queues_next(&queues) <= now + RETRY_NEAR_MS);
    now += RETRY_NEAR_MS;
    turn();
    for (int i = 0; i < 2; i++) {
        CHECK(take(&taken, &id, &d) && d.verdict == VERDICT_INVOKE); /* none of them is too old */
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
    }
    turn();
    CHECK(queues.log.live == 0);
    /* A name that was given in what is now the future is free, and holds no file back. */
    now = before;
    CHECK(accept_one(1, 7, 10, 99) == 0);
    turn();
    now -= YEAR_MS;
    CHECK(accept_one(1, 7, 10, 99) == 0);
    turn();
    CHECK(accept_one(1, 7, 10, 99) == -EALREADY);
    while (take(&taken, &id, &d))
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
    now = before + 1;
    for (uint32_t i = 0; i < 300; i++) {
        CHECK(accept_one(1, i, 400, i % 50 == 0 ? 1000 + i : 0) == 0);
        turn();
        CHECK(take(&taken, &id, &d));
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
    }
    now -= YEAR_MS;
    for (uint32_t i = 0; i < 100; i++) {
        CHECK(accept_one(1, i, 400, 0) == 0);
        turn();
        CHECK(take(&taken, &id, &d));
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
    }
    for (int i = 0; i < 20; i++)
        turn();
    unsigned segments = 0;
    list_for_each(node, &queues.log.segments) segments++;
    CHECK(segments <= 2);
    restart();
    /* Forward by a year: what waits for its retry is due, and names are forgotten, no more. */
    CHECK(accept_one(1, 7, 10, 99) == -EALREADY || accept_one(1, 7, 10, 99) == -EINPROGRESS || n_accepted > 0);
    turn();
    now += YEAR_MS;
    turn();
    now = before;
    end();
}

/* Sectors that cannot be read: found at the start, or when an event's turn comes. */
static void test_unreadable(void) {
    struct taken taken;
    struct decision d;
    struct record record;
    uint32_t id;
    begin(0);
    for (uint32_t i = 0; i < 40; i++) {
        accept_one(1, i, 200, 0);
        turn();
    }
    queues.log.writer.file = -1;
    queues_close(&queues);
    memory.bad = memory_find(&memory, "0000000000000001.log");
    memory.bad_offset = 8192; /* a group */
    open_queues();
    CHECK(
        report.damaged_segments == 1 && report.salvaged == 39 && report.damaged_bytes > 0 && report.damaged_files == 1);
    CHECK(memory_find(&memory, "0000000000000001.log.damaged") != NULL);
    restart();
    CHECK(report.waiting == 39 && report.damaged_files == 1);
    /* The last group: not taken for torn. */
    end();
    begin(0);
    accept_one(1, 1, 200, 0);
    turn();
    queues.log.writer.file = -1;
    queues_close(&queues);
    memory.bad = memory_find(&memory, "0000000000000001.log");
    memory.bad_offset = 2048;
    open_queues();
    CHECK(report.damaged_segments == 1 && report.torn_bytes == 0);
    /* Both copies of a header. */
    end();
    begin(0);
    accept_one(1, 1, 200, 0);
    turn();
    queues.log.writer.file = -1;
    queues_close(&queues);
    struct memory_file *first = (struct memory_file *)(uintptr_t)memory_find(&memory, "0000000000000001.log");
    memset(first->now, 0, 1024);
    open_queues();
    CHECK(report.damaged_segments == 1);
    end();
    /* In a segment that has its footer, when the event is read: it is given up, the others go on, the file goes in time. */
    begin(0);
    for (uint32_t i = 0; i < 200; i++) {
        CHECK(accept_one(1, i, 400, 0) == 0);
        turn();
    }
    memory.bad = memory_find(&memory, "0000000000000001.log");
    memory.bad_offset = 16384;
    uint32_t read = 0, lost = 0;
    uint8_t uid[16] = {1};
    for (int r; (r = queues_take(&queues, &taken, &record, &d)) != 0;) {
        CHECK(r == 1 || r == -EBADMSG);
        read += r == 1;
        lost += r < 0;
        if (r == 1)
            finish(&taken, OUTCOME_SUCCESS, now, NULL);
    }
    CHECK(lost > 0 && lost < 4 && read + lost == 200 && queues.unreadable == lost);
    CHECK(queues_find(&queues, uid)->depth == 0 && queues_find(&queues, uid)->in_flight == 0);
    CHECK(memory_find(&memory, "copy-0000000000000001.log.damaged") != NULL);
    for (int i = 0; i < 20; i++)
        turn();
    CHECK(memory_find(&memory, "0000000000000001.log") == NULL && queues.log.live == 0);
    memory.bad = NULL;
    restart();
    CHECK(report.waiting == 0 && report.damaged_files == 1);
    (void)id;
    end();
}

/* Retries far away are written anew; where the disk is full they wait in memory, and no attempt is made before its time. */
static void test_far_retries_on_a_full_disk(void) {
    struct taken taken;
    struct decision d;
    uint32_t id = 0, n = 0;
    begin(32768 * 6);
    configure(1, 2, 3600000, UINT64_MAX);
    while (accept_one(1, id, 400, 0) == 0) {
        id++;
        turn();
    }
    uint64_t live = queues.log.live, accepted_ms = now;
    CHECK(live > 50);
    for (; take(&taken, &id, &d); n++) {
        finish(&taken, OUTCOME_ERROR, accepted_ms, &d);
        CHECK(d.verdict == VERDICT_RETRY);
        turn();
    }
    CHECK(n == live && queues.log.live == live);
    now += 3599999;
    turn();
    CHECK(!take(&taken, &id, &d));
    now += 1;
    turn();
    for (n = 0; take(&taken, &id, &d); n++) {
        CHECK(taken.attempts == 1);
        finish(&taken, OUTCOME_SUCCESS, accepted_ms, NULL);
        turn();
    }
    CHECK(n == live && queues.log.live == 0);
    end();
}

int main(void) {
    test_all_fail(failing());
    test_thousand_functions();
    test_clock_set();
    test_unreadable();
    test_far_retries_on_a_full_disk();
    return 0;
}
