/* A spare as the kernel shows it to the outside: is its sandbox closed? */
#pragma once

#include <sys/types.h>

/* 0, or -EPERM and in ret_what the line of /proc/PID/status (or "mounts", "cgroup") that is not as it must be. uid as the
 * host counts it; cgroup: the name of its leaf. */
int spare_check(pid_t pid, uid_t uid, const char *cgroup, const char **ret_what);
