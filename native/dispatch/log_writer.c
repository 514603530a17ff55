/* The log writer; see the header. All state below is the thread's own.
 *
 * Records of a function are gathered in a buffer and written when it is full, and at the end of each pass over the
 * ring: a busy function costs one write(2) a pass. What a crash leaves behind: segments that end in the middle of a
 * record (only if a write was cut short), never a gap. */
#include "dispatch/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "base/list.h"
#include "dispatch/counters.h"
#include "dispatch/log_ring.h"
#include "dispatch/log_sweep.h"
#include "dispatch/logs.h"
#include "dispatch/random.h"

#define BUFFER_SIZE 65536u
#define OPEN_MAX 256u       /* segments open at a time */
#define RETRY_US 1000000u   /* after an error, drop for so long before trying again */
#define QUIET_US 1000000u   /* a buffer unused for so long is freed */
#define SWEEP_US 600000000u /* between looks at what is too old */

struct log_file {
    uint8_t uid[16];
    struct list node;          /* in writer.files: most recently written last */
    uint64_t pass;             /* the last one that had a record for it */
    int directory, segment;    /* -1: closed */
    uint32_t sequence, oldest; /* segments there are; sequence 0: the directory was not looked at */
    uint64_t size;             /* of the segment */
    uint8_t *buffer;
    uint32_t used, records;
    unsigned partings; /* rings that said that no more will come */
    uint64_t written_us, failed_us;
    uint64_t dropped_records, dropped_bytes; /* since the last DROPPED record */
};

struct log_writer {
    pthread_t thread;
    struct log_ring *rings; /* the first; each loop has one */
    unsigned n_rings;
    struct counters *counters;
    int directory;
    struct list files;
    unsigned n_open;
    uint64_t passes;
    unsigned n_losing;        /* files that have dropped records to tell of */
    struct log_limits limits; /* what is kept */
    struct log_clock clock;
    uint64_t bytes;    /* of all segments, of other functions too; exact after a sweep */
    uint64_t swept_us; /* 0: never */
    uint64_t told_us;  /* when those that have dropped records were last tried */
    int (*confine)(void);
    pthread_barrier_t confined;
};

struct log_file *log_file_new(const uint8_t function_uid[16]) {
    struct log_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return NULL;
    memcpy(file->uid, function_uid, 16);
    file->directory = file->segment = -1;
    list_init(&file->node);
    return file;
}

/* ---- segments -------------------------------------------------------------------------------------------------- */

static void close_segment(struct log_writer *w, struct log_file *file) {
    if (file->segment < 0)
        return;
    cleanup_close(&file->segment);
    cleanup_close(&file->directory);
    w->n_open--;
}

/* The group that may read comes from the logs directory, which is set-group-id. */
static int open_directory(struct log_writer *w, struct log_file *file) {
    char name[33];
    if (file->directory >= 0)
        return 0;
    hex_text(file->uid, sizeof(file->uid), name);
    if (mkdirat(w->directory, name, 0750) < 0 && errno != EEXIST)
        return -errno;
    file->directory = openat(w->directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return file->directory < 0 ? -errno : 0;
}

static void make_room(struct log_writer *w) {
    list_for_each(node, &w->files) {
        if (w->n_open < OPEN_MAX)
            return;
        close_segment(w, list_entry(node, struct log_file, node));
    }
}

static int new_segment(struct log_writer *w, struct log_file *file) {
    char name[LOG_NAME_SIZE];
    uint8_t header[LOG_SEGMENT_HEADER];
    uint32_t magic = LOG_MAGIC, version = LOG_VERSION;
    uint64_t created = clock_real_us();

    close_segment(w, file);
    make_room(w);
    int r = open_directory(w, file);
    if (r >= 0 && file->sequence == 0)
        r = log_survey(file->directory, &file->sequence, &file->oldest);
    if (r < 0)
        goto fail;
    log_segment_name(name, file->sequence + 1);
    file->segment = openat(file->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (file->segment < 0) {
        r = -errno;
        if (r == -EEXIST) /* by the dispatcher that replaces us, or that we replace: behind it, the next time */
            file->sequence = 0;
        goto fail;
    }
    file->sequence++;
    w->n_open++;
    memcpy(header, &magic, 4);
    memcpy(header + 4, &version, 4);
    memcpy(header + 8, &created, 8);
    memcpy(header + 16, file->uid, 16);
    r = write_all(file->segment, header, sizeof(header));
    if (r < 0) {
        (void)unlinkat(file->directory, name, 0);
        close_segment(w, file);
        file->sequence--;
        return r;
    }
    file->size = sizeof(header);
    w->bytes += sizeof(header);
    const uint64_t dropped = log_drop_oldest(&w->limits, file->directory, file->sequence, &file->oldest);
    w->bytes -= MIN(dropped, w->bytes);
    return 0;
fail:
    cleanup_close(&file->directory);
    return r;
}

/* A segment closed for want of descriptors: append to it again. */
static int reopen(struct log_writer *w, struct log_file *file) {
    char name[LOG_NAME_SIZE];
    make_room(w);
    if (open_directory(w, file) < 0)
        return -ENOENT;
    log_segment_name(name, file->sequence);
    file->segment = openat(file->directory, name, O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    if (file->segment < 0) {
        cleanup_close(&file->directory);
        return -ENOENT;
    }
    w->n_open++;
    return 0;
}

static int ready_segment(struct log_writer *w, struct log_file *file, uint32_t more) {
    bool full = file->size + more > log_segment_bytes(&w->limits) && file->size > LOG_SEGMENT_HEADER;
    if (file->segment >= 0 && !full)
        return 0;
    /* size 0: this process has not written to it yet. */
    if (file->segment < 0 && file->size > 0 && !full && reopen(w, file) == 0)
        return 0;
    return new_segment(w, file);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void lose(struct log_writer *w, struct log_file *file, uint64_t records, uint64_t bytes) {
    if (file->dropped_records == 0)
        w->n_losing++;
    file->dropped_records += records;
    file->dropped_bytes += bytes;
    count_shared(&w->counters->node->log_records_dropped, records);
}

static int write_records(struct log_writer *w, struct log_file *file, const uint8_t *data, uint32_t size) {
    int r = ready_segment(w, file, size);
    if (r < 0)
        return r;
    r = write_all(file->segment, data, size);
    if (r < 0) {
        /* Part of it may be there: back to the last whole record. A segment that cannot even do that is left. */
        if (ftruncate(file->segment, (off_t)file->size) < 0 || lseek(file->segment, 0, SEEK_END) < 0)
            close_segment(w, file);
        return r;
    }
    file->size += size;
    w->bytes += size;
    count_add(&w->counters->node->log_bytes_written, size);
    return 0;
}

static int write_dropped(struct log_writer *w, struct log_file *file) {
    uint8_t record[LOG_RECORD_HEADER + 17];
    struct log_tag tag = {0};
    int r;

    if (file->dropped_records == 0)
        return 0;
    log_record_header(record, 17, clock_real_us(), LOG_KIND_DROPPED, &tag);
    memcpy(record + LOG_RECORD_HEADER, &file->dropped_records, 8);
    memcpy(record + LOG_RECORD_HEADER + 8, &file->dropped_bytes, 8);
    record[LOG_RECORD_HEADER + 16] = LOG_DROPPED_DISK;
    r = write_records(w, file, record, sizeof(record));
    if (r >= 0) {
        file->dropped_records = file->dropped_bytes = 0;
        w->n_losing--;
    }
    return r;
}

/* Writes or drops. */
static void put(struct log_writer *w, struct log_file *file, const uint8_t *data, uint32_t size, uint32_t records) {
    uint64_t now = clock_monotonic_us();
    int r = -EAGAIN;

    if (file->failed_us == 0 || now - file->failed_us > RETRY_US) {
        r = write_dropped(w, file);
        if (r >= 0)
            r = write_records(w, file, data, size);
        file->failed_us = r < 0 ? now : 0;
        if (r < 0)
            count_one(&w->counters->node->log_write_errors);
    }
    if (r < 0)
        lose(w, file, records, size);
    file->written_us = now;
}

static void flush(struct log_writer *w, struct log_file *file) {
    if (file->used > 0)
        put(w, file, file->buffer, file->used, file->records);
    file->used = file->records = 0;
}

static void append(struct log_writer *w, struct log_file *file, const uint8_t *data, uint32_t size) {
    if (size > BUFFER_SIZE - file->used)
        flush(w, file);
    if (file->buffer == NULL)
        file->buffer = malloc(BUFFER_SIZE);
    if (size > BUFFER_SIZE || file->buffer == NULL) {
        put(w, file, data, size, 1);
        return;
    }
    memcpy(file->buffer + file->used, data, size);
    file->used += size;
    file->records++;
}

static void file_free(struct log_writer *w, struct log_file *file) {
    flush(w, file);
    if (file->dropped_records > 0)
        w->n_losing--;
    close_segment(w, file);
    cleanup_close(&file->directory);
    list_remove(&file->node);
    free(file->buffer);
    free(file);
}

/* Who lost records to a full disk and then fell silent is told of it as well, once there is room. */
static void tell_losses(struct log_writer *w, uint64_t now) {
    if (w->n_losing == 0 || now - w->told_us < RETRY_US)
        return;
    w->told_us = now;
    list_for_each(node, &w->files) {
        struct log_file *file = list_entry(node, struct log_file, node);
        if (file->dropped_records > 0 && now - file->failed_us > RETRY_US)
            file->failed_us = write_dropped(w, file) < 0 ? now : 0;
    }
}

/* Segments that a sweep removed are not written to any more. */
static void sweep(struct log_writer *w, uint64_t now) {
    bool exceeded = w->limits.node_bytes != 0 && w->bytes > w->limits.node_bytes;

    if (w->swept_us != 0 && now - w->swept_us < (exceeded ? RETRY_US : SWEEP_US))
        return;
    w->swept_us = now;
    if (log_sweep(&w->limits, &w->clock, w->directory, &w->bytes) <= 0)
        return;
    list_for_each(node, &w->files) {
        struct log_file *file = list_entry(node, struct log_file, node);
        struct stat status;
        if (file->segment >= 0 && fstat(file->segment, &status) == 0 && status.st_nlink == 0)
            close_segment(w, file);
    }
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

/* When the record was made; an empty entry waits for nothing. */
static uint64_t time_of(const struct ring_entry *entry) {
    uint64_t time = 0;
    if (entry->payload_size >= LOG_RECORD_HEADER)
        memcpy(&time, entry->payload + 8, sizeof(time));
    return time;
}

static const struct ring_entry *oldest(struct log_writer *w, struct log_ring **ret_ring) {
    const struct ring_entry *found = NULL;
    for (struct log_ring *ring = w->rings; ring != NULL; ring = ring->next) {
        const struct ring_entry *entry = ring_peek(ring);
        if (entry != NULL && (found == NULL || time_of(entry) < time_of(found))) {
            found = entry;
            *ret_ring = ring;
        }
    }
    return found;
}

/* The next record in the order of time. Of an environment that went to another loop, what it said before is in another
 * ring than what follows: whoever sees the one by looking twice sees the other. */
static const struct ring_entry *next(struct log_writer *w, struct log_ring **ret_ring) {
    const struct ring_entry *entry = oldest(w, ret_ring);
    return entry == NULL || w->n_rings == 1 ? entry : oldest(w, ret_ring);
}

static void take(struct log_writer *w, const struct ring_entry *entry) {
    struct log_file *file = entry->file;
    if (entry->payload_size == 0) {
        if (++file->partings == w->n_rings)
            file_free(w, file);
        return;
    }
    list_remove(&file->node);
    list_push_back(&w->files, &file->node);
    file->pass = w->passes;
    append(w, file, entry->payload, entry->payload_size);
}

static void pass(struct log_writer *w) {
    const struct ring_entry *entry;
    struct log_ring *ring = w->rings;
    uint64_t now = clock_monotonic_us();

    w->passes++;
    while ((entry = next(w, &ring)) != NULL) {
        take(w, entry);
        ring_release(ring, entry);
    }
    /* The list is in the order of use: those of this pass at its end, those whose buffer is gone already at its
     * front. */
    for (struct list *node = w->files.previous; node != &w->files; node = node->previous) {
        struct log_file *file = list_entry(node, struct log_file, node);
        if (file->pass == w->passes) {
            flush(w, file);
        } else if (now - file->written_us > QUIET_US) {
            if (file->buffer == NULL)
                break;
            free(file->buffer);
            file->buffer = NULL;
        }
    }
}

static void *run(void *argument) {
    struct log_writer *w = argument;
    pthread_setname_np(pthread_self(), "log-writer");
    /* A thread that could not be confined must not go on; the process without it would lose every log. */
    if (w->confine != NULL && w->confine() < 0)
        abort();
    pthread_barrier_wait(&w->confined);
    while (atomic_load(&w->rings->stop) == 0) {
        sweep(w, clock_monotonic_us());
        ring_wait(w->rings, QUIET_US);
        pass(w);
        tell_losses(w, clock_monotonic_us());
    }
    pass(w);
    list_for_each_safe(node, &w->files) {
        file_free(w, list_entry(node, struct log_file, node));
    }
    return NULL;
}

int log_writer_start(struct log_writer **ret_writer, struct log_ring *rings, struct counters *counters, int directory,
    const struct log_limits *limits, int (*confine)(void)) {
    struct log_writer *w = calloc(1, sizeof(*w));
    sigset_t all, before;
    int r;

    if (w == NULL)
        return -ENOMEM;
    w->rings = rings;
    for (const struct log_ring *ring = rings; ring != NULL; ring = ring->next)
        w->n_rings++;
    w->counters = counters;
    w->directory = directory;
    w->limits = *limits;
    w->confine = confine;
    list_init(&w->files);
    pthread_barrier_init(&w->confined, NULL, 2);
    /* Signals are the loop's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) {
        free(w);
        return r;
    }
    pthread_barrier_wait(&w->confined);
    *ret_writer = w;
    return 0;
}

void log_writer_join(struct log_writer *w) {
    if (w == NULL)
        return;
    pthread_join(w->thread, NULL);
    pthread_barrier_destroy(&w->confined);
    close(w->directory);
    free(w);
}
