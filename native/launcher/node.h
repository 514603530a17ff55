/* What this machine offers, for NODE and for people who ask why something is degraded. */
#pragma once

#include <stdint.h>

struct server;

/* Bits of NODE.features. */
enum node_feature {
    NODE_MEMORY = 1 << 0, /* cgroup controllers */
    NODE_PIDS = 1 << 1,
    NODE_CPU = 1 << 2,
    NODE_FREEZER = 1 << 3,
    NODE_INTO_CGROUP = 1 << 4, /* CLONE_INTO_CGROUP serves: no seats */
    NODE_LOOP = 1 << 5,        /* loop devices, so /tmp is on disk */
    NODE_LANDLOCK = 1 << 6,
};

uint64_t node_features(const struct server *server);
/* 0: the kernel has none. */
uint32_t node_landlock_abi(void);
