/* The flusher's thread; see the header. */
#include "queue/flusher.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "queue/log.h"

#define PATIENCE_MS 1000u /* between looks at whether there is room again */
#define TROUBLE_MS 50u    /* between attempts while the disk fails */

struct flusher {
    struct log *log;
    pthread_t thread;
    int (*confine)(void);
    pthread_barrier_t confined;
};

static void wait_for_more(struct log *log) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&log->mutex);
    if (log->open == NULL && !log->stop)
        pthread_cond_timedwait(&log->wake, &log->mutex, &until);
    pthread_mutex_unlock(&log->mutex);
}

static bool stopping(struct log *log) {
    pthread_mutex_lock(&log->mutex);
    bool stop = log->stop;
    pthread_mutex_unlock(&log->mutex);
    return stop;
}

static void *run(void *argument) {
    struct flusher *f = argument;
    struct log *log = f->log;
    static const struct timespec trouble = {.tv_nsec = TROUBLE_MS * 1000000};

    pthread_setname_np(pthread_self(), "event-log");
    if (f->confine != NULL && f->confine() < 0)
        abort();
    pthread_barrier_wait(&f->confined);
    for (;;) {
        bool stop = stopping(log);
        int did = log_flush(log, clock_real_us() / 1000);
        if (stop && did == 0)
            return NULL;
        /* What fails comes again at once: not as fast as it can. */
        if (did != 0 && __atomic_load_n(&log->full, __ATOMIC_ACQUIRE) != 0) {
            if (stop)
                return NULL;
            nanosleep(&trouble, NULL);
        }
        if (did == 0)
            wait_for_more(log);
    }
}

int flusher_start(struct flusher **ret_flusher, struct log *log, int (*confine)(void)) {
    struct flusher *f = calloc(1, sizeof(*f));
    sigset_t all, before;
    int r;

    if (f == NULL)
        return -ENOMEM;
    f->log = log;
    f->confine = confine;
    pthread_barrier_init(&f->confined, NULL, 2);
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&f->thread, NULL, run, f);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) {
        pthread_barrier_destroy(&f->confined);
        free(f);
        return r;
    }
    pthread_barrier_wait(&f->confined);
    *ret_flusher = f;
    return 0;
}

void flusher_stop(struct flusher *f) {
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->log->mutex);
    f->log->stop = true;
    pthread_cond_signal(&f->log->wake);
    pthread_mutex_unlock(&f->log->mutex);
    pthread_join(f->thread, NULL);
    pthread_barrier_destroy(&f->confined);
    free(f);
}
