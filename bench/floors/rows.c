/* Threads that hand over events to SQLite one at a time: a row a commit, WAL, synchronous FULL, so that a commit is on the
 * disk when it returns. All threads share one connection and wait for it in line, which is faster than connections of
 * their own, of which all but one would sleep and try again. Output as events.c's.
 *
 *   rows DATABASE REQUEST THREADS SECONDS */
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 1024, SAMPLES_MAX = 1 << 22, REQUEST = 1 << 20 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static sqlite3 *database;
static sqlite3_stmt *insert;
static char request[REQUEST];
static ssize_t request_size;
static uint64_t begun, end, count_from;
static float *samples;
static size_t n_samples;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void check(int result, int wanted) {
    if (result != wanted) {
        fprintf(stderr, "rows: %s\n", sqlite3_errmsg(database));
        exit(1);
    }
}

static void *run(void *argument) {
    (void)argument;
    for (;;) {
        uint64_t asked = now(), done;
        if (asked >= end)
            return NULL;
        pthread_mutex_lock(&mutex);
        check(sqlite3_bind_blob(insert, 1, request, (int)request_size, SQLITE_STATIC), SQLITE_OK);
        check(sqlite3_step(insert), SQLITE_DONE);
        check(sqlite3_reset(insert), SQLITE_OK);
        done = now();
        if (done > count_from && n_samples < SAMPLES_MAX)
            samples[n_samples++] = (float)(done - asked) / 1000.0f;
        pthread_mutex_unlock(&mutex);
    }
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS_MAX];
    if (argc != 5)
        return 64;
    unsigned n = (unsigned)atoi(argv[3]);
    int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    request_size = fd < 0 ? -1 : read(fd, request, sizeof(request));
    samples = malloc(sizeof(float) * SAMPLES_MAX);
    if (request_size <= 0 || n == 0 || n > THREADS_MAX || samples == NULL)
        return 64;
    check(sqlite3_open(argv[1], &database), SQLITE_OK);
    check(sqlite3_exec(database, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)", NULL, NULL, NULL), SQLITE_OK);
    check(sqlite3_prepare_v2(database, "INSERT INTO events (payload) VALUES (?)", -1, &insert, NULL), SQLITE_OK);
    begun = now();
    end = begun + (uint64_t)(atof(argv[4]) * 1e9);
    count_from = begun + (end - begun) / 5;
    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, run, NULL) != 0)
            return 1;
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    sqlite3_finalize(insert);
    sqlite3_close(database);
    return fwrite(samples, sizeof(float), n_samples, stdout) == n_samples ? 0 : 1;
}
