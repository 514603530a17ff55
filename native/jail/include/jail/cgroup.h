/* Control groups, v1 (several hierarchies), hybrid, or v2. Runs in the launcher and runtimed-jail as root; works through
 * directory descriptors. A subtree `<own cgroup>/<name>` holds everything of ours; its leaves are one level below.
 * A crash leaves directories; cgroup_tree_sweep at the next start removes them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CGROUP_HIERARCHIES 4
#define CGROUP_NAME_MAX 64

enum cgroup_controller {
    CGROUP_MEMORY = 1 << 0,
    CGROUP_PIDS = 1 << 1,
    CGROUP_CPU = 1 << 2,
    CGROUP_FREEZER = 1 << 3,
};

struct cgroup_hierarchy {
    int fd;               /* our subtree's directory */
    int parent;           /* the directory that holds the subtree */
    unsigned controllers; /* what is used of it */
    bool unified;
};

struct cgroup_tree {
    char name[CGROUP_NAME_MAX];
    struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES];
    unsigned n;
    unsigned controllers; /* all that were found */
    int version;          /* 2: everything in one v2 hierarchy, so CLONE_INTO_CGROUP serves; otherwise 1 */
};

/* A leaf: one directory in each hierarchy. */
struct cgroup {
    char name[CGROUP_NAME_MAX];
    int fds[CGROUP_HIERARCHIES];
};

struct cgroup_limits {
    uint32_t memory_mb; /* memory without swap; 0: none */
    uint32_t pids;      /* 0: none */
    bool cpu_hard;      /* quota in proportion to memory, with burst; otherwise weight only */
    bool fresh;         /* the leaf was just made: what the kernel gives anyway is not written (60 us instead of 110) */
};

/* Memory that goes with one core, as on Lambda. */
#define CGROUP_MB_PER_CORE 1769

/* Finds the hierarchies and makes the subtree. On v2 moves the caller into a leaf of its own cgroup where controllers
 * cannot be enabled otherwise. -ENOTSUP when memory or pids cannot be limited. */
int cgroup_tree_open(struct cgroup_tree *ret, const char *name);
void cgroup_tree_close(struct cgroup_tree *tree);
/* Kills whatever runs in leaves of an earlier incarnation and removes them. Returns how many leaves were removed. */
int cgroup_tree_sweep(const struct cgroup_tree *tree);
/* The subtree itself, which must be without leaves. */
int cgroup_tree_remove(const struct cgroup_tree *tree);
/* v2: lets a group of the host use CLONE_INTO_CGROUP from one leaf to another: the kernel asks for write access to
 * cgroup.procs of what both lie in, and of the target (cgroup_delegate). v1: nothing. */
int cgroup_tree_delegate(const struct cgroup_tree *tree, gid_t group);

/* Makes (or opens) the leaf. */
int cgroup_make(const struct cgroup_tree *tree, const char *name, struct cgroup *ret);
/* A leaf for a daemon: without limits, and it weighs as many cores' worth. On v1 in the CPU's hierarchy alone: in the others
 * who is attached stays where it is. Without that controller there is none, and attaching does nothing. */
int cgroup_make_weighed(const struct cgroup_tree *tree, const char *name, unsigned cores, struct cgroup *ret);
void cgroup_close(struct cgroup *cgroup);
int cgroup_set_limits(const struct cgroup_tree *tree, const struct cgroup *cgroup, const struct cgroup_limits *limits);
/* The hard CPU limit alone, switched off during init. */
int cgroup_set_cpu(const struct cgroup_tree *tree, const struct cgroup *cgroup, uint32_t memory_mb, bool hard);
/* v2: and lets this uid, of that group, place processes in the leaf. v1: nothing. */
int cgroup_delegate(const struct cgroup_tree *tree, const struct cgroup *cgroup, uid_t uid);
/* The directory for CLONE_INTO_CGROUP, or -1 on v1. Borrowed. */
int cgroup_directory(const struct cgroup_tree *tree, const struct cgroup *cgroup);
/* pid 0: the caller. */
int cgroup_attach(const struct cgroup_tree *tree, const struct cgroup *cgroup, pid_t pid);

/* Descriptors for the dispatcher. Freeze: v2 cgroup.freeze ("1"/"0"), v1 freezer.state ("FROZEN"/"THAWED"), O_RDWR. Peak:
 * bytes, O_RDONLY. -ENOTSUP where missing. */
int cgroup_open_freeze(const struct cgroup_tree *tree, const struct cgroup *cgroup);
int cgroup_open_peak(const struct cgroup_tree *tree, const struct cgroup *cgroup);

int cgroup_freeze(const struct cgroup_tree *tree, const struct cgroup *cgroup, bool frozen);
int cgroup_oom_kills(const struct cgroup_tree *tree, const struct cgroup *cgroup, uint64_t *ret);
int cgroup_peak_kb(const struct cgroup_tree *tree, const struct cgroup *cgroup, uint64_t *ret);
/* v1: the high-water mark starts anew when a leaf is used again. */
int cgroup_reset_peak(const struct cgroup_tree *tree, const struct cgroup *cgroup);
/* SIGKILL to every process in it, thawed; only for leaves that are removed afterwards. */
int cgroup_kill(const struct cgroup_tree *tree, const struct cgroup *cgroup);
/* -EBUSY while processes are still in it. Closes the descriptors on success. */
int cgroup_remove(const struct cgroup_tree *tree, struct cgroup *cgroup);
