/* What is written into and read from a leaf; see cgroup.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/cgroup.h"

/* v1's cpu.shares and v2's cpu.weight of one whole core's worth: the kernel's defaults, so that a function of 1,769 MB
 * weighs as much as an ordinary process group of the host. */
enum { SHARES_PER_CORE = 1024, SHARES_MIN = 2, WEIGHT_PER_CORE = 100, WEIGHT_MAX = 10000 };
/* Of the hard limit. A short period keeps the pauses short; the burst lets one period's quota be saved up. */
enum { CPU_PERIOD_US = 20000, CPU_QUOTA_MIN_US = 1000 };

/* The index of the hierarchy with that controller, or -ENOTSUP. */
static int find(const struct cgroup_tree *tree, enum cgroup_controller controller) {
    for (unsigned i = 0; i < tree->n; i++)
        if ((tree->hierarchies[i].controllers & controller) != 0)
            return (int)i;
    return -ENOTSUP;
}

static int write_number(int directory, const char *file, uint64_t number) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, number);
    return write_file_at(directory, file, text);
}

static int read_number(int directory, const char *file, const char *key, uint64_t *ret) {
    char text[4096];
    int r = read_file_at(directory, file, text, sizeof(text));
    const char *at = text;

    if (r < 0)
        return r;
    if (key != NULL) {
        size_t length = strlen(key);
        while (strncmp(at, key, length) != 0 || at[length] != ' ') {
            at += strcspn(at, "\n");
            if (*at == '\0')
                return -ENOENT;
            at++;
        }
        at += length + 1;
    }
    *ret = strtoull(at, NULL, 10);
    return 0;
}

static int limit_memory_v1(int directory, uint64_t bytes, bool fresh) {
    /* Memory plus swap may never be less than memory: on the way up it goes first, on the way down (from no limit) last. */
    int swap = fresh ? -EINVAL : write_number(directory, "memory.memsw.limit_in_bytes", bytes);
    int r = write_number(directory, "memory.limit_in_bytes", bytes);
    if (r < 0)
        return r;
    if (swap < 0)
        swap = write_number(directory, "memory.memsw.limit_in_bytes", bytes);
    /* Without swap accounting, the next best: do not swap it. */
    return swap == -ENOENT || swap == -EACCES ? write_file_at(directory, "memory.swappiness", "0") : swap;
}

static int limit_memory_v2(int directory, uint64_t bytes) {
    int r = write_number(directory, "memory.max", bytes);
    if (r < 0)
        return r;
    r = write_file_at(directory, "memory.swap.max", "0");
    if (r < 0 && r != -ENOENT && r != -EACCES)
        return r;
    /* One process of a function without the others is no function. */
    r = write_file_at(directory, "memory.oom.group", "1");
    return r == -ENOENT || r == -EACCES ? 0 : r;
}

static int set_cpu_v1(int directory, uint64_t memory_mb, bool hard, bool fresh) {
    uint64_t quota = MAX(memory_mb * CPU_PERIOD_US / CGROUP_MB_PER_CORE, (uint64_t)CPU_QUOTA_MIN_US);
    uint64_t shares = MAX(memory_mb * SHARES_PER_CORE / CGROUP_MB_PER_CORE, (uint64_t)SHARES_MIN);
    int r = write_number(directory, "cpu.shares", shares);

    if (r < 0 || (fresh && !hard))
        return r;
    if (!hard) {
        (void)write_file_at(directory, "cpu.cfs_burst_us", "0");
        r = write_file_at(directory, "cpu.cfs_quota_us", "-1");
        return r == -ENOENT || r == -EACCES ? 0 : r;
    }
    (void)write_file_at(directory, "cpu.cfs_burst_us", "0");
    r = write_number(directory, "cpu.cfs_period_us", CPU_PERIOD_US);
    if (r == 0)
        r = write_number(directory, "cpu.cfs_quota_us", quota);
    if (r < 0)
        return r;
    (void)write_number(directory, "cpu.cfs_burst_us", quota); /* missing before 5.14 */
    return 0;
}

static int set_cpu_v2(int directory, uint64_t memory_mb, bool hard, bool fresh) {
    uint64_t quota = MAX(memory_mb * CPU_PERIOD_US / CGROUP_MB_PER_CORE, (uint64_t)CPU_QUOTA_MIN_US);
    uint64_t weight = MIN(MAX(memory_mb * WEIGHT_PER_CORE / CGROUP_MB_PER_CORE, (uint64_t)1), (uint64_t)WEIGHT_MAX);
    char text[64];
    int r = write_number(directory, "cpu.weight", weight);

    if (r < 0 || (fresh && !hard))
        return r;
    (void)write_file_at(directory, "cpu.max.burst", "0");
    if (hard)
        snprintf(text, sizeof(text), "%" PRIu64 " %d", quota, CPU_PERIOD_US);
    else
        snprintf(text, sizeof(text), "max %d", CPU_PERIOD_US);
    r = write_file_at(directory, "cpu.max", text);
    if (r < 0)
        return hard ? r : 0;
    if (hard)
        (void)write_number(directory, "cpu.max.burst", quota);
    return 0;
}

static int set_cpu(
    const struct cgroup_tree *tree, const struct cgroup *cgroup, uint32_t memory_mb, bool hard, bool fresh) {
    int i = find(tree, CGROUP_CPU);
    if (i < 0)
        return hard ? i : 0;
    return tree->hierarchies[i].unified ? set_cpu_v2(cgroup->fds[i], memory_mb, hard, fresh)
                                        : set_cpu_v1(cgroup->fds[i], memory_mb, hard, fresh);
}

int cgroup_set_cpu(const struct cgroup_tree *tree, const struct cgroup *cgroup, uint32_t memory_mb, bool hard) {
    return set_cpu(tree, cgroup, memory_mb, hard, false);
}

int cgroup_set_limits(const struct cgroup_tree *tree, const struct cgroup *cgroup, const struct cgroup_limits *limits) {
    int i, r;

    if (limits->memory_mb > 0) {
        uint64_t bytes = (uint64_t)limits->memory_mb << 20;
        i = find(tree, CGROUP_MEMORY);
        if (i < 0)
            return i;
        r = tree->hierarchies[i].unified ? limit_memory_v2(cgroup->fds[i], bytes)
                                         : limit_memory_v1(cgroup->fds[i], bytes, limits->fresh);
        if (r == 0)
            r = set_cpu(tree, cgroup, limits->memory_mb, limits->cpu_hard, limits->fresh);
        if (r < 0)
            return r;
    }
    if (limits->pids > 0) {
        i = find(tree, CGROUP_PIDS);
        if (i < 0)
            return i;
        return write_number(cgroup->fds[i], "pids.max", limits->pids);
    }
    return 0;
}

static int open_file(int directory, const char *file, int flags) {
    int fd = openat(directory, file, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int cgroup_open_freeze(const struct cgroup_tree *tree, const struct cgroup *cgroup) {
    int i = find(tree, CGROUP_FREEZER);
    if (i < 0)
        return i;
    return open_file(cgroup->fds[i], tree->hierarchies[i].unified ? "cgroup.freeze" : "freezer.state", O_RDWR);
}

int cgroup_open_peak(const struct cgroup_tree *tree, const struct cgroup *cgroup) {
    int i = find(tree, CGROUP_MEMORY);
    if (i < 0)
        return i;
    if (!tree->hierarchies[i].unified)
        return open_file(cgroup->fds[i], "memory.max_usage_in_bytes", O_RDONLY);
    int fd = open_file(cgroup->fds[i], "memory.peak", O_RDONLY); /* 5.19 */
    return fd == -ENOENT ? open_file(cgroup->fds[i], "memory.current", O_RDONLY) : fd;
}

int cgroup_freeze(const struct cgroup_tree *tree, const struct cgroup *cgroup, bool frozen) {
    int i = find(tree, CGROUP_FREEZER);
    if (i < 0)
        return i;
    if (tree->hierarchies[i].unified)
        return write_file_at(cgroup->fds[i], "cgroup.freeze", frozen ? "1" : "0");
    return write_file_at(cgroup->fds[i], "freezer.state", frozen ? "FROZEN" : "THAWED");
}

int cgroup_oom_kills(const struct cgroup_tree *tree, const struct cgroup *cgroup, uint64_t *ret) {
    int i = find(tree, CGROUP_MEMORY);
    if (i < 0)
        return i;
    return read_number(
        cgroup->fds[i], tree->hierarchies[i].unified ? "memory.events" : "memory.oom_control", "oom_kill", ret);
}

int cgroup_peak_kb(const struct cgroup_tree *tree, const struct cgroup *cgroup, uint64_t *ret) {
    char text[32];
    _cleanup_close_ int fd = cgroup_open_peak(tree, cgroup);
    if (fd < 0)
        return fd;
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    *ret = strtoull(text, NULL, 10) / 1024;
    return 0;
}

int cgroup_reset_peak(const struct cgroup_tree *tree, const struct cgroup *cgroup) {
    int i = find(tree, CGROUP_MEMORY);
    if (i < 0)
        return i;
    return tree->hierarchies[i].unified ? 0 : write_file_at(cgroup->fds[i], "memory.max_usage_in_bytes", "0");
}
