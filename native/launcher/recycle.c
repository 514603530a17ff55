/* Using again what environments leave clean; see the header. */
#include "recycle.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"

#define TICK_US 1000000

static void tick(void *owner);

int recycle_init(struct server *server) {
    list_init(&server->recycle.cells);
    server->recycle.own_ipc = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
    return server->recycle.own_ipc < 0 ? -errno : 0;
}

/* ---- what must hold of a shell ----------------------------------------------------------------------------------- */

/* Nothing may be left in the environment's cgroup but the zygote, when it was not moved on yet. The kernel wrote this
 * file, not the function. */
static bool nobody_is_left(const struct environment *environment) {
    const struct server *server = environment->server;
    const struct zygote *zygote = environment->zygote;
    const pid_t zygote_pid = zygote->incarnation == environment->incarnation ? zygote->child.pid : 0;
    char text[256];

    for (unsigned i = 0; i < server->cgroups.n; i++) {
        if ((server->cgroups.hierarchies[i].controllers & CGROUP_PIDS) == 0)
            continue;
        if (read_file_at(environment->leaf.cgroup.fds[i], "cgroup.procs", text, sizeof(text)) < 0)
            return false;
        for (char *at = text; *at != '\0';) {
            char *end;
            long pid = strtol(at, &end, 10);
            if (end == at || pid != zygote_pid || pid == 0)
                return false;
            at = end + (*end == '\n');
        }
        return true;
    }
    return false;
}

/* POSIX message queues cannot be made: main.c limits them to none. */
static bool no_system_v(void) {
    struct shm_info segments;
    struct seminfo semaphores;
    struct msginfo queues;

    return shmctl(0, SHM_INFO, (struct shmid_ds *)&segments) >= 0 && segments.used_ids == 0 &&
        semctl(0, 0, SEM_INFO, &semaphores) >= 0 && semaphores.semusz == 0 &&
        msgctl(0, MSG_INFO, (struct msqid_ds *)&queues) >= 0 && queues.msgpool == 0;
}

static bool no_ipc(const struct server *server, const struct cell *cell) {
    if (setns(cell->shell.anchor_pidfd, CLONE_NEWIPC) < 0)
        return false;
    const bool clean = no_system_v();
    if (setns(server->recycle.own_ipc, CLONE_NEWIPC) < 0) {
        say("cannot return to the own ipc namespace: %s", strerror(errno));
        abort(); /* everything ends with us and is started anew */
    }
    return clean;
}

/* Connections that nobody accepted would be the next environment's. */
static bool close_connections(int listener) {
    if (fd_set_nonblocking(listener, 1) < 0)
        return false;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return errno == EAGAIN;
        close(fd);
    }
}

/* ---- the stock --------------------------------------------------------------------------------------------------- */

void recycle_forget(struct cell *cell) {
    struct recycle *recycle = &cell->zygote->server->recycle;
    if (cell->plan == NULL)
        return;
    list_remove(&cell->node);
    list_remove(&cell->of_plan);
    cell->plan = NULL;
    recycle->n--;
}

static void drop(struct cell *cell) {
    recycle_forget(cell);
    cell_kill(cell);
}

void recycle_tick_soon(struct server *server) {
    if (!loop_timer_on(&server->recycle.tick))
        loop_timer(&server->loop, &server->recycle.tick, TICK_US, tick, server);
}

bool recycle_cell(struct environment *environment) {
    struct server *server = environment->server;
    struct recycle *recycle = &server->recycle;
    struct cell *cell = environment->cell;
    struct plan *plan = environment->plan;

    if (cell == NULL || cell->killed || cell->anchor.pid == 0 || plan == NULL || plan->retired || environment->last ||
        server->phase == PHASE_STOPPING || environment->zygote->state != ZYGOTE_READY ||
        environment->incarnation != environment->zygote->incarnation)
        return false;
    if (!nobody_is_left(environment) || !no_ipc(server, cell) || !close_connections(cell->shell.listener) ||
        cell_open_pipes(cell) < 0)
        return false;
    if (recycle->n >= RECYCLED_CELLS_MAX)
        drop(list_entry(recycle->cells.next, struct cell, node));
    environment->cell = NULL;
    cell->environment = NULL;
    cell->plan = plan;
    cell->left_us = server->loop.now_us;
    list_push_back(&recycle->cells, &cell->node);
    list_push_front(&plan->cells, &cell->of_plan);
    recycle->n++;
    recycle_tick_soon(server);
    return true;
}

struct cell *recycle_take(struct plan *plan, const struct zygote *zygote) {
    list_for_each(node, &plan->cells) {
        struct cell *cell = list_entry(node, struct cell, of_plan);
        if (cell->zygote != zygote)
            continue;
        recycle_forget(cell);
        return cell;
    }
    return NULL;
}

bool recycle_has(const struct plan *plan, const struct zygote *zygote) {
    list_for_each(node, &plan->cells) if (list_entry(node, struct cell, of_plan)->zygote == zygote) return true;
    return false;
}

void recycle_drop(struct server *server, const struct plan *plan, const struct zygote *zygote) {
    list_for_each_safe(node, &server->recycle.cells) {
        struct cell *cell = list_entry(node, struct cell, node);
        if ((plan == NULL || cell->plan == plan) && (zygote == NULL || cell->zygote == zygote))
            drop(cell);
    }
}

static void tick(void *owner) {
    struct server *server = owner;
    struct recycle *recycle = &server->recycle;

    list_for_each_safe(node, &recycle->cells) {
        struct cell *cell = list_entry(node, struct cell, node);
        if (server->loop.now_us - cell->left_us < RECYCLED_CELL_US)
            break;
        drop(cell);
    }
    const bool images = pools_shrink(server);
    if (recycle->n > 0 || images)
        loop_timer(&server->loop, &recycle->tick, TICK_US, tick, server);
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

int image_face_read(int tree, struct image_face *ret) {
    struct statfs fs;
    int flags = 0;
    _cleanup_close_ int root = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root < 0 || fstatfs(root, &fs) < 0 || ioctl(root, FS_IOC_GETFLAGS, &flags) < 0)
        return -errno;
    if (flistxattr(root, NULL, 0) != 0)
        return -ENOTEMPTY;
    *ret = (struct image_face){.free_blocks = fs.f_bfree, .free_files = fs.f_ffree, .flags = (uint32_t)flags};
    return 0;
}

/* KiB written to the device below the image since it was mounted; UINT64_MAX where that cannot be told. The file behind it
 * has grown by no more than that, and keeps what it has grown by however empty the file system is again. */
static uint64_t written_kib(int tree) {
    char path[128], device[256], text[32];
    struct stat st;
    ssize_t n;

    if (fstat(tree, &st) < 0)
        return UINT64_MAX;
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
    n = readlink(path, device, sizeof(device) - 1);
    if (n < 0)
        return UINT64_MAX;
    device[n] = '\0';
    const char *name = strrchr(device, '/');
    if (name == NULL ||
        (size_t)snprintf(path, sizeof(path), "/sys/fs/ext4%s/session_write_kbytes", name) >= sizeof(path) ||
        read_file_at(AT_FDCWD, path, text, sizeof(text)) <= 0)
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

bool image_face_same(int tree, const struct image_face *face) {
    struct image_face now;
    return image_face_read(tree, &now) == 0 && now.free_blocks == face->free_blocks &&
        now.free_files == face->free_files && now.flags == face->flags && written_kib(tree) <= IMAGE_WRITTEN_KIB;
}
