/* Images for /tmp: what comes back, what is kept of it, and who is looked at then. On real images: needs root. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jail/image.h"
#include "launcher.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { SKIPPED = 77, SIZE_MB = 64 };

struct scene {
    struct server server;
    struct runtime runtime;
    struct plan plan;
    struct image_pool images;
    struct timer end;
};

static void end(void *owner) {
    struct scene *scene = owner;
    scene->server.loop.stop = true;
}

static void nothing(void *owner) {
    (void)owner;
}

/* What is due, in one turn of the loop. */
static void turn(struct scene *scene) {
    scene->server.loop.stop = false;
    loop_timer(&scene->server.loop, &scene->end, 0, end, scene);
    CHECK(loop_run(&scene->server.loop, nothing, NULL) == 0);
}

/* A runtime whose only zygote could fork at once. */
static struct scene *open_scene(const char *state) {
    struct scene *scene = calloc(1, sizeof(*scene));
    CHECK(scene != NULL);
    struct server *server = &scene->server;

    CHECK(loop_init(&server->loop) == 0 && launches_init(server) == 0);
    server->boot.zygotes_per_runtime = 1;
    server->pools.imager.side.socket = -1;
    server->pools.imager.side.loop = &server->loop;
    server->zygotes.runtimes = &scene->runtime;
    server->zygotes.n = 1;
    scene->runtime.server = server;
    list_init(&scene->runtime.waiting);
    list_init(&scene->runtime.spares.ready);
    scene->runtime.zygotes[0] = (struct zygote){
        .server = server, .runtime = &scene->runtime, .state = ZYGOTE_READY, .seat = SEAT_TAKEN, .n_cells = 1};
    scene->plan = (struct plan){.runtime = &scene->runtime, .storage_mb = SIZE_MB, .package = "absent"};
    scene->plan.environments = 1;
    list_init(&scene->plan.cells);
    snapshot_init(&scene->plan.snapshot, server, &scene->plan);
    server->state_dir = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(server->state_dir >= 0 && image_pool_open(state, &scene->images) == 0);
    return scene;
}

static void close_scene(struct scene *scene) {
    struct server *server = &scene->server;

    pools_stop(&scene->server);
    image_pool_close(&scene->images);
    close(server->state_dir);
    table_free(&server->launches.table);
    table_free(&server->launches.serials);
    loop_free(&server->loop);
    free(scene);
}

static struct environment *add_environment(struct scene *scene, uint64_t id) {
    struct server *server = &scene->server;
    struct environment *environment = calloc(1, sizeof(*environment));

    CHECK(environment != NULL);
    environment->server = server;
    environment->told = true; /* there is nobody to tell */
    environment->tmp = -1;
    environment->phase = ENVIRONMENT_DYING;
    leaf_init(&environment->leaf);
    list_push_back(&server->launches.all, &environment->all);
    server->launches.count++;
    table_add(&server->launches.table, &environment->node, id);
    table_add(&server->launches.serials, &environment->serial, id);
    return environment;
}

static int make_image(struct scene *scene) {
    struct tmp_pool *tmp = &scene->server.pools.tmp[0];
    struct image image;

    CHECK(image_make(&scene->images, SIZE_MB, 0, 0, &image) == 0);
    tmp->size_mb = SIZE_MB;
    tmp->known = image_face_read(image.tree, &tmp->face) == 0;
    CHECK(tmp->known);
    return image.tree;
}

/* While one environment is freed no other may be: whoever frees may hold the next one in hand. */
static void test_who_waits_is_looked_at_later(const char *state) {
    struct scene *scene = open_scene(state);
    struct server *server = &scene->server;
    struct environment *ends = add_environment(scene, 1), *waits = add_environment(scene, 2);

    ends->tmp = make_image(scene);
    ends->tmp_mb = SIZE_MB;
    waits->phase = ENVIRONMENT_WAITING;
    waits->plan = &scene->plan;
    list_push_back(&scene->runtime.waiting, &waits->queue);
    scene->runtime.n_waiting = server->launches.waiting = 1;
    environment_free(ends);
    CHECK(server->launches.count == 1 && server->launches.waiting == 1 && server->pools.tmp[0].n == 1);
    turn(scene); /* its package is absent: it is refused */
    CHECK(server->launches.count == 0 && server->launches.waiting == 0);
    close_scene(scene);
}

/* An environment that waits, of a plan that asks for so much of /tmp. */
static void add_waiting(struct scene *scene, struct plan *plan, uint64_t id) {
    struct environment *environment = add_environment(scene, id);

    environment->phase = ENVIRONMENT_WAITING;
    environment->plan = plan;
    plan->environments++;
    list_push_back(&scene->runtime.waiting, &environment->queue);
    scene->runtime.n_waiting++;
    scene->server.launches.waiting++;
}

/* Many wait for images of sizes that there are none of, more sizes than there are places for: who needs another one, or none
 * of them, does not wait for that; and each size is asked for when there is a place for it. */
static void test_nobody_waits_for_the_sizes_of_others(const char *state) {
    enum { PLANS = POOL_SIZES + 4, EACH = 40 };
    struct scene *scene = open_scene(state);
    struct server *server = &scene->server;
    struct plan plans[PLANS];
    uint64_t id = 0;
    int pair[2];

    CHECK(socketpair_seqpacket(pair, 3) == 0);
    server->pools.imager.side.socket = pair[0];
    const int image = make_image(scene);
    server->pools.tmp[0].awaited = true; /* its place stays */
    for (unsigned i = 0; i < PLANS; i++) {
        plans[i] = scene->plan;
        plans[i].storage_mb = 1024 + i;
        plans[i].environments = 0;
        list_init(&plans[i].cells);
        snapshot_init(&plans[i].snapshot, server, &plans[i]);
        for (unsigned k = 0; k < EACH; k++)
            add_waiting(scene, &plans[i], ++id);
    }
    launches_retry_all(server);
    CHECK(server->launches.waiting == PLANS * EACH);
    unsigned asked = 0;
    for (unsigned i = 0; i < POOL_SIZES; i++)
        asked += server->pools.tmp[i].asked;
    CHECK(asked == POOL_SIZES - 1 && server->pools.crowded); /* one for each size that has a place */
    launches_retry_all(server);
    for (unsigned i = 0; i < POOL_SIZES; i++)
        CHECK(server->pools.tmp[i].asked <= 1);

    server->pools.tmp[0].stock[server->pools.tmp[0].n++] = image;
    add_waiting(scene, &scene->plan, ++id); /* behind them all; its package is absent: looked at means refused */
    launches_retry_all(server);
    CHECK(server->launches.waiting == PLANS * EACH);

    server->pools.tmp[0].awaited = false;
    pools_clear(server);
    launches_retry_all(server); /* a place is free: the next size is asked for */
    CHECK(server->pools.tmp[0].size_mb == 1024 + POOL_SIZES - 1 && server->pools.tmp[0].asked == 1);
    list_for_each_safe(node, &scene->runtime.waiting) environment_free(list_entry(node, struct environment, queue));
    close(pair[1]);
    close_scene(scene);
}

static int open_root(int tree) {
    int root = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(root >= 0);
    return root;
}

static void write_and_remove(int tree, const char *name, size_t size, bool synchronise) {
    static char data[65536];
    int root = open_root(tree), fd = openat(root, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    CHECK(fd >= 0);
    for (size_t done = 0; done < size; done += sizeof(data))
        CHECK(write(fd, data, sizeof(data)) == (ssize_t)sizeof(data));
    CHECK(!synchronise || fsync(fd) == 0);
    CHECK(close(fd) == 0 && unlinkat(root, name, 0) == 0 && close(root) == 0);
}

/* The file behind an image keeps the disk's blocks that were ever written. */
static void test_what_was_written_to_is_not_used_again(const char *state) {
    struct scene *scene = open_scene(state);
    struct tmp_pool *tmp = &scene->server.pools.tmp[0];
    struct image_face now;
    int little = make_image(scene), much = make_image(scene);

    write_and_remove(little, "x", 65536, true);
    CHECK(image_face_same(little, &tmp->face));
    write_and_remove(much, "x", 8 << 20, true);
    CHECK(image_face_read(much, &now) == 0 && now.free_blocks == tmp->face.free_blocks &&
        now.free_files == tmp->face.free_files && now.flags == tmp->face.flags); /* it looks untouched */
    CHECK(!image_face_same(much, &tmp->face));
    CHECK(close(little) == 0 && close(much) == 0);
    close_scene(scene);
}

/* Much in it: it is not written back, the file system is shut down as it is. Little: as ever. */
static void test_what_is_left_is_not_written_back(const char *state) {
    static char data[1 << 20];
    struct scene *scene = open_scene(state);
    struct image images[2] = {{.tree = make_image(scene)}, {.tree = make_image(scene)}};

    for (unsigned i = 0; i < 2; i++) {
        int root = open_root(images[i].tree), fd = openat(root, "x", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        for (size_t size = 0; size < (i == 0 ? 2 : 24); size++)
            CHECK(write(fd, data, sizeof(data)) == (ssize_t)sizeof(data));
        CHECK(close(fd) == 0);
        image_discard(&images[i]);
        CHECK(images[i].tree < 0);
        fd = openat(root, "y", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (i == 0)
            CHECK(fd >= 0 && close(fd) == 0);
        else
            CHECK(fd < 0 && (errno == EIO || errno == ESHUTDOWN));
        CHECK(close(root) == 0);
    }
    close_scene(scene);
}

/* The last close unmounts: it is never ours, also while there is no imager or its socket is full. */
static void test_who_serves_does_not_unmount(const char *state) {
    struct scene *scene = open_scene(state);
    struct imager *imager = &scene->server.pools.imager;
    const int tree = make_image(scene);
    uint8_t buffer[SIDE_MESSAGE_MAX];
    struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
    int pair[2];

    imager_drop(imager, tree);
    CHECK(imager->n_left == 1 && fcntl(tree, F_GETFD) >= 0);
    turn(scene);
    CHECK(imager->n_left == 1 && fcntl(tree, F_GETFD) >= 0);
    CHECK(socketpair_seqpacket(pair, 1) == 0);
    imager->side.socket = pair[0];
    while (imager->n_left > 0)
        turn(scene);
    CHECK(fcntl(tree, F_GETFD) < 0);
    CHECK(packet_receive(pair[1], &packet, 0) > 0 && packet.n_fds == 1);
    packet_close_fds(&packet);
    CHECK(close(pair[1]) == 0);
    close_scene(scene);
}

int main(void) {
    char state[] = "/var/tmp/test_launcher_stock.XXXXXX";
    if (geteuid() != 0)
        return SKIPPED;
    CHECK(mkdtemp(state) != NULL);
    test_who_waits_is_looked_at_later(state);
    test_nobody_waits_for_the_sizes_of_others(state);
    test_what_was_written_to_is_not_used_again(state);
    test_what_is_left_is_not_written_back(state);
    test_who_serves_does_not_unmount(state);
    CHECK(rmdir(state) == 0);
    return 0;
}
