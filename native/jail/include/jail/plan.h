/* What a jail is to be: pure data, parsed from JSON or filled in by the launcher, and validated. No system calls.
 * Used by runtimed-jail and the launcher. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum jail_kind {
    /* Code from outside: user, pid, net, ipc, uts, mount namespaces, an anchor as pid 1, the command as pid 2, no
     * capabilities, seccomp filter `function`. Tasks and runtimed-jail. */
    JAIL_SANDBOX,
    /* A zygote: root of a mapped user namespace with SYS_ADMIN, SETUID, SETGID only; own mount and net namespace, host
     * pid namespace, a /proc that shows nothing. Runs code of ours only. */
    JAIL_ZYGOTE,
    /* A process of the node (control plane, dispatcher): unprivileged host ids, no capabilities, a root that shows
     * only what is mounted into it, host network unless said otherwise. */
    JAIL_SERVICE,
};

enum jail_cpu { JAIL_CPU_WEIGHT, JAIL_CPU_HARD };

/* A directory or file of the host (named by root's configuration, never by a function) at `target` in the jail, where
 * missing parents are made. Read-only unless writable, always nosuid and nodev; submounts come along. */
struct jail_mount {
    char *source, *target;
    bool writable;
};

struct jail_plan {
    enum jail_kind kind;
    char **command;     /* NULL-terminated; command[0] is an absolute path in the jail */
    char **environment; /* "NAME=value", NULL-terminated; nothing is inherited */
    char *working_directory;
    struct jail_mount *mounts;
    size_t n_mounts;
    uint32_t uid_base;  /* SANDBOX, ZYGOTE: first of the 65,536 host ids that become 0..65535 */
    uint32_t uid, gid;  /* SANDBOX: inside the namespace; SERVICE: of the host; ZYGOTE: ignored (0) */
    uint32_t group;     /* ZYGOTE: the one more group of the host that it is in, not mapped inside; 0: none */
    bool network_none;  /* SERVICE: an empty net namespace instead of the host's */
    bool etc;           /* SERVICE: the host's /etc, read-only, instead of the minimal one */
    uint32_t memory_mb; /* 0: no limit; enforced by the cgroup that the caller lends */
    uint32_t pids;
    uint32_t descriptors; /* RLIMIT_NOFILE */
    uint32_t tmp_mb;      /* size of /tmp; 0: none. The caller makes the image */
    uint32_t timeout_ms;  /* 0: none; kept by the caller */
    enum jail_cpu cpu;
};

#define JAIL_ARGUMENTS_MAX 256
#define JAIL_ENVIRONMENT_MAX 1024
#define JAIL_MOUNTS_MAX 64
#define JAIL_IDS 65536u
/* Where runtimed-jail maps its ids when the plan does not say: beside the daemon's range, never inside it. */
#define JAIL_UID_BASE 1800000000u

/* Defaults: a sandbox of 128 MB, 1,024 pids and descriptors, 512 MB of /tmp. All strings are owned by the plan. */
void jail_plan_init(struct jail_plan *plan);
void jail_plan_clear(struct jail_plan *plan);
/* Strict: unknown members, wrong types and values out of range are refused; ret_reason says which. On failure the plan
 * is left initialised and empty. */
int jail_plan_parse(const char *text, size_t size, struct jail_plan *plan, char *ret_reason, size_t reason_size);
int jail_plan_validate(const struct jail_plan *plan, char *ret_reason, size_t reason_size);

/* For those who fill a plan in C: copies; -ENOMEM or -E2BIG when a maximum is reached. */
int jail_plan_add_argument(struct jail_plan *plan, const char *argument);
int jail_plan_add_environment(struct jail_plan *plan, const char *name, const char *value);
int jail_plan_add_mount(struct jail_plan *plan, const char *source, const char *target, bool writable);

#define _cleanup_jail_plan_ __attribute__((cleanup(jail_plan_clear)))
