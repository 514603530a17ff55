/* The root directory of a jail: a read-only tmpfs skeleton and what is bound into it. Runs in the child that jail_spawn
 * forked, as real root in a mount namespace of its own. */
#pragma once

#include "jail/error.h"
#include "jail/plan.h"

/* Builds the root, pivots into it and makes it read-only; the old root is gone afterwards. /proc is an empty directory
 * (jail_enter or the caller mounts it). */
int root_enter(const struct jail_plan *plan, struct jail_error *ret_error);

/* A read-only, nosuid, nodev detached copy of the tree at a path below a directory: nothing on the way may be a symbolic
 * link or leave the directory. For packages: root_clone_tree(state_dir_fd, "packages/sha256/<key>"). */
int root_clone_tree(int directory, const char *path, int *ret_tree);
