/* Plans: what a JSON plan becomes, and that each thing it may not say is refused with its name. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jail/plan.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static void test_parse(void) {
    static const char text[] =
        "{\"command\":[\"/bin/sh\",\"-c\",\"true\"],\"environment\":{\"A\":\"1\",\"B\":\"x=y\"},"
        "\"working_directory\":\"/tmp\",\"mounts\":[{\"source\":\"/a\",\"target\":\"/var/task\",\"writable\":true},"
        "{\"source\":\"/b/c\",\"target\":\"/opt\"}],\"memory_mb\":256,\"pids\":10,\"descriptors\":20,\"tmp_mb\":0,"
        "\"timeout_ms\":5,\"cpu\":\"hard\",\"uid\":5,\"gid\":6,\"uid_base\":100000}";
    struct jail_plan plan;
    char reason[160];
    CHECK(jail_plan_parse(text, strlen(text), &plan, reason, sizeof(reason)) == 0);
    CHECK(plan.kind == JAIL_SANDBOX && plan.memory_mb == 256 && plan.pids == 10 && plan.descriptors == 20);
    CHECK(plan.tmp_mb == 0 && plan.timeout_ms == 5 && plan.cpu == JAIL_CPU_HARD && plan.uid == 5 && plan.gid == 6);
    CHECK(plan.uid_base == 100000 && strcmp(plan.working_directory, "/tmp") == 0);
    CHECK(strcmp(plan.command[0], "/bin/sh") == 0 && strcmp(plan.command[2], "true") == 0 && plan.command[3] == NULL);
    CHECK(strcmp(plan.environment[0], "A=1") == 0 && strcmp(plan.environment[1], "B=x=y") == 0);
    CHECK(plan.n_mounts == 2 && plan.mounts[0].writable && !plan.mounts[1].writable);
    CHECK(strcmp(plan.mounts[1].source, "/b/c") == 0 && strcmp(plan.mounts[1].target, "/opt") == 0);
    jail_plan_clear(&plan);
    CHECK(plan.command == NULL && plan.n_mounts == 0 && plan.memory_mb == 128);
}

static void test_refused(void) {
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"", "not JSON"},
        {"[]", "not an object"},
        {"{}", "command"},
        {"{\"command\":[]}", "command"},
        {"{\"command\":\"/bin/true\"}", "command"},
        {"{\"command\":[1]}", "command"},
        {"{\"command\":[\"true\"]}", "command[0]"},
        {"{\"command\":[\"/bin/../true\"]}", "command[0]"},
        {"{\"command\":[\"/bin/true\"],\"memory\":1}", "memory: unknown"},
        {"{\"command\":[\"/bin/true\"],\"memory_mb\":-1}", "memory_mb"},
        {"{\"command\":[\"/bin/true\"],\"memory_mb\":1.0}", "memory_mb"},
        {"{\"command\":[\"/bin/true\"],\"memory_mb\":\"1\"}", "memory_mb"},
        {"{\"command\":[\"/bin/true\"],\"memory_mb\":4294967296}", "memory_mb"},
        {"{\"command\":[\"/bin/true\"],\"memory_mb\":134217728}", "memory_mb"},
        {"{\"command\":[\"/bin/true\"],\"pids\":0}", "pids"},
        {"{\"command\":[\"/bin/true\"],\"descriptors\":3}", "descriptors"},
        {"{\"command\":[\"/bin/true\"],\"tmp_mb\":1}", "tmp_mb"},
        {"{\"command\":[\"/bin/true\"],\"cpu\":\"soft\"}", "cpu"},
        {"{\"command\":[\"/bin/true\"],\"uid\":0}", "uid"},
        {"{\"command\":[\"/bin/true\"],\"gid\":65536}", "uid, gid"},
        {"{\"command\":[\"/bin/true\"],\"uid_base\":0}", "uid_base"},
        {"{\"command\":[\"/bin/true\"],\"uid_base\":4294901760}", "uid_base"},
        {"{\"command\":[\"/bin/true\"],\"environment\":{\"\":\"1\"}}", "environment"},
        {"{\"command\":[\"/bin/true\"],\"environment\":{\"A=B\":\"1\"}}", "environment"},
        {"{\"command\":[\"/bin/true\"],\"environment\":{\"A\":1}}", "environment"},
        {"{\"command\":[\"/bin/true\"],\"environment\":[\"A=1\"]}", "environment"},
        {"{\"command\":[\"/bin/true\"],\"working_directory\":\"tmp\"}", "working_directory"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\"}]}", "mounts"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\",\"target\":\"/b\",\"mode\":1}]}", "mounts"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"a\",\"target\":\"/b\"}]}", "mounts[0].source"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\",\"target\":\"/\"}]}", "mounts[0].target"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\",\"target\":\"/b/\"}]}", "mounts[0].target"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\",\"target\":\"/b//c\"}]}", "mounts[0].target"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\",\"target\":\"/b/./c\"}]}", "mounts[0].target"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\",\"target\":\"/proc/x\"}]}", "mounts[0].target"},
        {"{\"command\":[\"/bin/true\"],\"mounts\":[{\"source\":\"/a\",\"target\":\"/dev\"}]}", "mounts[0].target"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct jail_plan plan;
        char reason[160] = "";
        int r = jail_plan_parse(cases[i].text, strlen(cases[i].text), &plan, reason, sizeof(reason));
        if (r >= 0 || strncmp(reason, cases[i].reason, strlen(cases[i].reason)) != 0) {
            fprintf(stderr, "%s: %d, %s\n", cases[i].text, r, reason);
            exit(1);
        }
        CHECK(plan.command == NULL && plan.environment == NULL && plan.mounts == NULL);
    }
}

static void test_kinds(void) {
    struct jail_plan plan;
    char reason[160];
    jail_plan_init(&plan);
    CHECK(jail_plan_add_argument(&plan, "/bin/true") == 0);
    CHECK(jail_plan_add_mount(&plan, "/srv/state", "/srv/state", true) == 0);
    CHECK(jail_plan_validate(&plan, reason, sizeof(reason)) == 0);
    plan.kind = JAIL_ZYGOTE;
    CHECK(jail_plan_validate(&plan, reason, sizeof(reason)) == -EINVAL && strstr(reason, "writable") != NULL);
    plan.kind = JAIL_SERVICE;
    CHECK(jail_plan_validate(&plan, reason, sizeof(reason)) == 0);
    plan.uid = 0;
    CHECK(jail_plan_validate(&plan, reason, sizeof(reason)) == -EINVAL && strstr(reason, "root") != NULL);
    jail_plan_clear(&plan);
}

static void test_maxima(void) {
    struct jail_plan plan;
    jail_plan_init(&plan);
    for (unsigned i = 0; i < JAIL_ARGUMENTS_MAX; i++)
        CHECK(jail_plan_add_argument(&plan, "x") == 0);
    CHECK(jail_plan_add_argument(&plan, "x") == -E2BIG);
    for (unsigned i = 0; i < JAIL_ENVIRONMENT_MAX; i++)
        CHECK(jail_plan_add_environment(&plan, "A", "x") == 0);
    CHECK(jail_plan_add_environment(&plan, "A", "x") == -E2BIG);
    for (unsigned i = 0; i < JAIL_MOUNTS_MAX; i++)
        CHECK(jail_plan_add_mount(&plan, "/a", "/b", false) == 0);
    CHECK(jail_plan_add_mount(&plan, "/a", "/b", false) == -E2BIG);
    jail_plan_clear(&plan);
}

int main(void) {
    test_parse();
    test_refused();
    test_kinds();
    test_maxima();
    return 0;
}
