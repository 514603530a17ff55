/* Tasks: fixed programs of ours in a complete jail, asked for by the control plane. probe.py asks an interpreter for its
 * version; compile.py reads a staged tree at /var/task and writes the compiled code to its standard output. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "jail/cgroup.h"
#include "jail/spawn.h"
#include "loop.h"
#include "plans.h"
#include "protocol/wire.h"
#include "reap.h"

struct server;

/* Tasks that run at once; more wait. */
#define TASKS_MAX 4
#define TASKS_WAITING_MAX 256
#define TASK_MIN_MEMORY_MB 32u
#define TASK_MAX_MEMORY_MB 4096u
#define TASK_MAX_TIMEOUT_MS 600000u
#define TASK_PIDS 64u
#define TASK_UID 1000u

struct task {
    struct list node; /* waiting */
    struct server *server;
    uint64_t id;
    enum wire_task_kind kind;
    unsigned interpreter;
    char staging[WIRE_TASK_STAGING_MAX + 32];
    uint32_t memory_mb, timeout_ms;
};

struct task_slot {
    struct server *server;
    struct task *task; /* NULL: free */
    struct jail_child jail;
    struct child child, anchor;
    struct cgroup cgroup;
    bool child_gone, timed_out, told;
    int status;
    struct timer limit;
};

struct tasks {
    struct task_slot slots[TASKS_MAX];
    struct list waiting;
    unsigned n_waiting;
    uint64_t serial; /* names their cgroups: t1, t2, ... */
};

int tasks_init(struct server *server);
/* 0 (it runs, or waits its turn), or a negative errno with the refusal. */
int tasks_put(struct server *server, const struct wire_header *header, const struct wire_task *message,
    struct refusal *ret_refusal);
/* The control plane is gone: nobody reads them. */
void tasks_end_all(struct server *server);
