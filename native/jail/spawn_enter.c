/* The child's side of jail_spawn. It starts as real root, a copy of the launcher (or runtimed-jail), and becomes the
 * program; for a sandbox it makes the anchor and the command as children of its parent and ends. All signals are blocked
 * until the exec, so that no handler of the parent's runs here. */
#include "spawn_enter.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "jail/jail.h"
#include "jail/root.h"
#include "jail/shell.h"
#include "shell_anchor.h"

/* Of each environment; for all of a zygote's together the host's number holds, which the launcher raises (main.c). */
#define INOTIFY_INSTANCES "8"
/* The kernel's own number before it grew with memory; the host's is for all of a zygote's environments together. */
#define INOTIFY_WATCHES "8192"
#define ZYGOTE_CAPABILITIES (1ull << CAP_SYS_ADMIN | 1ull << CAP_SETUID | 1ull << CAP_SETGID)

pid_t spawn_clone(uint64_t flags, int *ret_pidfd) {
    int pidfd = -1;
    struct clone_args arguments = {
        .flags = flags | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        /* With CLONE_PARENT the kernel takes the parent's own and refuses another. */
        .exit_signal = (flags & CLONE_PARENT) != 0 ? 0 : SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));
    if (pid < 0)
        return (pid_t)-errno;
    if (pid > 0)
        *ret_pidfd = pidfd;
    return (pid_t)pid;
}

static void die(int handshake, const struct jail_error *error) {
    struct handshake_message message = {.kind = HANDSHAKE_FAILED, .error = *error};
    (void)packet_send(handshake, &message, sizeof(message), NULL, 0);
    _exit(125);
}

static void die_at(int handshake, const char *step, int number) {
    struct jail_error error;
    jail_fail(&error, step, number);
    die(handshake, &error);
}

static void tell(int handshake, enum handshake_kind kind, pid_t pid, int fd) {
    struct handshake_message message = {.kind = (int32_t)kind, .pid = pid};
    int r = packet_send(handshake, &message, sizeof(message), &fd, fd >= 0 ? 1 : 0);
    if (r < 0)
        die_at(handshake, "handshake", r);
}

static void reset_signals(void) {
    sigset_t none;
    for (int signal_number = 1; signal_number < _NSIG; signal_number++)
        (void)signal(signal_number, SIG_DFL); /* refused for KILL, STOP and the C library's own */
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What the kernel counts per user it counts once more for whoever made the user namespace. That shall not be the host's
 * root, whose inotify instances (128) and pending signals one function could use up. The permitted set survives; the
 * effective one is raised again, as some kernels let only root make user namespaces. */
static void leave_root(const struct jail_plan *plan, int handshake) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    const gid_t group = plan->group; /* now: what is not mapped cannot be joined inside */
    if (setgroups(group != 0 ? 1 : 0, &group) < 0 || syscall(SYS_setresuid, -1, plan->uid_base, -1) < 0 ||
        syscall(SYS_capget, &header, data) < 0)
        die_at(handshake, "leave root", errno);
    for (unsigned i = 0; i < 2; i++)
        data[i].effective = data[i].permitted;
    if (syscall(SYS_capset, &header, data) < 0)
        die_at(handshake, "leave root", errno);
}

/* Each environment's share of the inotify instances and watches of all that live in this user namespace. */
static void share_inotify(const char *file, const char *limit, int handshake) {
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return;
    if (fd < 0 || write(fd, limit, strlen(limit)) < 0)
        die_at(handshake, "limit inotify", errno);
    close(fd);
}

/* A new user namespace, mapped by the parent, in which we are root. */
static void enter_user_namespace(const struct jail_plan *plan, int handshake) {
    char answer;
    leave_root(plan, handshake);
    if (unshare(CLONE_NEWUSER) < 0)
        die_at(handshake, "unshare user", errno);
    tell(handshake, HANDSHAKE_MAP, 0, -1);
    if (recv(handshake, &answer, sizeof(answer), 0) != sizeof(answer))
        die_at(handshake, "user map", errno);
    if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
        die_at(handshake, "become root inside", errno);
    share_inotify("/proc/sys/user/max_inotify_instances", INOTIFY_INSTANCES, handshake);
    share_inotify("/proc/sys/user/max_inotify_watches", INOTIFY_WATCHES, handshake);
}

static void drop_bounding(int handshake) {
    int r = jail_drop_bounding();
    if (r < 0)
        die_at(handshake, "bounding set", r);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die_at(handshake, "no_new_privs", errno);
}

/* Before the exec and not earlier: whoever spawns may have more open than the limit, and until the exec it is all here. */
static void set_limits(const struct jail_plan *plan, int handshake) {
    int r = jail_set_limit(RLIMIT_NOFILE, plan->descriptors);
    if (r == 0)
        r = jail_forbid_cores();
    if (r < 0)
        die_at(handshake, "limits", r);
}

static void set_capabilities(uint64_t mask, int handshake) {
    int r = jail_set_capabilities(mask);
    if (r < 0)
        die_at(handshake, "capset", r);
}

/* What only root may: a limit above the present one. */
static void raise_limit(const struct jail_plan *plan, int handshake) {
    struct rlimit now;
    int r = getrlimit(RLIMIT_NOFILE, &now) < 0 ? -errno : 0;
    if (r == 0 && now.rlim_max < plan->descriptors)
        r = jail_set_limit(RLIMIT_NOFILE, plan->descriptors);
    if (r < 0)
        die_at(handshake, "limits", r);
}

/* 0, 1, 2 and the lent ones from 3 on; all others close at the exec. */
static void place_descriptors(const struct jail_io *io, int handshake) {
    int wanted[3 + JAIL_DESCRIPTORS_MAX];
    unsigned n = 3 + io->n_descriptors;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        die_at(handshake, "descriptors", errno);
    for (unsigned i = 0; i < n; i++) {
        int fd = i == 0 ? io->input : i == 1 ? io->output : i == 2 ? io->error : io->descriptors[i - 3];
        wanted[i] = fcntl(fd >= 0 ? fd : null, F_DUPFD_CLOEXEC, (int)n + 1);
        if (wanted[i] < 0)
            die_at(handshake, "descriptors", errno);
    }
    for (unsigned i = 0; i < n; i++)
        if (dup2(wanted[i], (int)i) < 0)
            die_at(handshake, "descriptors", errno);
    if (syscall(SYS_close_range, n, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        die_at(handshake, "close_range", errno);
}

static void execute(const struct jail_plan *plan, int handshake) {
    char *const empty[] = {NULL};
    const char *directory = plan->working_directory != NULL ? plan->working_directory : "/";
    if (chdir(directory) < 0)
        die_at(handshake, "chdir", errno);
    execve(plan->command[0], plan->command, plan->environment != NULL ? plan->environment : empty);
    die_at(handshake, "exec", errno);
}

static void enter_service(const struct jail_plan *plan, const struct jail_io *io, int handshake) {
    if (plan->network_none) {
        int r = unshare(CLONE_NEWNET) < 0 ? -errno : shell_loopback_up();
        if (r < 0)
            die_at(handshake, "unshare net", r);
    }
    raise_limit(plan, handshake);
    jail_prefer();
    place_descriptors(io, handshake);
    drop_bounding(handshake);
    if (setgroups(0, NULL) < 0)
        die_at(handshake, "setgroups", errno);
    if (syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) < 0 ||
        syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) < 0)
        die_at(handshake, "identity", errno);
    set_capabilities(0, handshake);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        die_at(handshake, "pdeathsig", errno);
    set_limits(plan, handshake);
    execute(plan, handshake);
}

static void enter_zygote(const struct jail_plan *plan, const struct jail_io *io, int handshake) {
    raise_limit(plan, handshake);
    place_descriptors(io, handshake);
    enter_user_namespace(plan, handshake);
    if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        die_at(handshake, "unshare", errno);
    /* Inheritable too: root's exec with an empty bounding set keeps exactly these. They must be so before the set is
     * empty. */
    set_capabilities(ZYGOTE_CAPABILITIES | 1ull << CAP_SETPCAP, handshake);
    drop_bounding(handshake);
    set_capabilities(ZYGOTE_CAPABILITIES, handshake);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        die_at(handshake, "pdeathsig", errno);
    set_limits(plan, handshake);
    execute(plan, handshake);
}

static void enter_command(const struct jail_plan *plan, const struct jail_io *io, int handshake) {
    struct jail_error error;
    struct jail_entry entry = {
        .tmp_tree = io->tmp_tree,
        .task_tree = io->task_tree,
        .opt_tree = io->opt_tree,
        .input = io->input,
        .log = io->output,
        .error = io->error,
        .channel = io->n_descriptors > 0 ? io->descriptors[0] : -1,
        .snapshot = -1,
        .handshake = handshake,
        .keep_handshake = true,
        .uid = plan->uid,
        .gid = plan->gid,
        .nofile = plan->descriptors,
        .nproc = plan->pids,
    };
    if (jail_enter(&entry, &error) < 0)
        die(entry.handshake, &error);
    execute(plan, entry.handshake);
}

/* What a zygote and its shellmaker do for an environment, once: an anchor with fresh namespaces, and in them the command;
 * both are children of our parent. */
static void enter_sandbox(const struct jail_plan *plan, const struct jail_io *io, int handshake) {
    int anchor_pidfd = -1, pidfd = -1, r;
    pid_t pid;

    enter_user_namespace(plan, handshake);
    r = shell_unshare();
    if (r < 0)
        die_at(handshake, "unshare", r);
    drop_bounding(handshake);
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0) /* inherited by the anchor, whose pidfd is joined below */
        die_at(handshake, "dumpable", errno);
    pid = spawn_clone(CLONE_PARENT | CLONE_NEWPID, &anchor_pidfd);
    if (pid < 0)
        die_at(handshake, "clone anchor", pid);
    if (pid == 0)
        shell_anchor(-1, -1, handshake);
    tell(handshake, HANDSHAKE_ANCHOR, pid, anchor_pidfd);
    if (setns(anchor_pidfd, CLONE_NEWPID) < 0)
        die_at(handshake, "join anchor", errno);
    pid = spawn_clone(CLONE_PARENT | CLONE_NEWNS | CLONE_NEWCGROUP, &pidfd);
    if (pid < 0)
        die_at(handshake, "clone", pid);
    if (pid == 0)
        enter_command(plan, io, handshake);
    tell(handshake, HANDSHAKE_COMMAND, pid, pidfd);
    _exit(0);
}

void spawn_enter(const struct jail_plan *plan, const struct jail_io *io, int handshake) {
    struct jail_error error;
    struct pollfd parent = {.fd = handshake};
    int r;

    reset_signals();
    umask(022);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        die_at(handshake, "pdeathsig", errno);
    if (poll(&parent, 1, 0) < 0 || (parent.revents & POLLHUP) != 0)
        _exit(125);
    if (setsid() < 0)
        die_at(handshake, "setsid", errno);
    if (io->cgroups != NULL && io->cgroup != NULL) {
        r = cgroup_attach(io->cgroups, io->cgroup, 0);
        if (r < 0)
            die_at(handshake, "join cgroup", r);
    }
    if (root_enter(plan, &error) < 0)
        die(handshake, &error);
    switch (plan->kind) {
    case JAIL_SERVICE:
        enter_service(plan, io, handshake);
        break;
    case JAIL_ZYGOTE:
        enter_zygote(plan, io, handshake);
        break;
    case JAIL_SANDBOX:
        enter_sandbox(plan, io, handshake);
        break;
    }
    die_at(handshake, "kind", EINVAL);
    _exit(125);
}
