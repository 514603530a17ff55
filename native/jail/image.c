/* Images; see the header. A golden image per size is formatted once into an unnamed file; each image is a sparse copy of
 * it (its data, some 100 KiB, in a few extents) behind a loop device that clears itself.
 *
 * Direct I/O on the loop device: otherwise every page of /tmp is cached twice, once in the function's memory and once in
 * the host's. */
#include "jail/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "jail/mount.h"

#ifndef LOOP_CONFIGURE /* 5.8 */
#define LOOP_CONFIGURE 0x4C0A
struct loop_config {
    __u32 fd, block_size;
    struct loop_info64 info;
    __u64 __reserved[8];
};
#endif

#ifndef EXT4_IOC_SHUTDOWN /* fs/ext4/ext4.h, since 4.10; in linux/ext4.h since 6.1 */
#define EXT4_IOC_SHUTDOWN _IOR('X', 125, __u32)
#define EXT4_GOING_FLAGS_NOLOGFLUSH 2
#endif

enum { BLOCK_SIZE = 4096, LOOP_MAJOR = 7, ATTACH_ROUNDS = 32, COPY_CHUNK = 256 * 1024 };

/* An inode for each 16 KiB, as ext4 has it, costs nothing while the tables are not initialised. */
static const char *const formatters[] = {"/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/bin/mke2fs"};

int image_pool_open(const char *directory, struct image_pool *ret) {
    struct image_pool pool = {.n_golden = 0};
    pool.directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (pool.directory < 0)
        return -errno;
    pool.control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (pool.control < 0) {
        int r = errno == ENOENT || errno == ENXIO || errno == ENODEV ? -ENOTSUP : -errno;
        close(pool.directory);
        return r;
    }
    *ret = pool;
    return 0;
}

void image_pool_close(struct image_pool *pool) {
    for (unsigned i = 0; i < pool->n_golden; i++)
        cleanup_close(&pool->golden[i].fd);
    pool->n_golden = 0;
    cleanup_close(&pool->directory);
    cleanup_close(&pool->control);
}

/* A file without a name: whatever happens, nothing of it remains. */
static int make_file(const struct image_pool *pool, uint32_t size_mb) {
    _cleanup_close_ int fd = openat(pool->directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        fd = openat(pool->directory, ".image", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
        if (fd >= 0 || errno == EEXIST)
            (void)unlinkat(pool->directory, ".image", 0);
    }
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size_mb << 20) < 0)
        return -errno;
    return steal_fd(&fd);
}

static void exec_formatter(int file) {
    char path[32];
    sigset_t none;

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        _exit(126);
    if (file == 3 ? fd_set_cloexec(3, 0) < 0 : dup2(file, 3) < 0)
        _exit(126);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", 3);
    char *const environment[] = {"MKE2FS_SYNC=0", "MKE2FS_SKIP_PROGRESS=1", NULL};
    char *const arguments[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-O",
        "^has_journal,^resize_inode,uninit_bg", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", "-U", "random",
        path, NULL};
    for (size_t i = 0; i < ARRAY_SIZE(formatters); i++)
        execve(formatters[i], arguments, environment);
    _exit(127);
}

static int format(int file) {
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    int status;

    if (pid < 0)
        return -errno;
    if (pid == 0)
        exec_formatter(file);
    while (waitpid(pid, &status, __WALL) < 0)
        if (errno != EINTR)
            return -errno;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 127 ? -ENOENT : -EIO;
}

static int find_golden(struct image_pool *pool, uint32_t size_mb) {
    for (unsigned i = 0; i < pool->n_golden; i++)
        if (pool->golden[i].size_mb == size_mb)
            return pool->golden[i].fd;
    if (pool->n_golden == IMAGE_SIZES_MAX) { /* the oldest size gives way */
        cleanup_close(&pool->golden[0].fd);
        memmove(&pool->golden[0], &pool->golden[1], sizeof(pool->golden[0]) * --pool->n_golden);
    }
    _cleanup_close_ int fd = make_file(pool, size_mb);
    if (fd < 0)
        return fd;
    int r = format(fd);
    if (r < 0)
        return r;
    pool->golden[pool->n_golden].size_mb = size_mb;
    pool->golden[pool->n_golden].fd = steal_fd(&fd);
    return pool->golden[pool->n_golden++].fd;
}

static int copy_range(int from, int to, off_t start, off_t end) {
    char buffer[16384];
    while (start < end) {
        size_t want = (size_t)MIN(end - start, (off_t)sizeof(buffer));
        ssize_t n = pread(from, buffer, want, start);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        if (pwrite(to, buffer, (size_t)n, start) != n)
            return errno != 0 ? -errno : -EIO;
        start += n;
    }
    return 0;
}

static int copy_sparse(int from, int to) {
    for (off_t at = 0;;) {
        off_t start = lseek(from, at, SEEK_DATA);
        if (start < 0)
            return errno == ENXIO ? 0 : -errno;
        off_t end = lseek(from, start, SEEK_HOLE);
        if (end < 0)
            return -errno;
        int r = copy_range(from, to, start, end);
        if (r < 0)
            return r;
        at = end;
    }
}

static int open_loop(int number, char *path, size_t size) {
    snprintf(path, size, "/dev/loop%d", number);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) { /* /dev is not the kernel's own everywhere */
        if (mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR, (unsigned)number)) < 0 && errno != EEXIST)
            return -errno;
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    return fd < 0 ? -errno : fd;
}

/* A free device may be taken by somebody else between asking and configuring. */
static int attach_loop(const struct image_pool *pool, int file, char *path, size_t size) {
    for (int round = 0; round < ATTACH_ROUNDS; round++) {
        struct loop_config config = {.fd = (uint32_t)file, .block_size = BLOCK_SIZE};
        int number = ioctl(pool->control, LOOP_CTL_GET_FREE);
        if (number < 0)
            return -errno;
        _cleanup_close_ int loop = open_loop(number, path, size);
        if (loop < 0)
            return loop;
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
        if (ioctl(loop, LOOP_CONFIGURE, &config) == 0)
            return steal_fd(&loop);
        if (errno != EBUSY)
            return -errno;
    }
    return -EBUSY;
}

static int mount_loop(const char *path) {
    static const char *const options[] = {
        "noinit_itable", NULL, "nobarrier", NULL, "nodiscard", NULL, "errors", "continue", NULL};
    int tree = mount_new("ext4", path, options, MOUNT_NOSUID | MOUNT_NODEV);
    /* One hair's breadth of compatibility: without the options everything works, only slower. */
    return tree == -EINVAL ? mount_new("ext4", path, NULL, MOUNT_NOSUID | MOUNT_NODEV) : tree;
}

int image_give(const struct image *image, uid_t uid, gid_t gid) {
    /* Set, because whoever had the image before may have chosen them: a message to the next one. */
    const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    /* The descriptor of a detached mount names its root directory, but as a place only. */
    _cleanup_close_ int root = openat(image->tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || fchown(root, uid, gid) < 0 || fchmod(root, 0700) < 0 || futimens(root, times) < 0)
        return -errno;
    return 0;
}

int image_make(struct image_pool *pool, uint32_t size_mb, uid_t uid, gid_t gid, struct image *ret) {
    char path[32];
    int golden = find_golden(pool, size_mb), r;

    if (golden < 0)
        return golden;
    _cleanup_close_ int file = make_file(pool, size_mb);
    if (file < 0)
        return file;
    r = copy_sparse(golden, file);
    if (r < 0)
        return r;
    _cleanup_close_ int loop = attach_loop(pool, file, path, sizeof(path));
    if (loop < 0)
        return loop;
    struct image image = {.tree = mount_loop(path)};
    if (image.tree < 0)
        return image.tree;
    r = image_give(&image, uid, gid);
    if (r == 0 && unlinkat(image.tree, "lost+found", AT_REMOVEDIR) < 0 && errno != ENOENT)
        r = -errno;
    if (r < 0) {
        image_close(&image);
        return r;
    }
    *ret = image;
    return 0;
}

void image_close(struct image *image) {
    cleanup_close(&image->tree);
}

void image_discard(struct image *image) {
    const uint32_t at_once = EXT4_GOING_FLAGS_NOLOGFLUSH;
    struct statfs fs;
    int root = openat(image->tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root >= 0 && fstatfs(root, &fs) == 0 &&
        (uint64_t)(fs.f_blocks - fs.f_bfree) * (uint64_t)fs.f_bsize > IMAGE_WRITTEN_BACK)
        (void)ioctl(root, EXT4_IOC_SHUTDOWN, &at_once); /* where it cannot, all is written back */
    cleanup_close(&root);
    image_close(image);
}
