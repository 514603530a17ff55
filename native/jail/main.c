/* runtimed-jail: one command in a jail, for tests, for `doctor`, and for people who want to see what a function sees.
 *
 *     runtimed-jail [--plan FILE|-] [--images DIRECTORY]      the plan is JSON; see jail/plan.h and plan_parse.c
 *
 * Runs as root. Standard input (when the plan is not read from it), output and error are the command's. Exits with its
 * status; 124: time-out, 125: the plan was refused or a step failed (on standard error: "runtimed-jail: STEP: ERROR"),
 * 128 + N: signal N. A crash of it ends the command with it and leaves an empty control group,
 * which the next run removes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "jail/image.h"
#include "jail/spawn.h"

enum { EXIT_TIMEOUT = 124, EXIT_JAIL = 125, EXIT_SIGNAL = 128, PLAN_MAX = 1024 * 1024, ROUNDS = 100 };

struct run {
    struct jail_plan plan;
    struct jail_io io;
    struct cgroup_tree tree;
    struct cgroup cgroup;
    struct image image;
    struct jail_child child;
    const char *images;
    int signals;
};

static int complain(const char *step, const char *text) {
    fprintf(stderr, "runtimed-jail: %s: %s\n", step, text);
    return EXIT_JAIL;
}

static int read_plan(struct run *run, const char *path) {
    _cleanup_free_ char *text = malloc(PLAN_MAX);
    char reason[160];
    ssize_t n = 0, length = 0;

    _cleanup_close_ int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (text == NULL || fd < 0)
        return complain("plan", strerror(errno));
    while (length < PLAN_MAX && (n = read(fd, text + length, (size_t)(PLAN_MAX - length))) > 0)
        length += n;
    if (n < 0 || length == PLAN_MAX)
        return complain("plan", n < 0 ? strerror(errno) : "too long");
    if (jail_plan_parse(text, (size_t)length, &run->plan, reason, sizeof(reason)) < 0)
        return complain("plan", reason);
    run->io.input = strcmp(path, "-") == 0 ? -1 : STDIN_FILENO;
    run->io.output = STDOUT_FILENO;
    run->io.error = STDERR_FILENO;
    return 0;
}

/* Leaves of runs that were killed: named after a process that is gone. */
static void remove_stale(const struct cgroup_tree *tree) {
    for (unsigned i = 0; i < tree->n; i++) {
        int copy = openat(tree->hierarchies[i].fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *directory = copy < 0 ? NULL : fdopendir(copy);
        if (directory == NULL) {
            cleanup_close(&copy);
            continue;
        }
        for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
            int pid;
            if (sscanf(entry->d_name, "jail-%d", &pid) == 1 && kill(pid, 0) < 0 && errno == ESRCH)
                (void)unlinkat(tree->hierarchies[i].fd, entry->d_name, AT_REMOVEDIR);
        }
        closedir(directory);
    }
}

static int make_cgroup(struct run *run) {
    const struct cgroup_limits limits = {.memory_mb = run->plan.memory_mb,
        .pids = run->plan.pids + 1, /* the anchor */
        .cpu_hard = run->plan.cpu == JAIL_CPU_HARD};
    char name[32];
    int r = -ENOENT;

    snprintf(name, sizeof(name), "jail-%d", (int)getpid());
    /* Another run that ends may remove the tree before our leaf is in it. */
    for (int round = 0; r == -ENOENT && round < ROUNDS; round++) {
        cgroup_tree_close(&run->tree);
        r = cgroup_tree_open(&run->tree, "runtimed-jail");
        if (r == 0)
            r = cgroup_make(&run->tree, name, &run->cgroup);
    }
    if (r < 0)
        return complain("cgroup", strerror(-r));
    remove_stale(&run->tree);
    r = cgroup_set_limits(&run->tree, &run->cgroup, &limits);
    if (r < 0)
        return complain("cgroup limits", strerror(-r));
    run->io.cgroups = &run->tree;
    run->io.cgroup = &run->cgroup;
    return 0;
}

static int make_image(struct run *run) {
    struct image_pool pool;
    if (run->plan.tmp_mb == 0)
        return 0;
    int r = image_pool_open(run->images, &pool);
    if (r < 0)
        return complain("image", strerror(-r));
    r = image_make(
        &pool, run->plan.tmp_mb, run->plan.uid_base + run->plan.uid, run->plan.uid_base + run->plan.gid, &run->image);
    image_pool_close(&pool);
    if (r < 0)
        return complain("image", strerror(-r));
    run->io.tmp_tree = run->image.tree;
    return 0;
}

/* What is sent to us ends the command; it may not be handled in the middle of anything. */
static int take_signals(struct run *run) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    run->signals = signalfd(-1, &set, SFD_CLOEXEC);
    return run->signals < 0 ? complain("signals", strerror(errno)) : 0;
}

static int wait_command(struct run *run) {
    struct pollfd fds[] = {{.fd = run->child.pidfd, .events = POLLIN}, {.fd = run->signals, .events = POLLIN}};
    uint64_t deadline = clock_monotonic_us() + (uint64_t)run->plan.timeout_ms * 1000;
    bool timed_out = false;
    int status = 0;

    for (;;) {
        uint64_t now = clock_monotonic_us();
        int left = run->plan.timeout_ms == 0 ? -1 : now >= deadline ? 0 : (int)((deadline - now) / 1000 + 1);
        int n = poll(fds, ARRAY_SIZE(fds), left);
        if (n < 0 && errno == EINTR)
            continue;
        timed_out = n == 0;
        break;
    }
    if (fds[0].revents == 0)
        (void)jail_child_kill(&run->child);
    while (waitpid(run->child.pid, &status, __WALL) < 0 && errno == EINTR)
        ;
    (void)jail_child_kill(&run->child);
    while (waitpid(run->child.anchor, NULL, __WALL) < 0 && errno == EINTR)
        ;
    if (timed_out)
        return EXIT_TIMEOUT;
    return WIFSIGNALED(status) ? EXIT_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
}

static void clean(struct run *run) {
    jail_child_close(&run->child);
    image_close(&run->image);
    if (run->tree.n > 0) {
        /* The last process may be on its way out still. */
        for (int round = 0; round < ROUNDS && cgroup_remove(&run->tree, &run->cgroup) == -EBUSY; round++)
            usleep(1000);
        cgroup_close(&run->cgroup);
        (void)cgroup_tree_remove(&run->tree); /* when no other run is under way */
        cgroup_tree_close(&run->tree);
    }
    jail_plan_clear(&run->plan);
}

static int run_jail(struct run *run, const char *plan) {
    struct jail_error error;
    int r = read_plan(run, plan);
    if (r == 0)
        r = take_signals(run);
    if (r == 0)
        r = make_cgroup(run);
    if (r == 0)
        r = make_image(run);
    if (r != 0)
        return r;
    if (jail_spawn(&run->plan, &run->io, &run->child, &error) < 0)
        return complain(error.step, strerror(error.error));
    return wait_command(run);
}

int main(int argc, char **argv) {
    struct run run = {
        .io = JAIL_IO_INIT,
        .cgroup = {.fds = {-1, -1, -1, -1}},
        .image = {.tree = -1},
        .child = JAIL_CHILD_INIT,
        .images = "/var/tmp",
        .signals = -1,
    };
    const char *plan = "-";

    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--plan") == 0 && more)
            plan = argv[++i];
        else if (strcmp(argv[i], "--images") == 0 && more)
            run.images = argv[++i];
        else
            return complain("usage", "runtimed-jail [--plan FILE|-] [--images DIRECTORY]");
    }
    jail_plan_init(&run.plan);
    int status = run_jail(&run, plan);
    clean(&run);
    return status;
}
