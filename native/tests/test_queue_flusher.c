/* The event log on real files with its thread: what was accepted is there after another start, and goes when handled. */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/flusher.h"
#include "queue/queue.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            failed = 1;                                                                                                \
            goto done;                                                                                                 \
        }                                                                                                              \
    } while (0)

enum { EVENTS = 500, AT_ONCE = 40, PATIENCE_MS = 60000 };

static struct queues queues;
static uint64_t n_accepted, n_refused, salts;

static uint64_t salt(void *context) {
    (void)context;
    return clock_real_us() + salts++;
}

static void accepted(void *context, uint64_t tag, int result, struct place place) {
    (void)context;
    (void)tag;
    (void)place;
    n_accepted += result == 0;
    n_refused += result != 0;
}

static int start(struct files *files, struct flusher **ret_flusher, struct log_found *ret_report) {
    struct queues_options options = {
        .log = {.segment_bytes = 65536,
            .segment_events = 64,
            .group_bytes = 16384,
            .pending_bytes = 1u << 20,
            .salt = salt},
        .policy = {.retries = 2, .base_delay_ms = 60000, .max_age_ms = 21600000},
        .cap = 1000,
        .key_window_s = 300,
        .keys_most = 1000,
        .accepted = accepted,
    };
    int r = queues_open(&queues, files, &options, clock_real_us() / 1000, ret_report);
    if (r < 0)
        return r;
    queues.log.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return flusher_start(ret_flusher, &queues.log, NULL);
}

static void stop(struct flusher *flusher) {
    flusher_stop(flusher);
    queues_turn(&queues, clock_real_us() / 1000);
    close(queues.log.wake_fd);
    queues_close(&queues);
}

static int wait_and_turn(void) {
    struct pollfd waited = {.fd = queues.log.wake_fd, .events = POLLIN};
    uint64_t ignored;
    int n = poll(&waited, 1, PATIENCE_MS);
    if (n > 0 && read(queues.log.wake_fd, &ignored, sizeof(ignored)) < 0)
        n = -1;
    queues_turn(&queues, clock_real_us() / 1000);
    return n;
}

static void remove_all(const char *path) {
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory != NULL)
        closedir(directory);
    rmdir(path);
}

int main(void) {
    char path[] = "/tmp/test_queue_flusher.XXXXXX";
    struct flusher *flusher = NULL;
    struct log_found report;
    struct files files;
    struct taken taken;
    struct record record;
    struct decision decision;
    int failed = mkdtemp(path) == NULL;
    int directory = failed ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    CHECK(directory >= 0);
    files_open(&files, directory);
    CHECK(start(&files, &flusher, &report) == 0);
    for (uint64_t sent = 0; n_accepted < EVENTS;) {
        for (; sent < EVENTS && sent - n_accepted < AT_ONCE; sent++) {
            struct record_event event = {
                .accepted_ms = clock_real_us() / 1000, .payload = path, .payload_size = sizeof(path)};
            event.queue[0] = (uint8_t)(sent % 3);
            CHECK(queues_accept(&queues, &event, sent) == 0);
        }
        CHECK(wait_and_turn() > 0 && n_refused == 0);
    }
    stop(flusher);
    CHECK(start(&files, &flusher, &report) == 0);
    CHECK(report.waiting == EVENTS && report.damaged_segments == 0 && report.missing_segments == 0);
    for (int n = 0; n < EVENTS; n++) {
        CHECK(queues_take(&queues, &taken, &record, &decision) == 1);
        CHECK(record.event.payload_size == sizeof(path) && memcmp(record.event.payload, path, sizeof(path)) == 0);
        CHECK(queues_end(&queues, &taken, OUTCOME_SUCCESS, record.event.accepted_ms, 0, &decision) == 0);
    }
    stop(flusher); /* writes what was settled */
    CHECK(start(&files, &flusher, &report) == 0);
    CHECK(report.waiting == 0 && queues.log.live == 0);
    stop(flusher);
done:
    if (directory >= 0)
        close(directory);
    remove_all(path);
    return failed;
}
