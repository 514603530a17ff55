/* The zygote's loop: takes FORK from the launcher, clones, answers FORKED. Runs in a zygote: root of its own user
 * namespace, one thread, no code from outside. A failed fork leaves it usable.
 *
 * The child becomes pid 2 or later of the shell whose anchor came with FORK, a child of the launcher (CLONE_PARENT), in
 * a mount namespace of its own, and goes through jail_enter(). Until that has succeeded it makes plain system calls
 * only; when it fails it says so on the launcher's socket (FORK_FAILED with the step) and leaves with
 * SERVE_EXIT_JAIL. FORKED comes from the zygote and may overtake or follow that. */
#pragma once

#include <stdbool.h>

#include "protocol/wire.h"

/* What the interpreter wants called around a clone; the child's hook runs after jail_enter. */
struct serve_hooks {
    void (*before)(void);
    void (*parent)(void);
    void (*child)(void);
};

struct serve {
    int launcher; /* SEQPACKET, blocking */
    const struct serve_hooks *hooks;
    uint8_t *packet;      /* WIRE_MESSAGE_MAX bytes */
    void *tid_address;    /* where libc keeps this thread's id: the kernel writes the child's there */
    void *robust_list;    /* libc's list of robust mutexes, which the kernel forgets in a child */
    size_t robust_length; /* its size as the kernel wants it */
    int home_net;         /* the zygote's own net namespace, or -1 */
    bool maker;           /* this child is to write a snapshot of itself */
    bool spare;           /* it is not known yet whose environment this child will be */
};

#define SERVE_INIT                                                                                                     \
    { .launcher = -1, .home_net = -1 }

enum {
    SERVE_CLOSED = 0, /* the launcher is gone */
    SERVE_CHILD = 1,  /* this is an environment: its channel is descriptor SERVE_CHANNEL */
};

#define SERVE_CHANNEL 3
/* The status of a child that never became an environment; nothing else looks at it. */
#define SERVE_EXIT_JAIL 125

/* -ENOTSUP when the kernel cannot tell where the thread id lives (CONFIG_CHECKPOINT_RESTORE). */
int serve_open(struct serve *serve, int launcher, const struct serve_hooks *hooks);
void serve_done(struct serve *serve);
/* Sends ZYGOTE_READY with the interpreter's version. */
int serve_ready(const struct serve *serve, const char *version);
/* SERVE_CLOSED, SERVE_CHILD with the environment's id, or a negative errno: the launcher's socket broke or it sent what
 * no launcher sends (-EBADMSG). */
int serve_run(struct serve *serve, uint64_t *ret_environment);
