/* The imager: a side process of the launcher, root, that makes /tmp images (copy, loop device, mount: about 1.5 ms) and
 * lets go of them (the unmount runs where the last descriptor is closed). Letting go has a thread of its own: what a
 * function left may take long, and others wait for images. The launcher's descriptor of an image that was used is never
 * the last one to be closed while the launcher serves: what cannot be sent now is kept and sent later. */
#pragma once

#include <stdint.h>

#include "side.h"

struct imager {
    struct side side;
    /* tree: a detached mount, or negative errno with the step that failed. */
    void (*made)(void *owner, uint32_t size_mb, int tree, const char *step);
    void *owner;
    int *left; /* to be dropped, and not sent yet */
    unsigned n_left, room;
    struct timer again;
};

/* The directory is the one images live in, root's alone. */
int imager_start(struct imager *imager, struct loop *loop, struct reaper *reaper, const char *directory);
int imager_request(struct imager *imager, uint32_t size_mb);
/* Takes the descriptor. */
void imager_drop(struct imager *imager, int tree);
/* Ends the side process when it has dropped what it was sent. */
void imager_stop(struct imager *imager);
