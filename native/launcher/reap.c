/* The one reaper; see the header. */
#include "reap.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BUCKETS 8192
#define SWEEP_US 2000

/* False: that pid (-1: any) has not ended. */
static bool collect(struct reaper *reaper, pid_t pid) {
    int status;
    pid_t ended;

    do
        ended = waitpid(pid, &status, WNOHANG);
    while (ended < 0 && errno == EINTR);
    if (ended <= 0)
        return false;
    struct table_node *node = table_get(&reaper->children, (uint64_t)ended);
    if (node == NULL) {
        unsigned at = reaper->early_at++ % REAP_EARLY;
        reaper->early[at].pid = ended;
        reaper->early[at].status = status;
        return true;
    }
    struct child *child = table_entry(node, struct child, node);
    table_remove(&reaper->children, node);
    child->pid = 0;
    child->exited(child->owner, status);
    return true;
}

void reaper_collect(struct reaper *reaper) {
    while (collect(reaper, -1))
        ;
}

static void sweep_fire(void *owner) {
    struct reaper *reaper = owner;
    reaper->before(reaper->owner);
    reaper_collect(reaper);
}

/* A signal names one child; signals of others that came meanwhile are lost. Asking for any walks through all children
 * (a kernel's list), so the named are asked for first and the rest swept a little later. */
static void ready(void *owner, uint32_t events) {
    struct reaper *reaper = owner;
    struct signalfd_siginfo signals[8];
    bool stop = false, reload = false, first = true;
    ssize_t n;
    (void)events;

    while ((n = read(reaper->watch.fd, signals, sizeof(signals))) > 0) {
        for (size_t i = 0; i < (size_t)n / sizeof(signals[0]); i++) {
            if (signals[i].ssi_signo != SIGCHLD) {
                *(signals[i].ssi_signo == SIGHUP ? &reload : &stop) = true;
                continue;
            }
            if (first)
                reaper->before(reaper->owner);
            first = false;
            (void)collect(reaper, (pid_t)signals[i].ssi_pid);
            if (!loop_timer_on(&reaper->sweep))
                loop_timer(reaper->loop, &reaper->sweep, SWEEP_US, sweep_fire, reaper);
        }
    }
    if (stop)
        reaper->stop(reaper->owner);
    else if (reload)
        reaper->reload(reaper->owner);
}

int reaper_start(struct reaper *reaper, struct loop *loop) {
    sigset_t set;
    int r = table_init(&reaper->children, BUCKETS);
    if (r < 0)
        return r;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    _cleanup_close_ int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    reaper->loop = loop;
    r = loop_watch(loop, &reaper->watch, fd, EPOLLIN, ready, reaper);
    if (r == 0)
        (void)steal_fd(&fd);
    return r;
}

void reaper_free(struct reaper *reaper) {
    table_free(&reaper->children);
}

void reaper_add(struct reaper *reaper, struct child *child, pid_t pid, void (*exited)(void *, int), void *owner) {
    child->pid = pid;
    child->exited = exited;
    child->owner = owner;
    table_add(&reaper->children, &child->node, (uint64_t)pid);
}

bool reaper_knows(const struct reaper *reaper, pid_t pid) {
    return table_get(&reaper->children, (uint64_t)pid) != NULL;
}

bool reaper_claim_early(struct reaper *reaper, pid_t pid, int *ret_status) {
    for (unsigned i = 0; i < REAP_EARLY; i++) {
        if (reaper->early[i].pid != pid)
            continue;
        reaper->early[i].pid = 0;
        *ret_status = reaper->early[i].status;
        return true;
    }
    return false;
}
