/* What snapshot_take.c and snapshot_restore.c share: the file's layout, and the reserved memory. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <ucontext.h>

#include "zygote/snapshot.h"

#define SNAPSHOT_REGIONS_MAX 16384u
#define SNAPSHOT_RUNS_MAX 32768u
#define SNAPSHOT_PATHS_MAX (512u << 10)
/* Of address space, which is not all in use. */
#define SNAPSHOT_SPAN_MAX (UINT64_C(64) << 30)
#define SNAPSHOT_SIGNALS 64
#define SNAPSHOT_LIMITS 16
#define SNAPSHOT_NO_PATH UINT32_MAX

enum region_kind {
    REGION_KEEP,  /* the zygote's, as it is; or the kernel's own */
    REGION_ANON,  /* memory */
    REGION_FILE,  /* of a file that is mapped again */
    REGION_STACK, /* grows: its contents are copied, the mapping stays */
};

struct region {
    uint64_t start, end, offset;
    uint32_t path; /* where in the paths it begins */
    uint8_t kind, prot, shared, wipe;
};

/* Pages with contents. */
struct run {
    uint64_t start, end, at;
    uint32_t prot;
    uint32_t stack;
};

/* As the kernel has it: libc's own would hide its trampoline. */
struct kernel_action {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
};

struct snapshot_head {
    uint64_t magic, size, context; /* context: the address of the maker's ucontext_t */
    uint64_t brk, data;            /* data: where the runs' contents begin */
    uint64_t changed_actions;      /* a bit for each signal that the function's code gave another meaning */
    uint32_t changed_limits;       /* and for each limit that it lowered */
    uint32_t n_regions, n_runs, paths_size, umask;
    struct kernel_action actions[SNAPSHOT_SIGNALS]; /* of signal i + 1 */
    stack_t stack;
    struct rlimit limits[SNAPSHOT_LIMITS];
    char name[16];
};

#define SNAPSHOT_STACK (64u << 10)
#define SNAPSHOT_TEXT (64u << 10)

/* Untouched pages of it cost nothing. */
struct snapshot_memory {
    uint8_t stack[SNAPSHOT_STACK]; /* of snapshot_restore */
    struct snapshot_head head;
    struct region regions[SNAPSHOT_REGIONS_MAX];
    struct run runs[SNAPSHOT_RUNS_MAX];
    char paths[SNAPSHOT_PATHS_MAX];
    struct snapshot_head began; /* as it was when the maker began, before any code of the function's */
    struct region zygote[SNAPSHOT_REGIONS_MAX];
    char zygote_paths[SNAPSHOT_PATHS_MAX];
    unsigned filters;
    _Alignas(8) char text[SNAPSHOT_TEXT]; /* directory entries too */
    uint64_t pages[8192];                 /* of pagemap */
    uint64_t page;                        /* bytes of one */
    int file;                             /* what snapshot_restore works with */
    pid_t *tid_address;
};

/* NULL before snapshot_reserve. */
extern struct snapshot_memory *snapshot_memory;
/* Bytes of it, whole pages. */
uint64_t snapshot_span(void);
/* Set in the memory of a restored process before it goes on at `context`. */
extern volatile int snapshot_restored;
extern ucontext_t snapshot_context;

/* What is mapped now, in order. Minus an enum snapshot_refusal. */
int snapshot_read_regions(struct region *regions, uint32_t *ret_n, char *paths, uint32_t *ret_paths_size);
/* Signal actions, limits, umask and the like. */
int snapshot_read_process(struct snapshot_head *head);
/* Is there anything that memory does not tell of? Minus an enum snapshot_refusal. */
int snapshot_check_process(int pipe);
/* Filters of seccomp that the process is under. */
unsigned snapshot_count_filters(void);
