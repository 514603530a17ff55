/* What waiting events take of memory: measured at two sizes after recovery, and reckoned for ten million with all that is
 * bounded otherwise. Files in a directory of its own, which are neither allocated nor synced. */
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "queue/queue.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { FEW = 2 * SEGMENT_EVENTS_MAX, MORE = 6 * SEGMENT_EVENTS_MAX };
#define TEN_MILLION 10000000ull
#define CAP (64ull << 20)

/* Sanitizers have an allocator of their own. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static struct files files;
static struct file_operations operations;
static struct queues queues;
static struct log_found found;
static char directory[] = "/tmp/runtimed-test-memory-XXXXXX";

static size_t in_use(void) {
    if (__sanitizer_get_current_allocated_bytes != NULL)
        return __sanitizer_get_current_allocated_bytes();
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static int no_allocate(struct files *f, int file, uint64_t size) {
    return f->operations->truncate(f, file, size);
}

static int no_sync(struct files *f, int file) {
    (void)f, (void)file;
    return 0;
}

static int no_sync_directory(struct files *f) {
    (void)f;
    return 0;
}

static uint64_t salt(void *context) {
    static uint64_t value = 1;
    (void)context;
    return value += 0x9e3779b97f4a7c15u;
}

static void open_queues(void) {
    struct queues_options options = {.log = {.segment_bytes = 32u << 20,
                                         .segment_events = SEGMENT_EVENTS_MAX,
                                         .group_bytes = 4u << 20,
                                         .pending_bytes = 16u << 20,
                                         .salt = salt},
        .policy = {.retries = 2, .base_delay_ms = 60000, .max_age_ms = UINT64_MAX},
        .cap = 1000,
        .key_window_s = 300,
        .keys_most = 1000000};
    CHECK(queues_open(&queues, &files, &options, 1700000000000u, &found) == 0);
}

static void fill(uint32_t n, uint32_t n_queues) {
    open_queues();
    for (uint32_t i = 0; i < n; i++) {
        struct record_event event = {.accepted_ms = 1700000000000u, .payload = "{}", .payload_size = 2};
        uint32_t queue = 1 + i % n_queues;
        memcpy(event.id, &i, sizeof(i));
        memcpy(event.queue, &queue, sizeof(queue));
        CHECK(queues_accept(&queues, &event, i) == 0);
        if (i % 8192 == 8191) {
            while (queues.log.open != NULL)
                CHECK(log_flush(&queues.log, 1700000000000u) > 0);
            queues_turn(&queues, 1700000000000u);
        }
    }
    queues_close(&queues);
}

static void empty_directory(void) {
    DIR *all = opendir(directory);
    if (all == NULL)
        return;
    for (struct dirent *one; (one = readdir(all)) != NULL;)
        if (one->d_name[0] != '.')
            (void)unlinkat(dirfd(all), one->d_name, 0);
    closedir(all);
}

static void remove_directory(void) {
    empty_directory();
    (void)rmdir(directory);
}

/* Bytes that so many waiting events take after a start. */
static size_t taken_by(uint32_t n, uint32_t n_queues) {
    fill(n, n_queues);
    size_t before = in_use();
    open_queues();
    queues_turn(&queues, 1700000000001u);
    size_t after = in_use();
    CHECK(found.waiting == n && queues.log.live == n);
    queues_close(&queues);
    empty_directory();
    return after - before;
}

static void check_queues(uint32_t n_queues) {
    size_t few = taken_by(FEW, n_queues), more = taken_by(MORE, n_queues);
    uint64_t events = TEN_MILLION * (more - few) / (MORE - FEW);
    uint64_t bounded = IDEMPOTENCY_BYTES(1000000) + (uint64_t)WINDOWS_MAX * WINDOW * FOOTER_ITEM +
        (uint64_t)RETRIES_NEAR_MAX * sizeof(struct timed) +
        /* of the segment in use: what its footer will say, and a heap */
        (uint64_t)SEGMENT_EVENTS_MAX * (sizeof(struct built_event) + 3 * FOOTER_ITEM);
    printf("%u queues: %.2f bytes an event; ten million: %llu MB, beside %llu MB at most\n", n_queues,
        (double)(more - few) / (MORE - FEW), (unsigned long long)(events >> 20), (unsigned long long)(bounded >> 20));
    CHECK(more > few && events + bounded <= CAP);
}

int main(void) {
    struct files real;
    CHECK(mkdtemp(directory) != NULL);
    CHECK(atexit(remove_directory) == 0); /* also when a check fails */
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0);
    files_open(&real, fd);
    operations = *real.operations;
    operations.allocate = no_allocate;
    operations.sync = no_sync;
    operations.sync_directory = no_sync_directory;
    files = (struct files){.operations = &operations, .directory = fd};
    check_queues(1);
    check_queues(1000);
    close(fd);
    return 0;
}
