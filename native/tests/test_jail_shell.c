/* A zygote, its shellmaker, shells and environments in them, with this program as the zygote: what the launcher and the
 * zygote do together, without either. Needs root.
 *
 * As the zygote ("zygote" in argv[1]) it reads one packet an environment from descriptor 3: the byte says what the
 * environment does, the descriptors are its anchor and its log. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "jail/jail.h"
#include "jail/shell.h"
#include "jail/spawn.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { SKIPPED = 77, IN_ZYGOTE = 3, ROUNDS = 50, LOST = 8 };

/* ---- the environment ------------------------------------------------------------------------------------------- */

static void connect_listener(void) {
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(SHELL_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(write(fd, "hello", 5) == 5);
    close(fd);
}

/* No exec stands between jail_enter and this, which would close descriptors and recompute capabilities too. */
static void see_nothing_inherited(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &header, data) == 0);
    for (unsigned i = 0; i < 2; i++)
        CHECK((data[i].effective | data[i].permitted | data[i].inheritable) == 0);
    for (int capability = 0; capability < 64; capability++)
        CHECK(prctl(PR_CAPBSET_READ, capability, 0, 0, 0) <= 0);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE) == 1);
    for (int fd = 0; fd < 1024; fd++)
        CHECK((fcntl(fd, F_GETFD) >= 0) == (fd < 3));
}

static void see_shell(void) {
    char name[64];
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(getpid() == 2 && getppid() == 0 && getsid(0) == 2 && getuid() == 7 && getgid() == 8);
    CHECK(gethostname(name, sizeof(name)) == 0 && strcmp(name, JAIL_HOSTNAME) == 0);
    CHECK(ioctl(fd, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0);
    CHECK(access("/proc/1", F_OK) < 0 && access("/proc/2", F_OK) == 0);
    close(fd);
}

/* The orphan becomes the anchor's child and may not remain as a zombie, which would count against pids.max. */
static void leave_orphan(void) {
    int pair[2];
    char byte;
    CHECK(pipe(pair) == 0);
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            close(pair[0]);
            while (getppid() != 1)
                sched_yield();
            _exit(0);
        }
        CHECK(write(pair[1], &grandchild, sizeof(grandchild)) == sizeof(grandchild));
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    pid_t grandchild;
    CHECK(read(pair[0], &grandchild, sizeof(grandchild)) == sizeof(grandchild));
    close(pair[1]);
    CHECK(read(pair[0], &byte, 1) == 0);
    while (kill(grandchild, 0) == 0)
        sched_yield();
    CHECK(errno == ESRCH);
}

static void live(char what) {
    switch (what) {
    case 's':
        see_nothing_inherited();
        see_shell();
        connect_listener();
        leave_orphan();
        break;
    case 'k':
        kill(getpid(), SIGKILL);
        break;
    case 't':
        kill(getpid(), SIGTERM);
        break;
    case 'w':
        for (;;)
            pause();
    default:
        break;
    }
    _exit(42);
}

/* ---- the zygote ------------------------------------------------------------------------------------------------ */

static void zygote(void) {
    char what;
    CHECK(getuid() == 0);
    CHECK(access("/proc/self", F_OK) < 0); /* it sees no process */
    for (;;) {
        struct packet packet = {.data = (uint8_t *)&what, .capacity = 1};
        struct jail_error error;
        int pidfd = -1;
        if (packet_receive(IN_ZYGOTE, &packet, 0) != 1)
            _exit(0); /* at once: what a sanitizer does at the end needs a /proc */
        CHECK(packet.n_fds == 2);
        CHECK(setns(packet.fds[0], CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) == 0);
        struct clone_args arguments = {
            .flags = CLONE_PARENT | CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWCGROUP, .pidfd = (uint64_t)(uintptr_t)&pidfd};
        long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));
        CHECK(pid >= 0);
        if (pid == 0) {
            struct jail_entry entry = JAIL_ENTRY_INIT;
            entry.log = packet.fds[1];
            entry.handshake = IN_ZYGOTE;
            entry.uid = 7;
            entry.gid = 8;
            entry.nofile = 64;
            entry.nproc = 64;
            if (jail_enter(&entry, &error) < 0) {
                fprintf(stderr, "jail_enter: %s: %s\n", error.step, strerror(error.error));
                _exit(1);
            }
            live(what);
        }
        int32_t told = (int32_t)pid;
        CHECK(packet_send(IN_ZYGOTE, &told, sizeof(told), &pidfd, 1) == 0);
        close(pidfd);
        packet_close_fds(&packet);
    }
}

/* ---- the launcher ---------------------------------------------------------------------------------------------- */

static struct shell next_shell(const struct shellmaker *maker) {
    struct shell shell;
    struct jail_error error;
    struct pollfd ready = {.fd = maker->socket, .events = POLLIN};
    CHECK(shellmaker_request(maker, 1) == 0);
    CHECK(poll(&ready, 1, 5000) == 1);
    int r = shellmaker_receive(maker, &shell, &error);
    if (r < 0)
        fprintf(stderr, "shell: %s: %s\n", error.step, strerror(error.error));
    CHECK(r == 0);
    return shell;
}

static pid_t launch(int socket, const struct shell *shell, char what) {
    const int fds[] = {shell->anchor_pidfd, STDERR_FILENO};
    int32_t pid;
    struct packet packet = {.data = (uint8_t *)&pid, .capacity = sizeof(pid)};
    CHECK(packet_send(socket, &what, 1, fds, 2) == 0);
    CHECK(packet_receive(socket, &packet, 0) == sizeof(pid));
    packet_close_fds(&packet);
    return pid;
}

static int end_of(pid_t pid) {
    int status;
    CHECK(waitpid(pid, &status, __WALL) == pid); /* our own child, and nobody else's */
    return status;
}

static void retire(struct shell *shell) {
    pid_t anchor = shell->anchor;
    shell_kill(shell);
    CHECK(WTERMSIG(end_of(anchor)) == SIGKILL);
}

static void test_environments(int socket, const struct shellmaker *maker) {
    struct shell shell = next_shell(maker);
    int status = end_of(launch(socket, &shell, 's'));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    int connection = accept4(shell.listener, NULL, NULL, SOCK_CLOEXEC);
    char text[8];
    CHECK(connection >= 0 && read(connection, text, sizeof(text)) == 5 && memcmp(text, "hello", 5) == 0);
    close(connection);
    retire(&shell);

    /* pid 2 takes the signals it sends itself; as pid 1 it would ignore both. */
    shell = next_shell(maker);
    status = end_of(launch(socket, &shell, 'k'));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    retire(&shell);
    shell = next_shell(maker);
    status = end_of(launch(socket, &shell, 't'));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    retire(&shell);

    /* Killing the anchor kills what is in its shell. */
    shell = next_shell(maker);
    pid_t waiting = launch(socket, &shell, 'w'), anchor = shell.anchor;
    shell_kill(&shell);
    status = end_of(waiting);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(WTERMSIG(end_of(anchor)) == SIGKILL);
}

static void measure(int socket, const struct shellmaker *maker) {
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < ROUNDS; i++) {
        struct shell shell = next_shell(maker);
        uint64_t start = clock_monotonic_us();
        int status = end_of(launch(socket, &shell, 'x'));
        best = MIN(best, clock_monotonic_us() - start);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
        retire(&shell);
    }
    fprintf(stderr, "fork, jail_enter, exit, reap: %u us\n", (unsigned)best);
}

/* Shells that were made and not received end by themselves, whether their maker is told to leave or is killed: whoever
 * waits for all children comes to an end. One that was received lives on. */
static void leave_shells(int zygote_pidfd, bool kill_maker) {
    struct shellmaker maker;
    struct jail_error error;

    CHECK(shellmaker_start(zygote_pidfd, &maker, &error) == 0);
    struct shell taken = next_shell(&maker);
    struct pollfd ready = {.fd = maker.socket, .events = POLLIN};
    CHECK(shellmaker_request(&maker, LOST) == 0);
    CHECK(poll(&ready, 1, 5000) == 1);
    if (kill_maker)
        CHECK(kill(maker.pid, SIGKILL) == 0);
    pid_t maker_pid = maker.pid;
    shellmaker_stop(&maker);
    (void)end_of(maker_pid);
    CHECK(waitpid(taken.anchor, NULL, WNOHANG | __WALL) == 0);
    retire(&taken);
}

static void fill_plan(struct jail_plan *plan) {
    char self[4096], reason[160];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    CHECK(n > 0);
    self[n] = '\0';
    jail_plan_init(plan);
    plan->kind = JAIL_ZYGOTE;
    CHECK(jail_plan_add_argument(plan, "/var/runtime/zygote") == 0);
    CHECK(jail_plan_add_argument(plan, "zygote") == 0);
    CHECK(jail_plan_add_mount(plan, self, "/var/runtime/zygote", false) == 0);
    CHECK(jail_plan_validate(plan, reason, sizeof(reason)) == 0);
}

static int launcher(void) {
    _cleanup_jail_plan_ struct jail_plan plan;
    struct jail_io io = JAIL_IO_INIT;
    struct jail_child child;
    struct jail_error error;
    struct shellmaker maker;
    int pair[2];

    fill_plan(&plan);
    CHECK(socketpair_seqpacket(pair, 0) == 0);
    io.output = io.error = STDERR_FILENO;
    io.descriptors = &pair[1];
    io.n_descriptors = 1;
    if (jail_spawn(&plan, &io, &child, &error) < 0) {
        fprintf(stderr, "jail_spawn: %s: %s\n", error.step, strerror(error.error));
        return 1;
    }
    close(pair[1]);
    CHECK(shellmaker_start(child.pidfd, &maker, &error) == 0);
    test_environments(pair[0], &maker);
    measure(pair[0], &maker);
    pid_t maker_pid = maker.pid;
    shellmaker_stop(&maker);
    CHECK(end_of(maker_pid) == 0);
    CHECK(waitpid(-1, NULL, WNOHANG | __WALL) == 0); /* the zygote alone is there */
    leave_shells(child.pidfd, false);
    leave_shells(child.pidfd, true);
    close(pair[0]);
    CHECK(end_of(child.pid) == 0);
    jail_child_close(&child);
    (void)alarm(20);
    while (waitpid(-1, NULL, __WALL) > 0)
        ;
    CHECK(errno == ECHILD);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "zygote") == 0)
        zygote();
    return geteuid() == 0 ? launcher() : SKIPPED;
}
