/* Retention of logs; see the header. */
#include "dispatch/log_sweep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/logs.h"

#define SEGMENT_BYTES_MIN 65536u
#define UID_TEXT 32 /* a function's directory is named by its uid in hex */

void log_segment_name(char ret_name[LOG_NAME_SIZE], uint32_t sequence) {
    snprintf(ret_name, LOG_NAME_SIZE, "%08" PRIx32 ".log", sequence);
}

static uint64_t function_bytes(const struct log_limits *limits) {
    return limits->function_bytes != 0 ? limits->function_bytes : (uint64_t)LOG_SEGMENT_BYTES * LOG_SEGMENTS;
}

uint32_t log_segment_bytes(const struct log_limits *limits) {
    return (uint32_t)MIN(MAX(function_bytes(limits) / LOG_SEGMENTS, SEGMENT_BYTES_MIN), LOG_SEGMENT_BYTES);
}

/* The number in a segment's name; 0: not one. */
static uint32_t sequence_of(const char *name) {
    char *end;
    unsigned long value = strtoul(name, &end, 16);
    return end == name + 8 && strcmp(end, ".log") == 0 ? (uint32_t)value : 0;
}

static DIR *open_listing(int directory, const char *name) {
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    if (listing == NULL) {
        int error = errno;
        cleanup_close(&fd);
        errno = error;
    }
    return listing;
}

int log_survey(int directory, uint32_t *ret_newest, uint32_t *ret_oldest) {
    DIR *listing = open_listing(directory, ".");
    const struct dirent *entry;
    uint32_t newest = 0, oldest = UINT32_MAX;

    if (listing == NULL)
        return -errno;
    while ((entry = readdir(listing)) != NULL) {
        uint32_t sequence = sequence_of(entry->d_name);
        if (sequence == 0)
            continue;
        newest = MAX(newest, sequence);
        oldest = MIN(oldest, sequence);
    }
    closedir(listing);
    *ret_newest = newest;
    *ret_oldest = newest == 0 ? 1 : oldest;
    return 0;
}

uint64_t log_drop_oldest(const struct log_limits *limits, int directory, uint32_t newest, uint32_t *oldest) {
    uint64_t total = 0, removed = 0, kept = function_bytes(limits) - log_segment_bytes(limits);

    for (uint32_t sequence = newest; sequence >= *oldest && sequence > 0; sequence--) {
        char name[LOG_NAME_SIZE];
        struct stat status;
        log_segment_name(name, sequence);
        if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        total += (uint64_t)status.st_size;
        if (total > kept && unlinkat(directory, name, 0) == 0)
            removed += (uint64_t)status.st_size;
    }
    if (removed > 0) {
        uint32_t ignored;
        (void)log_survey(directory, &ignored, oldest);
    }
    return removed;
}

/* ---- the sweep ------------------------------------------------------------------------------------------------- */

struct segment {
    char function[UID_TEXT + 1];
    uint32_t sequence;
    uint64_t written_us, bytes;
};

struct census {
    struct segment *segments;
    size_t n, capacity;
    uint64_t bytes;
};

static int census_add(struct census *census, const struct segment *segment) {
    if (census->n == census->capacity) {
        size_t capacity = census->capacity == 0 ? 256 : census->capacity * 2;
        struct segment *bigger = realloc(census->segments, capacity * sizeof(*bigger));
        if (bigger == NULL)
            return -ENOMEM;
        census->segments = bigger;
        census->capacity = capacity;
    }
    census->segments[census->n++] = *segment;
    census->bytes += segment->bytes;
    return 0;
}

static int count_function(struct census *census, int logs, const char *function) {
    DIR *listing = open_listing(logs, function);
    struct segment segment = {0};
    const struct dirent *entry;
    int r = 0;

    if (listing == NULL)
        return 0;
    memcpy(segment.function, function, UID_TEXT);
    while (r >= 0 && (entry = readdir(listing)) != NULL) {
        struct stat status;
        segment.sequence = sequence_of(entry->d_name);
        if (segment.sequence == 0 || fstatat(dirfd(listing), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        segment.written_us = (uint64_t)status.st_mtim.tv_sec * 1000000 + (uint64_t)status.st_mtim.tv_nsec / 1000;
        segment.bytes = (uint64_t)status.st_size;
        r = census_add(census, &segment);
    }
    closedir(listing);
    return r;
}

static int take_census(struct census *census, int logs) {
    DIR *listing = open_listing(logs, ".");
    const struct dirent *entry;
    int r = 0;

    if (listing == NULL)
        return -errno;
    while (r >= 0 && (entry = readdir(listing)) != NULL)
        if (strlen(entry->d_name) == UID_TEXT && strspn(entry->d_name, "0123456789abcdef") == UID_TEXT) {
            size_t before = census->n;
            r = count_function(census, logs, entry->d_name);
            /* One without segments: of a function long gone, or its last ones went right now. */
            if (r >= 0 && census->n == before)
                (void)unlinkat(logs, entry->d_name, AT_REMOVEDIR);
        }
    closedir(listing);
    return r;
}

bool log_clock_believed(struct log_clock *clock, uint64_t real_us, uint64_t boot_us, uint64_t newest_us) {
    const uint64_t expected = clock->known ? clock->real_us + (boot_us - clock->boot_us) : newest_us;

    if (expected != 0 && (real_us > expected + LOG_DOUBT_US || expected > real_us + LOG_DOUBT_US)) {
        clock->doubted = true;
        clock->doubted_us = boot_us;
    }
    clock->known = true;
    clock->real_us = real_us;
    clock->boot_us = boot_us;
    if (clock->doubted && boot_us - clock->doubted_us >= LOG_DOUBT_US)
        clock->doubted = false;
    return !clock->doubted;
}

static int by_age(const void *a, const void *b) {
    const struct segment *one = a, *other = b;
    return one->written_us < other->written_us ? -1 : one->written_us > other->written_us;
}

int log_sweep(const struct log_limits *limits, struct log_clock *clock, int logs, uint64_t *ret_bytes) {
    struct census census = {0};
    uint64_t most = UINT64_MAX, now_us = clock_real_us();
    bool believed;
    int removed = 0, r = take_census(&census, logs);

    if (r < 0)
        goto out;
    if (limits->node_bytes != 0 && census.bytes > limits->node_bytes)
        most = limits->node_bytes - limits->node_bytes / 16;
    if (census.n > 0)
        qsort(census.segments, census.n, sizeof(*census.segments), by_age);
    believed =
        log_clock_believed(clock, now_us, clock_boot_us(), census.n > 0 ? census.segments[census.n - 1].written_us : 0);
    for (size_t i = 0; i < census.n; i++) {
        const struct segment *segment = &census.segments[i];
        bool expired = believed && limits->keep_us != 0 && segment->written_us + limits->keep_us < now_us;
        char name[LOG_NAME_SIZE], path[UID_TEXT + 1 + LOG_NAME_SIZE];
        if (!expired && census.bytes <= most)
            break;
        log_segment_name(name, segment->sequence);
        snprintf(path, sizeof(path), "%s/%s", segment->function, name);
        if (unlinkat(logs, path, 0) < 0)
            continue;
        census.bytes -= segment->bytes;
        removed++;
        /* Not while there is another one in it. */
        (void)unlinkat(logs, segment->function, AT_REMOVEDIR);
    }
    *ret_bytes = census.bytes;
    r = removed;
out:
    free(census.segments);
    return r;
}
