/* Control groups: where they are found on every kind of system (from texts), what is written on v2 (into a directory that
 * only looks like one, because few machines have both), and the real thing where there is root. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../jail/cgroup_find.h"
#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/cgroup.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* ---- finding --------------------------------------------------------------------------------------------------- */

static void test_find_v1(void) {
    static const char mountinfo[] = "30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
                                    "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
                                    "32 30 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
                                    "33 30 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                                    "34 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
                                    "35 30 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
                                    "36 30 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    static const char membership[] = "9:pids:/a/b\n8:freezer:/\n4:memory:/m\n3:cpu,cpuacct:/c\n2:cpuset:/x\n0::/u\n";
    struct cgroup_place places[CGROUP_HIERARCHIES];
    CHECK(cgroup_find(mountinfo, membership, "", places) == 4);
    CHECK(places[0].controllers == CGROUP_CPU && strcmp(places[0].own, "/c") == 0);
    CHECK(strcmp(places[0].mount, "/sys/fs/cgroup/cpu,cpuacct") == 0);
    CHECK(places[1].controllers == CGROUP_MEMORY && strcmp(places[1].own, "/m") == 0);
    CHECK(places[2].controllers == CGROUP_PIDS && strcmp(places[2].own, "/a/b") == 0);
    CHECK(places[3].controllers == CGROUP_FREEZER && strcmp(places[3].own, "") == 0);
}

static void test_find_v2(void) {
    static const char mountinfo[] = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    struct cgroup_place places[CGROUP_HIERARCHIES];
    CHECK(cgroup_find(mountinfo, "0::/system.slice/runtimed.service\n", "cpuset cpu io memory pids\n", places) == 1);
    CHECK(places[0].unified && strcmp(places[0].own, "/system.slice/runtimed.service") == 0);
    CHECK(places[0].controllers == (CGROUP_MEMORY | CGROUP_PIDS | CGROUP_CPU | CGROUP_FREEZER));
}

/* A hybrid without a v1 freezer: freezing comes from v2. */
static void test_find_hybrid(void) {
    static const char mountinfo[] = "32 30 0:28 / /cg/memory rw - cgroup cgroup rw,memory\n"
                                    "34 30 0:30 / /cg/pids rw - cgroup cgroup rw,pids\n"
                                    "36 30 0:32 / /cg/unified rw - cgroup2 cgroup2 rw\n";
    struct cgroup_place places[CGROUP_HIERARCHIES];
    CHECK(cgroup_find(mountinfo, "2:pids:/\n1:memory:/\n0::/\n", "", places) == 3);
    CHECK(places[2].unified && places[2].controllers == CGROUP_FREEZER);
}

/* A container's mount shows the hierarchy from its own group on. */
static void test_find_container(void) {
    static const char mountinfo[] = "32 30 0:28 /docker/abc /cg/memory ro - cgroup cgroup rw,memory\n";
    struct cgroup_place places[CGROUP_HIERARCHIES];
    CHECK(cgroup_find(mountinfo, "1:memory:/docker/abc/x\n", "", places) == 1 && strcmp(places[0].own, "/x") == 0);
    CHECK(cgroup_find(mountinfo, "1:memory:/docker/abc\n", "", places) == 1 && strcmp(places[0].own, "") == 0);
    CHECK(cgroup_find(mountinfo, "1:memory:/../other\n", "", places) == 1 && strcmp(places[0].own, "") == 0);
    CHECK(cgroup_find(mountinfo, "", "", places) == 0 && cgroup_find("", "", "", places) == 0);
    CHECK(cgroup_find("nonsense\n - \n1 2 - cgroup\n", "::\n:\n\n", "", places) == 0);
}

/* ---- v2, into plain files ---------------------------------------------------------------------------------------- */

static void make_file(int directory, const char *name, const char *text) {
    _cleanup_close_ int fd = openat(directory, name, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write_all(fd, text, strlen(text)) == 0);
}

static bool has(int directory, const char *name, const char *text) {
    char found[256];
    return read_file_at(directory, name, found, sizeof(found)) >= 0 && strcmp(found, text) == 0;
}

static void test_v2_files(void) {
    static const char *const files[] = {"memory.max", "memory.swap.max", "memory.oom.group", "cpu.weight", "cpu.max",
        "cpu.max.burst", "pids.max", "cgroup.freeze", "memory.peak", "memory.events", "cgroup.procs"};
    char path[] = "/tmp/test_jail_cgroup.XXXXXX";
    CHECK(mkdtemp(path) != NULL);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct cgroup_tree tree = {.n = 1, .controllers = 15, .version = 2};
    tree.hierarchies[0] = (struct cgroup_hierarchy){.fd = fd, .parent = fd, .controllers = 15, .unified = true};
    struct cgroup cgroup = {.name = "x", .fds = {fd, -1, -1, -1}};
    struct cgroup_limits limits = {.memory_mb = 3538, .pids = 7, .cpu_hard = true};
    uint64_t number;

    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        make_file(fd, files[i], "");
    CHECK(cgroup_set_limits(&tree, &cgroup, &limits) == 0);
    CHECK(has(fd, "memory.max", "3709861888") && has(fd, "memory.swap.max", "0") && has(fd, "memory.oom.group", "1"));
    CHECK(has(fd, "cpu.weight", "200") && has(fd, "cpu.max", "40000 20000") && has(fd, "pids.max", "7"));
    make_file(fd, "cpu.max", "");
    make_file(fd, "cpu.weight", "");
    CHECK(cgroup_set_cpu(&tree, &cgroup, 1, false) == 0);
    CHECK(has(fd, "cpu.weight", "1") && has(fd, "cpu.max", "max 20000"));
    make_file(fd, "memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n");
    CHECK(cgroup_oom_kills(&tree, &cgroup, &number) == 0 && number == 4);
    make_file(fd, "memory.peak", "1048576\n");
    CHECK(cgroup_peak_kb(&tree, &cgroup, &number) == 0 && number == 1024);
    CHECK(cgroup_freeze(&tree, &cgroup, true) == 0 && has(fd, "cgroup.freeze", "1"));
    CHECK(cgroup_directory(&tree, &cgroup) == fd);
    if (geteuid() == 0) { /* the group may write to the tree's, one user to the leaf's */
        struct stat status;
        CHECK(cgroup_tree_delegate(&tree, 70003) == 0 && cgroup_delegate(&tree, &cgroup, 70004) == 0);
        CHECK(fstatat(fd, "cgroup.procs", &status, 0) == 0 && status.st_gid == 70003 && status.st_uid == 70004);
        CHECK((status.st_mode & 07777) == 0664);
    }
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        unlinkat(fd, files[i], 0);
    close(fd);
    rmdir(path);
}

/* v1: only the CPU's hierarchy has the leaf; the weight is what the kernel allows at most. */
static void test_weighed(void) {
    char path[] = "/tmp/test_jail_cgroup.XXXXXX";
    CHECK(mkdtemp(path) != NULL);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(mkdirat(fd, "memory", 0700) == 0 && mkdirat(fd, "cpu", 0700) == 0 && mkdirat(fd, "cpu/d", 0700) == 0);
    struct cgroup_tree tree = {.n = 2, .controllers = CGROUP_MEMORY | CGROUP_CPU, .version = 1};
    for (unsigned i = 0; i < 2; i++)
        tree.hierarchies[i] =
            (struct cgroup_hierarchy){.fd = openat(fd, i == 0 ? "memory" : "cpu", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                .controllers = i == 0 ? CGROUP_MEMORY : CGROUP_CPU};
    int leaf = openat(fd, "cpu/d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct cgroup cgroup;

    make_file(leaf, "cpu.shares", "");
    make_file(leaf, "cgroup.procs", "");
    CHECK(cgroup_make_weighed(&tree, "d", 16, &cgroup) == 0 && cgroup.fds[0] == -1 && cgroup.fds[1] >= 0);
    CHECK(has(leaf, "cpu.shares", "16384") && faccessat(fd, "memory/d", F_OK, 0) < 0);
    CHECK(cgroup_attach(&tree, &cgroup, 7) == 0 && has(leaf, "cgroup.procs", "7"));
    cgroup_close(&cgroup);
    CHECK(cgroup_make_weighed(&tree, "d", 1000, &cgroup) == 0 && has(leaf, "cpu.shares", "262144"));
    cgroup_close(&cgroup);
    CHECK(cgroup_make_weighed(&tree, "../d", 1, &cgroup) == -EINVAL);
    tree.hierarchies[1].controllers = 0; /* no such controller */
    CHECK(cgroup_make_weighed(&tree, "d", 1, &cgroup) == 0 && cgroup_attach(&tree, &cgroup, 8) == 0);
    CHECK(has(leaf, "cgroup.procs", "7"));
    unlinkat(leaf, "cpu.shares", 0);
    unlinkat(leaf, "cgroup.procs", 0);
    close(leaf);
    for (unsigned i = 0; i < 2; i++)
        close(tree.hierarchies[i].fd);
    unlinkat(fd, "cpu/d", AT_REMOVEDIR);
    unlinkat(fd, "cpu", AT_REMOVEDIR);
    unlinkat(fd, "memory", AT_REMOVEDIR);
    close(fd);
    rmdir(path);
}

/* ---- the real thing ---------------------------------------------------------------------------------------------- */

static void wait_stopped(int freeze, const char *state) {
    char text[32];
    for (;;) {
        ssize_t n = pread(freeze, text, sizeof(text) - 1, 0);
        CHECK(n > 0);
        text[n] = '\0';
        if (strncmp(text, state, strlen(state)) == 0)
            return;
        sched_yield();
    }
}

static void test_real(void) {
    struct cgroup_tree tree, again;
    struct cgroup cgroup, other;
    struct cgroup_limits limits = {.memory_mb = 64, .pids = 4, .cpu_hard = true};
    char name[64];
    int status;
    uint64_t number;

    snprintf(name, sizeof(name), "test-cgroup-%d", (int)getpid());
    CHECK(cgroup_tree_open(&tree, "a/b") == -EINVAL && cgroup_tree_open(&tree, "") == -EINVAL);
    CHECK(cgroup_tree_open(&tree, name) == 0);
    CHECK(cgroup_make(&tree, "leaf", &cgroup) == 0 && cgroup_make(&tree, "..", &other) < 0);
    CHECK(cgroup_set_limits(&tree, &cgroup, &limits) == 0);
    if (tree.version == 1) /* TCP's buffers are not in memory.limit_in_bytes there */
        for (unsigned i = 0; i < tree.n; i++)
            if ((tree.hierarchies[i].controllers & CGROUP_MEMORY) != 0 && !tree.hierarchies[i].unified &&
                faccessat(cgroup.fds[i], "memory.kmem.tcp.limit_in_bytes", F_OK, 0) == 0)
                CHECK(has(cgroup.fds[i], "memory.kmem.tcp.limit_in_bytes", "33554432\n"));
    limits.memory_mb = 128; /* up and down again: memory and swap in the right order */
    CHECK(cgroup_set_limits(&tree, &cgroup, &limits) == 0);
    limits.memory_mb = 32;
    limits.cpu_hard = false;
    CHECK(cgroup_set_limits(&tree, &cgroup, &limits) == 0);

    pid_t child = fork();
    if (child == 0) {
        if (cgroup_attach(&tree, &cgroup, 0) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    int freeze = cgroup_open_freeze(&tree, &cgroup), peak = cgroup_open_peak(&tree, &cgroup);
    CHECK(freeze >= 0 && peak >= 0);
    CHECK(cgroup_attach(&tree, &cgroup, child) == 0);
    CHECK(cgroup_remove(&tree, &cgroup) == -EBUSY);
    CHECK(cgroup_freeze(&tree, &cgroup, true) == 0);
    if (tree.version == 1)
        wait_stopped(freeze, "FROZEN");
    /* Killed although it is frozen. */
    CHECK(cgroup_kill(&tree, &cgroup) == 0);
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
    CHECK(cgroup_oom_kills(&tree, &cgroup, &number) == 0 && number == 0);
    CHECK(cgroup_peak_kb(&tree, &cgroup, &number) == 0);
    close(freeze);
    close(peak);
    CHECK(cgroup_remove(&tree, &cgroup) == 0 && cgroup.fds[0] == -1);

    /* A crash left a leaf with a process in it: the next start removes both. */
    CHECK(cgroup_make(&tree, "stale", &cgroup) == 0);
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    CHECK(cgroup_attach(&tree, &cgroup, child) == 0);
    cgroup_close(&cgroup);
    CHECK(cgroup_tree_remove(&tree) < 0);
    CHECK(cgroup_tree_open(&again, name) == 0);
    CHECK(cgroup_tree_sweep(&again) == 1);
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
    CHECK(cgroup_tree_sweep(&again) == 0);
    CHECK(cgroup_tree_remove(&again) == 0);
    cgroup_tree_close(&again);
    cgroup_tree_close(&tree);
}

int main(void) {
    test_find_v1();
    test_find_v2();
    test_find_hybrid();
    test_find_container();
    test_v2_files();
    test_weighed();
    if (geteuid() == 0)
        test_real();
    return 0;
}
