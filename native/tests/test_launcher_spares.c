/* Spares that cannot be made, or end before anybody takes them: nothing of them is left, and how soon the next one is tried.
 * No image, shell or process is made: descriptors of plain files stand for them, and nobody reads the zygote's socket. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { SIZE_MB = 64 };

struct scene {
    struct server server;
    struct runtime runtime;
    struct plan plan;
    int zygote_end, imager_end; /* of their sockets */
};

static int file(void) {
    int fd = memfd_create("spares", MFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static struct cell *add_cell(struct zygote *zygote) {
    struct cell *cell = calloc(1, sizeof(*cell));

    CHECK(cell != NULL);
    cell->shell = (struct shell)SHELL_INIT;
    cell->shell.anchor_pidfd = file();
    cell->channel[0] = cell->channel[1] = cell->log[0] = cell->log[1] = -1;
    CHECK(socketpair_seqpacket(cell->channel, 1) == 0);
    cell->zygote = zygote;
    cell->stocked = true;
    list_init(&cell->of_plan);
    list_push_back(&zygote->cells, &cell->node);
    zygote->n_cells++;
    return cell;
}

/* A runtime of one zygote that could fork at once, with a shell and an image at hand. */
static struct scene *open_scene(void) {
    struct scene *scene = calloc(1, sizeof(*scene));
    CHECK(scene != NULL);
    struct server *server = &scene->server;
    struct zygote *zygote = &scene->runtime.zygotes[0];
    int pair[2];

    CHECK(loop_init(&server->loop) == 0 && launches_init(server) == 0 && plans_init(&server->plans) == 0);
    CHECK(recycle_init(server) == 0 && spares_init(server) == 0);
    server->boot.zygotes_per_runtime = 1;
    server->boot.spares = 2;
    server->boot.tmp_pool = 1;
    server->boot.disk_reserve_mb = 1;
    server->seats.seater.side.socket = -1;
    server->seats.n = LEAVES_STOCK; /* none are asked for */
    server->cgroups = (struct cgroup_tree){.version = 1};
    server->state_dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(server->state_dir >= 0);
    CHECK(socketpair_seqpacket(pair, 3) == 0);
    server->pools.imager.side.socket = pair[0];
    server->pools.imager.side.loop = &server->loop;
    server->pools.imager.side.watch.fd = -1;
    scene->imager_end = pair[1];
    server->zygotes.runtimes = &scene->runtime;
    server->zygotes.n = 1;
    scene->runtime.server = server;
    snprintf(scene->runtime.name, sizeof(scene->runtime.name), "python3.12");
    list_init(&scene->runtime.waiting);
    list_init(&scene->runtime.spares.ready);
    scene->runtime.spares.shape = (struct shape){.storage_mb = SIZE_MB, .pids = 8, .descriptors = 8};
    *zygote = (struct zygote){.server = server, .runtime = &scene->runtime, .state = ZYGOTE_READY, .seat = SEAT_TAKEN};
    zygote->next_uid = 1;
    list_init(&zygote->cells);
    leaf_init(&zygote->leaf);
    CHECK(socketpair_seqpacket(pair, 3) == 0);
    CHECK(link_open(&zygote->link, &server->loop, pair[0], 0) == 0);
    scene->zygote_end = pair[1];
    scene->plan = (struct plan){.runtime = &scene->runtime, .storage_mb = SIZE_MB, .pids = 8, .descriptors = 8};
    list_init(&scene->plan.cells);
    table_add(&server->plans.table, &scene->plan.node, 1);
    server->pools.tmp[0] = (struct tmp_pool){.size_mb = SIZE_MB, .wanted = 1};
    return scene;
}

static void put_image(struct scene *scene) {
    struct tmp_pool *tmp = &scene->server.pools.tmp[0];
    tmp->stock[tmp->n++] = file();
}

static void close_scene(struct scene *scene) {
    struct server *server = &scene->server;
    struct zygote *zygote = &scene->runtime.zygotes[0];

    server->phase = PHASE_STOPPING;
    list_for_each_safe(node, &server->launches.all) {
        struct environment *environment = list_entry(node, struct environment, all);
        struct cell *cell = environment->cell;
        environment_fail(environment, "end", -EIO);
        environment->phase = ENVIRONMENT_DYING;
        environment->cell = NULL;
        if (cell != NULL)
            cell_free(cell);
        environment_free(environment);
    }
    list_for_each_safe(node, &zygote->cells) {
        struct cell *cell = list_entry(node, struct cell, node);
        list_remove(&cell->node);
        cell_free(cell);
    }
    link_close(&zygote->link);
    free(zygote->link.buffer);
    pools_stop(server);
    close(scene->zygote_end);
    close(scene->imager_end);
    close(server->state_dir);
    close(server->recycle.own_ipc);
    close(server->spares.own_mounts);
    close(server->spares.own_root);
    table_free(&server->plans.table);
    table_free(&server->launches.table);
    table_free(&server->launches.serials);
    loop_free(&server->loop);
    free(scene);
}

/* ---- what is given back -------------------------------------------------------------------------------------------- */

static void test_one_that_finds_no_id_is_given_back(void) {
    struct scene *scene = open_scene();
    struct zygote *zygote = &scene->runtime.zygotes[0];

    put_image(scene);
    add_cell(zygote);
    memset(zygote->uids, 0xff, sizeof(zygote->uids));
    CHECK(!spare_make(&scene->runtime));
    CHECK(scene->server.launches.count == 0 && scene->server.launches.serials.count == 0);
    CHECK(scene->server.spares.making == NULL && scene->server.spares.n == 0 && scene->runtime.spares.n == 0);
    CHECK(zygote->n_cells == 1 && zygote->seat == SEAT_TAKEN);
    close_scene(scene);
}

int main(void) {
    test_one_that_finds_no_id_is_given_back();
    return 0;
}
