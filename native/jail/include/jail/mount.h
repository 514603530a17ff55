/* The descriptor-based mount calls, by number: older C libraries lack them. Return 0 or a descriptor, or a negative
 * errno; plain system calls only. Part of `jail_core`. */
#pragma once

#include <stdint.h>

enum mount_attribute {
    MOUNT_RDONLY = 0x01,
    MOUNT_NOSUID = 0x02,
    MOUNT_NODEV = 0x04,
    MOUNT_NOEXEC = 0x08,
};

/* A detached copy of the tree at a path (follows symbolic links), with its submounts. Closing it drops it. */
int mount_clone(int directory, const char *path);
/* Sets the attributes on the whole tree and cuts it off from propagation. */
int mount_restrict(int tree, unsigned attributes);
int mount_attach(int tree, const char *target);
/* A detached mount of a fresh file system; options alternate name and value (NULL: a flag) and end with NULL. */
int mount_new(const char *type, const char *source, const char *const *options, unsigned attributes);
