/* Side processes; see the header. */
#include "side.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define RESTART_US 20000u
#define RESTART_MAX_US 5000000u
#define LIVED_LONG_US UINT64_C(10000000)

static void ready(void *owner, uint32_t events) {
    struct side *side = owner;
    uint8_t buffer[SIDE_MESSAGE_MAX];
    (void)events;

    for (;;) {
        struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
        int n = packet_receive(side->socket, &packet, MSG_DONTWAIT);
        if (n == -EAGAIN)
            return;
        if (n == 0 || (n < 0 && packet.size == 0)) { /* its end is reaped soon */
            loop_unwatch(side->loop, &side->watch);
            return;
        }
        side->message(side, &packet); /* also one whose descriptors found no room here: it says so by their number */
        packet_close_fds(&packet);
    }
}

static void exited(void *owner, int status) {
    struct side *side = owner;
    (void)status;
    if (side->watch.fd >= 0) /* its last words */
        ready(side, EPOLLIN);
    loop_unwatch(side->loop, &side->watch);
    cleanup_close(&side->socket);
    if (!side->stopping)
        side->gone(side->owner, side->name);
}

/* Closes everything above standard error that is not kept: the launcher's locks, sockets and pidfds must not live on in
 * a side process. */
static void close_others(int socket, const int *keep, unsigned n_keep) {
    int from = 3;
    for (;;) {
        int next = -1;
        if (socket >= from)
            next = socket;
        for (unsigned i = 0; i < n_keep; i++)
            if (keep[i] >= from && (next < 0 || keep[i] < next))
                next = keep[i];
        if (next < 0) {
            (void)syscall(SYS_close_range, (unsigned)from, ~0u, 0u);
            return;
        }
        if (next > from)
            (void)syscall(SYS_close_range, (unsigned)from, (unsigned)next - 1, 0u);
        from = next + 1;
    }
}

void side_be_patient(pid_t pid) {
    const struct sched_param none = {0};
    (void)sched_setscheduler(pid, SCHED_BATCH, &none);
}

static void child_main(const char *name, pid_t parent, int socket, const int *keep, unsigned n_keep,
    void (*run)(int, void *), void *argument) {
    sigset_t none;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    (void)prctl(PR_SET_NAME, name);
    side_be_patient(0);
    /* A terminal's interrupt reaches the whole group; who stops these is the launcher. */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    close_others(socket, keep, n_keep);
    run(socket, argument);
    _exit(0);
}

int side_start(struct side *side, struct loop *loop, struct reaper *reaper, const char *name,
    void (*run)(int socket, void *argument), void *argument, const int *keep, unsigned n_keep) {
    int pair[2];
    pid_t parent = getpid(), pid;
    int r = socketpair_seqpacket(pair, 1);
    if (r < 0)
        return r;
    pid = fork();
    if (pid == 0)
        child_main(name, parent, pair[1], keep, n_keep, run, argument);
    close(pair[1]);
    r = pid < 0 ? -errno : loop_watch(loop, &side->watch, pair[0], EPOLLIN, ready, side);
    if (pid > 0)
        reaper_add(reaper, &side->child, pid, exited, side);
    side->loop = loop;
    side->socket = pair[0];
    side->name = name;
    side->stopping = r < 0;
    side->started_us = clock_monotonic_us();
    if (r < 0)
        cleanup_close(&side->socket);
    return r;
}

void side_restart(struct side *side, void (*fire)(void *owner), void *owner) {
    uint64_t pause = RESTART_US;

    if (clock_monotonic_us() - side->started_us > LIVED_LONG_US)
        side->failures = 0;
    for (unsigned i = 0; i < side->failures && pause < RESTART_MAX_US; i++)
        pause *= 2;
    side->failures++;
    loop_timer(side->loop, &side->restart, pause, fire, owner);
}

int side_send(struct side *side, const void *data, size_t size, const int *fds, unsigned n_fds) {
    return side->socket < 0 ? -EPIPE : packet_send(side->socket, data, size, fds, n_fds);
}

void side_stop(struct side *side) {
    if (side->loop == NULL)
        return;
    side->stopping = true;
    loop_timer_off(&side->restart);
    loop_unwatch(side->loop, &side->watch);
    cleanup_close(&side->socket);
}
