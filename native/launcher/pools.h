/* What launches take from stock: images for /tmp here, leaves (seats.h), shells (of the zygote in whose user namespace
 * they were made: zygotes.h). Stock is filled again after replies are sent, by side processes: an image takes about
 * 1.5 ms to make and to tear down, a shell 0.8. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "imager.h"
#include "loop.h"
#include "recycle.h"

struct server;

/* Sizes of /tmp in use at the same time for which stock is kept; other sizes are made on demand. */
#define POOL_SIZES 8
/* Images in stock of one size, with those that came back. */
#define POOL_STOCK 512

struct tmp_pool {
    uint32_t size_mb; /* 0: free */
    uint64_t used_us; /* last taken from */
    int stock[POOL_STOCK];
    unsigned n, asked, wanted;
    bool known;   /* face is that of a fresh image of this size */
    bool awaited; /* by a launch that found none: keeps its place */
    struct image_face face;
};

struct pools {
    struct imager imager;
    struct tmp_pool tmp[POOL_SIZES];
    struct timer refill;
    struct timer retry; /* launches that wait, after an image came back */
    uint64_t latest_us; /* when it fires at the latest */
    bool urgent;        /* something waits for stock: fill now, not after the pause */
    bool crowded;       /* a launch waits for a size that there is no place for */
    char step[32];      /* why the last image could not be made */
    int error;
};

int pools_start(struct server *server);
/* Stops the side processes; what is in stock is closed. */
void pools_stop(struct server *server);
/* A detached tree of that size: its descriptor, or -EAGAIN (asked for, or to be asked for when one of the sizes that others
 * wait for is there; launches_retry comes then), or why images cannot be made. */
int pools_take_tmp(struct server *server, uint32_t size_mb);
/* The same for what nobody waits for: from stock, or -EAGAIN, or why images cannot be made, which stays to be told to the
 * next launch. Stock of that size is filled as after a launch. */
int pools_take_spare_tmp(struct server *server, uint32_t size_mb);
/* Whoever still waits will take again: the places of sizes that nobody waits for any more are free. */
void pools_forget_waiting(struct server *server);
/* A tree that is not used any more: back to stock when nothing was left in it. Launches that wait are looked at later in
 * the same turn of the loop, never from here. */
void pools_give_back_tmp(struct server *server, uint32_t size_mb, int tree);
/* Lets some go of what came back and is not needed. True: there is more. */
bool pools_shrink(struct server *server);
/* The disk is short: all images in stock go, and what they hold of it. */
void pools_clear(struct server *server);
/* A plan of that size was put: keep stock. */
void pools_expect_tmp(struct server *server, uint32_t size_mb);
/* After a launch took from stock: fill again after a pause, or at once when stock is low. */
void pools_taken(struct server *server, bool urgent);
