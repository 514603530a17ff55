/* The fork server with real jails: this program is the launcher, and executed with an argument it is a zygote whose
 * environments answer with what they see. Needs root; where a kernel or machine refuses namespaces it fails. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/shell.h"
#include "jail/spawn.h"
#include "protocol/wire.h"
#include "zygote/endpoint.h"
#include "zygote/serve.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(errno));                      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define SKIPPED 77
#define LAUNCHER 3
#define UID_BASE 1850000000u
#define PATIENCE_MS 10000

/* ---- in the jail ------------------------------------------------------------------------------------------------- */

struct sight {
    int32_t pid, tid, session, uid, gid, open_above; /* descriptors beyond the channel */
    uint32_t before, parent, child;                  /* calls of the hooks, as the child remembers them */
};

/* A program's own memory is what hooks may change. */
static uint32_t calls[3];

static void count_before(void) {
    calls[0]++;
}

static void count_parent(void) {
    calls[1]++;
}

static void count_child(void) {
    calls[2]++;
}

static void environment(uint64_t id) {
    struct endpoint endpoint;
    struct sight sight = {.pid = getpid(),
        .tid = (int32_t)syscall(SYS_gettid),
        .session = getsid(0),
        .uid = (int32_t)getuid(),
        .gid = (int32_t)getgid(),
        .before = calls[0],
        .parent = calls[1],
        .child = calls[2]};
    uint8_t request_id[16] = {0};

    for (int fd = SERVE_CHANNEL + 1; fd < 64; fd++)
        sight.open_above += fcntl(fd, F_GETFD) >= 0;
    memcpy(request_id, &id, sizeof(id));
    if (endpoint_open(&endpoint) < 0)
        _exit(1);
    endpoint_attach(&endpoint, SERVE_CHANNEL);
    if (endpoint_send_result(
            &endpoint, request_id, false, (struct wire_slice){0}, (const uint8_t *)&sight, sizeof(sight)) < 0)
        _exit(1);
    while (endpoint_wait(&endpoint) > 0)
        ;
    _exit(7);
}

static int zygote(void) {
    static const struct serve_hooks hooks = {count_before, count_parent, count_child};
    struct serve serve;
    uint64_t id;
    int r = serve_open(&serve, LAUNCHER, &hooks);

    if (r == 0)
        r = serve_ready(&serve, "1.2.3");
    if (r == 0)
        r = serve_run(&serve, &id);
    if (r == SERVE_CHILD)
        environment(id);
    serve_done(&serve);
    return r == SERVE_CLOSED ? 0 : -r;
}

/* ---- the launcher ------------------------------------------------------------------------------------------------ */

struct launcher {
    struct jail_child zygote;
    struct shellmaker maker;
    int socket;
    uint8_t packet[WIRE_MESSAGE_MAX];
    struct packet message;
};

static void wait_readable(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    CHECK(poll(&poll_fd, 1, PATIENCE_MS) == 1);
}

static void receive(struct launcher *l, uint16_t type, struct wire_header *ret_header) {
    wait_readable(l->socket);
    l->message = (struct packet){.data = l->packet, .capacity = sizeof(l->packet)};
    CHECK(packet_receive(l->socket, &l->message, 0) > 0);
    CHECK(wire_peek(l->packet, l->message.size, ret_header) == 0);
    if (ret_header->type != type) {
        fprintf(stderr, "%s arrived instead of %s\n", wire_name(ret_header->type), wire_name(type));
        exit(1);
    }
}

static void start_zygote(struct launcher *l) {
    _cleanup_jail_plan_ struct jail_plan plan;
    struct jail_error error = {0};
    struct jail_io io = JAIL_IO_INIT;
    struct wire_header header;
    struct wire_zygote_ready ready;
    char program[512], *slash;
    int pair[2];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);

    CHECK(n > 0);
    program[n] = '\0';
    slash = strrchr(program, '/');
    *slash = '\0';
    jail_plan_init(&plan);
    plan.kind = JAIL_ZYGOTE;
    plan.uid_base = UID_BASE;
    plan.tmp_mb = 0;
    char command[600];
    snprintf(command, sizeof(command), "/var/runtime/native/%s", slash + 1);
    CHECK(jail_plan_add_argument(&plan, command) == 0 && jail_plan_add_argument(&plan, "zygote") == 0);
    CHECK(jail_plan_add_environment(&plan, "ASAN_OPTIONS", "detect_leaks=0") == 0);
    CHECK(jail_plan_add_mount(&plan, program, "/var/runtime/native", false) == 0);
    CHECK(socketpair_seqpacket(pair, 0) == 0);
    io.output = io.error = STDERR_FILENO;
    io.descriptors = &pair[1];
    io.n_descriptors = 1;
    l->zygote = (struct jail_child)JAIL_CHILD_INIT;
    if (jail_spawn(&plan, &io, &l->zygote, &error) < 0) {
        fprintf(stderr, "jail_spawn: %s: %s\n", error.step, strerror(error.error));
        exit(1);
    }
    close(pair[1]);
    l->socket = pair[0];
    receive(l, WIRE_ZYGOTE_READY, &header);
    CHECK(wire_zygote_ready_decode(l->packet, l->message.size, &header, &ready) == 0);
    CHECK(ready.version.size == 5 && memcmp(ready.version.data, "1.2.3", 5) == 0);
    CHECK(shellmaker_start(l->zygote.pidfd, &l->maker, &error) == 0);
}

static struct shell take_shell(struct launcher *l) {
    struct shell shell = SHELL_INIT;
    struct jail_error error = {0};
    CHECK(shellmaker_request(&l->maker, 1) == 0);
    wait_readable(l->maker.socket);
    CHECK(shellmaker_receive(&l->maker, &shell, &error) == 0);
    return shell;
}

static void send_fork(struct launcher *l, uint64_t id, uint32_t uid, unsigned flags, const int *fds, unsigned n) {
    const struct wire_header header = {.object = id};
    const struct wire_fork message = {
        .descriptors = (uint8_t)flags, .uid = uid, .gid = uid, .nofile = 256, .nproc = 64};
    uint8_t packet[256];
    int size = wire_fork_encode(&header, &message, packet, sizeof(packet));
    CHECK(size > 0 && packet_send(l->socket, packet, (size_t)size, fds, n) == 0);
}

static void expect_failed(struct launcher *l, uint64_t id, const char *step, int error) {
    struct wire_fork_failed failed;
    struct wire_header header;
    receive(l, WIRE_FORK_FAILED, &header);
    CHECK(wire_fork_failed_decode(l->packet, l->message.size, &header, &failed) == 0);
    if (header.object != id || failed.step.size != strlen(step) ||
        memcmp(failed.step.data, step, failed.step.size) != 0 || failed.error != (uint32_t)error) {
        fprintf(stderr, "step %.*s, error %u\n", (int)failed.step.size, failed.step.data, failed.error);
        exit(1);
    }
}

/* The pidfd of a child of ours. */
static int expect_forked(struct launcher *l, uint64_t id) {
    struct wire_forked forked;
    struct wire_header header;
    siginfo_t info = {0};
    receive(l, WIRE_FORKED, &header);
    CHECK(wire_forked_decode(l->packet, l->message.size, &header, &forked) == 0);
    CHECK(header.object == id && l->message.n_fds == 1 && forked.pid > 0);
    CHECK(waitid(P_PIDFD, (id_t)l->message.fds[0], &info, WNOHANG | WNOWAIT | WEXITED) == 0);
    return l->message.fds[0];
}

static void reap(int pidfd, struct shell *shell, int code, int status) {
    siginfo_t info = {0};
    CHECK(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0);
    CHECK(info.si_code == code && info.si_status == status);
    close(pidfd);
    pid_t anchor = shell->anchor;
    shell_kill(shell);
    CHECK(waitpid(anchor, NULL, 0) == anchor);
}

static void test_environment(struct launcher *l, uint64_t id, uint32_t uid, uint32_t forks) {
    static uint8_t packet[WIRE_MESSAGE_MAX];
    struct packet message = {.data = packet, .capacity = sizeof(packet)};
    struct shell shell = take_shell(l);
    struct wire_header header;
    struct wire_result result;
    struct sight sight;
    int channel[2], log[2];

    CHECK(socketpair_seqpacket(channel, 0) == 0 && pipe2(log, O_CLOEXEC) == 0);
    const int fds[] = {shell.anchor_pidfd, channel[1], log[1]};
    send_fork(l, id, uid, WIRE_FORK_ANCHOR | WIRE_FORK_CHANNEL | WIRE_FORK_LOG, fds, 3);
    int pidfd = expect_forked(l, id);
    close(channel[1]);
    close(log[1]);
    wait_readable(channel[0]);
    CHECK(packet_receive(channel[0], &message, 0) > 0);
    CHECK(wire_result_decode(packet, message.size, &header, &result) == 0);
    CHECK(memcmp(result.id, &id, sizeof(id)) == 0 && result.body.size == sizeof(sight));
    memcpy(&sight, result.body.data, sizeof(sight));
    CHECK(sight.pid == 2 && sight.tid == 2 && sight.session == 2);
    CHECK(sight.uid == (int32_t)uid && sight.gid == (int32_t)uid && sight.open_above == 0);
    CHECK(sight.before == forks && sight.parent == forks - 1 && sight.child == 1);
    close(channel[0]);
    reap(pidfd, &shell, CLD_EXITED, 7);
    close(log[0]);
}

/* The child says which step failed, leaves, and the zygote goes on. */
static void test_failed_step(struct launcher *l) {
    struct shell shell = take_shell(l);
    int channel[2];
    CHECK(socketpair_seqpacket(channel, 0) == 0);
    const int fds[] = {shell.anchor_pidfd, channel[1]};
    send_fork(l, 50, 0, WIRE_FORK_ANCHOR | WIRE_FORK_CHANNEL, fds, 2); /* uid 0 is no environment's */
    close(channel[1]);
    /* From two processes: in either order. */
    struct wire_header header;
    int pidfd = -1;
    for (int i = 0; i < 2; i++) {
        wait_readable(l->socket);
        l->message = (struct packet){.data = l->packet, .capacity = sizeof(l->packet)};
        CHECK(packet_receive(l->socket, &l->message, MSG_PEEK) > 0);
        CHECK(wire_peek(l->packet, l->message.size, &header) == 0);
        packet_close_fds(&l->message);
        if (header.type == WIRE_FORKED)
            pidfd = expect_forked(l, 50);
        else
            expect_failed(l, 50, "identity", EINVAL);
    }
    CHECK(pidfd >= 0);
    wait_readable(channel[0]);
    char byte;
    CHECK(recv(channel[0], &byte, 1, 0) == 0);
    close(channel[0]);
    reap(pidfd, &shell, CLD_EXITED, SERVE_EXIT_JAIL);
}

/* What the zygote itself cannot do. */
static void test_failed_before_the_fork(struct launcher *l) {
    struct shell shell = take_shell(l);
    pid_t anchor = shell.anchor;
    int channel[2];
    CHECK(socketpair_seqpacket(channel, 0) == 0);
    _cleanup_close_ int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const int no_anchor[] = {null, channel[1]}, no_cgroup[] = {shell.anchor_pidfd, channel[1], null};
    send_fork(l, 60, 9, WIRE_FORK_ANCHOR | WIRE_FORK_CHANNEL, no_anchor, 2);
    expect_failed(l, 60, "setns", EINVAL);
    send_fork(l, 61, 9, WIRE_FORK_ANCHOR | WIRE_FORK_CHANNEL | WIRE_FORK_CGROUP, no_cgroup, 3);
    expect_failed(l, 61, "clone", EBADF);
    close(channel[0]);
    close(channel[1]);
    shell_kill(&shell);
    CHECK(waitpid(anchor, NULL, 0) == anchor);
}

static void stop(struct launcher *l, int status) {
    siginfo_t info = {0};
    shellmaker_stop(&l->maker);
    CHECK(waitpid(l->maker.pid, NULL, 0) == l->maker.pid);
    close(l->socket);
    CHECK(waitid(P_PIDFD, (id_t)l->zygote.pidfd, &info, WEXITED) == 0);
    CHECK(info.si_code == CLD_EXITED && info.si_status == status);
    jail_child_close(&l->zygote);
}

/* Nothing that a launcher sends: descriptors that were not announced, and none at all. */
static void test_malformed(struct launcher *l) {
    for (int i = 0; i < 2; i++) {
        int channel[2];
        start_zygote(l);
        CHECK(socketpair_seqpacket(channel, 0) == 0);
        if (i == 0)
            send_fork(l, 1, 9, WIRE_FORK_CHANNEL, channel, 2);
        else
            send_fork(l, 1, 9, WIRE_FORK_CHANNEL | WIRE_FORK_LOG, channel, 1);
        close(channel[0]);
        close(channel[1]);
        stop(l, EBADMSG);
    }
}

int main(int argc, char **argv) {
    static struct launcher launcher = {.maker = SHELLMAKER_INIT, .socket = -1};
    (void)argv;
    if (argc > 1)
        _exit(zygote()); /* the leak detector cannot work in there */
    if (geteuid() != 0)
        return SKIPPED;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    start_zygote(&launcher);
    test_environment(&launcher, 1001, 9, 1);
    test_failed_before_the_fork(&launcher);
    test_failed_step(&launcher);
    test_environment(&launcher, 1002, 10, 4);
    stop(&launcher, 0);
    test_malformed(&launcher);
    return 0;
}
