/* Stock; see the header. */
#include "pools.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"

/* The pause after a launch before stock is filled again: the new environment starts and answers in that time, and on few
 * cores making shells and images would take the processor from it. */
#define REFILL_PAUSE_US 4000
/* In a row of launches each pauses it anew, but not for longer than this. */
#define REFILL_LATEST_US 40000
/* Of the images above what is wanted, one in so many goes each second. */
#define SHRINK_SHARE 16
/* Images asked for at a time: each answer asks on. */
#define IMAGES_ASKED_MAX 4

static void refill_tmp(struct pools *pools, struct tmp_pool *tmp) {
    while (tmp->size_mb != 0 && tmp->n + tmp->asked < tmp->wanted && tmp->asked < IMAGES_ASKED_MAX) {
        if (imager_request(&pools->imager, tmp->size_mb) < 0)
            return;
        tmp->asked++;
    }
}

static void refill(struct server *server) {
    zygotes_refill(server);
    seats_refill(server);
    for (unsigned i = 0; i < POOL_SIZES; i++)
        refill_tmp(&server->pools, &server->pools.tmp[i]);
}

static void refill_fire(void *owner) {
    struct server *server = owner;
    server->pools.urgent = false;
    if (server->phase != PHASE_STOPPING)
        refill(server);
}

void pools_taken(struct server *server, bool urgent) {
    struct pools *pools = &server->pools;
    if (urgent && !pools->urgent) {
        pools->urgent = true;
        loop_timer(&server->loop, &pools->refill, 0, refill_fire, server);
    } else if (!pools->urgent) {
        const uint64_t now = server->loop.now_us;
        if (!loop_timer_on(&pools->refill))
            pools->latest_us = now + REFILL_LATEST_US;
        if (now < pools->latest_us)
            loop_timer(&server->loop, &pools->refill, REFILL_PAUSE_US, refill_fire, server);
    }
}

static struct tmp_pool *find_tmp(struct pools *pools, uint32_t size_mb) {
    for (unsigned i = 0; i < POOL_SIZES; i++)
        if (pools->tmp[i].size_mb == size_mb)
            return &pools->tmp[i];
    return NULL;
}

/* The pool for a size; when all are taken, the one that was idle longest gives way. NULL: others wait for each of them. */
static struct tmp_pool *get_tmp(struct server *server, uint32_t size_mb) {
    struct pools *pools = &server->pools;
    struct tmp_pool *tmp = find_tmp(pools, size_mb);

    if (tmp == NULL)
        tmp = find_tmp(pools, 0);
    for (unsigned i = 0; tmp == NULL && i < POOL_SIZES; i++) {
        struct tmp_pool *candidate = &pools->tmp[i];
        if (candidate->asked == 0 && !candidate->awaited && (tmp == NULL || candidate->used_us < tmp->used_us))
            tmp = candidate;
    }
    if (tmp == NULL)
        return NULL;
    if (tmp->size_mb != size_mb) {
        for (unsigned i = 0; i < tmp->n; i++)
            imager_drop(&pools->imager, tmp->stock[i]);
        *tmp = (struct tmp_pool){.size_mb = size_mb, .wanted = server->boot.tmp_pool};
    }
    tmp->used_us = server->loop.now_us;
    return tmp;
}

static void image_made(void *owner, uint32_t size_mb, int tree, const char *step) {
    struct server *server = owner;
    struct pools *pools = &server->pools;
    struct tmp_pool *tmp = find_tmp(pools, size_mb);

    if (tmp != NULL && tmp->asked > 0)
        tmp->asked--;
    if (tree < 0) {
        if (pools->error == 0)
            say("cannot make an image for /tmp: %s: %s", step, strerror(-tree));
        pools->error = tree;
        snprintf(pools->step, sizeof(pools->step), "%s", step);
        launches_retry_all(server);
        return;
    }
    pools->error = 0;
    if (tmp == NULL || tmp->n == POOL_STOCK || server->phase == PHASE_STOPPING) {
        imager_drop(&pools->imager, tree);
        return;
    }
    if (!tmp->known)
        tmp->known = image_face_read(tree, &tmp->face) == 0;
    tmp->stock[tmp->n++] = tree;
    launches_retry_all(server);
    if (server->launches.waiting > 0)
        refill_tmp(pools, tmp);
    else if (tmp->n + tmp->asked < tmp->wanted)
        pools_taken(server, false);
}

static void retry_fire(void *owner) {
    launches_retry_all(owner);
}

int pools_take_tmp(struct server *server, uint32_t size_mb) {
    struct pools *pools = &server->pools;
    struct tmp_pool *tmp = get_tmp(server, size_mb);

    if (tmp == NULL) {
        pools->crowded = true;
        return -EAGAIN;
    }
    if (tmp->n > 0) {
        if (pools->crowded) /* its place may be free now: whoever has none asks again, later in this turn */
            loop_timer(&server->loop, &pools->retry, 0, retry_fire, server);
        pools->crowded = tmp->awaited = false;
        pools_taken(server, tmp->n <= tmp->wanted / 2);
        return tmp->stock[--tmp->n];
    }
    if (pools->error != 0) {
        int error = pools->error; /* told once; the next launch tries again */
        pools->error = 0;
        return error;
    }
    tmp->awaited = true;
    if (tmp->asked == 0 && imager_request(&pools->imager, size_mb) == 0)
        tmp->asked++;
    pools_taken(server, true);
    return -EAGAIN;
}

int pools_take_spare_tmp(struct server *server, uint32_t size_mb) {
    struct pools *pools = &server->pools;
    struct tmp_pool *tmp = find_tmp(pools, size_mb);

    if (tmp == NULL) {
        pools_expect_tmp(server, size_mb);
        return -EAGAIN;
    }
    tmp->used_us = server->loop.now_us;
    pools_taken(server, false);
    if (tmp->n == 0)
        return pools->error != 0 ? pools->error : -EAGAIN;
    return tmp->stock[--tmp->n];
}

void pools_forget_waiting(struct server *server) {
    for (unsigned i = 0; i < POOL_SIZES; i++)
        server->pools.tmp[i].awaited = false;
}

void pools_give_back_tmp(struct server *server, uint32_t size_mb, int tree) {
    struct pools *pools = &server->pools;
    struct tmp_pool *tmp = find_tmp(pools, size_mb);

    if (tmp == NULL || tmp->n == POOL_STOCK || !tmp->known || server->phase == PHASE_STOPPING ||
        !image_face_same(tree, &tmp->face)) {
        imager_drop(&pools->imager, tree);
        return;
    }
    tmp->stock[tmp->n++] = tree;
    if (tmp->n > tmp->wanted) /* also when no shell came back with it, which would see to it */
        recycle_tick_soon(server);
    /* Later in this turn: whoever gives back may be walking over the environments, and a launch that is refused frees one. */
    if (server->launches.waiting > 0)
        loop_timer(&server->loop, &pools->retry, 0, retry_fire, server);
}

bool pools_shrink(struct server *server) {
    struct pools *pools = &server->pools;
    bool more = false;

    for (unsigned i = 0; i < POOL_SIZES; i++) {
        struct tmp_pool *tmp = &pools->tmp[i];
        if (tmp->size_mb == 0 || tmp->n <= tmp->wanted)
            continue;
        for (unsigned n = (tmp->n - tmp->wanted + SHRINK_SHARE - 1) / SHRINK_SHARE; n > 0; n--)
            imager_drop(&pools->imager, tmp->stock[--tmp->n]);
        more = more || tmp->n > tmp->wanted;
    }
    return more;
}

void pools_clear(struct server *server) {
    struct pools *pools = &server->pools;

    for (unsigned i = 0; i < POOL_SIZES; i++)
        while (pools->tmp[i].n > 0)
            imager_drop(&pools->imager, pools->tmp[i].stock[--pools->tmp[i].n]);
}

void pools_expect_tmp(struct server *server, uint32_t size_mb) {
    if (find_tmp(&server->pools, size_mb) != NULL)
        return;
    (void)get_tmp(server, size_mb);
    pools_taken(server, false);
}

static void imager_gone(void *owner, const char *name);

static int start_imager(struct server *server) {
    struct pools *pools = &server->pools;
    char directory[4096];

    pools->imager.side.gone = imager_gone;
    pools->imager.side.owner = server;
    pools->imager.made = image_made;
    pools->imager.owner = server;
    if ((size_t)snprintf(directory, sizeof(directory), "%s/tmp", server->boot.state_dir) >= sizeof(directory))
        return -ENAMETOOLONG;
    return imager_start(&pools->imager, &server->loop, &server->reaper, directory);
}

static void restart_fire(void *owner) {
    struct server *server = owner;

    if (server->phase == PHASE_STOPPING)
        return;
    int r = start_imager(server);
    if (r < 0) {
        say("cannot start the imager: %s", strerror(-r));
        side_restart(&server->pools.imager.side, restart_fire, server);
        return;
    }
    launches_retry_all(server); /* asks for what is waited for */
    pools_taken(server, true);
}

/* Images that exist stay: they are mounts, and files without a name. */
static void imager_gone(void *owner, const char *name) {
    struct server *server = owner;

    if (server->phase == PHASE_STOPPING)
        return;
    say("%s ended: it starts again", name);
    for (unsigned i = 0; i < POOL_SIZES; i++)
        server->pools.tmp[i].asked = 0;
    side_restart(&server->pools.imager.side, restart_fire, server);
}

int pools_start(struct server *server) {
    return start_imager(server);
}

void pools_stop(struct server *server) {
    struct pools *pools = &server->pools;
    loop_timer_off(&pools->refill);
    loop_timer_off(&pools->retry);
    for (unsigned i = 0; i < POOL_SIZES; i++)
        for (; pools->tmp[i].n > 0; pools->tmp[i].n--)
            close(pools->tmp[i].stock[pools->tmp[i].n - 1]);
    imager_stop(&pools->imager);
}
