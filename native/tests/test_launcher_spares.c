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
#include "jail/image.h"
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
    uint64_t due_us;
};

/* /proc/meminfo; nothing else is read here. */
int __wrap_read_file_at(int directory, const char *path, char *buffer, size_t size);
int __wrap_read_file_at(int directory, const char *path, char *buffer, size_t size) {
    (void)directory;
    CHECK(strcmp(path, "/proc/meminfo") == 0);
    return snprintf(buffer, size, "MemTotal: 100 kB\nMemFree: 50 kB\nMemAvailable: 50 kB\n");
}

int __wrap_image_give(const struct image *image, uid_t uid, gid_t gid);
int __wrap_image_give(const struct image *image, uid_t uid, gid_t gid) {
    CHECK(fcntl(image->tree, F_GETFD) >= 0 && uid == gid);
    return 0;
}

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
    CHECK(socketpair_seqpacket(cell->channel, 1) == 0 && pipe2(cell->log, O_CLOEXEC) == 0);
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

/* ---- how soon the next one is tried --------------------------------------------------------------------------------- */

static void end_when_looked(void *owner) {
    struct scene *scene = owner;
    scene->server.loop.stop = scene->server.spares.refill.due_us != scene->due_us;
}

/* Until it was looked whether a spare is to be made. */
static void await_look(struct scene *scene) {
    CHECK(loop_timer_on(&scene->server.spares.refill));
    scene->due_us = scene->server.spares.refill.due_us;
    scene->server.loop.stop = false;
    CHECK(loop_run(&scene->server.loop, end_when_looked, scene) == 0);
}

static struct environment *launch_and_look(struct scene *scene) {
    spares_launched(&scene->plan);
    await_look(scene);
    return scene->server.spares.making;
}

/* As if it had answered. */
static struct environment *make_ready(struct scene *scene) {
    struct environment *spare = launch_and_look(scene);
    CHECK(spare != NULL && spare->spare == SPARE_MAKING);
    scene->server.spares.making = NULL;
    loop_unwatch(&scene->server.loop, &scene->server.spares.watch);
    loop_timer_off(&scene->server.spares.limit);
    spare->spare = SPARE_READY;
    list_push_back(&scene->runtime.spares.ready, &spare->queue);
    return spare;
}

static void add_stock(struct scene *scene) {
    put_image(scene);
    add_cell(&scene->runtime.zygotes[0]);
    scene->runtime.zygotes[0].seat = SEAT_TAKEN;
}

/* One that failed, or ended when it was ready: no launch shortens the pause, and nothing but a spare's use ends the row. */
static void test_launches_do_not_shorten_the_pause(void) {
    struct scene *scene = open_scene();
    struct spare_stock *stock = &scene->runtime.spares;
    const uint64_t *now_us = &scene->server.loop.now_us;

    add_stock(scene);
    struct environment *spare = launch_and_look(scene);
    CHECK(spare != NULL);
    environment_fail(spare, "planted", -EIO);
    spare->child_gone = true; /* the zygote told of it */
    CHECK(stock->failures == 1 && stock->failed == 1 && stock->not_before_us > *now_us);
    const uint64_t first = stock->not_before_us - *now_us;

    stock->not_before_us = UINT64_MAX;
    add_stock(scene);
    for (unsigned i = 0; i < 3; i++)
        CHECK(launch_and_look(scene) == NULL);
    CHECK(stock->n == 0);

    stock->not_before_us = 0;
    spare = make_ready(scene);
    CHECK(stock->failures == 1 && stock->n == 1);
    spares_forget(spare); /* it was killed */
    CHECK(stock->n == 0 && stock->failures == 2 && stock->failed == 2);
    CHECK(stock->not_before_us - *now_us == 2 * first);
    stock->not_before_us = UINT64_MAX;
    add_stock(scene);
    CHECK(launch_and_look(scene) == NULL);
    close_scene(scene);
}

/* ---- what is not at hand -------------------------------------------------------------------------------------------- */

/* The last look found nothing to do: the next one is no sooner than ever. */
static bool looks_seldom(const struct scene *scene) {
    return scene->server.spares.refill.due_us >= scene->server.loop.now_us + 1000000;
}

/* Nobody waits for a spare: it takes what is there, and stock is filled as after a launch. */
static void test_only_what_is_in_stock_is_taken(void) {
    struct scene *scene = open_scene();
    struct tmp_pool *tmp = &scene->server.pools.tmp[0];

    add_cell(&scene->runtime.zygotes[0]);
    CHECK(!spare_make(&scene->runtime));
    CHECK(tmp->asked == 0 && !tmp->awaited && !scene->server.pools.crowded);
    CHECK(loop_timer_on(&scene->server.pools.refill));
    CHECK(scene->runtime.spares.failures == 0);
    put_image(scene);
    CHECK(spare_make(&scene->runtime) && tmp->n == 0);
    close_scene(scene);
}

/* It is the next launch that is told; spares pause for longer each time. */
static void test_no_images_can_be_made(void) {
    struct scene *scene = open_scene();
    struct spare_stock *stock = &scene->runtime.spares;

    add_cell(&scene->runtime.zygotes[0]);
    for (unsigned i = 1; i <= 3; i++) {
        stock->not_before_us = 0;
        scene->server.pools.error = -ENOSPC;
        CHECK(launch_and_look(scene) == NULL && stock->failures == i);
        CHECK(stock->not_before_us > scene->server.loop.now_us && scene->server.pools.error == -ENOSPC);
    }
    close_scene(scene);
}

static void test_nothing_is_begun_while_the_disk_is_short(void) {
    struct scene *scene = open_scene();

    add_stock(scene);
    scene->server.boot.disk_reserve_mb = UINT32_MAX;
    CHECK(launch_and_look(scene) == NULL && looks_seldom(scene));
    CHECK(scene->server.pools.tmp[0].n == 1 && scene->runtime.spares.failures == 0);
    scene->server.boot.disk_reserve_mb = 1;
    CHECK(launch_and_look(scene) != NULL);
    close_scene(scene);
}

static void test_nothing_is_begun_without_a_zygote(void) {
    struct scene *scene = open_scene();

    add_stock(scene);
    scene->runtime.zygotes[0].state = ZYGOTE_STARTING;
    CHECK(launch_and_look(scene) == NULL && looks_seldom(scene));
    scene->runtime.zygotes[0].state = ZYGOTE_READY;
    CHECK(launch_and_look(scene) != NULL);
    close_scene(scene);
}

/* One that hangs has one unfinished spare, however long. */
static void test_a_zygote_that_owes_a_process_is_asked_for_no_other(void) {
    struct scene *scene = open_scene();
    struct timer *limit = &scene->server.spares.limit;

    add_stock(scene);
    struct environment *spare = launch_and_look(scene);
    CHECK(spare != NULL && loop_timer_on(limit));
    limit->fire(limit->owner);
    CHECK(scene->server.spares.making == NULL && scene->server.launches.count == 1);
    scene->runtime.spares.not_before_us = 0;
    add_stock(scene);
    CHECK(launch_and_look(scene) == NULL && looks_seldom(scene));
    CHECK(!spare_make(&scene->runtime) && scene->server.launches.count == 1);
    spare->child_gone = true; /* it answers, late */
    CHECK(launch_and_look(scene) != NULL);
    close_scene(scene);
}

int main(void) {
    test_one_that_finds_no_id_is_given_back();
    test_launches_do_not_shorten_the_pause();
    test_only_what_is_in_stock_is_taken();
    test_no_images_can_be_made();
    test_nothing_is_begun_while_the_disk_is_short();
    test_nothing_is_begun_without_a_zygote();
    test_a_zygote_that_owes_a_process_is_asked_for_no_other();
    return 0;
}
