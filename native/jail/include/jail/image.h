/* /tmp on disk: sparse ext4 images without a journal on loop devices, mounted detached. Runs in the launcher and
 * runtimed-jail as real root. An image never has a name: its file is unlinked from birth, its loop device clears itself
 * when the last mount goes, so that a killed launcher leaves nothing behind. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#define IMAGE_SIZES_MAX 32
/* Bytes in an image that are written back at its end, as the kernel does by itself. */
#define IMAGE_WRITTEN_BACK (UINT64_C(16) << 20)

struct image_pool {
    int directory; /* on a disk, root's alone (0700) */
    int control;   /* /dev/loop-control */
    struct {
        uint32_t size_mb;
        int fd; /* a formatted image that is copied, never mounted */
    } golden[IMAGE_SIZES_MAX];
    unsigned n_golden;
};

struct image {
    int tree; /* a detached mount, nosuid, nodev, its root directory owned by uid:gid, mode 0700 */
};

/* -ENOTSUP where loop devices are missing. */
int image_pool_open(const char *directory, struct image_pool *ret);
void image_pool_close(struct image_pool *pool);
/* uid and gid of the host. The first image of a size formats (runs mke2fs, some 10 ms); the others copy. */
int image_make(struct image_pool *pool, uint32_t size_mb, uid_t uid, gid_t gid, struct image *ret);
/* Hands an image made ahead of demand to its user. */
int image_give(const struct image *image, uid_t uid, gid_t gid);
/* Drops our hold; the space is free again when the last mount namespace that shows it is gone. */
void image_close(struct image *image);
/* The same for one that nobody will look at again. What is in it and not on the disk yet goes nowhere: written back, 400
 * MB took 11 s beside other work, at everybody's cost; without, 0.02 s. The kernel's log has an alert for each file system
 * that is shut down so ("shut down requested (2)"): those with little in them are not. */
void image_discard(struct image *image);
