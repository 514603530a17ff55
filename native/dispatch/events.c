/* The thread that has the event log: see events.h. */
#include "dispatch/events.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "event_parts.h"

#define LOCK_NAME "lock"
#define LOCK_US 5000u     /* between looks whether another dispatcher has let go of it */
#define AGAIN_US 2000000u /* between attempts to open a log that cannot be opened */
#define ROOM_US 500000u   /* between looks whether a full disk has room again */
#define IDLE_US 60000000u
#define SLICE_NS 100000u /* the shortest there is */
#define FLUSHES_MAX 16u
#define GROUP_BYTES (4u << 20)
#define PENDING_BYTES (16u << 20)
#define DISK_SHARE 32u
#define SEGMENT_BYTES_MIN (4ull << 20)
#define EVENT_BYTES 512u /* about so many an event: how many a segment is made for */
#define KEY_WINDOW_S 300u
#define KEYS_MOST 1000000u

struct counters_node *events_counters(const struct events *events) {
    return events->loops->each[0]->counters.node;
}

void events_changed(struct events *events) {
    if (events->changed_us == 0)
        events->changed_us = clock_monotonic_us();
}

/* ---- opening and closing the log -------------------------------------------------------------------------------- */

static uint64_t salt(void *context) {
    struct events *events = context;
    uint64_t value;
    random_bytes(&events->randomness, (uint8_t *)&value, sizeof(value));
    return value;
}

/* 0: it is ours. */
static int lock(struct events *events) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (events->lock < 0)
        events->lock = openat(events->directory, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (events->lock < 0)
        return -errno;
    return fcntl(events->lock, F_OFD_SETLK, &whole) < 0 ? -errno : 0;
}

static void say_found(const struct log_found *found) {
    if (found->waiting > 0 || found->torn_bytes > 0)
        fprintf(stderr,
            "runtimed-dispatch: event log: %" PRIu64 " events wait in %" PRIu64 " segments, read in %" PRIu64
            " ms; %" PRIu64 " bytes that nobody was told of were cut off\n",
            found->waiting, found->segments, found->microseconds / 1000, found->torn_bytes);
    if (found->damaged_segments > 0 || found->missing_segments > 0 || found->unknown_places > 0)
        fprintf(stderr,
            "runtimed-dispatch: event log: DAMAGED: %" PRIu64 " segments with %" PRIu64 " unreadable bytes, %" PRIu64
            " segments missing; %" PRIu64 " events were saved; damaged files are kept as *.damaged\n",
            found->damaged_segments, found->damaged_bytes, found->missing_segments, found->salvaged);
    if (found->unsaved_segments > 0)
        fprintf(stderr,
            "runtimed-dispatch: event log: %" PRIu64 " damaged segments stay as they are, for want of room: make some, "
            "and start the node again\n",
            found->unsaved_segments);
}

static void open_log(struct events *events, uint64_t now_us) {
    struct log_found found = {0};
    int r = lock(events);
    if (r == -EAGAIN || r == -EACCES) { /* another dispatcher has it, and is about to let go */
        events->retry_us = now_us + LOCK_US;
        return;
    }
    if (r == 0)
        r = queues_open(&events->queues, &events->files, &events->options, clock_real_us() / 1000, &found);
    if (r < 0) {
        if (events->broken != r)
            fprintf(stderr, "runtimed-dispatch: event log: cannot be opened: %s; asynchronous calls are refused\n",
                strerror(-r));
        events->broken = r;
        events->retry_us = now_us + AGAIN_US;
        return;
    }
    say_found(&found);
    events->damaged_files = found.damaged_files;
    atomic_store_explicit(&events_counters(events)->events_damaged_files, events->damaged_files, memory_order_relaxed);
    events->broken = 0;
    events->state = EVENTS_OPEN;
    events->dirty = true;
    for (uint32_t i = 0; i < events->queues.n; i++)
        queue_dirty(events, events->queues.all[i]);
    events_apply_pauses(events);
}

static void flush_all(struct events *events) {
    struct log *log = &events->queues.log;
    /* What failed to be written goes again with a later group: not for ever. */
    for (unsigned i = 0; i < FLUSHES_MAX; i++) {
        bool open = log->open != NULL;
        while (log->open != NULL && log_flush(log, clock_real_us() / 1000) > 0 && log->full == 0) {
        }
        queues_turn(&events->queues, clock_real_us() / 1000);
        if (!open)
            break;
    }
    events->changed_us = 0;
}

static void close_log(struct events *events) {
    if (events->state == EVENTS_OPEN) {
        flush_all(events);
        dead_done(events);
        queues_close(&events->queues);
        free(events->views);
        events->views = NULL;
        events->n_views = 0;
    }
    events->state = EVENTS_CLOSED;
    cleanup_close(&events->lock);
    for (struct list *node; (node = list_pop_front(&events->waiting)) != NULL;)
        accept_done(events, list_entry(node, struct accept, node), -ESHUTDOWN);
}

/* ---- turns ------------------------------------------------------------------------------------------------------ */

/* What waited for the log, or for an original that is on the disk by now. */
static void try_waiting(struct events *events) {
    struct list all;
    struct list *node;
    list_init(&all);
    while ((node = list_pop_front(&events->waiting)) != NULL)
        list_push_back(&all, node);
    while ((node = list_pop_front(&all)) != NULL)
        accept_try(events, list_entry(node, struct accept, node));
}

/* The log writes when there is an event, or a change that has waited long enough; and what is to be done beside. */
static void write_log(struct events *events, uint64_t now_us) {
    struct log *log = &events->queues.log;
    struct counters_node *node = events_counters(events);
    bool due = events->changed_us != 0 && now_us >= events->changed_us + EVENTS_SETTLE_US;
    unsigned flushes = 0;

    while (log->open != NULL && flushes++ < FLUSHES_MAX && (log->open->n_items > 0 || due || log->open->next != NULL)) {
        if (log->open->next == NULL)
            events->changed_us = 0;
        (void)log_flush(log, clock_real_us() / 1000);
    }
    if (log->open == NULL && (log->full == 0 || now_us >= events->room_us + ROOM_US)) {
        events->room_us = now_us;
        for (unsigned i = 0; i < FLUSHES_MAX && log_flush(log, clock_real_us() / 1000) > 0; i++) {
        }
    }
    count_add(&node->event_groups, log->groups - events->groups);
    count_add(&node->event_bytes, log->written_bytes - events->bytes);
    events->groups = log->groups;
    events->bytes = log->written_bytes;
    atomic_store_explicit(&node->events_full, log->full != 0, memory_order_relaxed);
}

static void turn(struct events *events) {
    uint64_t now_us = clock_monotonic_us();

    event_clock_look(&events->clock);
    if (events->state == EVENTS_WAITING && !events->giving && now_us >= events->retry_us)
        open_log(events, now_us);
    if (events->broken != 0 || events->state == EVENTS_OPEN)
        try_waiting(events);
    if (events->state != EVENTS_OPEN)
        return;
    write_log(events, now_us);
    queues_turn(&events->queues, clock_real_us() / 1000);
    if (!list_empty(&events->waiting))
        try_waiting(events);
    if (events->serving && !events->giving && !events->stopping)
        events_take(events);
    if (events->queues.log.open != NULL)
        events_changed(events);
    atomic_store_explicit(
        &events_counters(events)->events_waiting, events->queues.log.live - events->dead.size, memory_order_relaxed);
    events_tell(events, now_us);
}

static uint64_t earlier(uint64_t at, uint64_t now, uint64_t before) {
    uint64_t wait = at > now ? at - now : 0;
    return MIN(wait, before);
}

static int patience_ms(struct events *events) {
    uint64_t now = clock_monotonic_us(), wait = IDLE_US;
    const struct log *log = &events->queues.log;

    if (events->state == EVENTS_WAITING && !events->giving)
        wait = earlier(events->retry_us, now, wait);
    if (events->giving)
        wait = earlier(events->giving_us + EVENTS_GIVE_US, now, wait);
    if (events->state == EVENTS_OPEN) {
        uint64_t next = queues_next(&events->queues), real = clock_real_us();
        if (next != UINT64_MAX)
            wait = earlier(next * 1000, real, wait);
        if (events->changed_us != 0)
            wait = earlier(events->changed_us + EVENTS_SETTLE_US, now, wait);
        if (log->open != NULL && (log->open->n_items > 0 || log->open->next != NULL))
            wait = 0;
        if (log->full != 0)
            wait = earlier(events->room_us + ROOM_US, now, wait);
        if (events->dirty)
            wait = earlier(events->told_us + EVENTS_STATE_US, now, wait);
    }
    return (int)((wait + 999) / 1000);
}

/* The thread works a little and waits for the disk, in turns, and callers wait for it: where there are fewer processors
 * than threads at work it should not wait for the others' slices. A short slice of its own lets it in (Linux 6.12 and
 * later; earlier ones take no notice). */
static void be_prompt(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = sizeof(attributes), .policy = SCHED_OTHER, .runtime_ns = SLICE_NS};
    int nice = getpriority(PRIO_PROCESS, 0);
    attributes.nice = nice;
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0u);
}

static void *run(void *argument) {
    struct events *events = argument;
    struct pollfd poller = {.fd = events->box.watch.fd, .events = POLLIN};
    struct mail *mail;

    pthread_setname_np(pthread_self(), "event-log");
    be_prompt();
    if (events->confine != NULL && events->confine() < 0)
        abort();
    pthread_barrier_wait(&events->confined);
    while (!events->stopping) {
        uint64_t count;
        if (poll(&poller, 1, patience_ms(events)) > 0)
            (void)!read(poller.fd, &count, sizeof(count));
        while ((mail = mailbox_take(&events->box)) != NULL) {
            if (mail == &events->stop)
                events->stopping = true;
            else
                list_entry(mail, struct note, mail)->handle(events, list_entry(mail, struct note, mail));
        }
        turn(events);
        if (events->giving && events->state != EVENTS_CLOSED &&
            ((events->quiet && events->attempts.size == 0 && list_empty(&events->waiting)) ||
                clock_monotonic_us() >= events->giving_us + EVENTS_GIVE_US))
            close_log(events);
        events_answer(events);
    }
    close_log(events);
    events_answer(events);
    return NULL;
}

/* ---- from the loops --------------------------------------------------------------------------------------------- */

/* Three files are always there: on a small disk they are small. */
static uint64_t segment_bytes(const struct events_options *options) {
    struct statvfs disk;
    uint64_t share = UINT64_MAX;
    if (fstatvfs(options->directory, &disk) == 0)
        share = (uint64_t)disk.f_blocks * disk.f_frsize / DISK_SHARE / SECTOR * SECTOR;
    return MAX(MIN(options->segment_bytes, share), SEGMENT_BYTES_MIN);
}

static int make(struct events **ret_events, struct loops *loops, const struct events_options *options) {
    struct events *events = calloc(1, sizeof(*events));
    const uint64_t bytes = segment_bytes(options), n = bytes / EVENT_BYTES;
    if (events == NULL)
        return -ENOMEM;
    events->loops = loops;
    events->directory = options->directory;
    event_clock_begin(&events->clock);
    events->lock = -1;
    events->confine = options->confine;
    files_open(&events->files, options->directory);
    events->options = (struct queues_options){
        .log = {.segment_bytes = bytes,
            .segment_events = (uint32_t)MIN(n, (uint64_t)SEGMENT_EVENTS_MAX),
            .group_bytes = (uint32_t)MIN(GROUP_BYTES, bytes / 4),
            .pending_bytes = PENDING_BYTES,
            .salt = salt,
            .salt_context = events},
        /* Which rule holds is found for each event: the queue's own lets everything pass. */
        .policy = {.retries = RETRIES_MAX, .max_age_ms = UINT64_MAX, .deliver_failure = true},
        .cap = EVENTS_QUEUE_FIRST,
        .key_window_s = KEY_WINDOW_S,
        .keys_most = KEYS_MOST,
        .accepted = accept_stored,
        .context = events,
    };
    list_init(&events->waiting);
    list_init(&events->dead_order);
    rules_init(&events->rules);
    *ret_events = events;
    return mailbox_open(&events->box);
}

int events_start(struct events **ret_events, struct loops *loops, const struct events_options *options) {
    struct events *events;
    sigset_t all, before;
    int r;

    *ret_events = NULL;
    if (options->segment_bytes == 0)
        return 0;
    r = make(&events, loops, options);
    if (r < 0)
        return r;
    pthread_barrier_init(&events->confined, NULL, 2);
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&events->thread, NULL, run, events);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        return r;
    pthread_barrier_wait(&events->confined);
    *ret_events = events;
    return 0;
}

void events_stop(struct events *events) {
    if (events == NULL)
        return;
    for (unsigned i = 0; i < events->loops->n; i++)
        events_depart(events->loops->each[i]);
    mailbox_post(&events->box, &events->stop);
    pthread_join(events->thread, NULL);
}

void events_free(struct events *events) {
    struct mail *mail;
    if (events == NULL)
        return;
    while ((mail = mailbox_take(&events->box)) != NULL)
        list_entry(mail, struct note, mail)->handle(events, list_entry(mail, struct note, mail));
    pthread_barrier_destroy(&events->confined);
    mailbox_close(&events->box);
    rules_done(&events->rules);
    table_done(&events->attempts);
    table_done(&events->dead);
    close(events->directory);
    free(events);
}

static void post_plain(struct dispatch *dispatch, void (*handle)(struct events *, struct note *)) {
    struct note *note = dispatch->loops->events != NULL ? calloc(1, sizeof(*note)) : NULL;
    events_depart(dispatch); /* what came before is told before */
    if (note != NULL)
        events_post(dispatch->loops->events, note, handle);
}

static void serve(struct events *events, struct note *note) {
    events->serving = true;
    free(note);
}

static void pause_all(struct events *events, struct note *note) {
    events->serving = false;
    free(note);
}

static void give(struct events *events, struct note *note) {
    if (!events->giving)
        events->giving_us = clock_monotonic_us();
    events->giving = true;
    free(note);
}

static void give_quiet(struct events *events, struct note *note) {
    events->quiet = true;
    give(events, note);
}

void events_serve(struct dispatch *dispatch) {
    post_plain(dispatch, serve);
}

void events_pause_all(struct dispatch *dispatch) {
    post_plain(dispatch, pause_all);
}

void events_give(struct dispatch *dispatch, bool quiet) {
    post_plain(dispatch, quiet ? give_quiet : give);
}
