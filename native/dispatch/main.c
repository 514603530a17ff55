/* runtimed-dispatch: the data plane process. What it is given and how it ends: dispatch.h. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#ifdef RUNTIMED_SECCOMP
#include "jail/seccomp.h"
#endif

#define FD_LAUNCHER 3
#define FD_LISTENER 4
#define FD_LOGS 5
#define FD_HTTP 6
#define FD_HTTP_TCP 7

#ifdef RUNTIMED_SECCOMP
static int confine(void) {
    return seccomp_apply(seccomp_dispatch);
}
#endif

static int fail(const char *step, int error) {
    fprintf(stderr, "runtimed-dispatch: %s: %s\n", step, strerror(-error));
    return EXIT_FAILURE;
}

/* Five descriptors per environment, one per connection. */
static void raise_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* What is not set, or not a number, is not limited. */
static uint64_t setting(const char *name, uint64_t unit) {
    const char *text = getenv(name);
    uint64_t value = text != NULL ? strtoull(text, NULL, 10) : 0;
    return value <= UINT64_MAX / unit ? value * unit : 0;
}

/* RUNTIMED_DISPATCH_LOOPS; 0 or nothing: one below four cores, where a second would only take from the functions, else
 * one for two cores, up to eight. */
static unsigned loops(void) {
    uint64_t wanted = setting("RUNTIMED_DISPATCH_LOOPS", 1);
    cpu_set_t set;
    unsigned cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;

    if (wanted == 0)
        wanted = cores < 4 ? 1 : cores < 16 ? cores / 2 : 8;
    return wanted < LOOPS_MAX ? (unsigned)wanted : LOOPS_MAX;
}

/* RUNTIMED_DISPATCH_BUSY_PERCENT, in percent of a core; not set: BALANCE_BUSY. */
static uint32_t busy(void) {
    uint64_t percent = getenv("RUNTIMED_DISPATCH_BUSY_PERCENT") != NULL ? setting("RUNTIMED_DISPATCH_BUSY_PERCENT", 1)
                                                                        : BALANCE_BUSY / 10;
    return (uint32_t)(percent < 100 ? percent : 100) * 10;
}

int main(void) {
    const char *http_group = getenv("RUNTIMED_HTTP_GROUP"), *http_tcp = http_group ? getenv("RUNTIMED_HTTP_TCP") : NULL;
    const int last_socket = http_tcp != NULL ? FD_HTTP_TCP : http_group != NULL ? FD_HTTP : FD_LOGS;
    const uint64_t segment_bytes = setting("RUNTIMED_EVENTS_SEGMENT_MB", UINT64_C(1) << 20);
    const int last = last_socket + (segment_bytes != 0);
    struct dispatch_options options = {
        .loops = loops(),
        .busy = busy(),
        .launcher = FD_LAUNCHER,
        .listener = FD_LISTENER,
        .logs = FD_LOGS,
        .allow_uids = getenv("RUNTIMED_ALLOW_UIDS"),
        .http = http_group != NULL ? FD_HTTP : -1,
        .http_tcp = http_tcp != NULL ? FD_HTTP_TCP : -1,
        .events = {.directory = last, .segment_bytes = segment_bytes},
        .http_group = http_group != NULL ? (uint32_t)strtoul(http_group, NULL, 10) : UINT32_MAX,
        .payload_bytes = setting("RUNTIMED_PAYLOADS_MB", UINT64_C(1) << 20),
        .log_limits =
            {
                .function_bytes = setting("RUNTIMED_LOGS_FUNCTION_MB", UINT64_C(1) << 20),
                .node_bytes = setting("RUNTIMED_LOGS_NODE_MB", UINT64_C(1) << 20),
                .keep_us = setting("RUNTIMED_LOGS_DAYS", UINT64_C(86400) * 1000000),
            },
    };
    struct dispatch *dispatch;
    int r;

    for (int fd = FD_LAUNCHER; fd <= last; fd++) {
        r = fd_set_cloexec(fd, 1);
        if (r < 0)
            return fail("descriptors 3 to 5, with RUNTIMED_HTTP_GROUP, RUNTIMED_HTTP_TCP and "
                        "RUNTIMED_EVENTS_SEGMENT_MB one more "
                        "for each, are expected",
                r);
    }
    r = fd_set_nonblocking(FD_LISTENER, 1);
    for (int fd = FD_HTTP; r == 0 && fd <= last_socket; fd++)
        r = fd_set_nonblocking(fd, 1);
    if (r < 0)
        return fail("the listener", r);
    /* Nothing to inherit: other users' files are none of its business, its own logs are for one group. */
    umask(0027);
    raise_limits();
    signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail("no_new_privs", -errno);
#ifdef RUNTIMED_SECCOMP
    options.confine = confine;
#endif
    dispatch = malloc(sizeof(*dispatch));
    if (dispatch == NULL)
        return fail("memory", -ENOMEM);
    r = dispatch_open(dispatch, &options);
    if (r < 0)
        return fail("opening what it needs (descriptors, memory, threads)", r);
    do
        r = dispatch_turn(dispatch, 1000000);
    while (r == 0);
    dispatch_close(dispatch);
    free(dispatch);
    return r < 0 ? fail("the loop", r) : EXIT_SUCCESS;
}
