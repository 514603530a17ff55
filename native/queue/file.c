/* The real files below the event log; see the header. Any thread may call; nothing is kept between calls. */
#include "queue/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ZFS_MAGIC 0x2fc12fc1u /* of zfs and bcachefs the kernel's headers know nothing */
#define BCACHEFS_MAGIC 0xca451a4eu

static int real_list(struct files *files, void (*each)(void *, const char *), void *context) {
    int fd = openat(files->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    int r = 0;
    if (stream == NULL) {
        r = -errno;
        if (fd >= 0)
            close(fd);
        return r;
    }
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (entry == NULL)
            break;
        if (entry->d_name[0] != '.')
            each(context, entry->d_name);
    }
    r = -errno;
    closedir(stream);
    return r;
}

static int real_open(struct files *files, const char *name, int create) {
    int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0);
    int fd = openat(files->directory, name, flags, 0600);
    return fd < 0 ? -errno : fd;
}

static void real_close(struct files *files, int file) {
    (void)files;
    close(file);
}

/* Where the file system knows no allocation, zeros do it. */
static int allocate_by_writing(struct files *files, int file, uint64_t size) {
    struct stat status;
    if (fstat(file, &status) < 0)
        return -errno;
    uint64_t there = MIN((uint64_t)status.st_size, size);
    return files_write_zeros(files, file, size - there, there);
}

static int real_allocate(struct files *files, int file, uint64_t size) {
    int r;
    do {
        r = fallocate(file, 0, 0, (off_t)size) < 0 ? -errno : 0;
    } while (r == -EINTR);
    return r == -EOPNOTSUPP ? allocate_by_writing(files, file, size) : r;
}

static int real_truncate(struct files *files, int file, uint64_t size) {
    (void)files;
    return ftruncate(file, (off_t)size) < 0 ? -errno : 0;
}

static int real_size(struct files *files, int file, uint64_t *ret_size) {
    struct stat status;
    (void)files;
    if (fstat(file, &status) < 0)
        return -errno;
    *ret_size = (uint64_t)status.st_size;
    return 0;
}

static int real_write(struct files *files, int file, const void *data, size_t size, uint64_t offset) {
    const uint8_t *at = data;
    (void)files;
    while (size > 0) {
        ssize_t n = pwrite(file, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static int64_t real_read(struct files *files, int file, void *data, size_t size, uint64_t offset) {
    size_t got = 0;
    (void)files;
    while (got < size) {
        ssize_t n = pread(file, (uint8_t *)data + got, size - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (int64_t)got;
}

static int real_sync(struct files *files, int file) {
    (void)files;
    return fdatasync(file) < 0 ? -errno : 0;
}

static int real_rename(struct files *files, const char *from, const char *to) {
    return renameat(files->directory, from, files->directory, to) < 0 ? -errno : 0;
}

static int real_remove(struct files *files, const char *name) {
    return unlinkat(files->directory, name, 0) < 0 ? -errno : 0;
}

static int real_sync_directory(struct files *files) {
    return fsync(files->directory) < 0 ? -errno : 0;
}

int64_t files_read_most(struct files *files, int file, void *data, size_t size, uint64_t offset, uint64_t *unreadable) {
    int64_t n = files->operations->read(files, file, data, size, offset);
    uint64_t end = 0;
    if (n != -EIO)
        return n;
    int r = files->operations->size(files, file, &end);
    if (r < 0)
        return r;
    size = offset >= end ? 0 : (size_t)MIN(size, end - offset);
    for (size_t at = 0, part; at < size; at += part) {
        part = MIN(size - at, SECTOR - (size_t)((offset + at) % SECTOR));
        n = files->operations->read(files, file, (uint8_t *)data + at, part, offset + at);
        if (n < 0 && n != -EIO)
            return n;
        if (n < (int64_t)part) {
            memset((uint8_t *)data + at, 0, part);
            *unreadable += part;
        }
    }
    return (int64_t)size;
}

int files_write_zeros(struct files *files, int file, uint64_t size, uint64_t offset) {
    static const uint8_t zeros[65536];
    int r = 0;
    for (uint64_t done = 0, part; done < size && r == 0; done += part) {
        part = MIN(sizeof(zeros), size - done);
        r = files->operations->write(files, file, zeros, part, offset + done);
    }
    return r;
}

static bool moves(int directory) {
    static const uint32_t these[] = {BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, NILFS_SUPER_MAGIC, ZFS_MAGIC, BCACHEFS_MAGIC,
        FUSE_SUPER_MAGIC /* unknown what is below, which may tell at the sync */};
    struct statfs status;
    if (fstatfs(directory, &status) < 0)
        return true;
    for (unsigned i = 0; i < sizeof(these) / sizeof(these[0]); i++)
        if ((uint32_t)status.f_type == these[i])
            return true;
    return false;
}

void files_open(struct files *ret_files, int directory) {
    static const struct file_operations operations = {
        .list = real_list,
        .open = real_open,
        .close = real_close,
        .allocate = real_allocate,
        .truncate = real_truncate,
        .size = real_size,
        .write = real_write,
        .read = real_read,
        .sync = real_sync,
        .rename = real_rename,
        .remove = real_remove,
        .sync_directory = real_sync_directory,
    };
    *ret_files = (struct files){.operations = &operations, .directory = directory, .moves = moves(directory)};
}
