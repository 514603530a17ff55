/* The mount calls; see the header. Used in the launcher and in the children of jail_spawn. */
#include "jail/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* include/uapi/linux/mount.h, which cannot be included beside sys/mount.h everywhere. */
#define TREE_CLONE 1u
#define TREE_RECURSIVE 0x8000u /* AT_RECURSIVE */
#define TREE_CLOEXEC ((unsigned)O_CLOEXEC)
#define MOVE_FROM_EMPTY_PATH 0x00000004u
#define CONFIG_SET_FLAG 0u
#define CONFIG_SET_STRING 1u
#define CONFIG_CMD_CREATE 6u
#define FS_CLOEXEC 1u

struct attributes {
    uint64_t set, clear, propagation, userns_fd;
};

int mount_clone(int directory, const char *path) {
    unsigned flags = TREE_CLONE | TREE_CLOEXEC | TREE_RECURSIVE | (path[0] == '\0' ? AT_EMPTY_PATH : 0u);
    long tree = syscall(SYS_open_tree, directory, path, flags);
    return tree < 0 ? -errno : (int)tree;
}

int mount_restrict(int tree, unsigned attributes) {
    struct attributes wanted = {.set = attributes, .propagation = MS_PRIVATE};
    unsigned flags = AT_EMPTY_PATH | TREE_RECURSIVE;
    return syscall(SYS_mount_setattr, tree, "", flags, &wanted, sizeof(wanted)) < 0 ? -errno : 0;
}

int mount_attach(int tree, const char *target) {
    return syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_FROM_EMPTY_PATH) < 0 ? -errno : 0;
}

static int configure(int context, const char *name, const char *value) {
    unsigned command = value == NULL ? CONFIG_SET_FLAG : CONFIG_SET_STRING;
    return syscall(SYS_fsconfig, context, command, name, value, 0) < 0 ? -errno : 0;
}

int mount_new(const char *type, const char *source, const char *const *options, unsigned attributes) {
    int context = (int)syscall(SYS_fsopen, type, FS_CLOEXEC);
    int tree, r;

    if (context < 0)
        return -errno;
    r = configure(context, "source", source);
    for (; r == 0 && options != NULL && options[0] != NULL; options += 2)
        r = configure(context, options[0], options[1]);
    if (r == 0 && syscall(SYS_fsconfig, context, CONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        r = -errno;
    if (r < 0) {
        close(context);
        return r;
    }
    tree = (int)syscall(SYS_fsmount, context, FS_CLOEXEC, attributes);
    r = tree < 0 ? -errno : tree;
    close(context);
    return r;
}
