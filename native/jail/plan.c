/* Plans: filling and validating; see the header. Pure, besides memory. */
#include "jail/plan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bounds that catch a wrong unit, not policy: that is the control plane's. */
#define MEMORY_MB_MAX (1024u * 1024u)
#define TMP_MB_MAX (1024u * 1024u)
#define TMP_MB_MIN 4u /* the smallest ext4 that is of use */
#define PIDS_MAX 4194304u
#define DESCRIPTORS_MIN 8u
#define DESCRIPTORS_LIMIT 1048576u
#define PATH_LENGTH_MAX 4095u

void jail_plan_init(struct jail_plan *plan) {
    *plan = (struct jail_plan){
        .kind = JAIL_SANDBOX,
        .uid_base = JAIL_UID_BASE,
        .uid = 1000,
        .gid = 1000,
        .memory_mb = 128,
        .pids = 1024,
        .descriptors = 1024,
        .tmp_mb = 512,
    };
}

static void free_strings(char **strings) {
    for (char **s = strings; s != NULL && *s != NULL; s++)
        free(*s);
    free(strings);
}

void jail_plan_clear(struct jail_plan *plan) {
    free_strings(plan->command);
    free_strings(plan->environment);
    free(plan->working_directory);
    for (size_t i = 0; i < plan->n_mounts; i++) {
        free(plan->mounts[i].source);
        free(plan->mounts[i].target);
    }
    free(plan->mounts);
    jail_plan_init(plan);
}

static int add_string(char ***strings, size_t max, char *string) {
    size_t n = 0;

    if (string == NULL)
        return -ENOMEM;
    while (*strings != NULL && (*strings)[n] != NULL)
        n++;
    if (n >= max) {
        free(string);
        return -E2BIG;
    }
    char **grown = realloc(*strings, (n + 2) * sizeof(*grown));
    if (grown == NULL) {
        free(string);
        return -ENOMEM;
    }
    grown[n] = string;
    grown[n + 1] = NULL;
    *strings = grown;
    return 0;
}

int jail_plan_add_argument(struct jail_plan *plan, const char *argument) {
    return add_string(&plan->command, JAIL_ARGUMENTS_MAX, strdup(argument));
}

int jail_plan_add_environment(struct jail_plan *plan, const char *name, const char *value) {
    char *pair;
    if (asprintf(&pair, "%s=%s", name, value) < 0)
        return -ENOMEM;
    return add_string(&plan->environment, JAIL_ENVIRONMENT_MAX, pair);
}

int jail_plan_add_mount(struct jail_plan *plan, const char *source, const char *target, bool writable) {
    if (plan->n_mounts >= JAIL_MOUNTS_MAX)
        return -E2BIG;
    struct jail_mount *grown = realloc(plan->mounts, (plan->n_mounts + 1) * sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    plan->mounts = grown;
    struct jail_mount mount = {.source = strdup(source), .target = strdup(target), .writable = writable};
    if (mount.source == NULL || mount.target == NULL) {
        free(mount.source);
        free(mount.target);
        return -ENOMEM;
    }
    plan->mounts[plan->n_mounts++] = mount;
    return 0;
}

__attribute__((format(printf, 3, 4))) static int refuse(char *reason, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, size, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* Absolute, without "", "." and "..": what stands here is what is opened. The root itself is none. */
static bool path_is_plain(const char *path) {
    if (path == NULL || path[0] != '/' || path[1] == '\0' || strlen(path) > PATH_LENGTH_MAX)
        return false;
    for (const char *part = path + 1; *part != '\0';) {
        size_t length = strcspn(part, "/");
        if (length == 0 || length > 255 || strncmp(part, ".", length) == 0 || strncmp(part, "..", length) == 0)
            return false;
        part += length;
        if (*part == '/' && *++part == '\0')
            return false;
    }
    return true;
}

static bool is_below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/* Where jail_enter mounts, and where a mount of the plan would be hidden or hide what a sandbox relies on. */
static bool target_is_taken(const char *target) {
    static const char *const ours[] = {"/proc", "/dev", "/sys", "/tmp"};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (is_below(target, ours[i]))
            return true;
    return false;
}

static int validate_mounts(const struct jail_plan *plan, char *reason, size_t size) {
    for (size_t i = 0; i < plan->n_mounts; i++) {
        const struct jail_mount *mount = &plan->mounts[i];
        if (!path_is_plain(mount->source))
            return refuse(reason, size, "mounts[%zu].source: not a plain absolute path", i);
        if (!path_is_plain(mount->target))
            return refuse(reason, size, "mounts[%zu].target: not a plain absolute path", i);
        if (plan->kind != JAIL_SERVICE && target_is_taken(mount->target))
            return refuse(reason, size, "mounts[%zu].target: /proc, /dev, /sys and /tmp are the sandbox's own", i);
        if (plan->kind == JAIL_ZYGOTE && mount->writable)
            return refuse(reason, size, "mounts[%zu].writable: every environment would share it", i);
    }
    return 0;
}

static int validate_ids(const struct jail_plan *plan, char *reason, size_t size) {
    if (plan->kind == JAIL_SERVICE) {
        if (plan->uid == 0 || plan->gid == 0 || plan->uid == UINT32_MAX || plan->gid == UINT32_MAX)
            return refuse(reason, size, "uid, gid: a service is not root");
        return 0;
    }
    if (plan->uid_base < JAIL_IDS || plan->uid_base > UINT32_MAX - JAIL_IDS)
        return refuse(reason, size, "uid_base: outside 65536..4294901759");
    if (plan->kind == JAIL_SANDBOX &&
        (plan->uid == 0 || plan->uid >= JAIL_IDS || plan->gid == 0 || plan->gid >= JAIL_IDS))
        return refuse(reason, size, "uid, gid: outside 1..65535");
    return 0;
}

int jail_plan_validate(const struct jail_plan *plan, char *reason, size_t size) {
    if (plan->command == NULL || plan->command[0] == NULL)
        return refuse(reason, size, "command: missing");
    if (!path_is_plain(plan->command[0]))
        return refuse(reason, size, "command[0]: not a plain absolute path");
    if (plan->working_directory != NULL && strcmp(plan->working_directory, "/") != 0 &&
        !path_is_plain(plan->working_directory))
        return refuse(reason, size, "working_directory: not a plain absolute path");
    for (char **pair = plan->environment; pair != NULL && *pair != NULL; pair++)
        if ((*pair)[0] == '=' || strchr(*pair, '=') == NULL)
            return refuse(reason, size, "environment: a name is empty");
    if (plan->memory_mb > MEMORY_MB_MAX)
        return refuse(reason, size, "memory_mb: above %u", MEMORY_MB_MAX);
    if (plan->pids == 0 || plan->pids > PIDS_MAX)
        return refuse(reason, size, "pids: outside 1..%u", PIDS_MAX);
    if (plan->descriptors < DESCRIPTORS_MIN || plan->descriptors > DESCRIPTORS_LIMIT)
        return refuse(reason, size, "descriptors: outside %u..%u", DESCRIPTORS_MIN, DESCRIPTORS_LIMIT);
    if (plan->tmp_mb != 0 && (plan->tmp_mb < TMP_MB_MIN || plan->tmp_mb > TMP_MB_MAX))
        return refuse(reason, size, "tmp_mb: neither 0 nor in %u..%u", TMP_MB_MIN, TMP_MB_MAX);
    int r = validate_ids(plan, reason, size);
    return r < 0 ? r : validate_mounts(plan, reason, size);
}
