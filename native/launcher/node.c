/* What this machine offers; see the header. */
#include "node.h"

#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launcher.h"

uint32_t node_landlock_abi(void) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : (uint32_t)abi;
}

uint64_t node_features(const struct server *server) {
    const unsigned found = server->cgroups.controllers;
    uint64_t features = 0;

    features |= (found & CGROUP_MEMORY) != 0 ? NODE_MEMORY : 0;
    features |= (found & CGROUP_PIDS) != 0 ? NODE_PIDS : 0;
    features |= (found & CGROUP_CPU) != 0 ? NODE_CPU : 0;
    features |= (found & CGROUP_FREEZER) != 0 ? NODE_FREEZER : 0;
    features |= server->cgroups.version == 2 ? NODE_INTO_CGROUP : 0;
    features |= access("/dev/loop-control", F_OK) == 0 ? NODE_LOOP : 0;
    features |= node_landlock_abi() > 0 ? NODE_LANDLOCK : 0;
    return features;
}
