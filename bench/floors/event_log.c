/* The event log by itself, as the dispatcher's thread uses it, beside the writing of the same bytes without it; and a
 * backlog made fast.
 *
 *   event_log grouped DIRECTORY EVENTS SIZE SECONDS   groups of so many events with payloads of SIZE: "events/s bytes p99_us"
 *   event_log bare DIRECTORY EVENTS SIZE SECONDS      the same bytes in the same groups: pwrite and fdatasync, in files that
 *                                                     are as large as the log's and were allocated as they are
 *   event_log fill DIRECTORY EVENTS SIZE QUEUES       that many waiting events, of queues that take turns, QUEUES: a number,
 *                                                     or NAME=UID in hexadecimal, a function that is there
 *   event_log open DIRECTORY                          "ms waiting kilobytes": what opening takes, and private memory after it
 *   event_log churn DIRECTORY EVENTS SIZE             accepts and settles at random: "turn_us flush_us", the longest of each
 *
 * What stands in DIRECTORY afterwards is a log, of `bare` a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "queue/queue.h"

enum { SEGMENT = 32 << 20, SAMPLES_MAX = 1 << 22, PAYLOAD_MAX = 1 << 20 };

static struct files files;
static struct queues queues;
static struct log_found found;
static uint8_t payload[PAYLOAD_MAX];
static uint32_t samples[SAMPLES_MAX];
static size_t n_samples;
static uint64_t n_accepted;

static void die(const char *what, int error) {
    fprintf(stderr, "event_log: %s: %s\n", what, strerror(-error));
    exit(1);
}

static uint64_t salt(void *context) {
    uint64_t value;
    (void)context;
    if (getrandom(&value, sizeof(value), 0) != sizeof(value))
        exit(1);
    return value;
}

static void accepted(void *context, uint64_t tag, int result, struct place place) {
    (void)context, (void)tag, (void)place;
    if (result < 0)
        die("accept", result);
    n_accepted++;
}

static void open_queues(const char *path) {
    /* As in the dispatcher (dispatch/events.c). */
    struct queues_options options = {
        .log = {.segment_bytes = SEGMENT,
            .segment_events = SEGMENT / 512,
            .group_bytes = 4u << 20,
            .pending_bytes = 16u << 20,
            .salt = salt},
        .policy = {.retries = 2, .base_delay_ms = 60000, .max_age_ms = UINT64_MAX},
        .cap = 1000,
        .key_window_s = 300,
        .keys_most = 1000000,
        .accepted = accepted,
    };
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
    if (directory < 0)
        die(path, -errno);
    files_open(&files, directory);
    r = queues_open(&queues, &files, &options, clock_real_us() / 1000, &found);
    if (r < 0)
        die(path, r);
}

/* The dispatcher's head of a record, with a name and nothing else (dispatch/event_head.c). */
static uint8_t head[256];
static uint32_t head_size;

static void flush_all(void) {
    while (queues.log.open != NULL)
        if (log_flush(&queues.log, clock_real_us() / 1000) < 0)
            exit(1);
    queues_turn(&queues, clock_real_us() / 1000);
}

static void accept_one(const uint8_t uid[16], uint32_t size) {
    struct record_event event = {.accepted_ms = clock_real_us() / 1000,
        .head = head,
        .head_size = head_size,
        .payload = payload,
        .payload_size = size};
    static uint64_t number;
    number++;
    memcpy(event.id, &number, sizeof(number));
    event.id[6] = 0x80;
    event.id[8] = 0x80;
    memcpy(event.queue, uid, 16);
    int r = queues_accept(&queues, &event, number);
    if (r == -ENOBUFS) { /* as much is under way as may be */
        flush_all();
        r = queues_accept(&queues, &event, number);
    }
    if (r < 0)
        die("accept", r);
}

static int by_number(const void *a, const void *b) {
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void say(uint64_t events, uint64_t us, uint64_t bytes) {
    qsort(samples, n_samples, sizeof(*samples), by_number);
    printf("%.0f %llu %u\n", (double)events * 1e6 / (double)us, (unsigned long long)bytes,
        samples[n_samples * 99 / 100]);
}

/* ---- speed ------------------------------------------------------------------------------------------------------- */

static void grouped(const char *path, uint32_t group, uint32_t size, double seconds) {
    static const uint8_t uid[16] = {1};
    open_queues(path);
    uint64_t begun = clock_monotonic_us(), end = begun + (uint64_t)(seconds * 1e6), at = begun;
    while (at < end) {
        uint64_t before = at;
        for (uint32_t i = 0; i < group; i++)
            accept_one(uid, size);
        flush_all();
        at = clock_monotonic_us();
        if (n_samples < SAMPLES_MAX)
            samples[n_samples++] = (uint32_t)(at - before);
    }
    say(n_accepted, at - begun, queues.log.written_bytes);
    queues_close(&queues);
}

static int bare_file(int directory, unsigned number) {
    char name[32];
    snprintf(name, sizeof(name), "bare%u", number);
    int file = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0 || fallocate(file, 0, 0, SEGMENT) < 0 || fsync(file) < 0 || fsync(directory) < 0)
        die("bare", -errno);
    return file;
}

static void bare(const char *path, uint32_t group, uint32_t size, double seconds) {
    uint64_t record = record_padded(RECORD_EVENT + (uint64_t)head_size + size);
    uint64_t whole = (GROUP_HEADER + group * record + SECTOR - 1) / SECTOR * SECTOR, offset = 0, n = 0, bytes = 0;
    uint8_t *buffer = calloc(1, whole);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    unsigned number = 0;
    int file = directory < 0 || buffer == NULL ? -1 : bare_file(directory, number++);
    if (file < 0)
        die(path, -errno);
    uint64_t begun = clock_monotonic_us(), end = begun + (uint64_t)(seconds * 1e6), at = begun;
    while (at < end) {
        uint64_t before = at;
        if (offset + whole > SEGMENT) {
            close(file);
            file = bare_file(directory, number++);
            offset = 0;
        }
        for (uint32_t i = 0; i < group; i++)
            memcpy(buffer + GROUP_HEADER + i * record, payload, size);
        for (uint64_t done = 0; done < whole; done += MIN(whole, 4u << 20)) { /* the log's groups have 4 MB at most */
            uint64_t part = MIN(whole - done, 4u << 20);
            if (pwrite(file, buffer + done, part, (off_t)(offset + done)) != (ssize_t)part || fdatasync(file) < 0)
                die("write", -errno);
        }
        offset += whole;
        n += group;
        bytes += whole;
        at = clock_monotonic_us();
        if (n_samples < SAMPLES_MAX)
            samples[n_samples++] = (uint32_t)(at - before);
    }
    say(n, at - begun, bytes);
}

/* ---- size -------------------------------------------------------------------------------------------------------- */

static void fill(const char *path, uint64_t n, uint32_t size, const char *queues_text) {
    const char *uid_text = strchr(queues_text, '=');
    uint32_t n_queues = uid_text == NULL ? (uint32_t)atoi(queues_text) : 1;
    uint8_t uid[16] = {0};
    if (uid_text != NULL) {
        uint16_t name_size = (uint16_t)(uid_text - queues_text);
        head[0] = 1; /* the version */
        memcpy(head + 1, &name_size, 2);
        memcpy(head + 3, queues_text, name_size);
        head_size = 9u + name_size;
        for (unsigned i = 0; i < 16; i++) {
            unsigned byte;
            if (sscanf(uid_text + 1 + 2 * i, "%2x", &byte) != 1)
                exit(64);
            uid[i] = (uint8_t)byte;
        }
    }
    open_queues(path);
    for (uint64_t i = 0; i < n; i++) {
        if (uid_text == NULL) {
            uint32_t queue = 1 + (uint32_t)(i % n_queues);
            memcpy(uid, &queue, sizeof(queue));
        }
        accept_one(uid, size);
        if (i % 4096 == 4095)
            flush_all();
    }
    flush_all();
    queues_close(&queues);
}

static uint64_t private_kilobytes(void) {
    char line[256];
    unsigned long long sum = 0, one;
    FILE *maps = fopen("/proc/self/smaps_rollup", "re");
    while (maps != NULL && fgets(line, sizeof(line), maps) != NULL)
        if (sscanf(line, "Private_Clean: %llu", &one) == 1 || sscanf(line, "Private_Dirty: %llu", &one) == 1)
            sum += one;
    if (maps != NULL)
        fclose(maps);
    return sum;
}

static void open_only(const char *path) {
    uint64_t before = private_kilobytes(), begun = clock_monotonic_us();
    open_queues(path);
    uint64_t us = clock_monotonic_us() - begun;
    queues_turn(&queues, clock_real_us() / 1000);
    printf("%llu %llu %llu\n", (unsigned long long)us / 1000, (unsigned long long)found.waiting,
        (unsigned long long)(private_kilobytes() - before));
    queues_close(&queues);
}

/* ---- pauses ------------------------------------------------------------------------------------------------------ */

static void churn(const char *path, uint64_t n, uint32_t size) {
    static const uint8_t uid[16] = {1};
    uint64_t longest_turn = 0, longest_flush = 0, state = 1;
    struct taken taken;
    struct record record;
    struct decision ignored;
    open_queues(path);
    for (uint64_t i = 0; i < n; i += 64) {
        for (unsigned j = 0; j < 64; j++)
            accept_one(uid, size);
        uint64_t at = clock_monotonic_us();
        while (queues.log.open != NULL)
            (void)log_flush(&queues.log, clock_real_us() / 1000);
        uint64_t written = clock_monotonic_us();
        queues_turn(&queues, clock_real_us() / 1000);
        uint64_t turned = clock_monotonic_us();
        (void)log_flush(&queues.log, clock_real_us() / 1000); /* what is done beside: files made and removed */
        longest_flush = MAX(longest_flush, written - at);
        longest_turn = MAX(longest_turn, turned - written);
        while (queues_take(&queues, &taken, &record, &ignored) > 0) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            /* One in sixteen stays, in flight: what compaction may not move, nor what keeps its segment. */
            bool stays = state >> 60 == 0;
            struct decision decision = {.verdict = stays ? VERDICT_RETRY : VERDICT_SETTLE,
                .attempts = 1,
                .due_ms = queues.now_ms + 1000000};
            int r = queues_apply(&queues, &taken, &decision);
            if (r < 0)
                die("apply", r);
        }
    }
    flush_all();
    printf("%llu %llu %llu %llu\n", (unsigned long long)longest_turn, (unsigned long long)longest_flush,
        (unsigned long long)queues.log.moved, (unsigned long long)queues.log.live);
    queues_close(&queues);
}

int main(int argc, char **argv) {
    uint32_t size = argc > 4 ? (uint32_t)atoi(argv[4]) : 0;
    if (argc < 3 || size > PAYLOAD_MAX)
        return 64;
    memset(payload, ' ', sizeof(payload));
    payload[0] = '{';
    if (size > 1)
        payload[size - 1] = '}';
    if (argc == 6 && strcmp(argv[1], "grouped") == 0)
        grouped(argv[2], (uint32_t)atoi(argv[3]), size, atof(argv[5]));
    else if (argc == 6 && strcmp(argv[1], "bare") == 0)
        bare(argv[2], (uint32_t)atoi(argv[3]), size, atof(argv[5]));
    else if (argc == 6 && strcmp(argv[1], "fill") == 0)
        fill(argv[2], strtoull(argv[3], NULL, 10), size, argv[5]);
    else if (argc == 3 && strcmp(argv[1], "open") == 0)
        open_only(argv[2]);
    else if (argc == 5 && strcmp(argv[1], "churn") == 0)
        churn(argv[2], strtoull(argv[3], NULL, 10), size);
    else
        return 64;
    return 0;
}
