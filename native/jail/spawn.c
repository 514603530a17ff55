/* jail_spawn, the parent's side; see the header. Reads the handshake until its end: the last process that holds the
 * other end has then executed its program or died, and a failed step has been told. */
#include "jail/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "spawn_enter.h"

struct spawning {
    struct jail_child first, command; /* `first`: the forked child; `command` with the anchor: made by it */
    struct jail_error error;
    bool failed;
};

static int write_map(pid_t pid, const char *file, const char *map) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    return write_file_at(AT_FDCWD, path, map);
}

/* By real root, from outside: so setgroups need not be denied and 65,536 ids may be mapped at once. */
static int map_ids(pid_t pid, uint32_t base) {
    char map[64];
    snprintf(map, sizeof(map), "0 %u %u\n", base, JAIL_IDS);
    int r = write_map(pid, "uid_map", map);
    return r < 0 ? r : write_map(pid, "gid_map", map);
}

static void note_failure(struct spawning *spawning, const struct jail_error *error) {
    if (!spawning->failed)
        spawning->error = *error;
    spawning->failed = true;
}

static void take(struct spawning *spawning, const struct jail_plan *plan, int socket, struct packet *packet) {
    struct handshake_message message;
    struct jail_error error;
    int r;

    if (packet->size != sizeof(message)) {
        jail_fail(&error, "handshake", EBADMSG);
        note_failure(spawning, &error);
        return;
    }
    memcpy(&message, packet->data, sizeof(message));
    switch (message.kind) {
    case HANDSHAKE_MAP:
        r = map_ids(spawning->first.pid, plan->uid_base);
        if (r == 0)
            r = packet_send(socket, "", 1, NULL, 0);
        if (r < 0) {
            jail_fail(&error, "user map", r);
            note_failure(spawning, &error);
            (void)kill(spawning->first.pid, SIGKILL);
        }
        break;
    case HANDSHAKE_ANCHOR:
        if (packet->n_fds == 1 && spawning->command.anchor == 0) {
            spawning->command.anchor = message.pid;
            spawning->command.anchor_pidfd = steal_fd(&packet->fds[0]);
        }
        break;
    case HANDSHAKE_COMMAND:
        if (packet->n_fds == 1 && spawning->command.pid == 0) {
            spawning->command.pid = message.pid;
            spawning->command.pidfd = steal_fd(&packet->fds[0]);
        }
        break;
    default:
        note_failure(spawning, &message.error);
        break;
    }
}

static void converse(struct spawning *spawning, const struct jail_plan *plan, int socket) {
    uint8_t buffer[sizeof(struct handshake_message) + 1];

    for (;;) {
        struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
        int r = packet_receive(socket, &packet, 0);
        if (r <= 0)
            return;
        take(spawning, plan, socket, &packet);
        packet_close_fds(&packet);
    }
}

static void reap(pid_t pid) {
    int status;
    while (pid > 0 && waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
        ;
}

int jail_child_kill(const struct jail_child *child) {
    int fds[] = {child->anchor_pidfd, child->pidfd};
    int result = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0 && syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0) < 0 && errno != ESRCH)
            result = -errno;
    return result;
}

void jail_child_close(struct jail_child *child) {
    cleanup_close(&child->pidfd);
    cleanup_close(&child->anchor_pidfd);
}

static void destroy(struct jail_child *child) {
    (void)jail_child_kill(child);
    reap(child->pid);
    reap(child->anchor);
    jail_child_close(child);
}

int jail_spawn(
    const struct jail_plan *plan, const struct jail_io *io, struct jail_child *ret, struct jail_error *ret_error) {
    struct spawning spawning = {.first = JAIL_CHILD_INIT, .command = JAIL_CHILD_INIT};
    sigset_t all, before;
    int pair[2], r;

    if (io->n_descriptors > JAIL_DESCRIPTORS_MAX || (plan->kind == JAIL_SANDBOX && io->n_descriptors > 1))
        return jail_fail(ret_error, "descriptors", E2BIG);
    r = socketpair_seqpacket(pair, 0);
    if (r < 0)
        return jail_fail(ret_error, "handshake", r);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    spawning.first.pid = spawn_clone(0, &spawning.first.pidfd);
    if (spawning.first.pid == 0) {
        close(pair[0]);
        spawn_enter(plan, io, pair[1]);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(pair[1]);
    if (spawning.first.pid < 0) {
        close(pair[0]);
        return jail_fail(ret_error, "fork", spawning.first.pid);
    }
    converse(&spawning, plan, pair[0]);
    close(pair[0]);
    if (plan->kind == JAIL_SANDBOX) {
        /* The first child has made the other two and ended, or failed and ended. */
        reap(spawning.first.pid);
        jail_child_close(&spawning.first);
        spawning.first = spawning.command;
        if (!spawning.failed && (spawning.first.pid == 0 || spawning.first.anchor == 0)) {
            spawning.failed = true;
            jail_fail(&spawning.error, "died on the way", ECHILD);
        }
    }
    if (spawning.failed) {
        destroy(&spawning.first);
        return jail_fail(ret_error, spawning.error.step, spawning.error.error);
    }
    *ret = spawning.first;
    return 0;
}
