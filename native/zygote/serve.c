/* The zygote's loop; see the header. What a crash leaves behind: nothing; environments are the launcher's children. */
#include "zygote/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/jail.h"
#include "zygote/snapshot.h"

/* Joined from the anchor. Its mount namespace is not: the environment gets a copy of the zygote's. */
#define SHELL_NAMESPACES (CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

/* The descriptors of one FORK, in the order of its flags; -1: did not come. */
struct fork_request {
    struct wire_fork message;
    uint64_t environment;
    bool spare;
    int anchor, channel, log, tmp, task, opt, cgroup, snapshot;
};

int serve_open(struct serve *serve, int launcher, const struct serve_hooks *hooks) {
    struct serve s = {.launcher = launcher, .hooks = hooks, .home_net = -1};

    *serve = s;
    if (prctl(PR_GET_TID_ADDRESS, &s.tid_address, 0, 0, 0) < 0)
        return -ENOTSUP;
    if (syscall(SYS_get_robust_list, 0, &s.robust_list, &s.robust_length) < 0)
        s.robust_list = NULL;
    s.packet = malloc(WIRE_MESSAGE_MAX);
    if (s.packet == NULL || snapshot_reserve() < 0)
        return -ENOMEM;
    s.home_net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    *serve = s;
    return 0;
}

void serve_done(struct serve *serve) {
    cleanup_close(&serve->home_net);
    free(serve->packet);
    serve->packet = NULL;
}

int serve_ready(const struct serve *serve, const char *version) {
    const struct wire_header header = {0};
    const struct wire_zygote_ready ready = {
        .version = {.data = (const uint8_t *)version, .size = (uint32_t)strlen(version)}};
    uint8_t packet[256];
    int size = wire_zygote_ready_encode(&header, &ready, packet, sizeof(packet));
    return size < 0 ? size : packet_send(serve->launcher, packet, (size_t)size, NULL, 0);
}

/* Called in the zygote and, between clone and user code, in the child: memory on the stack and one system call. */
static int send_failed(int socket, uint64_t environment, const char *step, int error) {
    const struct wire_header header = {.object = environment};
    const struct wire_fork_failed failed = {
        .step = {.data = (const uint8_t *)step, .size = (uint32_t)strnlen(step, WIRE_FORK_FAILED_STEP_MAX)},
        .error = (uint32_t)(error < 0 ? -error : error)};
    uint8_t packet[128];
    int size = wire_fork_failed_encode(&header, &failed, packet, sizeof(packet));
    return size < 0 ? size : packet_send(socket, packet, (size_t)size, NULL, 0);
}

static int send_forked(const struct serve *serve, uint64_t environment, pid_t pid, int pidfd) {
    const struct wire_header header = {.object = environment};
    const struct wire_forked forked = {.pid = (uint32_t)pid};
    uint8_t packet[64];
    int size = wire_forked_encode(&header, &forked, packet, sizeof(packet));
    return size < 0 ? size : packet_send(serve->launcher, packet, (size_t)size, &pidfd, 1);
}

static int read_request(const struct packet *packet, struct fork_request *ret) {
    struct wire_header header;
    struct fork_request request = {
        .anchor = -1, .channel = -1, .log = -1, .tmp = -1, .task = -1, .opt = -1, .cgroup = -1, .snapshot = -1};
    unsigned next = 0;
    int r = wire_fork_decode(packet->data, packet->size, &header, &request.message);
    if (r < 0)
        return r;
    const struct {
        unsigned flag;
        int *into;
    } order[] = {
        {WIRE_FORK_ANCHOR, &request.anchor},
        {WIRE_FORK_CHANNEL, &request.channel},
        {WIRE_FORK_LOG, &request.log},
        {WIRE_FORK_TMP, &request.tmp},
        {WIRE_FORK_TASK, &request.task},
        {WIRE_FORK_OPT, &request.opt},
        {WIRE_FORK_CGROUP, &request.cgroup},
        {WIRE_FORK_SNAPSHOT, &request.snapshot},
    };
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        if ((request.message.descriptors & order[i].flag) == 0)
            continue;
        if (next == packet->n_fds)
            return -EBADMSG;
        *order[i].into = packet->fds[next++];
    }
    if (next != packet->n_fds || request.channel < 0 ||
        (request.snapshot >= 0) != (request.message.snapshot != WIRE_FORK_SNAPSHOT_NONE))
        return -EBADMSG;
    request.environment = header.object;
    request.spare = (header.flags & WIRE_HEADER_AHEAD) != 0;
    *ret = request;
    return 0;
}

/* The child, until it is an environment. Returns only when it is one that begins: a restored one goes on where its maker
 * was. */
static void become(const struct serve *serve, const struct fork_request *request) {
    struct jail_entry entry = JAIL_ENTRY_INIT;
    struct jail_error error = {0};

    if (serve->robust_list != NULL)
        (void)syscall(SYS_set_robust_list, serve->robust_list, serve->robust_length);
    entry.tmp_tree = request->tmp;
    entry.task_tree = request->task;
    entry.opt_tree = request->opt;
    entry.channel = request->channel;
    entry.log = request->log;
    entry.snapshot = request->snapshot;
    entry.handshake = serve->launcher;
    entry.uid = request->message.uid;
    entry.gid = request->message.gid;
    entry.nofile = request->message.nofile;
    entry.nproc = request->message.nproc;
    /* Its own cgroup is the root of what it sees. Not at the clone: that would take the zygote's. */
    if (request->cgroup >= 0 && unshare(CLONE_NEWCGROUP) < 0) {
        (void)send_failed(entry.handshake, request->environment, "unshare cgroup", errno);
        _exit(SERVE_EXIT_JAIL);
    }
    if (jail_enter(&entry, &error) < 0) {
        (void)send_failed(entry.handshake, request->environment, error.step, error.error);
        _exit(SERVE_EXIT_JAIL);
    }
    if (request->message.snapshot == WIRE_FORK_SNAPSHOT_RESTORE) {
        (void)snapshot_restore(entry.snapshot, serve->tid_address);
        _exit(SNAPSHOT_EXIT);
    }
}

/* A maker has a process id of its own. Where the kernel does not give it that, it is an environment like others, and the
 * launcher sees the pipe end. */
static long clone_child(struct clone_args *arguments, struct fork_request *request) {
    const pid_t maker_pid = SNAPSHOT_PID;
    long pid;

    if (request->message.snapshot != WIRE_FORK_SNAPSHOT_TAKE)
        return syscall(SYS_clone3, arguments, sizeof(*arguments));
    arguments->set_tid = (uintptr_t)&maker_pid;
    arguments->set_tid_size = 1;
    pid = syscall(SYS_clone3, arguments, sizeof(*arguments));
    if (pid >= 0 || (errno != EINVAL && errno != EPERM && errno != EEXIST))
        return pid;
    arguments->set_tid = 0;
    arguments->set_tid_size = 0;
    request->message.snapshot = WIRE_FORK_SNAPSHOT_NONE;
    request->snapshot = -1;
    return syscall(SYS_clone3, arguments, sizeof(*arguments));
}

/* 1 in the child, 0 in the zygote whatever came of it, negative when the launcher's socket broke. */
static int fork_environment(struct serve *serve, struct fork_request *request) {
    _cleanup_close_ int pidfd = -1;
    struct clone_args arguments = {
        .flags = CLONE_PARENT | CLONE_PIDFD | CLONE_NEWNS | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
        .pidfd = (uintptr_t)&pidfd,
        .child_tid = (uintptr_t)serve->tid_address,
    };
    long pid;
    int error, r;

    if (request->anchor >= 0 && setns(request->anchor, SHELL_NAMESPACES) < 0)
        return send_failed(serve->launcher, request->environment, "setns", errno);
    if (request->cgroup >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint32_t)request->cgroup;
    } else {
        arguments.flags |= CLONE_NEWCGROUP;
    }
    serve->hooks->before();
    pid = clone_child(&arguments, request);
    if (pid == 0) {
        pidfd = -1; /* belongs to the parent */
        become(serve, request);
        serve->hooks->child();
        return 1;
    }
    error = errno;
    if (pid < 0)
        r = send_failed(serve->launcher, request->environment, "clone", error);
    else
        r = send_forked(serve, request->environment, (pid_t)pid, pidfd);
    serve->hooks->parent();
    /* Not to keep the environment's net namespace alive until the next fork; best effort, as a zygote that shares the
     * host's may not go back there. */
    if (request->anchor >= 0 && serve->home_net >= 0)
        (void)setns(serve->home_net, CLONE_NEWNET);
    return r;
}

int serve_run(struct serve *serve, uint64_t *ret_environment) {
    for (;;) {
        struct packet packet = {.data = serve->packet, .capacity = WIRE_MESSAGE_MAX};
        struct fork_request request;
        int r = packet_receive(serve->launcher, &packet, 0);
        if (r <= 0)
            return r == -ECONNRESET ? SERVE_CLOSED : r;
        r = read_request(&packet, &request);
        if (r == 0)
            r = fork_environment(serve, &request);
        if (r == 1) {
            /* jail_enter closed them; the numbers are the function's now. */
            serve->launcher = serve->home_net = -1;
            *ret_environment = request.environment;
            serve->spare = request.spare;
            serve->maker = request.message.snapshot == WIRE_FORK_SNAPSHOT_TAKE;
            return SERVE_CHILD;
        }
        packet_close_fds(&packet);
        if (r < 0)
            return r == -EPIPE ? SERVE_CLOSED : r;
    }
}
