/* The launcher's boot configuration: what it becomes, and that each thing that is wrong is refused with its name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot.h"
#include "tasks.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static const char good[] =
    "{\"build\":\"1\",\"run_dir\":\"/run/r\",\"state_dir\":\"/var/r\",\"libexec\":\"/x/libexec\",\"bootstrap\":\"/x/"
    "boot\","
    "\"cgroup_name\":\"runtimed-0\",\"uid_base\":1900000000,"
    "\"control\":{\"uid\":1900000001,\"gid\":1900000001,\"argv\":[\"/usr/bin/python3\",\"-m\",\"x\"],"
    "\"environment\":{\"A\":\"1\"},\"mounts\":[{\"source\":\"/a\",\"target\":\"/a\",\"writable\":true}]},"
    "\"dispatch\":{\"uid\":1900000002,\"gid\":1900000002,\"loops\":0,\"busy_percent\":75},\"socket_gid\":0,\"invoke_"
    "address\":\"127.0.0."
    "1\",\"invoke_"
    "port\":7402,"
    "\"interpreters\":[{\"path\":\"/usr/bin/python3\",\"prefix\":\"/usr\"},{\"path\":\"/o/bin/p\",\"prefix\":\"/o\"}],"
    "\"zygotes_per_runtime\":2,\"shells\":8,\"spares\":3,\"tmp_pool\":4,\"disk_reserve_mb\":7,\"drain_ms\":10000,"
    "\"hang_ms\":15000,"
    "\"log_level\":"
    "\"info\",\"logs\":{\"function_mb\":32,\"node_mb\":0,\"days\":30},\"events\":{\"segment_mb\":8},"
    "\"snapshots\":{\"memory_mb\":0,\"making_ms\":60000,\"uses\":1000,\"age_ms\":3600000}}";

static void test_good(void) {
    struct boot boot;
    char reason[256];

    CHECK(boot_parse(good, strlen(good), &boot, reason, sizeof(reason)) == 0);
    CHECK(strcmp(boot.build, "1") == 0 && strcmp(boot.run_dir, "/run/r") == 0 && boot.uid_base == 1900000000u);
    CHECK(boot.control.kind == JAIL_SERVICE && boot.control.uid == 1900000001u && boot.control.n_mounts == 1);
    CHECK(strcmp(boot.control.command[2], "x") == 0 && strcmp(boot.control.environment[0], "A=1") == 0);
    CHECK(boot.n_interpreters == 2 && strcmp(boot.interpreters[1].prefix, "/o") == 0);
    CHECK(boot.zygotes_per_runtime == 2 && boot.shells == 8 && boot.spares == 3 && boot.tmp_pool == 4 &&
        boot.drain_ms == 10000);
    CHECK(boot.hang_ms == 15000);
    CHECK(boot.disk_reserve_mb == 7);
    CHECK(boot.snapshots_making_ms == 60000 && boot.snapshots_uses == 1000 && boot.snapshots_age_ms == 3600000);
    CHECK(strcmp(boot.invoke_address, "127.0.0.1") == 0 && boot.invoke_port == 7402);
    boot_clear(&boot);
}

/* No id may belong to two: the daemon's own, each zygote's, each task's. */
static void test_blocks(void) {
    struct boot boot;
    char reason[256];
    uint32_t last;

    CHECK(boot_parse(good, strlen(good), &boot, reason, sizeof(reason)) == 0);
    last = boot.uid_base;
    for (unsigned i = 0; i < boot.n_interpreters; i++)
        for (unsigned k = 0; k < boot.zygotes_per_runtime; k++) {
            CHECK(boot_zygote_base(&boot, i, k) == last + JAIL_IDS);
            last += JAIL_IDS;
        }
    for (unsigned i = 0; i < TASKS_MAX; i++) {
        CHECK(boot_task_base(&boot, i) == last + JAIL_IDS);
        last += JAIL_IDS;
    }
    boot_clear(&boot);
}

/* The good text with one part replaced. */
static void refused(const char *part, const char *by, const char *named) {
    char text[2048], reason[256] = "";
    struct boot boot;
    const char *at = strstr(good, part);

    CHECK(at != NULL);
    snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - good), good, by, at + strlen(part));
    CHECK(boot_parse(text, strlen(text), &boot, reason, sizeof(reason)) < 0);
    if (strstr(reason, named) == NULL) {
        fprintf(stderr, "%s -> %s: \"%s\" does not name %s\n", part, by, reason, named);
        exit(1);
    }
}

static void test_refused(void) {
    char reason[256];
    struct boot boot;

    refused("\"build\":\"1\"", "\"build\":1", "build");
    refused("\"build\":\"1\"", "\"build\":\"\"", "build");
    refused("\"build\":\"1\",", "", "build");
    refused("\"/run/r\"", "\"run/r\"", "run_dir");
    refused("\"/x/libexec\"", "null", "libexec");
    refused("runtimed-0", "../x", "cgroup_name");
    refused("runtimed-0", ".", "cgroup_name");
    refused("\"uid_base\":1900000000", "\"uid_base\":1000", "uid_base");
    refused("\"uid_base\":1900000000", "\"uid_base\":4294900000", "uid_base");
    refused("\"uid_base\":1900000000", "\"uid_base\":1.5", "uid_base");
    refused("\"uid\":1900000001", "\"uid\":0", "uid");
    refused("[\"/usr/bin/python3\",\"-m\",\"x\"]", "[]", "control.argv");
    refused("[\"/usr/bin/python3\",\"-m\",\"x\"]", "[\"python3\"]", "control");
    refused("{\"A\":\"1\"}", "{\"A\":1}", "control.environment");
    refused("\"source\":\"/a\"", "\"source\":\"/a/../b\"", "control");
    refused("\"writable\":true", "\"writable\":1", "control.mounts");
    refused("\"mounts\"", "\"mount\"", "mount");
    refused("\"path\":\"/o/bin/p\"", "\"path\":\"p\"", "path");
    refused("\"zygotes_per_runtime\":2", "\"zygotes_per_runtime\":0", "zygotes_per_runtime");
    refused("\"shells\":8", "\"shells\":100000", "shells");
    refused("\"log_level\"", "\"unknown\"", "unknown");
    refused("\"info\"", "\"loud\"", "log_level");
    refused("\"function_mb\":32", "\"function_mb\":0", "function_mb");
    refused("\"days\"", "\"years\"", "years");
    CHECK(boot_parse("", 0, &boot, reason, sizeof(reason)) < 0);
    CHECK(boot_parse("[]", 2, &boot, reason, sizeof(reason)) < 0);
    CHECK(boot_parse(good, strlen(good) - 1, &boot, reason, sizeof(reason)) < 0);
}

int main(void) {
    test_good();
    test_blocks();
    test_refused();
    return 0;
}
