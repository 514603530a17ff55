/* The ordered page: everything a fresh child of a zygote does between its clone and the first line that is not ours.
 * Runs in the child, as root of the zygote's user namespace, in a mount namespace of its own, inside a shell's pid,
 * net, ipc and uts namespaces. Plain system calls only: no malloc, no stdio, no locks. Part of the library `jail_core`,
 * which the zygote's extension links alone.
 *
 * What must hold before: no_new_privs is set, the bounding set is empty, the root is the zygote's own read-only root.
 * What holds after success: descriptors are exactly 0, 1, 2 and, with a channel, 3 (and 4, the snapshot, and the handshake
 * if they were asked for);
 * all capability sets are empty; the seccomp filter `function` is on. After a failure the process must _exit. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "jail/error.h"

struct jail_entry {
    /* Detached mounts, moved onto /tmp, /var/task and /opt; -1: none. */
    int tmp_tree, task_tree, opt_tree;
    int input;     /* becomes 0; -1: /dev/null */
    int log;       /* becomes 1, and 2 unless `error` is given */
    int error;     /* becomes 2; -1: as log */
    int channel;   /* becomes 3; -1: none */
    int snapshot;  /* becomes 4 (the field is updated), close-on-exec; -1: none. Only with a channel */
    int handshake; /* the socket to whoever waits for the outcome; moved out of the way (the field is updated), closed
                    * on success unless kept; -1: none. When its peer is gone the parent is, and the entry fails. */
    bool keep_handshake; /* leave it open, close-on-exec: an exec follows */
    uint32_t uid, gid;   /* inside the zygote's user namespace; never 0 */
    uint32_t nofile, nproc;
};

/* Every descriptor -1. */
#define JAIL_ENTRY_INIT                                                                                                \
    {                                                                                                                  \
        .tmp_tree = -1, .task_tree = -1, .opt_tree = -1, .input = -1, .log = -1, .error = -1, .channel = -1,           \
        .snapshot = -1, .handshake = -1                                                                                \
    }

int jail_enter(struct jail_entry *entry, struct jail_error *ret_error);

/* The parts that other processes of ours use too. */

/* Empties the bounding set; needs CAP_SETPCAP in the own user namespace. */
int jail_drop_bounding(void);
/* Effective = permitted = inheritable = mask (bit numbers of capabilities), ambient empty. */
int jail_set_capabilities(uint64_t mask);
/* Soft and hard, never above what the hard limit allows. */
int jail_set_limit(int resource, uint64_t value);
/* RLIMIT_CORE 1. 0 prevents files only: a program that core_pattern names is run by the kernel, as root of the host, on
 * the core whatever the limit, except for 1, by which it knows such a program that crashed itself. Who has 0 already and
 * may not raise it keeps that. */
int jail_forbid_cores(void);
/* The caller's main thread runs before others that want the processor; what it forks does not. For the daemons: they do
 * little, and everybody waits for them. Needs CAP_SYS_NICE; where that is missing nothing changes. */
void jail_prefer(void);

/* The identity on Lambda's side of things: what the host name is in every sandbox. */
#define JAIL_HOSTNAME "sandbox"
/* Environments are killed before anything else of the node when the host runs out of memory. */
#define JAIL_OOM_SCORE 500
/* Signals queued and timers at a time. */
#define JAIL_PENDING_SIGNALS 1024
