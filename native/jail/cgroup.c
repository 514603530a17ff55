/* The tree and its leaves; see the header. Values are in cgroup_limits.c. */
#include "jail/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "cgroup_find.h"

#define TCP_BYTES "33554432"
/* v1's cpu.shares, v2's cpu.weight: the kernel's defaults and limits. */
#define SHARES_PER_CORE 1024l
#define SHARES_MAX 262144l
#define WEIGHT_PER_CORE 100l
#define WEIGHT_MAX 10000l

enum { PROC_TEXT_MAX = 256 * 1024, KILL_ROUNDS = 64 };

static int read_proc(const char *path, char **ret) {
    _cleanup_free_ char *text = malloc(PROC_TEXT_MAX);
    if (text == NULL)
        return -ENOMEM;
    int r = read_file_at(AT_FDCWD, path, text, PROC_TEXT_MAX);
    if (r < 0)
        return r;
    *ret = steal_pointer(text);
    return 0;
}

/* One plain component; the dot files of the kernel's own are not ours either. */
static bool is_name(const char *name) {
    return name[0] != '\0' && name[0] != '.' && strlen(name) < CGROUP_NAME_MAX && strchr(name, '/') == NULL;
}

static int make_directory(int parent, const char *name) {
    if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
        return -errno;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int open_place(const struct cgroup_place *place, const char *own) {
    char path[sizeof(place->mount) + sizeof(place->own)];
    snprintf(path, sizeof(path), "%s%s", place->mount, own);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* v2: controllers are given to children one by one; those that are not there are found out afterwards. Memory first, and
 * without it none: it is refused where processes sit, but pids and cpu are not, and would make the directory threaded,
 * so that nobody could be moved into a leaf of it any more. */
static void enable_controllers(int directory) {
    static const char *const names[] = {"+pids", "+cpu"};
    if (write_file_at(directory, "cgroup.subtree_control", "+memory") < 0)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        (void)write_file_at(directory, "cgroup.subtree_control", names[i]);
}

static bool enabled(int directory) {
    char text[256];
    return read_file_at(directory, "cgroup.subtree_control", text, sizeof(text)) > 0 &&
        strstr(text, "memory") != NULL && strstr(text, "pids") != NULL;
}

/* v2 gives controllers only to the children of a cgroup without processes of its own (its root excepted). So the caller
 * first steps into a leaf; where others sit beside it (a login session), the hierarchy's root serves. */
static int open_unified(const struct cgroup_place *place) {
    _cleanup_close_ int own = open_place(place, place->own);
    if (own < 0)
        return own;
    enable_controllers(own);
    if (!enabled(own) && place->own[0] != '\0') {
        _cleanup_close_ int leaf = make_directory(own, "runtimed-self");
        if (leaf >= 0 && write_file_at(leaf, "cgroup.procs", "0") >= 0) {
            enable_controllers(own);
            if (!enabled(own)) { /* back, and the leaf away again */
                (void)write_file_at(own, "cgroup.procs", "0");
                (void)unlinkat(own, "runtimed-self", AT_REMOVEDIR);
            }
        }
    }
    if (enabled(own))
        return steal_fd(&own);
    int root = open_place(place, "");
    if (root >= 0)
        enable_controllers(root);
    return root;
}

/* As much as so many cores' worth of ordinary groups, where there may be so much. Never refused: it may be missing. */
static void write_weight(int directory, bool unified, long cores) {
    char text[24];
    snprintf(text, sizeof(text), "%ld",
        unified ? MIN(cores * WEIGHT_PER_CORE, WEIGHT_MAX) : MIN(cores * SHARES_PER_CORE, SHARES_MAX));
    (void)write_file_at(directory, unified ? "cpu.weight" : "cpu.shares", text);
}

/* What all leaves together weigh beside the host's other processes, the daemons among them: twice as much as that many
 * cores' worth of ordinary groups. With the default (one core's worth) sixteen spinning leaves and a busy host made a
 * neighbour wait 138 ms (p99), with this 30. */
static void weigh(const struct cgroup_hierarchy *hierarchy) {
    if ((hierarchy->controllers & CGROUP_CPU) != 0)
        write_weight(hierarchy->fd, hierarchy->unified, 2 * MAX(sysconf(_SC_NPROCESSORS_ONLN), 1l));
}

static int open_hierarchy(struct cgroup_tree *tree, const struct cgroup_place *place) {
    struct cgroup_hierarchy *hierarchy = &tree->hierarchies[tree->n];
    bool controlled = place->unified && place->controllers != CGROUP_FREEZER;
    int parent = controlled ? open_unified(place) : open_place(place, place->own);

    if (parent < 0)
        return parent;
    int fd = make_directory(parent, tree->name);
    if (fd < 0) {
        close(parent);
        return fd;
    }
    if (controlled)
        enable_controllers(fd);
    *hierarchy = (struct cgroup_hierarchy){
        .fd = fd, .parent = parent, .controllers = place->controllers, .unified = place->unified};
    weigh(hierarchy);
    tree->controllers |= place->controllers;
    tree->n++;
    return 0;
}

static void read_unified_controllers(char *ret, size_t size) {
    _cleanup_free_ char *mountinfo = NULL, *membership = NULL;
    struct cgroup_place places[CGROUP_HIERARCHIES];

    ret[0] = '\0';
    if (read_proc("/proc/self/mountinfo", &mountinfo) < 0 || read_proc("/proc/self/cgroup", &membership) < 0)
        return;
    unsigned n = cgroup_find(mountinfo, membership, "", places);
    for (unsigned i = 0; i < n; i++) {
        if (!places[i].unified)
            continue;
        _cleanup_close_ int root = open_place(&places[i], "");
        if (root >= 0 && read_file_at(root, "cgroup.controllers", ret, size) < 0)
            ret[0] = '\0';
    }
}

int cgroup_tree_open(struct cgroup_tree *ret, const char *name) {
    _cleanup_free_ char *mountinfo = NULL, *membership = NULL;
    struct cgroup_tree tree = {.n = 0};
    struct cgroup_place places[CGROUP_HIERARCHIES];
    char available[256];
    int r;

    if (!is_name(name))
        return -EINVAL;
    memcpy(tree.name, name, strlen(name) + 1);
    read_unified_controllers(available, sizeof(available));
    r = read_proc("/proc/self/mountinfo", &mountinfo);
    if (r == 0)
        r = read_proc("/proc/self/cgroup", &membership);
    if (r < 0)
        return r;
    unsigned n = cgroup_find(mountinfo, membership, available, places);
    for (unsigned i = 0; i < n && r == 0; i++)
        r = open_hierarchy(&tree, &places[i]);
    if (r == 0 && (tree.controllers & (CGROUP_MEMORY | CGROUP_PIDS)) != (CGROUP_MEMORY | CGROUP_PIDS))
        r = -ENOTSUP;
    if (r < 0) {
        (void)cgroup_tree_remove(&tree);
        cgroup_tree_close(&tree);
        return r;
    }
    tree.version = tree.n == 1 && tree.hierarchies[0].unified ? 2 : 1;
    *ret = tree;
    return 0;
}

void cgroup_tree_close(struct cgroup_tree *tree) {
    for (unsigned i = 0; i < tree->n; i++) {
        cleanup_close(&tree->hierarchies[i].fd);
        cleanup_close(&tree->hierarchies[i].parent);
    }
    tree->n = 0;
}

static int remove_directory(int parent, const char *name) {
    return unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int cgroup_tree_remove(const struct cgroup_tree *tree) {
    int result = 0;
    for (unsigned i = 0; i < tree->n; i++) {
        int r = remove_directory(tree->hierarchies[i].parent, tree->name);
        if (r < 0)
            result = r;
    }
    return result;
}

/* Everything in one leaf directory of one hierarchy, by v2's kill file or process by process. */
static void kill_directory(int directory, bool unified) {
    char text[32768];

    if (unified && write_file_at(directory, "cgroup.kill", "1") == 0)
        return;
    for (int round = 0; round < KILL_ROUNDS; round++) {
        if (read_file_at(directory, "cgroup.procs", text, sizeof(text)) <= 0)
            return;
        /* A process that is dying is listed until it is reaped: killed again, without harm. */
        for (char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
            long pid = strtol(line, NULL, 10);
            if (pid > 1)
                (void)kill((pid_t)pid, SIGKILL);
            if (line[strcspn(line, "\n")] == '\0')
                break;
        }
        (void)write_file_at(directory, "freezer.state", "THAWED");
        usleep(500);
    }
}

static int sweep_hierarchy(const struct cgroup_hierarchy *hierarchy) {
    int copy = openat(hierarchy->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    int removed = 0;

    if (directory == NULL) {
        int r = -errno;
        cleanup_close(&copy);
        return r;
    }
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        _cleanup_close_ int leaf = openat(hierarchy->fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (leaf < 0)
            continue;
        if (remove_directory(hierarchy->fd, entry->d_name) < 0) {
            kill_directory(leaf, hierarchy->unified);
            for (int round = 0; round < KILL_ROUNDS; round++) {
                if (remove_directory(hierarchy->fd, entry->d_name) == 0)
                    break;
                usleep(2000); /* until they are reaped by whoever adopted them */
            }
        }
        removed++;
    }
    closedir(directory);
    return removed;
}

int cgroup_tree_sweep(const struct cgroup_tree *tree) {
    int most = 0;
    for (unsigned i = 0; i < tree->n; i++) {
        int r = sweep_hierarchy(&tree->hierarchies[i]);
        if (r < 0)
            return r;
        most = MAX(most, r);
    }
    return most;
}

/* On v1 buffers of TCP connections do not count as memory: without a limit one function takes all that the host's
 * tcp_mem allows, some tenth of its memory, and starves every connection of the host. Never refused: it may be missing. */
static void limit_tcp(const struct cgroup_hierarchy *hierarchy, int directory) {
    if ((hierarchy->controllers & CGROUP_MEMORY) != 0 && !hierarchy->unified)
        (void)write_file_at(directory, "memory.kmem.tcp.limit_in_bytes", TCP_BYTES);
}

int cgroup_make(const struct cgroup_tree *tree, const char *name, struct cgroup *ret) {
    struct cgroup cgroup = {.fds = {-1, -1, -1, -1}};

    if (!is_name(name))
        return -EINVAL;
    memcpy(cgroup.name, name, strlen(name) + 1);
    for (unsigned i = 0; i < tree->n; i++) {
        cgroup.fds[i] = make_directory(tree->hierarchies[i].fd, name);
        if (cgroup.fds[i] < 0) {
            int r = cgroup.fds[i];
            (void)cgroup_remove(tree, &cgroup);
            cgroup_close(&cgroup);
            return r;
        }
        limit_tcp(&tree->hierarchies[i], cgroup.fds[i]);
    }
    *ret = cgroup;
    return 0;
}

int cgroup_make_weighed(const struct cgroup_tree *tree, const char *name, unsigned cores, struct cgroup *ret) {
    struct cgroup cgroup = {.fds = {-1, -1, -1, -1}};

    if (!is_name(name))
        return -EINVAL;
    memcpy(cgroup.name, name, strlen(name) + 1);
    for (unsigned i = 0; i < tree->n; i++) {
        const struct cgroup_hierarchy *hierarchy = &tree->hierarchies[i];
        if ((hierarchy->controllers & CGROUP_CPU) == 0)
            continue;
        cgroup.fds[i] = make_directory(hierarchy->fd, name);
        if (cgroup.fds[i] < 0)
            return cgroup.fds[i];
        write_weight(cgroup.fds[i], hierarchy->unified, (long)cores);
    }
    *ret = cgroup;
    return 0;
}

void cgroup_close(struct cgroup *cgroup) {
    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++)
        cleanup_close(&cgroup->fds[i]);
}

int cgroup_tree_delegate(const struct cgroup_tree *tree, gid_t group) {
    if (tree->version != 2)
        return 0;
    int directory = tree->hierarchies[0].fd;
    if (fchownat(directory, "cgroup.procs", (uid_t)-1, group, 0) < 0 ||
        fchmodat(directory, "cgroup.procs", 0664, 0) < 0)
        return -errno;
    return 0;
}

int cgroup_delegate(const struct cgroup_tree *tree, const struct cgroup *cgroup, uid_t uid) {
    if (tree->version != 2)
        return 0;
    return fchownat(cgroup->fds[0], "cgroup.procs", uid, (gid_t)-1, 0) < 0 ? -errno : 0;
}

int cgroup_directory(const struct cgroup_tree *tree, const struct cgroup *cgroup) {
    return tree->version == 2 ? cgroup->fds[0] : -1;
}

int cgroup_attach(const struct cgroup_tree *tree, const struct cgroup *cgroup, pid_t pid) {
    char text[16];
    snprintf(text, sizeof(text), "%d", (int)pid);
    for (unsigned i = 0; i < tree->n; i++) {
        int r = cgroup->fds[i] >= 0 ? write_file_at(cgroup->fds[i], "cgroup.procs", text) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

int cgroup_kill(const struct cgroup_tree *tree, const struct cgroup *cgroup) {
    /* Every hierarchy lists the same processes; the one that freezes also thaws. */
    for (unsigned i = 0; i < tree->n; i++)
        if ((tree->hierarchies[i].controllers & CGROUP_FREEZER) != 0 || i + 1 == tree->n) {
            kill_directory(cgroup->fds[i], tree->hierarchies[i].unified);
            return 0;
        }
    return -ENOTSUP;
}

int cgroup_remove(const struct cgroup_tree *tree, struct cgroup *cgroup) {
    int result = 0;
    for (unsigned i = 0; i < tree->n; i++) {
        if (cgroup->fds[i] < 0)
            continue;
        int r = remove_directory(tree->hierarchies[i].fd, cgroup->name);
        if (r < 0)
            result = r;
    }
    if (result == 0)
        cgroup_close(cgroup);
    return result;
}
