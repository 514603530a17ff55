/* Floor of what several threads share: nanoseconds that one locked addition takes, on a line of one's own, and on one that
 * another thread adds to as well, each on a core of its own. Prints both, for two threads; one figure a line. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 200000, RUNS = 40 };

struct line {
    _Alignas(64) _Atomic uint64_t value;
};

static struct line lines[2];
static pthread_barrier_t begin;

struct adder {
    pthread_t thread;
    unsigned core;
    struct line *line;
    double ns; /* each */
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *add(void *argument) {
    struct adder *adder = argument;
    cpu_set_t set, all;
    double start;
    unsigned core = 0;

    /* The n-th core of those that are ours, if there are so many. */
    if (sched_getaffinity(0, sizeof(all), &all) == 0)
        for (unsigned i = 0, n = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &all) && n++ == adder->core)
                core = i;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    (void)sched_setaffinity(0, sizeof(set), &set);
    pthread_barrier_wait(&begin);
    start = now();
    for (unsigned i = 0; i < ROUNDS; i++)
        atomic_fetch_add(&adder->line->value, 1);
    adder->ns = (now() - start) / ROUNDS;
    return NULL;
}

/* Of a line of one's own the best run: what disturbs makes it longer. Of a shared one the worst: in the others the threads
 * did not run at the same time, on a machine that has other work too. Processor time either way. */
static double measure(struct line *other) {
    const int shared = other == &lines[0];
    double found = shared ? 0 : 1e9;
    for (unsigned run = 0; run < RUNS; run++) {
        struct adder adders[2] = {{.core = 0, .line = &lines[0]}, {.core = 1, .line = other}};
        pthread_barrier_init(&begin, NULL, 2);
        for (unsigned i = 0; i < 2; i++)
            if (pthread_create(&adders[i].thread, NULL, add, &adders[i]) != 0)
                return -1;
        for (unsigned i = 0; i < 2; i++)
            pthread_join(adders[i].thread, NULL);
        pthread_barrier_destroy(&begin);
        double mean = (adders[0].ns + adders[1].ns) / 2;
        if (shared ? mean > found : mean < found)
            found = mean;
    }
    return found;
}

int main(void) {
    printf("%.2f\n%.2f\n", measure(&lines[1]), measure(&lines[0]));
    return 0;
}
