/* The imager: a side process of the launcher, root, that makes /tmp images (copy, loop device, mount: about 1.5 ms) and
 * lets go of them (the unmount runs where the last descriptor is closed). */
#pragma once

#include <stdint.h>

#include "side.h"

struct imager {
    struct side side;
    /* tree: a detached mount, or negative errno with the step that failed. */
    void (*made)(void *owner, uint32_t size_mb, int tree, const char *step);
    void *owner;
};

/* The directory is the one images live in, root's alone. */
int imager_start(struct imager *imager, struct loop *loop, struct reaper *reaper, const char *directory);
int imager_request(struct imager *imager, uint32_t size_mb);
/* Takes the descriptor. */
void imager_drop(struct imager *imager, int tree);
