/* Reads the boot configuration; see the header. */
#include "boot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "tasks.h"

#define BOOT_SIZE_MAX (256 * 1024)
/* Ids that a host's own users and other software's ranges lie below, and the end of what a kernel id may be. */
#define UID_BASE_MIN 65536u
#define UID_LAST UINT32_C(4294967293)
/* In block 0; 1 and 2 are the control plane's and the dispatcher's where they have no users of their own. */
#define FORKERS_GROUP 3

/* Carries the first complaint along, so that a caller asks once. */
struct reader {
    char *reason;
    size_t reason_size;
    int error;
};

static void refuse(struct reader *reader, const char *member, const char *why) {
    if (reader->error != 0)
        return;
    reader->error = -EINVAL;
    snprintf(reader->reason, reader->reason_size, "%s: %s", member, why);
}

static char *take_text(struct reader *reader, const struct json_value *object, const char *key) {
    const char *text = NULL;
    char *copy;
    if (reader->error != 0)
        return NULL;
    if (json_string(json_member(object, key), &text) < 0) {
        refuse(reader, key, "a string is needed");
        return NULL;
    }
    copy = strdup(text);
    if (copy == NULL)
        refuse(reader, key, "out of memory");
    return copy;
}

static char *take_string(struct reader *reader, const struct json_value *object, const char *key) {
    char *text = take_text(reader, object, key);
    if (text != NULL && text[0] == '\0')
        refuse(reader, key, "a string that is not empty is needed");
    return text;
}

static char *take_path(struct reader *reader, const struct json_value *object, const char *key) {
    char *path = take_string(reader, object, key);
    if (path != NULL && path[0] != '/')
        refuse(reader, key, "an absolute path is needed");
    return path;
}

static uint32_t take_number(
    struct reader *reader, const struct json_value *object, const char *key, uint32_t min, uint32_t max) {
    uint64_t value = 0;
    if (reader->error != 0)
        return 0;
    if (json_unsigned(json_member(object, key), max, &value) < 0 || value < min) {
        char why[80];
        snprintf(why, sizeof(why), "a number from %u to %u is needed", min, max);
        refuse(reader, key, why);
    }
    return (uint32_t)value;
}

static enum log_level take_level(struct reader *reader, const struct json_value *object) {
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char *text = take_string(reader, object, "log_level");
    enum log_level level = LOG_LEVEL_DEBUG;

    while (text != NULL && level <= LOG_LEVEL_ERROR && strcmp(text, names[level]) != 0)
        level++;
    if (text != NULL && level > LOG_LEVEL_ERROR)
        refuse(reader, "log_level", "debug, info, warning or error is needed");
    free(text);
    return level;
}

static void refuse_unknown(struct reader *reader, const struct json_value *object, const char *const *known, size_t n) {
    json_for_each(item, object) {
        size_t i = 0;
        while (i < n && strcmp(item->key, known[i]) != 0)
            i++;
        if (i == n)
            refuse(reader, item->key, "not a member of the boot configuration");
    }
}

static void take_control(struct reader *reader, const struct json_value *control, struct jail_plan *plan) {
    const struct json_value *arguments = json_member(control, "argv");
    const struct json_value *environment = json_member(control, "environment");
    const struct json_value *mounts = json_member(control, "mounts");
    char why[128];

    jail_plan_init(plan);
    plan->kind = JAIL_SERVICE;
    plan->etc = true;
    plan->memory_mb = plan->tmp_mb = 0;
    plan->pids = 4096;
    plan->descriptors = 65536;
    plan->uid = take_number(reader, control, "uid", 1, UID_LAST);
    plan->gid = take_number(reader, control, "gid", 1, UID_LAST);
    if (arguments == NULL || arguments->type != JSON_ARRAY || arguments->length == 0)
        refuse(reader, "control.argv", "an array of strings is needed");
    if (environment == NULL || environment->type != JSON_OBJECT)
        refuse(reader, "control.environment", "an object is needed");
    if (mounts == NULL || mounts->type != JSON_ARRAY)
        refuse(reader, "control.mounts", "an array is needed");
    if (reader->error != 0)
        return;
    json_for_each(item, arguments) {
        const char *text;
        if (json_string(item, &text) < 0 || jail_plan_add_argument(plan, text) < 0)
            refuse(reader, "control.argv", "strings only, and not too many");
    }
    json_for_each(item, environment) {
        const char *text;
        if (json_string(item, &text) < 0 || jail_plan_add_environment(plan, item->key, text) < 0)
            refuse(reader, "control.environment", "strings only, and not too many");
    }
    json_for_each(item, mounts) {
        const char *source, *target;
        bool writable = false;
        if (json_string(json_member(item, "source"), &source) < 0 ||
            json_string(json_member(item, "target"), &target) < 0 ||
            json_bool(json_member(item, "writable"), &writable) < 0 ||
            jail_plan_add_mount(plan, source, target, writable) < 0)
            refuse(reader, "control.mounts", "source, target and writable are needed");
    }
    if (reader->error == 0 && jail_plan_validate(plan, why, sizeof(why)) < 0)
        refuse(reader, "control", why);
}

static void take_interpreters(struct reader *reader, const struct json_value *array, struct boot *boot) {
    if (array == NULL || array->type != JSON_ARRAY || array->length > BOOT_INTERPRETERS_MAX) {
        refuse(reader, "interpreters", "an array of at most 32 is needed");
        return;
    }
    json_for_each(item, array) {
        struct boot_interpreter *interpreter = &boot->interpreters[boot->n_interpreters++];
        interpreter->path = take_path(reader, item, "path");
        interpreter->prefix = take_path(reader, item, "prefix");
    }
}

static void take_snapshots(struct reader *reader, const struct json_value *object, struct boot *boot) {
    boot->snapshots_memory_mb = take_number(reader, object, "memory_mb", 0, UINT32_MAX);
    boot->snapshots_making_ms = take_number(reader, object, "making_ms", 1, 24 * 3600 * 1000);
    boot->snapshots_uses = take_number(reader, object, "uses", 1, UINT32_MAX);
    boot->snapshots_age_ms = take_number(reader, object, "age_ms", 1, UINT32_MAX);
}

int boot_parse(const char *text, size_t size, struct boot *ret, char *ret_reason, size_t reason_size) {
    static const char *const known[] = {"build", "run_dir", "state_dir", "libexec", "bootstrap", "cgroup_name",
        "uid_base", "control", "dispatch", "socket_gid", "invoke_address", "invoke_port", "interpreters",
        "zygotes_per_runtime", "shells", "spares", "tmp_pool", "disk_reserve_mb", "drain_ms", "hang_ms", "log_level",
        "logs", "events", "snapshots"};
    static const char *const known_logs[] = {"function_mb", "node_mb", "days"};
    static const char *const known_events[] = {"segment_mb"};
    static const char *const known_snapshots[] = {"memory_mb", "making_ms", "uses", "age_ms"};
    static const char *const known_control[] = {"uid", "gid", "argv", "environment", "mounts"};
    struct reader reader = {.reason = ret_reason, .reason_size = reason_size};
    struct boot boot = {0};
    _cleanup_json_ struct json *document = NULL;
    size_t offset = 0;

    if (json_parse(text, size, &document, &offset) < 0) {
        snprintf(ret_reason, reason_size, "the boot configuration is not JSON at byte %zu", offset);
        return -EINVAL;
    }
    const struct json_value *root = json_root(document);
    jail_plan_init(&boot.control);
    if (root->type != JSON_OBJECT)
        refuse(&reader, "boot configuration", "an object is needed");
    refuse_unknown(&reader, root, known, ARRAY_SIZE(known));
    refuse_unknown(&reader, json_member(root, "control"), known_control, ARRAY_SIZE(known_control));
    refuse_unknown(&reader, json_member(root, "logs"), known_logs, ARRAY_SIZE(known_logs));
    refuse_unknown(&reader, json_member(root, "events"), known_events, ARRAY_SIZE(known_events));
    refuse_unknown(&reader, json_member(root, "snapshots"), known_snapshots, ARRAY_SIZE(known_snapshots));
    boot.build = take_string(&reader, root, "build");
    boot.run_dir = take_path(&reader, root, "run_dir");
    boot.state_dir = take_path(&reader, root, "state_dir");
    boot.libexec = take_path(&reader, root, "libexec");
    boot.bootstrap = take_path(&reader, root, "bootstrap");
    boot.cgroup_name = take_string(&reader, root, "cgroup_name");
    if (boot.cgroup_name != NULL && (strchr(boot.cgroup_name, '/') != NULL || boot.cgroup_name[0] == '.'))
        refuse(&reader, "cgroup_name", "one name of a directory is needed");
    boot.uid_base = take_number(&reader, root, "uid_base", UID_BASE_MIN, UID_LAST);
    boot.socket_gid = take_number(&reader, root, "socket_gid", 0, UID_LAST);
    boot.invoke_address = take_text(&reader, root, "invoke_address");
    boot.invoke_port = take_number(&reader, root, "invoke_port", 0, 65535);
    boot.dispatch_uid = take_number(&reader, json_member(root, "dispatch"), "uid", 1, UID_LAST);
    boot.dispatch_gid = take_number(&reader, json_member(root, "dispatch"), "gid", 1, UID_LAST);
    boot.dispatch_loops = take_number(&reader, json_member(root, "dispatch"), "loops", 0, 64);
    boot.dispatch_busy_percent = take_number(&reader, json_member(root, "dispatch"), "busy_percent", 0, 100);
    boot.zygotes_per_runtime = take_number(&reader, root, "zygotes_per_runtime", 1, BOOT_ZYGOTES_MAX);
    boot.shells = take_number(&reader, root, "shells", 1, 256);
    boot.spares = take_number(&reader, root, "spares", 0, BOOT_SPARES_MAX);
    boot.tmp_pool = take_number(&reader, root, "tmp_pool", 1, 64);
    boot.disk_reserve_mb = take_number(&reader, root, "disk_reserve_mb", 0, UINT32_MAX - 1);
    boot.drain_ms = take_number(&reader, root, "drain_ms", 0, 24 * 3600 * 1000);
    boot.hang_ms = take_number(&reader, root, "hang_ms", 0, 24 * 3600 * 1000);
    boot.log_level = take_level(&reader, root);
    boot.logs_function_mb = take_number(&reader, json_member(root, "logs"), "function_mb", 1, UINT32_MAX);
    boot.logs_node_mb = take_number(&reader, json_member(root, "logs"), "node_mb", 0, UINT32_MAX);
    boot.logs_days = take_number(&reader, json_member(root, "logs"), "days", 0, UINT32_MAX);
    boot.events_segment_mb = take_number(&reader, json_member(root, "events"), "segment_mb", 8, 1024);
    take_snapshots(&reader, json_member(root, "snapshots"), &boot);
    take_interpreters(&reader, json_member(root, "interpreters"), &boot);
    take_control(&reader, json_member(root, "control"), &boot.control);
    if (reader.error == 0 &&
        boot.uid_base > UID_LAST - JAIL_IDS * (1 + boot.n_interpreters * boot.zygotes_per_runtime + TASKS_MAX))
        refuse(&reader, "uid_base", "too high: the ids of zygotes and tasks do not fit above it");
    if (reader.error != 0) {
        boot_clear(&boot);
        return reader.error;
    }
    *ret = boot;
    return 0;
}

void boot_clear(struct boot *boot) {
    free(boot->build);
    free(boot->run_dir);
    free(boot->state_dir);
    free(boot->libexec);
    free(boot->bootstrap);
    free(boot->cgroup_name);
    free(boot->invoke_address);
    for (unsigned i = 0; i < boot->n_interpreters; i++) {
        free(boot->interpreters[i].path);
        free(boot->interpreters[i].prefix);
    }
    jail_plan_clear(&boot->control);
    memset(boot, 0, sizeof(*boot));
}

int boot_read(int fd, struct boot *ret, char *ret_reason, size_t reason_size) {
    _cleanup_free_ char *text = malloc(BOOT_SIZE_MAX);
    size_t size = 0;

    if (text == NULL)
        return -ENOMEM;
    (void)lseek(fd, 0, SEEK_SET); /* a memfd comes with its offset at the end */
    for (;;) {
        ssize_t n = size < BOOT_SIZE_MAX ? read(fd, text + size, BOOT_SIZE_MAX - size) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            snprintf(ret_reason, reason_size, "descriptor %d: %s", fd, strerror(errno));
            return -errno;
        }
        if (n == 0)
            break;
        size += (size_t)n;
    }
    close(fd);
    return boot_parse(text, size, ret, ret_reason, reason_size);
}

uint32_t boot_forkers_group(const struct boot *boot) {
    return boot->uid_base + FORKERS_GROUP;
}

uint32_t boot_zygote_base(const struct boot *boot, unsigned runtime, unsigned zygote) {
    return boot->uid_base + JAIL_IDS * (1 + runtime * boot->zygotes_per_runtime + zygote);
}

uint32_t boot_task_base(const struct boot *boot, unsigned slot) {
    return boot->uid_base + JAIL_IDS * (1 + boot->n_interpreters * boot->zygotes_per_runtime + slot);
}
