/* The seater: a side process of the launcher, root, that makes and removes environments' cgroups and moves zygotes
 * between them. It may block; the launcher does not. After a move it keeps the kernel's fast path open for a while by
 * moving itself to where it is (v1: after 20 ms without a move the next one waits 6 ms and more). */
#pragma once

#include <stdint.h>

#include "jail/cgroup.h"
#include "side.h"

/* An environment's cgroup. The dispatcher gets freeze and peak. */
struct leaf {
    struct cgroup cgroup;        /* name[0] == 0: none */
    int freeze, peak;            /* -1: missing on this machine, or given away */
    struct cgroup_limits limits; /* as written; all 0: none yet */
};

/* Leaves that are in use or in stock. */
struct seater_known {
    char (*names)[CGROUP_NAME_MAX];
    size_t n;
};

struct seater {
    struct side side;
    /* The answers. The handler of `made` takes the leaf, which is not there when error is negative. */
    void (*made)(void *owner, int error, struct leaf *leaf);
    void (*moved)(void *owner, uint64_t tag, int error);
    void *owner;
    uint32_t incarnation; /* leaves of each have names of their own */
};

void leaf_init(struct leaf *leaf);
static inline bool leaf_is_there(const struct leaf *leaf) {
    return leaf->cgroup.name[0] != '\0';
}
/* Closes the descriptors; the directory stays. */
void leaf_close(struct leaf *leaf);

/* Leaves of an earlier seater that are not known are removed. */
int seater_start(struct seater *seater, struct loop *loop, struct reaper *reaper, const struct cgroup_tree *cgroups,
    const struct seater_known *known);
/* Asks for one more leaf. */
int seater_make(struct seater *seater);
/* v1: moves the process into the leaf. */
int seater_move(
    struct seater *seater, uint64_t tag, pid_t pid, const struct cgroup_tree *cgroups, const struct leaf *leaf);
/* Removes the directory, trying again while something is in it. */
int seater_remove(struct seater *seater, const struct leaf *leaf);
