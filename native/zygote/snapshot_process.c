/* What the kernel keeps of a process beside its memory: what can be put back is read, what cannot be is found. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "snapshot.h"

/* The kernel's size of a signal set. */
#define MASK_SIZE 8
/* How long threads have to end: a second. */
#define THREADS_PAUSES 200
#define THREADS_PAUSE_NS 5000000

int snapshot_read_process(struct snapshot_head *head) {
    for (int i = 0; i < SNAPSHOT_SIGNALS; i++)
        if (syscall(SYS_rt_sigaction, i + 1, NULL, &head->actions[i], MASK_SIZE) < 0)
            return -SNAPSHOT_FAILED;
    for (unsigned i = 0; i < SNAPSHOT_LIMITS; i++)
        if (getrlimit(i, &head->limits[i]) < 0)
            return -SNAPSHOT_FAILED;
    if (sigaltstack(NULL, &head->stack) < 0 || prctl(PR_GET_NAME, head->name, 0, 0, 0) < 0)
        return -SNAPSHOT_FAILED;
    head->umask = umask(0);
    (void)umask((mode_t)head->umask);
    head->brk = (uint64_t)(uintptr_t)sbrk(0);
    return 0;
}

/* Calls back with each name but "." and "..", until it says that it has seen enough (not 0). The libc's readdir allocates. */
static int walk(const char *path, int (*seen)(const char *name, void *argument), void *argument) {
    struct entry {
        uint64_t number;
        int64_t next;
        uint16_t size;
        uint8_t type;
        char name[];
    };
    char *buffer = snapshot_memory->text;
    int r = 0;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -SNAPSHOT_FAILED;
    for (;;) {
        long n = syscall(SYS_getdents64, fd, buffer, SNAPSHOT_TEXT);
        if (n <= 0)
            return n < 0 ? -SNAPSHOT_FAILED : r;
        for (long at = 0; r == 0 && at < n;) {
            const struct entry *entry = (const struct entry *)(const void *)(buffer + at);
            at += entry->size;
            if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
                r = seen(entry->name, argument);
        }
        if (r != 0)
            return r;
    }
}

struct counting {
    unsigned n;
    int pipe;
};

/* The one under which /proc/self/fd itself is read is the lowest free. */
static int count_descriptor(const char *name, void *argument) {
    struct counting *counting = argument;
    const int fd = (int)strtol(name, NULL, 10);
    if (fd > SNAPSHOT_DESCRIPTOR && fd != counting->pipe)
        counting->n++;
    return 0;
}

/* Process 1 is the anchor, where it can be seen at all. */
static int count_process(const char *name, void *argument) {
    struct counting *counting = argument;
    if (name[0] >= '0' && name[0] <= '9' && strcmp(name, "1") != 0)
        counting->n++;
    return 0;
}

static int count_all(const char *name, void *argument) {
    struct counting *counting = argument;
    (void)name;
    counting->n++;
    return 0;
}

/* Of a small file, as text. */
static int read_text(const char *path) {
    size_t filled = 0;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (;;) {
        ssize_t n = read(fd, snapshot_memory->text + filled, SNAPSHOT_TEXT - 1 - filled);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        filled += (size_t)n;
    }
    snapshot_memory->text[filled] = '\0';
    return (int)filled;
}

unsigned snapshot_count_filters(void) {
    static const char field[] = "Seccomp_filters:";
    const char *at;
    if (read_text("/proc/self/status") < 0 || (at = strstr(snapshot_memory->text, field)) == NULL)
        return 0;
    return (unsigned)strtoul(at + sizeof(field) - 1, NULL, 10);
}

static bool has_timers(void) {
    struct itimerval timer;
    for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++)
        if (getitimer(which, &timer) < 0 || timer.it_value.tv_sec != 0 || timer.it_value.tv_usec != 0)
            return true;
    return read_text("/proc/self/timers") > 0; /* where the kernel has such a file */
}

/* One line is the heading. */
static bool has_ipc(void) {
    static const char *const files[] = {"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"};
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        if (read_text(files[i]) <= 0)
            continue;
        const char *line = strchr(snapshot_memory->text, '\n');
        if (line != NULL && line[1] != '\0')
            return true;
    }
    return false;
}

/* A thread that was waited for is still there for a moment. */
static int check_threads(void) {
    const struct timespec pause = {.tv_nsec = THREADS_PAUSE_NS};
    struct counting counting;

    for (unsigned i = 0; i < THREADS_PAUSES; i++) {
        counting.n = 0;
        const int r = walk("/proc/self/task", count_all, &counting);
        if (r < 0 || counting.n == 1)
            return r;
        (void)nanosleep(&pause, NULL);
    }
    return -SNAPSHOT_THREADS;
}

int snapshot_check_process(int pipe) {
    struct counting counting = {.pipe = pipe};
    int r = check_threads();

    if (r < 0)
        return r;
    counting.n = 0;
    r = walk("/proc/self/fd", count_descriptor, &counting);
    /* One is our own, of the directory. */
    if (r < 0 || counting.n > 1)
        return r < 0 ? r : -SNAPSHOT_DESCRIPTORS;
    counting.n = 0;
    r = walk("/proc", count_process, &counting);
    if (r < 0 || counting.n > 1)
        return r < 0 ? r : -SNAPSHOT_CHILDREN;
    counting.n = 0;
    r = walk("/tmp", count_all, &counting);
    if (r < 0 || counting.n != 0)
        return r < 0 ? r : -SNAPSHOT_FILES;
    if (has_timers())
        return -SNAPSHOT_TIMERS;
    if (has_ipc())
        return -SNAPSHOT_IPC;
    return snapshot_count_filters() == snapshot_memory->filters ? 0 : -SNAPSHOT_FILTERS;
}
