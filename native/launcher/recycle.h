/* What an environment leaves clean is used again: making a shell costs about 0.8 ms of processor time and an image for /tmp
 * about 1.5 ms, more than all the rest of a cold start.
 *
 * A shell (its namespaces, with connections that linger and counters) is used again for the same plan only, and only when
 * nothing runs in it but its anchor and no System V IPC object is left (POSIX message queues cannot be made in it). An image is used again for any
 * environment, but only when nothing is in it, no block of it is taken, little was ever written to it (the disk's blocks
 * behind it stay taken), and its root directory bears no attribute.
 * Otherwise both are destroyed. What is not used for a while goes too. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/list.h"
#include "loop.h"

struct server;
struct cell;
struct environment;
struct plan;
struct zygote;

/* Shells kept over all plans; the one that was used longest ago gives way. */
#define RECYCLED_CELLS_MAX 512
/* How long a shell is kept unused. */
#define RECYCLED_CELL_US UINT64_C(20000000)

/* What may have been written to an image that is used again, over all its uses: what was in /tmp for a moment only mostly
 * never is. */
#define IMAGE_WRITTEN_KIB 1024

struct recycle {
    struct list cells; /* oldest first */
    unsigned n;
    int own_ipc; /* the launcher's ipc namespace */
    struct timer tick;
};

/* How an image's file system looks while nobody used it. */
struct image_face {
    uint64_t free_blocks, free_files;
    uint32_t flags; /* of the root directory */
};

int recycle_init(struct server *server);
/* Shells and images that are not needed are let go of from the next second on. */
void recycle_tick_soon(struct server *server);
/* The environment's process is reaped. True: the shell was taken; it is not the environment's any more. */
bool recycle_cell(struct environment *environment);
/* One that is good for the plan with that zygote, or NULL. */
struct cell *recycle_take(struct plan *plan, const struct zygote *zygote);
bool recycle_has(const struct plan *plan, const struct zygote *zygote);
/* The cell's anchor died, or its zygote: out of the stock, not killed. */
void recycle_forget(struct cell *cell);
/* Kills those of a plan, of a zygote's slot, or (both NULL) all. */
void recycle_drop(struct server *server, const struct plan *plan, const struct zygote *zygote);

int image_face_read(int tree, struct image_face *ret);
/* Is it as it was? Its root directory may be owned by anybody. */
bool image_face_same(int tree, const struct image_face *face);
