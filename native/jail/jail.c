/* jail_enter: the ordered page; see the header. Runs in a fresh child of a zygote (environments) or of jail_spawn
 * (tasks, runtimed-jail), as root of a user namespace, and leaves it as an unprivileged id without any capability.
 *
 * The order is the point. Mounts and the identity need capabilities, so they come before capset; /proc must be the
 * sandbox's own before anything is written in it; descriptors are closed after the last of ours was used; landlock and
 * seccomp come last, because they would refuse what comes before. Nothing here allocates, locks or formats. */
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail/landlock.h"
#include "jail/mount.h"
#include "jail/seccomp.h"

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif

enum { DESCRIPTOR_CHANNEL = 3, DESCRIPTORS_STANDARD = 5, DAEMON_NICE = -10 };

/* Readable by everyone and about the host: its boot parameters, on some hosts the kernel's addresses, and which files
 * others hold locks in (those of open file descriptions are listed in every pid namespace). The rest of /proc is guarded
 * by file modes, missing capabilities and the namespaces; each mask costs 9 us. */
static const char *const masked[] = {"/proc/cmdline", "/proc/kallsyms", "/proc/locks"};

int jail_drop_bounding(void) {
    for (unsigned capability = 0; capability < 64; capability++) {
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* one above the last that this kernel knows */
                return capability == 0 ? -EINVAL : 0;
            return -errno;
        }
    }
    return 0;
}

int jail_set_capabilities(uint64_t mask) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (unsigned i = 0; i < 2; i++) {
        uint32_t word = (uint32_t)(mask >> (32 * i));
        data[i] = (struct __user_cap_data_struct){.effective = word, .permitted = word, .inheritable = word};
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return -errno;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

int jail_set_limit(int resource, uint64_t value) {
    struct rlimit limit;
    if (getrlimit((unsigned)resource, &limit) < 0)
        return -errno;
    if (limit.rlim_max == RLIM_INFINITY || value < limit.rlim_max)
        limit.rlim_max = value;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit((unsigned)resource, &limit) < 0 ? -errno : 0;
}

int jail_forbid_cores(void) {
    const struct rlimit one = {.rlim_cur = 1, .rlim_max = 1};
    if (setrlimit(RLIMIT_CORE, &one) == 0)
        return 0;
    return errno == EPERM ? jail_set_limit(RLIMIT_CORE, 0) : -errno;
}

void jail_prefer(void) {
    const struct sched_param none = {0};
    if (setpriority(PRIO_PROCESS, 0, DAEMON_NICE) == 0)
        (void)sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &none);
}

static int move_tree(int tree, const char *target) {
    return tree < 0 ? 0 : mount_attach(tree, target);
}

static int enter_mounts(const struct jail_entry *entry, struct jail_error *ret_error) {
    int r;

    /* The pid namespace's own. hidepid: what belongs to another uid (the anchor) cannot be seen. */
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible") < 0)
        return jail_fail(ret_error, "mount proc", errno);
    for (size_t i = 0; i < sizeof(masked) / sizeof(masked[0]); i++)
        if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT)
            return jail_fail(ret_error, "mask proc", errno);
    r = move_tree(entry->tmp_tree, "/tmp");
    if (r < 0)
        return jail_fail(ret_error, "mount /tmp", r);
    r = move_tree(entry->task_tree, "/var/task");
    if (r < 0)
        return jail_fail(ret_error, "mount /var/task", r);
    r = move_tree(entry->opt_tree, "/opt");
    if (r < 0)
        return jail_fail(ret_error, "mount /opt", r);
    return 0;
}

/* Out of the way of the places where descriptors are going to stand. */
static int lift(int *fd) {
    if (*fd < 0 || *fd > DESCRIPTORS_STANDARD)
        return 0;
    int lifted = fcntl(*fd, F_DUPFD_CLOEXEC, DESCRIPTORS_STANDARD + 1);
    if (lifted < 0)
        return -errno;
    *fd = lifted;
    return 0;
}

/* Leaves 0, 1, 2, the channel at 3, the snapshot and the handshake right after; everything else is closed. */
static int enter_descriptors(struct jail_entry *entry) {
    int *const given[] = {
        &entry->input, &entry->log, &entry->error, &entry->channel, &entry->snapshot, &entry->handshake};
    int first = entry->channel >= 0 ? DESCRIPTOR_CHANNEL + 1 : DESCRIPTOR_CHANNEL;

    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        int r = lift(given[i]);
        if (r < 0)
            return r;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -errno;
    if (lift(&null) < 0)
        return -EMFILE;
    int log = entry->log >= 0 ? entry->log : null;
    if (dup3(entry->input >= 0 ? entry->input : null, STDIN_FILENO, 0) < 0 || dup3(log, STDOUT_FILENO, 0) < 0 ||
        dup3(entry->error >= 0 ? entry->error : log, STDERR_FILENO, 0) < 0)
        return -errno;
    /* What the function executes does not inherit its channel; what jail_spawn executes does. */
    if (entry->channel >= 0 && dup3(entry->channel, DESCRIPTOR_CHANNEL, entry->keep_handshake ? 0 : O_CLOEXEC) < 0)
        return -errno;
    int *const kept[] = {&entry->snapshot, &entry->handshake};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (*kept[i] < 0)
            continue;
        if (dup3(*kept[i], first, O_CLOEXEC) < 0)
            return -errno;
        *kept[i] = first++;
    }
    return syscall(SYS_close_range, first, ~0u, 0) < 0 ? -errno : 0;
}

static int enter_identity(const struct jail_entry *entry, struct jail_error *ret_error) {
    int r;

    if (entry->uid == 0 || entry->gid == 0)
        return jail_fail(ret_error, "identity", EINVAL);
    if (setgroups(0, NULL) < 0)
        return jail_fail(ret_error, "setgroups", errno);
    /* The raw calls: glibc's would tell other threads, of which there are none. */
    if (syscall(SYS_setresgid, entry->gid, entry->gid, entry->gid) < 0)
        return jail_fail(ret_error, "setresgid", errno);
    if (syscall(SYS_setresuid, entry->uid, entry->uid, entry->uid) < 0)
        return jail_fail(ret_error, "setresuid", errno);
    r = jail_set_capabilities(0);
    if (r < 0)
        return jail_fail(ret_error, "capset", r);
    if (prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) != 0)
        return jail_fail(ret_error, "bounding set", EPERM);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return jail_fail(ret_error, "no_new_privs", errno);
    /* setresuid cleared both. Without dumpable /proc/self/fd is closed to its owner. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
        return jail_fail(ret_error, "dumpable", errno);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return jail_fail(ret_error, "pdeathsig", errno);
    /* The parent may have died before that. It is outside this pid namespace, where getppid() cannot tell. */
    if (entry->handshake >= 0) {
        struct pollfd parent = {.fd = entry->handshake, .events = 0};
        if (poll(&parent, 1, 0) < 0 || (parent.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0)
            return jail_fail(ret_error, "parent", ESRCH);
    }
    return 0;
}

static int enter_limits(const struct jail_entry *entry) {
    char score[] = {'0' + JAIL_OOM_SCORE / 100, '0' + JAIL_OOM_SCORE / 10 % 10, '0' + JAIL_OOM_SCORE % 10};
    int r, fd;

    r = jail_set_limit(RLIMIT_NOFILE, entry->nofile);
    if (r == 0)
        r = jail_set_limit(RLIMIT_NPROC, entry->nproc);
    if (r == 0)
        r = jail_forbid_cores();
    if (r == 0) /* counted for all environments of a zygote together, too */
        r = jail_set_limit(RLIMIT_SIGPENDING, JAIL_PENDING_SIGNALS);
    if (r < 0)
        return r;
    fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    /* A host whose own score is above ours keeps it: lowering is a privilege. */
    if (write(fd, score, sizeof(score)) < 0 && errno != EACCES)
        r = -errno;
    close(fd);
    return r;
}

int jail_enter(struct jail_entry *entry, struct jail_error *ret_error) {
    sigset_t none;
    int r;

    /* Else kill(0) reaches the zygote's other children. A session leader already: made by jail_spawn. */
    if (setsid() < 0 && errno != EPERM)
        return jail_fail(ret_error, "setsid", errno);
    umask(022);
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        return jail_fail(ret_error, "sigprocmask", errno);
    r = enter_mounts(entry, ret_error);
    if (r < 0)
        return r;
    r = enter_descriptors(entry);
    if (r < 0)
        return jail_fail(ret_error, "descriptors", r);
    r = enter_identity(entry, ret_error);
    if (r < 0)
        return r;
    r = enter_limits(entry);
    if (r < 0)
        return jail_fail(ret_error, "limits", r);
    r = landlock_restrict();
    if (r < 0)
        return jail_fail(ret_error, "landlock", r);
    r = seccomp_apply(seccomp_function);
    if (r < 0)
        return jail_fail(ret_error, "seccomp", r);
    if (entry->handshake >= 0 && !entry->keep_handshake) {
        close(entry->handshake);
        entry->handshake = -1;
    }
    return 0;
}
