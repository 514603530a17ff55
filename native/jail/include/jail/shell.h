/* Shells: a sandbox's pid, net, ipc and uts namespaces, made ahead of demand around an *anchor*, a process that is pid 1
 * in them, has no capability, executes nothing and only keeps them and reaps orphans. The launcher runs one shellmaker
 * per zygote: a process inside the zygote's user namespace and root that clones anchors as children of the launcher.
 *
 * The launcher reaps anchors and shellmakers. Killing an anchor kills everything in its shell; the anchor itself is dead
 * only when its parent has reaped the others, so whoever waits for one process at a time waits for the anchor last. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "jail/error.h"

struct shellmaker {
    pid_t pid;
    int pidfd;
    int socket; /* SEQPACKET; readable when a shell is ready */
};

struct shell {
    pid_t anchor;
    int anchor_pidfd;
    int listener; /* 127.0.0.1:9001 inside, listening, close-on-exec */
};

#define SHELLMAKER_INIT                                                                                                \
    { .pidfd = -1, .socket = -1 }
#define SHELL_INIT                                                                                                     \
    { .anchor_pidfd = -1, .listener = -1 }
#define SHELL_PORT 9001

/* Joins the root and user namespace of that process (a zygote). The socket is nonblocking at our end. */
int shellmaker_start(int zygote_pidfd, struct shellmaker *ret, struct jail_error *ret_error);
/* Asks for n more. -EAGAIN when too many requests are under way. */
int shellmaker_request(const struct shellmaker *maker, uint32_t n);
/* Takes one finished shell: 0, -EAGAIN when none is ready, -EPIPE when the maker is gone; a failed step is reported in
 * ret_error with its errno. The caller ignores SIGPIPE: the anchor is told that it was taken. */
int shellmaker_receive(const struct shellmaker *maker, struct shell *ret, struct jail_error *ret_error);
/* Ends it by closing the socket; the anchors that were received live on, those that were not end. The caller reaps. */
void shellmaker_stop(struct shellmaker *maker);
/* SIGKILL to the anchor, and closes the descriptors. The caller reaps. */
void shell_kill(struct shell *shell);
void shell_close(struct shell *shell);

/* For a process in a fresh net namespace: the loopback interface up. */
int shell_loopback_up(void);
