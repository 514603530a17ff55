/* Plans from JSON; see plan.h. A plan that is read is always of the kind JAIL_SANDBOX: the others are the launcher's. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "jail/plan.h"

static int parse_command(struct jail_plan *plan, const struct json_value *value) {
    if (value->type != JSON_ARRAY)
        return -EINVAL;
    json_for_each(item, value) {
        const char *text;
        int r = json_string(item, &text);
        if (r == 0)
            r = jail_plan_add_argument(plan, text);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parse_environment(struct jail_plan *plan, const struct json_value *value) {
    if (value->type != JSON_OBJECT)
        return -EINVAL;
    json_for_each(item, value) {
        const char *text;
        int r = json_string(item, &text);
        if (r == 0 && (item->key[0] == '\0' || strchr(item->key, '=') != NULL))
            r = -EINVAL;
        if (r == 0)
            r = jail_plan_add_environment(plan, item->key, text);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parse_mounts(struct jail_plan *plan, const struct json_value *value) {
    if (value->type != JSON_ARRAY)
        return -EINVAL;
    json_for_each(item, value) {
        const struct json_value *writable = json_member(item, "writable");
        const char *source, *target;
        bool allowed = false;
        int r = json_string(json_member(item, "source"), &source);
        if (r == 0)
            r = json_string(json_member(item, "target"), &target);
        if (r == 0 && writable != NULL)
            r = json_bool(writable, &allowed);
        if (r == 0 && item->length != 2u + (writable != NULL))
            r = -EINVAL;
        if (r == 0)
            r = jail_plan_add_mount(plan, source, target, allowed);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parse_cpu(struct jail_plan *plan, const struct json_value *value) {
    const char *text;
    int r = json_string(value, &text);
    if (r < 0)
        return r;
    if (strcmp(text, "weight") == 0)
        plan->cpu = JAIL_CPU_WEIGHT;
    else if (strcmp(text, "hard") == 0)
        plan->cpu = JAIL_CPU_HARD;
    else
        return -EINVAL;
    return 0;
}

static int parse_working_directory(struct jail_plan *plan, const struct json_value *value) {
    const char *text;
    int r = json_string(value, &text);
    if (r < 0)
        return r;
    plan->working_directory = strdup(text);
    return plan->working_directory == NULL ? -ENOMEM : 0;
}

static int parse_number(struct jail_plan *plan, const struct json_value *value) {
    const struct {
        const char *name;
        uint32_t *field;
    } numbers[] = {
        {"memory_mb", &plan->memory_mb},
        {"pids", &plan->pids},
        {"descriptors", &plan->descriptors},
        {"tmp_mb", &plan->tmp_mb},
        {"uid", &plan->uid},
        {"gid", &plan->gid},
        {"uid_base", &plan->uid_base},
        {"timeout_ms", &plan->timeout_ms},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        uint64_t number;
        if (strcmp(value->key, numbers[i].name) != 0)
            continue;
        if (json_unsigned(value, UINT32_MAX, &number) < 0)
            return -EINVAL;
        *numbers[i].field = (uint32_t)number;
        return 0;
    }
    return -ENOENT;
}

static int parse_member(struct jail_plan *plan, const struct json_value *value) {
    static const struct {
        const char *name;
        int (*parse)(struct jail_plan *, const struct json_value *);
    } members[] = {
        {"command", parse_command},
        {"environment", parse_environment},
        {"mounts", parse_mounts},
        {"working_directory", parse_working_directory},
        {"cpu", parse_cpu},
    };
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        if (strcmp(value->key, members[i].name) == 0)
            return members[i].parse(plan, value);
    return parse_number(plan, value);
}

int jail_plan_parse(const char *text, size_t size, struct jail_plan *plan, char *reason, size_t reason_size) {
    _cleanup_json_ struct json *document = NULL;
    size_t offset = 0;
    int r = json_parse(text, size, &document, &offset);

    jail_plan_init(plan);
    if (r < 0) {
        snprintf(reason, reason_size, "not JSON at byte %zu", offset);
        return r;
    }
    if (json_root(document)->type != JSON_OBJECT) {
        snprintf(reason, reason_size, "not an object");
        return -EINVAL;
    }
    json_for_each(item, json_root(document)) {
        r = parse_member(plan, item);
        if (r == -ENOENT)
            snprintf(reason, reason_size, "%.64s: unknown", item->key);
        else if (r == -E2BIG)
            snprintf(reason, reason_size, "%.64s: too many", item->key);
        else if (r < 0)
            snprintf(reason, reason_size, "%.64s: wrong type or out of range", item->key);
        if (r < 0)
            break;
    }
    if (r == 0)
        r = jail_plan_validate(plan, reason, reason_size);
    if (r < 0)
        jail_plan_clear(plan);
    return r < 0 && r != -ENOMEM ? -EINVAL : r;
}
