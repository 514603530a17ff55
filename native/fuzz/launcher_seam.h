/* What stands for the kernel, and for the launcher's side processes, in fuzz_launcher: every system call of the launcher's
 * that reaches beyond its own sockets is replaced by one of the linker's wraps (launcher_seam.c), and time stands still
 * unless the fuzzer moves it. Processes are numbers above any that a kernel gives, with a state here: a number that the
 * launcher kills, moves or asks for must be of a process that it has not reaped. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "check.h"

#define PROCESSES_MAX 512

enum process_kind {
    PROCESS_CONTROL,
    PROCESS_DISPATCHER,
    PROCESS_ZYGOTE,
    PROCESS_MAKER,
    PROCESS_ANCHOR,
    PROCESS_ENVIRONMENT,
    PROCESS_TASK,
};

struct process {
    pid_t pid; /* 0: free, or reaped */
    enum process_kind kind;
    bool dead;
    int status;            /* once dead */
    int peer;              /* its end of the launcher's socket; -1: none */
    uint64_t inode;        /* what its pidfds are; 0: it has none */
    pid_t anchor;          /* ENVIRONMENT: of its shell */
    unsigned wanted_cells; /* MAKER */
};

struct seam {
    uint64_t now_us;
    pid_t last_pid;
    struct process processes[PROCESSES_MAX];
    int last_pair;          /* a copy of the second end of the last socketpair */
    unsigned wanted_leaves; /* asked of the seater */
    uint64_t moves[64];     /* tags of moves asked of it */
    unsigned n_moves;
    uint32_t images[64]; /* sizes asked of the imager */
    unsigned n_images;
    unsigned leaves_given, leaves_removed;
    unsigned dispatchers_lost; /* with answers that nobody read */
    uint8_t faults;            /* FAULT_*: how calls end now */
};

enum fault {
    FAULT_SPAWN = 1,   /* no process */
    FAULT_FILES = 2,   /* no trees, no images, a full disk */
    FAULT_CGROUPS = 4, /* limits and moves fail */
    FAULT_DIRTY = 8,   /* something is left in what environments used */
};

extern struct seam seam;

/* A new process; NULL: too many. */
struct process *seam_process(enum process_kind kind, int *ret_pidfd);
struct process *seam_find(pid_t pid);
/* It ends; who lives in its shell before it. */
void seam_die(struct process *process, int status);
/* The n-th of a kind that lives, or NULL. */
struct process *seam_choose(enum process_kind kind, unsigned n);
/* A fresh file, for whatever a descriptor is needed. */
int seam_file(void);
