/* The bad days of the log below the queues: a full disk, a failing sync, damage, a missing segment; and compaction. */
#include "queue_stage.h"

static uint64_t drain(void) {
    struct taken taken;
    struct decision d;
    uint32_t id;
    uint64_t n = 0;
    while (take(&taken, &id, &d)) {
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
        if (++n % 7 == 0)
            turn();
    }
    turn();
    return n;
}

static void test_full_disk(void) {
    begin(32768 * 6);
    uint32_t id = 0;
    while (n_refused == 0) {
        int r = accept_one(1, id++, 400, 0);
        CHECK(r == 0 || r == -ENOSPC);
        if (id % 3 == 0)
            turn();
        if (r < 0)
            break;
    }
    turn();
    CHECK(accept_one(1, id, 400, 0) == -ENOSPC && n_accepted > 100);
    uint64_t live = queues.log.live;
    CHECK(live == n_accepted);
    restart();
    CHECK(report.waiting == live); /* full at the start as well */
    turn();
    CHECK(drain() == live);
    restart();
    CHECK(report.waiting == 0);
    for (int i = 0; i < 5; i++)
        turn();
    CHECK(accept_one(1, id, 400, 0) == 0); /* room again */
    turn();
    CHECK(queues.log.live == 1);
    end();
}

/* Not even room for changes: they are in the state areas. */
static void test_no_room_at_all(void) {
    begin(32768 * 4);
    uint32_t id = 0;
    while (accept_one(1, id++, 400, 0) == 0)
        turn();
    uint64_t live = queues.log.live;
    struct taken taken;
    struct decision d;
    uint32_t which;
    now += 1;
    for (uint64_t i = 0; i < 400; i++) { /* records without end: each event is tried, and put back by a new process */
        if (!take(&taken, &which, &d)) {
            restart();
            turn();
            CHECK(report.waiting == live);
            continue;
        }
        struct record_change change = {.place = taken.place, .attempts = taken.attempts, .phase = PHASE_WAITING};
        CHECK(log_change(&queues.log, &change, NULL) == 0);
        turn();
    }
    power_cut();
    turn();
    CHECK(report.waiting == live && take(&taken, &which, &d));
    finish(&taken, OUTCOME_SUCCESS, now, NULL);
    turn();
    power_cut();
    turn();
    CHECK(report.waiting == live - 1 && drain() == live - 1);
    restart();
    CHECK(report.waiting == 0);
    end();
}

static void test_failing_sync(void) {
    begin(0);
    accept_one(1, 1, 100, 0);
    turn();
    CHECK(n_accepted == 1);
    memory.fail_at = memory.operations + 1;
    memory.fail_for = 400;
    memory.fail_with = -EIO;
    memory.fail_syncs_only = true;
    CHECK(accept_one(1, 2, 100, 0) == 0);
    turn();
    CHECK(n_refused == 1 && last_result == -EIO && n_accepted == 1);
    struct taken taken;
    struct decision d;
    uint32_t id;
    CHECK(take(&taken, &id, &d) && id == 1); /* what was there stays there */
    finish(&taken, OUTCOME_SUCCESS, now, NULL);
    turn(); /* fails, again and again, until it does not */
    CHECK(queues.log.change_failures > 0 && memory.operations > memory.fail_at + memory.fail_for);
    for (int i = 0; i < 100 && accept_one(1, 3, 100, 0) != 0; i++)
        turn();
    memory.fail_at = 0;
    turn();
    for (int i = 0; i < 4 && n_accepted == 1; i++) {
        accept_one(1, 4, 100, 0);
        turn();
    }
    CHECK(n_accepted >= 2);
    uint64_t live = queues.log.live;
    power_cut();
    CHECK(report.waiting == live); /* what was refused does not come back, what was settled neither */
    turn();
    CHECK(take(&taken, &id, &d) && id != 1 && id != 2);
    end();
}

static void test_damage(void) {
    begin(0);
    for (uint32_t i = 0; i < 40; i++) {
        accept_one(1, i, 200, 0);
        turn();
    }
    struct taken taken;
    struct decision d;
    uint32_t id;
    for (int i = 0; i < 5; i++) {
        CHECK(take(&taken, &id, &d) && id < 5);
        finish(&taken, OUTCOME_SUCCESS, now, NULL);
    }
    turn();
    queues.log.writer.file = -1;
    queues_close(&queues);
    struct memory_file *file = (struct memory_file *)(uintptr_t)memory_find(&memory, "0000000000000001.log");
    CHECK(file != NULL);
    file->now[8192 + 130] ^= 4; /* in the middle of a group that many follow */
    open_queues();
    CHECK(report.damaged_segments == 1 && report.salvaged == 34 && report.waiting == 34 && report.damaged_bytes > 0);
    CHECK(memory_find(&memory, "0000000000000001.log.damaged") != NULL);
    CHECK(queues.log.live == 34);
    restart();
    CHECK(report.waiting == 34);
    turn();
    CHECK(drain() == 34);
    end();
}

static void test_missing(void) {
    begin(0);
    for (uint32_t i = 0; i < 200; i++)
        accept_one(1, i, 200, 0);
    turn();
    queues.log.writer.file = -1;
    queues_close(&queues);
    CHECK(memory.files.operations->remove(&memory.files, "0000000000000002.log") == 0);
    open_queues();
    CHECK(report.missing_segments == 1 && report.waiting < 200 && report.waiting > 100);
    end();
}

static void test_compaction(void) {
    begin(0);
    struct taken taken[2000];
    struct decision d;
    uint32_t id, n = 0;
    for (uint32_t i = 0; i < 2000; i++)
        accept_one(1 + i % 3, i, 100, 0);
    turn();
    for (; take(&taken[n], &id, &d); n++)
        ;
    CHECK(n == 2000);
    for (uint32_t i = 0; i < n; i++) /* one in fifty stays */
        if (i % 50 != 0)
            finish(&taken[i], OUTCOME_SUCCESS, now, NULL);
        else
            CHECK(queues_put_back(&queues, &taken[i]) == 0);
    turn();
    restart();
    for (int i = 0; i < 60; i++)
        turn();
    uint64_t segments = 0;
    list_for_each(node, &queues.log.segments) segments++;
    CHECK(segments <= 5 && queues.log.live == 40 && queues.log.moved > 0);
    CHECK(drain() == 40);
    restart();
    CHECK(report.waiting == 0);
    end();
}

static const struct file_operations *below;
static uint64_t n_zeros; /* written ahead */

static int count_zeros(struct files *files, int file, const void *data, size_t size, uint64_t offset) {
    const uint8_t *bytes = data;
    n_zeros += size > 1 && bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0 ? size : 0;
    return below->write(files, file, data, size, offset);
}

/* Small groups bring zeros for the next ones, as many in all as the file has room; in a file that was a segment, none. */
static void test_writing_ahead(void) {
    static const struct options large = {.segment_bytes = 1u << 20, .segment_events = 512, .group_bytes = 65536};
    struct file_operations counting;
    begin_with(0, &large);
    below = memory.files.operations;
    counting = *below;
    counting.write = count_zeros;
    memory.files.operations = &counting;
    uint64_t segment = queues.log.writer.sequence, groups = queues.log.groups, before = n_zeros = 0;
    for (uint32_t i = 0; i < 64; i++) {
        before = n_zeros;
        accept_one(1, i, 100, 0);
        turn();
        CHECK(queues.log.writer.written >= queues.log.writer.offset);
    }
    CHECK(queues.log.writer.sequence == segment && queues.log.groups == groups + 64);
    CHECK(n_zeros >= 32 * SECTOR && n_zeros <= 128 * SECTOR && before >= n_zeros - (32u << 10));
    restart();
    CHECK(report.waiting == 64 && report.torn_bytes == 0);
    for (uint32_t i = 64; !queues.log.writer.next; i++) { /* until a segment is done with, and its file kept */
        accept_one(1, i, 100, 0);
        turn();
        (void)drain();
    }
    segment = queues.log.writer.sequence;
    for (uint32_t i = 0; queues.log.writer.sequence == segment; i++)
        before = n_zeros, accept_one(1, i, 100, 0), turn();
    for (uint32_t i = 0; i < 64; i++) {
        accept_one(1, i, 100, 0);
        turn();
    }
    CHECK(queues.log.writer.sequence == segment + 1 && n_zeros == before);
    memory.files.operations = below;
    end();
}

static int no_room_for_zeros(struct files *f, int file, const void *data, size_t size, uint64_t offset) {
    uint64_t before = n_zeros;
    int r = count_zeros(f, file, data, size, offset);
    return n_zeros > before ? -ENOSPC : r;
}

/* As on a file system that puts elsewhere what is written anew, and is not known for it. */
static void test_no_room_ahead(void) {
    struct file_operations full;
    begin(0);
    below = memory.files.operations;
    full = *below;
    full.write = no_room_for_zeros;
    memory.files.operations = &full;
    n_zeros = n_accepted = n_refused = 0;
    for (uint32_t i = 0; i < 20; i++) {
        CHECK(accept_one(1, i, 400, 0) == 0);
        turn();
    }
    CHECK(n_zeros > 0 && n_refused == 0 && n_accepted == 20);
    memory.files.operations = below;
    restart();
    CHECK(report.waiting == 20);
    end();
}

int main(void) {
    test_writing_ahead();
    test_no_room_ahead();
    test_full_disk();
    test_no_room_at_all();
    test_failing_sync();
    test_damage();
    test_missing();
    test_compaction();
    return 0;
}
