/* Shells, anchors and the shellmaker; see the header. The shellmaker is a copy of the launcher that has entered the
 * zygote's root and user namespace: it has every capability there and none on the host. It answers one request at a
 * time and speaks only to the launcher; when that closes the socket, or dies, it ends.
 *
 * An anchor is a copy of the shellmaker without capabilities and descriptors. It ignores SIGCHLD, so the kernel reaps the
 * orphans that become its children. Until the launcher has it in its books the anchor waits at a pipe, the lease: a byte
 * means taken. The other end goes with the message, so whatever is lost on the way (the shellmaker, the message, its
 * reader) closes it, and the anchor leaves by itself. */
#include "jail/shell.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
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
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/jail.h"
#include "shell_anchor.h"
#include "spawn_enter.h"

struct shell_message {
    pid_t anchor;
    struct jail_error error;
};

/* What ps shows of them on the host; inside a sandbox /proc does not show them. */
#define SHELL_TITLE "anchor"

int shell_loopback_up(void) {
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return -errno;
    return 0;
}

int shell_unshare(void) {
    if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return -errno;
    if (sethostname(JAIL_HOSTNAME, strlen(JAIL_HOSTNAME)) < 0)
        return -errno;
    return shell_loopback_up();
}

static int listen_inside(void) {
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(SHELL_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, SOMAXCONN) < 0)
        return -errno;
    return steal_fd(&fd);
}

/* Where an anchor waits for being taken; nothing else is open then. */
enum { LEASE = 0, NOT_TAKEN = 4 };

static void await_taken(void) {
    char byte;
    ssize_t n;
    do
        n = read(LEASE, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(NOT_TAKEN);
    close(LEASE);
}

void shell_anchor(int ready, int lease, int parent) {
    struct pollfd gone = {.fd = parent};
    const int keep = 3;
    bool failed = false;

    (void)prctl(PR_SET_NAME, SHELL_TITLE);
    (void)setsid();
    (void)signal(SIGCHLD, SIG_IGN);
    if (chdir("/") < 0 || jail_set_capabilities(0) < 0)
        failed = true;
    /* Joining this process by its pidfd is a matter of the same uid and a dumpable memory; see ptrace(2). */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        failed = true;
    /* A parent that died before the signal was set closed its end before. */
    if (poll(&gone, 1, 0) != 0)
        failed = true;
    if (ready >= 0 && !failed)
        failed = write(ready, "", 1) != 1;
    if (lease >= 0 && dup2(lease, LEASE) < 0)
        failed = true;
    if (syscall(SYS_close_range, lease >= 0 ? LEASE + 1 : 0, ~0u, 0) < 0 || failed)
        _exit(keep);
    if (lease >= 0)
        await_taken();
    for (;;)
        pause();
}

/* Makes the namespaces, the listener and the anchor. The shellmaker's own net, ipc and uts namespaces are those of its
 * latest shell. */
static int make_shell(int socket, struct shell *shell, int *ret_lease, struct jail_error *error) {
    int ready[2], lease[2];
    char byte;
    int r = shell_unshare();

    if (r < 0)
        return jail_fail(error, "shell namespaces", r);
    r = listen_inside();
    if (r < 0)
        return jail_fail(error, "shell listener", r);
    shell->listener = r;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return jail_fail(error, "shell pipe", errno);
    if (pipe2(lease, O_CLOEXEC) < 0) {
        r = errno;
        close(ready[0]);
        close(ready[1]);
        return jail_fail(error, "shell lease", r);
    }
    shell->anchor = spawn_clone(CLONE_PARENT | CLONE_NEWPID, &shell->anchor_pidfd);
    if (shell->anchor == 0)
        shell_anchor(ready[1], lease[0], socket);
    close(ready[1]);
    close(lease[0]);
    *ret_lease = lease[1];
    r = shell->anchor < 0 ? shell->anchor : 0;
    if (r == 0 && read(ready[0], &byte, 1) != 1)
        r = -ECHILD;
    close(ready[0]);
    return r < 0 ? jail_fail(error, "clone anchor", r) : 0;
}

static void send_shell(int socket) {
    _cleanup_close_ int lease = -1;
    struct shell shell = SHELL_INIT;
    struct shell_message message = {.anchor = 0};

    if (make_shell(socket, &shell, &lease, &message.error) == 0) {
        const int fds[] = {shell.anchor_pidfd, shell.listener, lease};
        message.anchor = shell.anchor;
        if (packet_send(socket, &message, sizeof(message), fds, ARRAY_SIZE(fds)) < 0)
            _exit(1);
        shell_close(&shell);
        return;
    }
    shell_kill(&shell);
    if (packet_send(socket, &message, sizeof(message), NULL, 0) < 0)
        _exit(1);
}

static void shellmaker_enter(int zygote_pidfd, int socket) {
    struct shell_message failed = {.anchor = 0};
    sigset_t none;
    uint32_t wanted;
    int r = 0;

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_NAME, "shellmaker");
    /* The root first, which takes real root's capabilities; then the user namespace. */
    if (setns(zygote_pidfd, CLONE_NEWNS) < 0)
        r = jail_fail(&failed.error, "join root", errno);
    else if (setns(zygote_pidfd, CLONE_NEWUSER) < 0)
        r = jail_fail(&failed.error, "join user namespace", errno);
    else if (setgroups(0, NULL) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
        r = jail_fail(&failed.error, "become root inside", errno);
    else if ((r = jail_drop_bounding()) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = jail_fail(&failed.error, "bounding set", r < 0 ? r : errno);
    else if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        r = jail_fail(&failed.error, "dumpable", errno);
    /* Only the socket is needed, and the launcher's descriptors are none of our business. */
    if (dup3(socket, STDERR_FILENO + 1, O_CLOEXEC) < 0 && errno != EINVAL)
        _exit(1);
    socket = STDERR_FILENO + 1;
    if (syscall(SYS_close_range, 0, STDERR_FILENO, 0) < 0 || syscall(SYS_close_range, socket + 1, ~0u, 0) < 0)
        _exit(1);
    /* 0, 1 and 2 stay taken, so that nothing new lands there. */
    for (int i = 0; i <= STDERR_FILENO; i++)
        (void)open("/dev/null", O_RDWR | O_CLOEXEC);
    if (r < 0) {
        (void)packet_send(socket, &failed, sizeof(failed), NULL, 0);
        _exit(1);
    }
    while (recv(socket, &wanted, sizeof(wanted), 0) == sizeof(wanted))
        for (; wanted > 0; wanted--)
            send_shell(socket);
    _exit(0);
}

int shellmaker_start(int zygote_pidfd, struct shellmaker *ret, struct jail_error *ret_error) {
    struct shellmaker maker = SHELLMAKER_INIT;
    sigset_t all, before;
    int pair[2];
    int r = socketpair_seqpacket(pair, 1);

    if (r < 0)
        return jail_fail(ret_error, "shellmaker socket", r);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    maker.pid = spawn_clone(0, &maker.pidfd);
    if (maker.pid == 0) {
        for (int number = 1; number < _NSIG; number++)
            (void)signal(number, SIG_DFL);
        close(pair[0]);
        shellmaker_enter(zygote_pidfd, pair[1]);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(pair[1]);
    if (maker.pid < 0) {
        close(pair[0]);
        return jail_fail(ret_error, "fork shellmaker", maker.pid);
    }
    maker.socket = pair[0];
    *ret = maker;
    return 0;
}

int shellmaker_request(const struct shellmaker *maker, uint32_t n) {
    return packet_send(maker->socket, &n, sizeof(n), NULL, 0);
}

int shellmaker_receive(const struct shellmaker *maker, struct shell *ret, struct jail_error *ret_error) {
    struct shell_message message;
    uint8_t buffer[sizeof(message) + 1];
    struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
    int r = packet_receive(maker->socket, &packet, MSG_DONTWAIT);

    if (r == -EAGAIN)
        return r;
    if (r <= 0)
        return jail_fail(ret_error, "shellmaker", r == 0 || r == -ECONNRESET ? EPIPE : r);
    if ((size_t)r != sizeof(message)) {
        packet_close_fds(&packet);
        return jail_fail(ret_error, "shellmaker", EBADMSG);
    }
    memcpy(&message, buffer, sizeof(message));
    if (message.anchor <= 0 || packet.n_fds != 3) {
        packet_close_fds(&packet);
        return jail_fail(ret_error, message.error.step, message.error.error);
    }
    (void)!write(packet.fds[2], "", 1); /* an anchor that is dead already is found by its reaper */
    close(packet.fds[2]);
    *ret = (struct shell){.anchor = message.anchor, .anchor_pidfd = packet.fds[0], .listener = packet.fds[1]};
    return 0;
}

void shellmaker_stop(struct shellmaker *maker) {
    cleanup_close(&maker->socket);
    cleanup_close(&maker->pidfd);
}

void shell_kill(struct shell *shell) {
    if (shell->anchor_pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, shell->anchor_pidfd, SIGKILL, NULL, 0);
    shell_close(shell);
}

void shell_close(struct shell *shell) {
    cleanup_close(&shell->anchor_pidfd);
    cleanup_close(&shell->listener);
}
