/* The one reaper; see the header. */
#include "reap.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BUCKETS 8192

void reaper_collect(struct reaper *reaper) {
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return;
        struct table_node *node = table_get(&reaper->children, (uint64_t)pid);
        if (node == NULL) {
            unsigned at = reaper->early_at++ % REAP_EARLY;
            reaper->early[at].pid = pid;
            reaper->early[at].status = status;
            continue;
        }
        struct child *child = table_entry(node, struct child, node);
        table_remove(&reaper->children, node);
        child->pid = 0;
        child->exited(child->owner, status);
    }
}

static void ready(void *owner, uint32_t events) {
    struct reaper *reaper = owner;
    struct signalfd_siginfo signals[8];
    bool stop = false;
    (void)events;

    for (;;) {
        ssize_t n = read(reaper->watch.fd, signals, sizeof(signals));
        if (n <= 0)
            break;
        for (size_t i = 0; i < (size_t)n / sizeof(signals[0]); i++)
            stop = stop || signals[i].ssi_signo != SIGCHLD;
    }
    reaper->before(reaper->owner);
    reaper_collect(reaper);
    if (stop)
        reaper->stop(reaper->owner);
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
