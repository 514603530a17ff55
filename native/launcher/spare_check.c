/* A spare's sandbox, seen from outside; see the header. Runs in the launcher, ahead of demand (some 60 us). */
#include "spare_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/descriptor.h"

#define NONE "0000000000000000"

/* Is there a line of that name and value? */
static bool has_line(const char *text, const char *name, const char *value) {
    const size_t name_size = strlen(name), value_size = strlen(value);

    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, name_size) == 0 && line[name_size] == ':' && line[name_size + 1] == '\t')
            return strncmp(line + name_size + 2, value, value_size) == 0 && line[name_size + 2 + value_size] == '\n';
    }
    return false;
}

static int check_status(pid_t pid, uid_t uid, const char **ret_what) {
    char path[64], text[8192], ids[64];
    const struct {
        const char *name, *value;
    } lines[] = {
        {"Uid", ids},
        {"Gid", ids},
        {"CapInh", NONE},
        {"CapPrm", NONE},
        {"CapEff", NONE},
        {"CapBnd", NONE},
        {"CapAmb", NONE},
        {"NoNewPrivs", "1"},
        {"Seccomp", "2"},
    };
    int r;

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    snprintf(ids, sizeof(ids), "%u\t%u\t%u\t%u", uid, uid, uid, uid);
    *ret_what = "status";
    r = read_file_at(AT_FDCWD, path, text, sizeof(text));
    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
        if (!has_line(text, lines[i].name, lines[i].value)) {
            *ret_what = lines[i].name;
            return -EPERM;
        }
    return 0;
}

static int check_mounts(pid_t pid) {
    struct stat own, its;
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
    if (stat("/proc/self/ns/mnt", &own) < 0 || stat(path, &its) < 0)
        return -errno;
    return own.st_dev == its.st_dev && own.st_ino == its.st_ino ? -EPERM : 0;
}

/* In every hierarchy that it is in below ours, its leaf is the last part of the path. */
static int check_cgroup(pid_t pid, const char *cgroup) {
    char path[64], text[8192], wanted[80];
    int r;

    snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    snprintf(wanted, sizeof(wanted), "/%s\n", cgroup);
    r = read_file_at(AT_FDCWD, path, text, sizeof(text));
    if (r < 0)
        return r;
    return strstr(text, wanted) == NULL ? -EPERM : 0;
}

int spare_check(pid_t pid, uid_t uid, const char *cgroup, const char **ret_what) {
    int r = check_status(pid, uid, ret_what);

    if (r == 0) {
        *ret_what = "mounts";
        r = check_mounts(pid);
    }
    if (r == 0) {
        *ret_what = "cgroup";
        r = check_cgroup(pid, cgroup);
    }
    return r;
}
