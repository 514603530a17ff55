/* The seater: a side process of the launcher, root, that makes cgroups, moves zygotes into them ahead of their next
 * fork, and removes them. It may block; the launcher does not. After a seat it keeps the kernel's fast path open for a
 * while by moving itself to where it is (v1: after 20 ms without a move the next one waits 6 ms and more). */
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

struct seater {
    struct side side;
    /* The answer; on failure error is negative and the leaf is not there. The handler takes the leaf. */
    void (*seated)(void *owner, uint64_t tag, int error, struct leaf *leaf);
    void *owner;
};

void leaf_init(struct leaf *leaf);
static inline bool leaf_is_there(const struct leaf *leaf) {
    return leaf->cgroup.name[0] != '\0';
}
/* Closes the descriptors; the directory stays. */
void leaf_close(struct leaf *leaf);

int seater_start(struct seater *seater, struct loop *loop, struct reaper *reaper, const struct cgroup_tree *cgroups);
/* v1: moves the process into a fresh leaf. v2: lets that uid clone into it. */
int seater_seat(struct seater *seater, uint64_t tag, pid_t pid, uid_t uid);
/* Removes the directory, trying again while something is in it. */
int seater_remove(struct seater *seater, const struct leaf *leaf);
