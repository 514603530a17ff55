/* What a sandbox is made of, and FORK; see the header. */
#include "forking.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/image.h"
#include "jail/root.h"
#include "launcher.h"

void takings_done(struct takings *t) {
    cleanup_close(&t->tmp);
    cleanup_close(&t->task);
    cleanup_close(&t->opt);
}

struct shape shape_of(const struct plan *plan) {
    return (struct shape){
        .storage_mb = plan->storage_mb, .pids = plan->pids, .descriptors = plan->descriptors, .limits = plan->limits};
}

int forking_open_code(struct server *server, const struct plan *plan, struct takings *t) {
    int r = root_clone_tree(server->state_dir, plan->package, &t->task);
    if (r == 0 && plan->layer[0] != '\0')
        r = root_clone_tree(server->state_dir, plan->layer, &t->opt);
    return r;
}

static int send_fork(struct environment *environment, const struct shape *shape, const struct takings *t) {
    struct zygote *zygote = environment->zygote;
    struct wire_header header = HEADER(environment->serial.key);
    struct wire_fork fork = {
        .descriptors = WIRE_FORK_ANCHOR | WIRE_FORK_CHANNEL | WIRE_FORK_LOG | WIRE_FORK_TMP,
        .uid = environment->uid,
        .gid = environment->uid,
        .nofile = shape->descriptors,
        .nproc = shape->pids,
    };
    int directory = cgroup_directory(&environment->server->cgroups, &environment->leaf.cgroup);
    const struct cell *cell = environment->cell;
    int fds[DESCRIPTORS_MAX] = {cell->shell.anchor_pidfd, cell->channel[1], cell->log[1], t->tmp};
    unsigned n = 4;
    int snapshot = -1;

    if (t->task >= 0) {
        fork.descriptors |= WIRE_FORK_TASK;
        fds[n++] = t->task;
    }
    if (t->opt >= 0) {
        fork.descriptors |= WIRE_FORK_OPT;
        fds[n++] = t->opt;
    }
    if (directory >= 0) {
        fork.descriptors |= WIRE_FORK_CGROUP;
        fds[n++] = directory;
    }
    if (environment->plan != NULL)
        fork.snapshot = snapshot_launch(&environment->plan->snapshot, environment, &snapshot);
    else
        header.flags |= WIRE_HEADER_AHEAD;
    if (snapshot >= 0) {
        fork.descriptors |= WIRE_FORK_SNAPSHOT;
        fds[n++] = snapshot;
    }
    LINK_SEND(&zygote->link, header, fork, fork, fds, n);
    if (fork.snapshot == WIRE_FORK_SNAPSHOT_TAKE)
        cleanup_close(&snapshot);
    return zygote->link.error;
}

/* The environment gets a second mount of the image, ours stays: what it leaves clean is used again. A kernel before 6.15
 * does not copy a mount that is nowhere; there the image itself goes, and ends with the environment. */
static int give_tmp(struct environment *environment, uint32_t size_mb, struct takings *t) {
    const uid_t id = environment->zygote->uid_base + environment->uid;
    int r = image_give(&(struct image){.tree = t->tmp}, id, id);
    if (r < 0)
        return r;
    int copy = (int)syscall(SYS_open_tree, t->tmp, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (copy < 0)
        return 0;
    environment->tmp = t->tmp;
    environment->tmp_mb = size_mb;
    t->tmp = copy;
    return 0;
}

int forking_prepare(struct environment *environment, const struct shape *shape, struct takings *t) {
    environment->zygote = t->zygote;
    environment->incarnation = t->zygote->incarnation;
    environment->uid = zygote_take_uid(t->zygote);
    return environment->uid == 0 ? -EAGAIN : give_tmp(environment, shape->storage_mb, t);
}

void forking_begin(struct environment *environment, const struct shape *shape, const struct takings *t) {
    struct server *server = environment->server;
    struct zygote *zygote = environment->zygote;
    int r;

    environment->phase = ENVIRONMENT_FORKING;
    environment->cell = zygote_take_cell(zygote, environment);
    environment->leaf = zygote->leaf;
    leaf_init(&zygote->leaf);
    zygote->seat = server->cgroups.version == 2 ? SEAT_NONE : SEAT_FORKING;
    zygote->runtime->turn = zygote->index + 1;
    zygote->runtime->limits = shape->limits;
    r = send_fork(environment, shape, t);
    if (r < 0)
        environment_fail(environment, "zygote", r);
    else if ((r = leaf_set_limits(server, &environment->leaf, &shape->limits)) < 0)
        environment_fail(environment, "limits", r);
}

void forking_send_launched(struct environment *environment) {
    struct leaf *leaf = &environment->leaf;
    struct wire_launched message = {
        .descriptors = WIRE_LAUNCHED_CHANNEL | WIRE_LAUNCHED_LOG,
        .uid = environment->zygote->uid_base + environment->uid,
        .restored = environment->restored,
    };
    struct cell *cell = environment->cell;
    int fds[DESCRIPTORS_MAX] = {cell->channel[0], cell->log[0]};
    unsigned n = 2;

    if (leaf->freeze >= 0) {
        message.descriptors |= WIRE_LAUNCHED_FREEZE;
        fds[n++] = leaf->freeze;
    }
    if (leaf->peak >= 0) {
        message.descriptors |= WIRE_LAUNCHED_PEAK;
        fds[n++] = leaf->peak;
    }
    message.descriptors |= WIRE_LAUNCHED_LISTENER;
    fds[n++] = cell->shell.listener;
    environment_remember(environment, message.descriptors, fds);
    LINK_SEND(&environment->owner->link, HEADER(environment->id), launched, message, fds, n);
    cleanup_close(&leaf->freeze);
    cleanup_close(&leaf->peak);
    cell_close_pipes(cell);
}
