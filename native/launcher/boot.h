/* The boot configuration: one JSON object on descriptor 3, written by `runtimed` (root) before it became the launcher.
 * Trusted, and checked all the same. Strict: unknown members are refused. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "jail/plan.h"

#define BOOT_DESCRIPTOR 3
#define BOOT_INTERPRETERS_MAX 32
#define BOOT_ZYGOTES_MAX 8
#define BOOT_SPARES_MAX 64

/* From which on something is worth a line in the node's own log. */
enum log_level {
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_INFO,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_ERROR,
};

struct boot_interpreter {
    char *path;   /* as executed in the jail */
    char *prefix; /* a directory that is shown in the jail at its own path */
};

struct boot {
    char *build;
    char *run_dir, *state_dir, *libexec, *bootstrap;
    char *cgroup_name;
    uint32_t uid_base;
    struct jail_plan control; /* JAIL_SERVICE */
    uint32_t dispatch_uid, dispatch_gid;
    uint32_t dispatch_loops; /* 0: it decides itself */
    uint32_t dispatch_busy_percent;
    uint32_t socket_gid;
    char *invoke_address; /* numeric; empty: no port for invocations */
    uint32_t invoke_port;
    struct boot_interpreter interpreters[BOOT_INTERPRETERS_MAX];
    unsigned n_interpreters;
    uint32_t zygotes_per_runtime;
    uint32_t shells;          /* kept in stock per zygote */
    uint32_t spares;          /* at most, per runtime; 0: none */
    uint32_t tmp_pool;        /* images kept in stock per size in use */
    uint32_t disk_reserve_mb; /* of the state directory's file system; below it nothing is launched; 0: a share */
    uint32_t drain_ms;
    uint32_t hang_ms;                                   /* who does not answer for so long is replaced; 0: never */
    uint32_t logs_function_mb, logs_node_mb, logs_days; /* the dispatcher's, see its log_sweep.h */
    uint32_t events_segment_mb;                         /* of a file of the dispatcher's event log */
    uint32_t snapshots_memory_mb;                       /* all together, and as much in the making; 0: a share */
    uint32_t snapshots_making_ms;                       /* from the first byte of one to its last */
    uint32_t snapshots_uses, snapshots_age_ms;          /* after which one is made anew */
    enum log_level log_level;
};

/* -EINVAL with a sentence in ret_reason. On failure nothing is left to free. */
int boot_parse(const char *text, size_t size, struct boot *ret, char *ret_reason, size_t reason_size);
void boot_clear(struct boot *boot);
/* Reads the descriptor to its end and closes it. */
int boot_read(int fd, struct boot *ret, char *ret_reason, size_t reason_size);

/* Blocks of 65,536 host ids. Block 0 holds the daemon's own ids; then come the zygotes', then the tasks'. */
/* The group of those that may place what they fork into cgroups. */
uint32_t boot_forkers_group(const struct boot *boot);
uint32_t boot_zygote_base(const struct boot *boot, unsigned runtime, unsigned zygote);
uint32_t boot_task_base(const struct boot *boot, unsigned slot);
