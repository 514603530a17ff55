/* The child's side of jail_spawn, and what both sides say to each other on the handshake socket. Internal. */
#pragma once

#include <sys/types.h>

#include "jail/error.h"
#include "jail/plan.h"
#include "jail/spawn.h"

enum handshake_kind {
    HANDSHAKE_MAP = 1, /* child → parent: my user namespace wants its map; answered by any packet when it has it */
    HANDSHAKE_ANCHOR,  /* child → parent: pid, with its pidfd */
    HANDSHAKE_COMMAND, /* child → parent: pid, with its pidfd */
    HANDSHAKE_FAILED,  /* from any process on the way: the step */
};

struct handshake_message {
    int32_t kind;
    pid_t pid;
    struct jail_error error;
};

/* clone3 with a pidfd; 0 in the child. Plain system call: nothing of the C library runs around it. */
pid_t spawn_clone(uint64_t flags, int *ret_pidfd);
/* Never returns: executes the command or reports the step that failed and exits. */
void spawn_enter(const struct jail_plan *plan, const struct jail_io *io, int handshake) __attribute__((noreturn));
