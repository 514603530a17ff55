/* The root directory; see the header. Runs in a child of jail_spawn, which is about to lose every privilege.
 *
 * Everything of the host that the jail shows is taken as detached trees first; then the process pivots into an empty
 * tmpfs and drops the old root; only then are the trees attached. So no path is ever resolved in a mixture of both
 * roots. Nothing survives the process, besides in the namespaces of its children. */
#include "jail/root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/mount.h"

enum { TREES_MAX = JAIL_MOUNTS_MAX + 32 };

struct tree {
    int fd;
    const char *target;
    bool file;
};

/* Made anew in a /dev of the jail's own: one mount instead of one for each. */
static const struct {
    const char *path;
    unsigned minor;
} devices[] = {{"/dev/null", 3}, {"/dev/zero", 5}, {"/dev/full", 7}, {"/dev/random", 8}, {"/dev/urandom", 9}};
enum { DEVICE_MAJOR = 1 };

/* What programs read of /etc beside names, which are written anew. Files are copied, because every mount is copied again
 * for each environment: the loader's cache, time zone, types, ports. */
static const char *const etc_files[] = {
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/protocols", "/etc/services", "/etc/ssl/openssl.cnf"};
/* Certificates, and what links in /usr/bin point through. */
static const char *const etc_directories[] = {
    "/etc/ssl/certs", "/etc/pki", "/etc/alternatives", "/etc/crypto-policies"};
enum { ETC_FILE_MAX = 1024 * 1024 };

static const struct {
    const char *path, *text;
} etc_texts[] = {
    {"/etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"},
    {"/etc/group", "root:x:0:\nnogroup:x:65534:\n"},
    {"/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 sandbox\n"},
    {"/etc/hostname", "sandbox\n"},
    {"/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"},
    {"/etc/resolv.conf", ""},
};

/* Not in a merged /usr these are directories and are bound like it. */
static const char *const system_directories[] = {"/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32"};

struct root {
    struct tree trees[TREES_MAX];
    unsigned n;
    int copies[ARRAY_SIZE(etc_files)]; /* open for reading, or -1 */
    struct {
        const char *path, *target;
        char text[256];
        ssize_t length;
    } links[6];
};

static int take_tree(struct root *root, const char *source, const char *target, unsigned attributes, bool optional) {
    struct stat st;
    int r;

    if (root->n == TREES_MAX)
        return -E2BIG;
    _cleanup_close_ int fd = mount_clone(AT_FDCWD, source);
    if (fd < 0)
        return optional && fd == -ENOENT ? 0 : fd;
    r = mount_restrict(fd, attributes);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return -errno;
    root->trees[root->n++] = (struct tree){.fd = steal_fd(&fd), .target = target, .file = !S_ISDIR(st.st_mode)};
    return 0;
}

static int take_system(struct root *root) {
    int r = take_tree(root, "/usr", "/usr", MOUNT_RDONLY | MOUNT_NOSUID | MOUNT_NODEV, false);

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(system_directories); i++) {
        const char *path = system_directories[i];
        root->links[i].path = path;
        root->links[i].length = readlink(path, root->links[i].text, sizeof(root->links[i].text) - 1);
        if (root->links[i].length < 0)
            r = take_tree(root, path, path, MOUNT_RDONLY | MOUNT_NOSUID | MOUNT_NODEV, true);
    }
    return r;
}

static int take_etc(struct root *root, const struct jail_plan *plan) {
    const unsigned attributes = MOUNT_RDONLY | MOUNT_NOSUID | MOUNT_NODEV | MOUNT_NOEXEC;
    int r = 0;

    if (plan->kind == JAIL_SERVICE && plan->etc)
        return take_tree(root, "/etc", "/etc", attributes, false);
    for (size_t i = 0; i < ARRAY_SIZE(etc_files); i++)
        root->copies[i] = open(etc_files[i], O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(etc_directories); i++)
        r = take_tree(root, etc_directories[i], etc_directories[i], attributes, true);
    return r;
}

static int take_mounts(struct root *root, const struct jail_plan *plan) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < plan->n_mounts; i++) {
        const struct jail_mount *mount = &plan->mounts[i];
        unsigned attributes = MOUNT_NOSUID | MOUNT_NODEV | (mount->writable ? 0 : MOUNT_RDONLY);
        r = take_tree(root, mount->source, mount->target, attributes, false);
    }
    return r;
}

static int pivot(struct jail_error *ret_error) {
    /* /proc exists everywhere and nothing below it is needed any more. */
    if (mount("root", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=8m,nr_inodes=4096") < 0)
        return jail_fail(ret_error, "mount root", errno);
    if (chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        return jail_fail(ret_error, "pivot_root", errno);
    if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return jail_fail(ret_error, "drop old root", errno);
    return 0;
}

/* The parents of an absolute path, 0755. */
static int make_parents(const char *path) {
    char part[4096];
    size_t length = strlen(path);

    if (length >= sizeof(part))
        return -ENAMETOOLONG;
    for (size_t i = 1; i < length; i++) {
        if (path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST && errno != EROFS)
            return -errno;
    }
    return 0;
}

static int attach(const struct tree *tree) {
    int r = make_parents(tree->target);
    if (r < 0)
        return r;
    if (tree->file) {
        int fd = open(tree->target, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
        if (fd >= 0)
            close(fd);
        else if (errno != EROFS)
            return -errno;
    } else if (mkdir(tree->target, 0755) < 0 && errno != EEXIST && errno != EROFS) {
        return -errno;
    }
    return mount_attach(tree->fd, tree->target);
}

static int copy_file(int from, const char *path) {
    char buffer[16384];
    int r = make_parents(path);

    if (r < 0)
        return r;
    _cleanup_close_ int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (to < 0)
        return -errno;
    for (size_t total = 0; total < ETC_FILE_MAX;) {
        ssize_t n = read(from, buffer, sizeof(buffer));
        if (n <= 0)
            return n < 0 ? -errno : 0;
        r = write_all(to, buffer, (size_t)n);
        if (r < 0)
            return r;
        total += (size_t)n;
    }
    return -EFBIG;
}

static int write_etc(const struct root *root) {
    for (size_t i = 0; i < ARRAY_SIZE(root->copies); i++) {
        int r = root->copies[i] < 0 ? 0 : copy_file(root->copies[i], etc_files[i]);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < ARRAY_SIZE(etc_texts); i++) {
        _cleanup_close_ int fd = open(etc_texts[i].path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
        if (fd < 0)
            return -errno;
        int r = write_all(fd, etc_texts[i].text, strlen(etc_texts[i].text));
        if (r < 0)
            return r;
    }
    return 0;
}

static int make_devices(void) {
    static const struct {
        const char *path, *text;
    } links[] = {
        {"/dev/fd", "/proc/self/fd"},
        {"/dev/stdin", "/proc/self/fd/0"},
        {"/dev/stdout", "/proc/self/fd/1"},
        {"/dev/stderr", "/proc/self/fd/2"},
    };

    if (mount("dev", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k,nr_inodes=64") < 0)
        return -errno;
    umask(0);
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
        if (mknod(devices[i].path, S_IFCHR | 0666, makedev(DEVICE_MAJOR, devices[i].minor)) < 0)
            return -errno;
    umask(022);
    for (size_t i = 0; i < ARRAY_SIZE(links); i++)
        if (symlink(links[i].text, links[i].path) < 0)
            return -errno;
    if (mount(NULL, "/dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0)
        return -errno;
    return 0;
}

static int fill(const struct root *root, const struct jail_plan *plan) {
    /* The last two are hidden as soon as code is mounted over them. The dynamic linker of a zygote, which looks once,
     * has to find that they exist: it never asks again for a directory of LD_LIBRARY_PATH that was not there. */
    static const char *const directories[] = {
        "/dev", "/etc", "/proc", "/tmp", "/var", "/var/task", "/opt", "/var/runtime", "/var/task/lib", "/opt/lib"};

    for (size_t i = 0; i < ARRAY_SIZE(directories); i++)
        if (mkdir(directories[i], 0755) < 0)
            return -errno;
    for (size_t i = 0; i < ARRAY_SIZE(root->links); i++)
        if (root->links[i].length > 0 && symlink(root->links[i].text, root->links[i].path) < 0)
            return -errno;
    return plan->kind == JAIL_SERVICE && plan->etc ? 0 : write_etc(root);
}

/* A proc that shows nothing: its pid namespace is dead. The kernel lets a user namespace mount its own proc only where an
 * unmasked one is visible already (environments do), and this one tells a zygote nothing about the host. */
static int mount_empty_proc(void) {
    int status;
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);

    if (pid < 0)
        return -errno;
    if (pid == 0)
        _exit(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? errno & 0x7f : 0);
    while (waitpid(pid, &status, __WALL) < 0)
        if (errno != EINTR)
            return -errno;
    if (!WIFEXITED(status))
        return -EINTR;
    return -WEXITSTATUS(status);
}

static int mount_own(const struct jail_plan *plan, struct jail_error *ret_error) {
    if (plan->kind == JAIL_SERVICE) {
        if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
            return jail_fail(ret_error, "mount proc", errno);
        if (mount("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m") < 0)
            return jail_fail(ret_error, "mount /tmp", errno);
        return 0;
    }
    int r = mount_empty_proc();
    return r < 0 ? jail_fail(ret_error, "mount empty proc", r) : 0;
}

int root_enter(const struct jail_plan *plan, struct jail_error *ret_error) {
    struct root root = {.n = 0};
    int r;

    if (unshare(CLONE_NEWNS) < 0)
        return jail_fail(ret_error, "unshare mounts", errno);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return jail_fail(ret_error, "private mounts", errno);
    r = take_system(&root);
    if (r == 0)
        r = take_etc(&root, plan);
    if (r < 0)
        return jail_fail(ret_error, "clone system", r);
    r = take_mounts(&root, plan);
    if (r < 0)
        return jail_fail(ret_error, "clone mounts", r);
    r = pivot(ret_error);
    if (r < 0)
        return r;
    r = fill(&root, plan);
    if (r < 0)
        return jail_fail(ret_error, "fill root", r);
    r = make_devices();
    if (r < 0)
        return jail_fail(ret_error, "make devices", r);
    /* Before the plan's own, so that a service may be shown something below /tmp. */
    r = mount_own(plan, ret_error);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < root.n; i++) {
        r = attach(&root.trees[i]);
        if (r < 0)
            return jail_fail(ret_error, "attach mounts", r);
        close(root.trees[i].fd);
    }
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
        return jail_fail(ret_error, "read-only root", errno);
    return 0;
}

int root_clone_tree(int directory, const char *path, int *ret_tree) {
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    _cleanup_close_ int fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof(how));
    int r;

    if (fd < 0)
        return -errno;
    _cleanup_close_ int tree = mount_clone(fd, "");
    if (tree < 0)
        return tree;
    r = mount_restrict(tree, MOUNT_RDONLY | MOUNT_NOSUID | MOUNT_NODEV);
    if (r < 0)
        return r;
    *ret_tree = steal_fd(&tree);
    return 0;
}
