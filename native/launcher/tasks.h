/* Tasks: fixed programs of ours in a complete jail, asked for by the control plane. probe.py asks an interpreter for its
 * version; compile.py reads a staged tree at /var/task and writes the compiled code to its standard output. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "jail/cgroup.h"
#include "loop.h"
#include "plans.h"
#include "protocol/wire.h"
#include "side.h"

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

/* One that runs: a side process of its own builds the jail (some milliseconds, and more where it joins a cgroup), waits
 * for the program and reports. Ending it ends the program. */
struct task_slot {
    struct server *server;
    struct task *task; /* NULL: free */
    struct side side;
    char cgroup[CGROUP_NAME_MAX];
    int output[2], errors[2]; /* pipes: [0] the control plane's, until the program runs */
    bool told, timed_out;
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
