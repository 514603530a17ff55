/* Where the control group hierarchies are, from the texts of /proc: pure, for tests. Internal. */
#pragma once

#include <stdbool.h>

#include "jail/cgroup.h"

struct cgroup_place {
    unsigned controllers; /* what is used of it: CGROUP_* */
    bool unified;
    char mount[512]; /* the hierarchy's mount point */
    char own[512];   /* our own cgroup, relative to the mount point; "" or "/..." */
};

/* mountinfo: /proc/self/mountinfo; membership: /proc/self/cgroup; unified_controllers: cgroup.controllers of our own v2
 * cgroup, or "". Returns how many places, at most CGROUP_HIERARCHIES. */
unsigned cgroup_find(
    const char *mountinfo, const char *membership, const char *unified_controllers, struct cgroup_place *ret);
