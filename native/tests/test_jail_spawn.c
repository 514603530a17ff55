/* jail_spawn beyond what runtimed-jail uses of it: services, descriptors, failed steps; and what the launcher lends to
 * sandboxes: trees and images. Needs root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/image.h"
#include "jail/root.h"
#include "jail/spawn.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { SKIPPED = 77, SERVICE_ID = 1899999999 };

static void fill(struct jail_plan *plan, enum jail_kind kind, const char *script) {
    char reason[160] = "";
    jail_plan_init(plan);
    plan->kind = kind;
    plan->uid = plan->gid = kind == JAIL_SERVICE ? SERVICE_ID : 1000;
    CHECK(jail_plan_add_argument(plan, "/bin/sh") == 0);
    CHECK(jail_plan_add_argument(plan, "-c") == 0);
    CHECK(jail_plan_add_argument(plan, script) == 0);
    CHECK(jail_plan_add_environment(plan, "PATH", "/usr/bin:/bin") == 0);
    CHECK(jail_plan_validate(plan, reason, sizeof(reason)) == 0);
}

/* Runs it and returns its standard output; it must end with 0. */
static char *output_of(const struct jail_plan *plan, struct jail_io io) {
    static char text[65536];
    struct jail_child child;
    struct jail_error error;
    int pair[2], status;
    size_t length = 0;

    CHECK(pipe2(pair, O_CLOEXEC) == 0);
    io.output = pair[1];
    io.error = STDERR_FILENO;
    if (jail_spawn(plan, &io, &child, &error) < 0) {
        fprintf(stderr, "%s: %s\n", error.step, strerror(error.error));
        exit(1);
    }
    close(pair[1]);
    for (ssize_t n = 1; n > 0; length += (size_t)n)
        n = read(pair[0], text + length, sizeof(text) - 1 - length);
    text[length] = '\0';
    close(pair[0]);
    CHECK(waitpid(child.pid, &status, __WALL) == child.pid);
    CHECK(jail_child_kill(&child) == 0);
    CHECK(child.anchor == 0 || waitpid(child.anchor, NULL, __WALL) == child.anchor);
    jail_child_close(&child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return text;
}

static void test_service(const char *state) {
    _cleanup_jail_plan_ struct jail_plan plan;
    const struct jail_io io = JAIL_IO_INIT;
    char net[64], expected[128];

    fill(&plan, JAIL_SERVICE,
        "id -u; id -g; id -G; grep -h '^Cap\\|^NoNew' /proc/self/status | sort | uniq | tr '\\n' ' '; echo;"
        "readlink /proc/self/ns/net; cat /proc/1/comm >/dev/null && echo host;"
        "test -w /state && echo x > /state/x && echo written; test -w /usr || echo read-only; test -e /etc/shadow || "
        "echo none;"
        "test -d /root || echo hidden; mktemp >/dev/null && echo temporary");
    CHECK(jail_plan_add_mount(&plan, state, "/state", true) == 0);
    char *text = output_of(&plan, io);
    ssize_t n = readlink("/proc/self/ns/net", net, sizeof(net) - 1);
    CHECK(n > 0);
    net[n] = '\0';
    CHECK(strstr(text, "1899999999\n1899999999\n1899999999\nCapAmb:\t0000000000000000 ") == text);
    CHECK(strstr(text, "CapBnd:\t0000000000000000 CapEff:\t0000000000000000 CapInh:\t0000000000000000 ") != NULL);
    CHECK(strstr(text, "NoNewPrivs:\t1") != NULL);
    snprintf(expected, sizeof(expected), "\n%s\nhost\nwritten\nread-only\nnone\nhidden\ntemporary\n", net);
    CHECK(strstr(text, expected) != NULL);
}

static void test_service_options(void) {
    _cleanup_jail_plan_ struct jail_plan plan;
    const struct jail_io io = JAIL_IO_INIT;
    struct stat st;

    fill(&plan, JAIL_SERVICE,
        "tail -n +3 /proc/net/dev | cut -d: -f1; test -e /etc/shadow && echo etc; test -r /etc/shadow || echo closed");
    plan.network_none = true;
    plan.etc = true;
    char *text = output_of(&plan, io);
    CHECK(strcmp(text, stat("/etc/shadow", &st) == 0 ? "    lo\netc\nclosed\n" : "    lo\nclosed\n") == 0);
}

static void test_descriptors(void) {
    _cleanup_jail_plan_ struct jail_plan plan;
    struct jail_io io = JAIL_IO_INIT;
    int pairs[3][2], lent[3];
    char byte;

    /* In an order in which copying them one by one would overwrite the next. */
    for (unsigned i = 0; i < 3; i++)
        CHECK(pipe2(pairs[i], O_CLOEXEC) == 0);
    lent[0] = pairs[2][1];
    lent[1] = pairs[0][1];
    lent[2] = pairs[1][1];
    io.descriptors = lent;
    io.n_descriptors = 3;
    fill(&plan, JAIL_SERVICE, "printf c >&3; printf a >&4; printf b >&5; ls /proc/self/fd | tr '\\n' ' '");
    CHECK(strcmp(output_of(&plan, io), "0 1 2 3 4 5 6 ") == 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(read(pairs[i][0], &byte, 1) == 1 && byte == "abc"[i]);
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
}

/* The limit is the command's, not that of what its parent happens to have open. */
static void test_descriptors_above_the_limit(void) {
    static const enum jail_kind kinds[] = {JAIL_SERVICE, JAIL_ZYGOTE};
    int many[200];

    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        CHECK((many[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        _cleanup_jail_plan_ struct jail_plan plan;
        struct jail_io io = JAIL_IO_INIT;
        fill(&plan, kinds[i], "ulimit -n");
        plan.descriptors = 64;
        CHECK(strcmp(output_of(&plan, io), "64\n") == 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        close(many[i]);
}

static void test_sandbox_channel(void) {
    _cleanup_jail_plan_ struct jail_plan plan;
    struct jail_io io = JAIL_IO_INIT;
    int pair[2];
    char byte;

    CHECK(pipe2(pair, O_CLOEXEC) == 0);
    io.descriptors = &pair[1];
    io.n_descriptors = 1;
    fill(&plan, JAIL_SANDBOX, "printf x >&3; ls /proc/self/fd | tr '\\n' ' '");
    CHECK(strcmp(output_of(&plan, io), "0 1 2 3 4 ") == 0);
    CHECK(read(pair[0], &byte, 1) == 1 && byte == 'x');
    close(pair[0]);
    close(pair[1]);
}

/* Whatever step fails: it is told, and nobody remains. */
static void test_failures(void) {
    static const enum jail_kind kinds[] = {JAIL_SERVICE, JAIL_ZYGOTE, JAIL_SANDBOX};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        _cleanup_jail_plan_ struct jail_plan plan;
        struct jail_io io = JAIL_IO_INIT;
        struct jail_child child = {.pid = 12345};
        struct jail_error error;

        fill(&plan, kinds[i], "true");
        free(plan.command[0]);
        plan.command[0] = strdup("/nowhere");
        CHECK(jail_spawn(&plan, &io, &child, &error) == -ENOENT);
        CHECK(strcmp(error.step, "exec") == 0 && error.error == ENOENT && child.pid == 12345);
        const int bad[] = {9999};
        io.descriptors = bad;
        io.n_descriptors = 1;
        CHECK(jail_spawn(&plan, &io, &child, &error) == -EBADF && strcmp(error.step, "descriptors") == 0);
        io.n_descriptors = 0;
        CHECK(jail_plan_add_mount(&plan, "/nowhere", "/opt", false) == 0);
        CHECK(jail_spawn(&plan, &io, &child, &error) == -ENOENT && strcmp(error.step, "clone mounts") == 0);
        CHECK(waitpid(-1, NULL, __WALL) < 0 && errno == ECHILD);
    }
}

static void test_clone_tree(const char *state) {
    int tree = -1, directory = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(directory >= 0 && mkdirat(directory, "a", 0755) == 0 && mkdirat(directory, "a/b", 0755) == 0);
    CHECK(symlinkat("a", directory, "link") == 0 && symlinkat("/", directory, "root") == 0);
    CHECK(root_clone_tree(directory, "link/b", &tree) == -ELOOP && tree == -1);
    CHECK(root_clone_tree(directory, "root", &tree) == -ELOOP);
    CHECK(root_clone_tree(directory, "../", &tree) == -EXDEV);
    CHECK(root_clone_tree(directory, "/usr", &tree) == -EXDEV);
    CHECK(root_clone_tree(directory, "missing", &tree) == -ENOENT && tree == -1);
    CHECK(root_clone_tree(directory, "a/b", &tree) == 0);
    CHECK(mkdirat(tree, "x", 0755) < 0 && errno == EROFS);
    struct statvfs st;
    CHECK(fstatvfs(tree, &st) == 0);
    CHECK((st.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV)) == (ST_RDONLY | ST_NOSUID | ST_NODEV));
    close(tree);
    close(directory);
}

/* How many loop devices stand on files of that directory. */
static unsigned loops_attached(const char *state) {
    unsigned n = 0;
    for (unsigned i = 0; i < 1024; i++) {
        char path[64], file[4096];
        snprintf(path, sizeof(path), "/sys/block/loop%u/loop/backing_file", i);
        n += read_file_at(AT_FDCWD, path, file, sizeof(file)) > 0 && strncmp(file, state, strlen(state)) == 0;
    }
    return n;
}

static void test_image(const char *state) {
    struct image_pool pool;
    struct image first, second;
    struct stat st;
    struct statvfs vfs;

    CHECK(image_pool_open("/nowhere", &pool) == -ENOENT);
    CHECK(image_pool_open(state, &pool) == 0);
    CHECK(image_make(&pool, 64, 0, 0, &first) == 0 && image_make(&pool, 64, 0, 0, &second) == 0);
    CHECK(loops_attached(state) == 2);
    /* The times of its root directory would tell the next user what the last one wrote there. */
    const struct timespec chosen[2] = {{.tv_sec = 4711}, {.tv_sec = 4711}};
    int root = openat(first.tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(root >= 0 && futimens(root, chosen) == 0 && close(root) == 0);
    CHECK(image_give(&first, 77, 78) == 0);
    CHECK(fstat(first.tree, &st) == 0 && st.st_mtime != 4711 && st.st_atime != 4711);
    CHECK(fstat(first.tree, &st) == 0 && st.st_uid == 77 && st.st_gid == 78 && (st.st_mode & 07777) == 0700);
    CHECK(fstatvfs(first.tree, &vfs) == 0 && (vfs.f_flag & (ST_NOSUID | ST_NODEV)) == (ST_NOSUID | ST_NODEV));
    CHECK(vfs.f_blocks * vfs.f_frsize > 56u << 20 && vfs.f_blocks * vfs.f_frsize <= 64u << 20);
    /* Apart from each other, and without a name in the directory. */
    CHECK(mkdirat(first.tree, "x", 0755) == 0 && faccessat(second.tree, "x", F_OK, 0) < 0);
    DIR *directory = opendir(state);
    CHECK(directory != NULL);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        CHECK(strstr(entry->d_name, "image") == NULL);
    closedir(directory);
    image_close(&first);
    image_close(&second);
    image_pool_close(&pool);
    while (loops_attached(state) > 0) /* unmounting goes on in the background; ctest's time-out ends a hang */
        sched_yield();
}

int main(void) {
    char state[] = "/var/tmp/test_jail_spawn.XXXXXX";
    if (geteuid() != 0)
        return SKIPPED;
    CHECK(mkdtemp(state) != NULL && chmod(state, 0777) == 0);
    test_service(state);
    test_service_options();
    test_descriptors();
    test_descriptors_above_the_limit();
    test_sandbox_channel();
    test_failures();
    test_clone_tree(state);
    test_image(state);
    static const char *const made[] = {"x", "link", "root"};
    for (unsigned i = 0; i < ARRAY_SIZE(made); i++) {
        char path[64];
        snprintf(path, sizeof(path), "%s/%s", state, made[i]);
        unlink(path);
    }
    char path[64];
    snprintf(path, sizeof(path), "%s/a/b", state);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/a", state);
    rmdir(path);
    CHECK(rmdir(state) == 0);
    return 0;
}
