/* The wraps; see the header. Linked with --wrap for each of them (CMakeLists.txt). */
#include "launcher_seam.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/image.h"
#include "jail/shell.h"
#include "jail/spawn.h"
#include "launcher.h"

struct seam seam;

/* The declaration is for the compiler, which misses one. */
#define WRAP(type, name, ...)                                                                                          \
    type __wrap_##name(__VA_ARGS__);                                                                                   \
    type __wrap_##name(__VA_ARGS__)

/* Above any that Linux gives. */
#define FIRST_PID (1 << 23)

/* ---- processes --------------------------------------------------------------------------------------------------- */

int seam_file(void) {
    int fd = memfd_create("seam", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    return fd;
}

struct process *seam_find(pid_t pid) {
    for (unsigned i = 0; pid != 0 && i < PROCESSES_MAX; i++)
        if (seam.processes[i].pid == pid)
            return &seam.processes[i];
    return NULL;
}

static struct process *find_pidfd(int fd) {
    struct stat about;
    if (fstat(fd, &about) < 0)
        return NULL;
    for (unsigned i = 0; i < PROCESSES_MAX; i++)
        if (seam.processes[i].pid != 0 && seam.processes[i].inode == about.st_ino)
            return &seam.processes[i];
    return NULL;
}

struct process *seam_process(enum process_kind kind, int *ret_pidfd) {
    for (unsigned i = 0; i < PROCESSES_MAX; i++) {
        struct process *process = &seam.processes[i];
        struct stat about;
        if (process->pid != 0)
            continue;
        *process = (struct process){.pid = FIRST_PID + ++seam.last_pid, .kind = kind, .peer = -1};
        if (ret_pidfd != NULL) {
            *ret_pidfd = seam_file();
            CHECK(fstat(*ret_pidfd, &about) == 0);
            process->inode = about.st_ino;
        }
        return process;
    }
    return NULL;
}

void seam_die(struct process *process, int status) {
    if (process->dead)
        return;
    for (unsigned i = 0; process->kind == PROCESS_ANCHOR && i < PROCESSES_MAX; i++)
        if (seam.processes[i].kind == PROCESS_ENVIRONMENT && seam.processes[i].anchor == process->pid)
            seam_die(&seam.processes[i], SIGKILL);
    seam.dispatchers_lost += process->kind == PROCESS_DISPATCHER;
    process->dead = true;
    process->status = status;
    cleanup_close(&process->peer);
}

struct process *seam_choose(enum process_kind kind, unsigned n) {
    struct process *found[PROCESSES_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < PROCESSES_MAX; i++)
        if (seam.processes[i].pid != 0 && !seam.processes[i].dead && seam.processes[i].kind == kind)
            found[count++] = &seam.processes[i];
    return count == 0 ? NULL : found[n % count];
}

static int signalled(struct process *process, int number) {
    CHECK(process != NULL); /* of somebody else, or reaped */
    if (number == SIGKILL || (number == SIGTERM && process->kind != PROCESS_CONTROL))
        seam_die(process, number);
    return 0;
}

WRAP(int, kill, pid_t pid, int number) {
    return signalled(seam_find(pid), number);
}

WRAP(int, pidfd_send_signal, int fd, int number, siginfo_t *info, unsigned flags) {
    struct process *process = find_pidfd(fd);
    (void)info;
    (void)flags;
    if (process != NULL) /* a descriptor may outlive its process */
        return signalled(process, number);
    errno = ESRCH;
    return -1;
}

/* As in the kernel, an anchor is dead only when those in its shell are reaped. */
static bool can_be_reaped(const struct process *process) {
    if (process->pid == 0 || !process->dead)
        return false;
    for (unsigned i = 0; process->kind == PROCESS_ANCHOR && i < PROCESSES_MAX; i++)
        if (seam.processes[i].pid != 0 && seam.processes[i].kind == PROCESS_ENVIRONMENT &&
            seam.processes[i].anchor == process->pid)
            return false;
    return true;
}

WRAP(pid_t, waitpid, pid_t pid, int *status, int options) {
    CHECK(options == WNOHANG);
    for (unsigned i = 0; i < PROCESSES_MAX; i++) {
        struct process *process = &seam.processes[i];
        if ((pid != -1 && process->pid != pid) || !can_be_reaped(process))
            continue;
        pid_t reaped = process->pid;
        *status = process->status;
        process->pid = 0;
        return reaped;
    }
    return 0;
}

WRAP(int, waitid, idtype_t type, id_t id, siginfo_t *info, int options) {
    const struct process *process = type == P_PIDFD ? find_pidfd((int)id) : seam_find((pid_t)id);
    CHECK((options & (WNOHANG | WNOWAIT)) == (WNOHANG | WNOWAIT));
    if (process == NULL) {
        errno = ECHILD;
        return -1;
    }
    if (can_be_reaped(process))
        info->si_pid = process->pid;
    return 0;
}

/* ---- what makes processes ---------------------------------------------------------------------------------------- */

int __real_socketpair_seqpacket(int ret_pair[2], unsigned nonblocking);
WRAP(int, socketpair_seqpacket, int ret_pair[2], unsigned nonblocking) {
    int r = __real_socketpair_seqpacket(ret_pair, nonblocking);
    cleanup_close(&seam.last_pair);
    if (r == 0)
        seam.last_pair = fcntl(ret_pair[1], F_DUPFD_CLOEXEC, 3);
    return r;
}

/* Side processes of tasks: the others are replaced as a whole. */
WRAP(pid_t, fork, void) {
    struct process *process = (seam.faults & FAULT_SPAWN) != 0 ? NULL : seam_process(PROCESS_TASK, NULL);
    if (process == NULL) {
        errno = EAGAIN;
        return -1;
    }
    process->peer = steal_fd(&seam.last_pair);
    return process->pid;
}

WRAP(int, jail_spawn, const struct jail_plan *plan, const struct jail_io *io, struct jail_child *ret,
    struct jail_error *ret_error) {
    enum process_kind kind = plan->kind == JAIL_ZYGOTE ? PROCESS_ZYGOTE
        : io->n_descriptors == 1                       ? PROCESS_CONTROL
                                                       : PROCESS_DISPATCHER;
    struct process *process = (seam.faults & FAULT_SPAWN) != 0 ? NULL : seam_process(kind, &ret->pidfd);
    if (process == NULL)
        return jail_fail(ret_error, "fork", EAGAIN);
    process->peer = fcntl(io->descriptors[0], F_DUPFD_CLOEXEC, 3);
    CHECK(process->peer >= 0 && fd_set_nonblocking(process->peer, 1) == 0);
    ret->pid = process->pid;
    return 0;
}

WRAP(int, shellmaker_start, int zygote_pidfd, struct shellmaker *ret, struct jail_error *ret_error) {
    struct process *process = (seam.faults & FAULT_SPAWN) != 0 ? NULL : seam_process(PROCESS_MAKER, &ret->pidfd);
    int pair[2];
    (void)zygote_pidfd;
    if (process == NULL)
        return jail_fail(ret_error, "clone", EAGAIN);
    CHECK(__real_socketpair_seqpacket(pair, 3) == 0);
    ret->socket = pair[0];
    ret->pid = process->pid;
    process->peer = pair[1];
    return 0;
}

WRAP(int, shellmaker_request, const struct shellmaker *maker, uint32_t n) {
    struct process *process = seam_find(maker->pid);
    if (process == NULL || process->dead)
        return -EPIPE;
    process->wanted_cells += n;
    return 0;
}

/* A byte for each: 1: a shell. */
WRAP(int, shellmaker_receive, const struct shellmaker *maker, struct shell *ret, struct jail_error *ret_error) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    uint8_t byte;
    ssize_t n = maker->socket < 0 ? 0 : recv(maker->socket, &byte, 1, MSG_DONTWAIT);
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? -EAGAIN : -EPIPE;
    struct process *process = byte != 1 ? NULL : seam_process(PROCESS_ANCHOR, &ret->anchor_pidfd);
    if (process == NULL)
        return jail_fail(ret_error, "anchor", ENOMEM);
    ret->anchor = process->pid;
    ret->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(ret->listener >= 0 && bind(ret->listener, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0);
    CHECK(listen(ret->listener, 8) == 0);
    return 0;
}

WRAP(void, shellmaker_stop, struct shellmaker *maker) {
    struct process *process = seam_find(maker->pid);
    if (process != NULL)
        seam_die(process, SIGKILL);
    cleanup_close(&maker->socket);
    cleanup_close(&maker->pidfd);
}

/* ---- seater and imager ------------------------------------------------------------------------------------------- */

WRAP(int, seater_start, struct seater *seater, struct loop *loop, struct reaper *reaper,
    const struct cgroup_tree *cgroups, const struct seater_known *known) {
    (void)seater, (void)loop, (void)reaper, (void)cgroups, (void)known;
    return 0;
}

WRAP(int, seater_make, struct seater *seater) {
    (void)seater;
    if ((seam.faults & FAULT_SPAWN) != 0)
        return -EAGAIN;
    seam.wanted_leaves++;
    return 0;
}

WRAP(int, seater_move, struct seater *seater, uint64_t tag, pid_t pid, const struct cgroup_tree *cgroups,
    const struct leaf *leaf) {
    (void)seater, (void)cgroups;
    CHECK(seam_find(pid) != NULL && leaf_is_there(leaf));
    if (seam.n_moves == ARRAY_SIZE(seam.moves))
        return -EAGAIN;
    seam.moves[seam.n_moves++] = tag;
    return 0;
}

WRAP(int, seater_remove, struct seater *seater, const struct leaf *leaf) {
    (void)seater, (void)leaf;
    seam.leaves_removed++;
    return 0;
}

WRAP(int, imager_start, struct imager *imager, struct loop *loop, struct reaper *reaper, const char *directory) {
    (void)imager, (void)loop, (void)reaper, (void)directory;
    return 0;
}

WRAP(int, imager_request, struct imager *imager, uint32_t size_mb) {
    (void)imager;
    if (seam.n_images == ARRAY_SIZE(seam.images))
        return -EAGAIN;
    seam.images[seam.n_images++] = size_mb;
    return 0;
}

WRAP(void, imager_drop, struct imager *imager, int tree) {
    (void)imager;
    CHECK(close(tree) == 0);
}

WRAP(int, image_give, const struct image *image, uid_t uid, gid_t gid) {
    CHECK(image->tree >= 0 && uid == gid);
    return (seam.faults & FAULT_FILES) != 0 ? -EIO : 0;
}

WRAP(int, image_face_read, int tree, struct image_face *ret) {
    CHECK(fcntl(tree, F_GETFD) >= 0);
    *ret = (struct image_face){0};
    return 0;
}

WRAP(bool, image_face_same, int tree, const struct image_face *face) {
    (void)face;
    CHECK(fcntl(tree, F_GETFD) >= 0);
    return (seam.faults & FAULT_DIRTY) == 0;
}

WRAP(int, root_clone_tree, int directory, const char *path, int *ret_tree) {
    (void)directory;
    /* What of a packet came into a path: a name of one directory. */
    CHECK(strncmp(path, "packages/sha256/", 16) == 0 && strlen(path) == 16 + 64 && strchr(path + 16, '/') == NULL);
    if ((seam.faults & FAULT_FILES) != 0)
        return -ENOENT;
    *ret_tree = seam_file();
    return 0;
}

/* ---- control groups ---------------------------------------------------------------------------------------------- */

static int grouped(void) {
    return (seam.faults & FAULT_CGROUPS) != 0 ? -EBUSY : 0;
}

WRAP(int, cgroup_set_limits, const struct cgroup_tree *tree, const struct cgroup *cgroup,
    const struct cgroup_limits *limits) {
    (void)tree, (void)limits;
    CHECK(cgroup->name[0] != '\0');
    return grouped();
}

WRAP(int, cgroup_delegate, const struct cgroup_tree *tree, const struct cgroup *cgroup, uid_t uid) {
    (void)tree, (void)cgroup, (void)uid;
    return grouped();
}

WRAP(int, cgroup_attach, const struct cgroup_tree *tree, const struct cgroup *cgroup, pid_t pid) {
    (void)tree, (void)cgroup;
    CHECK(seam_find(pid) != NULL);
    return grouped();
}

WRAP(int, cgroup_freeze, const struct cgroup_tree *tree, const struct cgroup *cgroup, bool frozen) {
    (void)tree, (void)cgroup, (void)frozen;
    return grouped();
}

WRAP(int, cgroup_oom_kills, const struct cgroup_tree *tree, const struct cgroup *cgroup, uint64_t *ret) {
    (void)tree, (void)cgroup;
    *ret = seam.faults & 1;
    return grouped();
}

WRAP(int, cgroup_peak_kb, const struct cgroup_tree *tree, const struct cgroup *cgroup, uint64_t *ret) {
    (void)tree, (void)cgroup;
    *ret = 1;
    return grouped();
}

WRAP(int, cgroup_directory, const struct cgroup_tree *tree, const struct cgroup *cgroup) {
    return tree->version == 2 ? cgroup->fds[0] : -1;
}

/* cgroup.procs of a leaf. */
WRAP(int, read_file_at, int directory, const char *path, char *buffer, size_t size) {
    (void)path, (void)size;
    CHECK(fcntl(directory, F_GETFD) >= 0);
    strcpy(buffer, (seam.faults & FAULT_DIRTY) != 0 ? "1\n" : "");
    return 0;
}

/* ---- the rest of the kernel -------------------------------------------------------------------------------------- */

WRAP(int, setns, int fd, int kind) {
    (void)kind;
    CHECK(fcntl(fd, F_GETFD) >= 0);
    return 0;
}

WRAP(int, shmctl, int id, int command, struct shmid_ds *ret) {
    (void)id, (void)command;
    memset(ret, 0, sizeof(struct shm_info));
    return 0;
}

WRAP(int, semctl, int id, int number, int command, struct seminfo *ret) {
    (void)id, (void)number, (void)command;
    memset(ret, 0, sizeof(*ret));
    return 0;
}

WRAP(int, msgctl, int id, int command, struct msqid_ds *ret) {
    (void)id, (void)command;
    memset(ret, 0, sizeof(struct msginfo));
    return 0;
}

WRAP(long, syscall, long number, int fd) {
    if (number == SYS_open_tree && (seam.faults & FAULT_CGROUPS) == 0)
        return fcntl(fd, F_DUPFD_CLOEXEC, 3);
    errno = ENOSYS;
    return -1;
}

WRAP(int, clock_gettime, clockid_t id, struct timespec *ret) {
    (void)id;
    *ret = (struct timespec){(time_t)(seam.now_us / 1000000), (long)(seam.now_us % 1000000) * 1000};
    return 0;
}

int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
WRAP(int, epoll_wait, int fd, struct epoll_event *events, int max, int timeout) {
    (void)timeout;
    return __real_epoll_wait(fd, events, max, 0);
}

WRAP(int, fstatvfs, int fd, struct statvfs *ret) {
    (void)fd;
    *ret = (struct statvfs){.f_blocks = 1000, .f_frsize = 1 << 20};
    ret->f_bavail = (seam.faults & FAULT_FILES) != 0 ? 1 : 500;
    return 0;
}

/* A machine whose snapshots have 64 KiB. */
WRAP(long, sysconf, int name) {
    return name == _SC_PHYS_PAGES ? 128 : name == _SC_PAGESIZE ? 4096 : 1;
}

WRAP(void, side_be_patient, pid_t pid) {
    CHECK(seam_find(pid) != NULL);
}

WRAP(void, say, const char *format, ...) {
    (void)format;
}

WRAP(void, mention, const struct server *server, const char *format, ...) {
    (void)server, (void)format;
}

WRAP(void, notify, const char *format, ...) {
    (void)format;
}
