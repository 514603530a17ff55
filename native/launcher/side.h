/* Side processes: forked from the launcher, they do over a socket what may block. They end with it; one that ends by
 * itself is started again, and what was asked of it is asked anew. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/descriptor.h"
#include "loop.h"
#include "reap.h"

#define SIDE_MESSAGE_MAX 256

struct side {
    struct child child;
    struct loop *loop;
    struct watch watch;
    int socket;
    const char *name;
    bool stopping;
    uint64_t started_us;
    unsigned failures; /* ends in a row, each soon after the start */
    struct timer restart;
    void (*message)(struct side *side, struct packet *packet);
    void (*gone)(void *owner, const char *name); /* it ended although nobody told it to */
    void *owner;
};

/* Forks; `run` is the child's life. Its signals are the defaults and everything above standard error but the socket
 * and `keep` is closed. */
int side_start(struct side *side, struct loop *loop, struct reaper *reaper, const char *name,
    void (*run)(int socket, void *argument), void *argument, const int *keep, unsigned n_keep);
/* Calls `fire` after a pause, doubled with each failure in a row. */
void side_restart(struct side *side, void (*fire)(void *owner), void *owner);
/* -EPIPE while there is no process, -EAGAIN when it lags behind by more than the socket holds. */
int side_send(struct side *side, const void *data, size_t size, const int *fds, unsigned n_fds);
void side_stop(struct side *side);
/* What the process does from now on waits for a processor without taking it from who runs: stock is made in the gaps. */
void side_be_patient(pid_t pid);
