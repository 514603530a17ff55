/* A complete jail around a program, from real root: forks, builds the root, enters the namespaces, drops everything,
 * executes. Runs in the launcher and in runtimed-jail; blocks until the exec has succeeded or a step has failed (a few
 * milliseconds). All processes that remain are children of the caller, which alone reaps them. */
#pragma once

#include <sys/types.h>

#include "jail/cgroup.h"
#include "jail/error.h"
#include "jail/plan.h"

/* What the caller lends; nothing is closed. */
struct jail_io {
    int input, output, error; /* become 0, 1, 2; -1: /dev/null */
    const int *descriptors;   /* become 3, 4, ... and stay open over the exec */
    unsigned n_descriptors;
    int tmp_tree, task_tree, opt_tree; /* detached mounts for /tmp, /var/task, /opt; -1: none. SANDBOX only */
    const struct cgroup_tree *cgroups; /* NULL: stay in the caller's cgroups */
    const struct cgroup *cgroup;
};

#define JAIL_IO_INIT                                                                                                   \
    { .input = -1, .output = -1, .error = -1, .tmp_tree = -1, .task_tree = -1, .opt_tree = -1 }

struct jail_child {
    pid_t pid; /* of the command */
    int pidfd;
    pid_t anchor; /* SANDBOX: pid 1 of its namespace: killing it kills all. Otherwise 0 and -1 */
    int anchor_pidfd;
};

#define JAIL_CHILD_INIT                                                                                                \
    { .pidfd = -1, .anchor_pidfd = -1 }
#define JAIL_DESCRIPTORS_MAX 16

/* On failure nothing is left: no process, no mount; ret_error names the step. */
int jail_spawn(
    const struct jail_plan *plan, const struct jail_io *io, struct jail_child *ret, struct jail_error *ret_error);
/* SIGKILL to the anchor and the command (what is gone already is no error). Does not reap. */
int jail_child_kill(const struct jail_child *child);
/* Closes the pidfds; does not kill. */
void jail_child_close(struct jail_child *child);
