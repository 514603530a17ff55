/* A zygote's shells: asked of its shellmaker, kept in stock with the sockets and pipes of the environment to come, taken
 * by launches. Declared in zygotes.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"

/* Shells asked for at a time. */
#define CELLS_ASKED_MAX 8u

static void anchor_exited(void *owner, int status) {
    struct cell *cell = owner;
    (void)status;

    if (cell->environment != NULL) {
        launches_anchor_gone(cell->environment);
        return;
    }
    recycle_forget(cell);
    if (cell->stocked) { /* died with nothing in it */
        list_remove(&cell->node);
        cell->zygote->n_cells--;
        pools_taken(cell->zygote->server, false);
    }
    cell_free(cell);
}

int cell_open_pipes(struct cell *cell) {
    int r = socketpair_seqpacket(cell->channel, 1);
    if (r < 0)
        return r;
    if (pipe2(cell->log, O_CLOEXEC) < 0)
        return -errno;
    return fd_set_nonblocking(cell->log[0], 1);
}

void cell_close_pipes(struct cell *cell) {
    for (unsigned i = 0; i < 2; i++) {
        cleanup_close(&cell->channel[i]);
        cleanup_close(&cell->log[i]);
    }
}

static struct cell *cell_new(struct zygote *zygote) {
    struct cell *cell = calloc(1, sizeof(*cell));
    if (cell == NULL)
        return NULL;
    cell->shell = (struct shell)SHELL_INIT;
    cell->channel[0] = cell->channel[1] = cell->log[0] = cell->log[1] = -1;
    cell->zygote = zygote;
    list_init(&cell->node);
    list_init(&cell->of_plan);
    return cell;
}

/* False: no more now. */
static bool receive_cell(struct zygote *zygote) {
    struct jail_error error = {0};
    struct cell *cell = cell_new(zygote);
    int status, r;

    if (cell == NULL)
        return false;
    r = shellmaker_receive(&zygote->maker, &cell->shell, &error);
    if (r < 0) {
        cell_free(cell);
        if (r == -EAGAIN)
            return false;
        zygote->asked_cells -= zygote->asked_cells > 0 ? 1 : 0;
        if (r == -EPIPE)
            zygote_kill(zygote);
        else
            say("cannot make a shell for %s: %s: %s", zygote->runtime->name, error.step, strerror(-r));
        return r != -EPIPE;
    }
    zygote->asked_cells -= zygote->asked_cells > 0 ? 1 : 0;
    if (reaper_claim_early(&zygote->server->reaper, cell->shell.anchor, &status)) {
        cell_free(cell);
        return true;
    }
    reaper_add(&zygote->server->reaper, &cell->anchor, cell->shell.anchor, anchor_exited, cell);
    if (zygote->state != ZYGOTE_READY || cell_open_pipes(cell) < 0) {
        cell_kill(cell);
        return true;
    }
    cell->stocked = true;
    list_push_back(&zygote->cells, &cell->node);
    zygote->n_cells++;
    return true;
}

void zygote_receive_cells(struct zygote *zygote) {
    const unsigned before = zygote->n_cells;
    if (zygote->maker_watch.fd < 0)
        return;
    while (receive_cell(zygote))
        ;
    if (zygote->n_cells == before)
        return;
    launches_retry(zygote->runtime);
    if (zygote->runtime->n_waiting > 0)
        zygote_refill(zygote);
    else if (zygote->n_cells + zygote->asked_cells < zygote->server->boot.shells)
        pools_taken(zygote->server, false);
}

void zygote_maker_ready(void *owner, uint32_t events) {
    struct zygote *zygote = owner;
    zygote_receive_cells(zygote);
    if ((events & EPOLLHUP) != 0)
        loop_unwatch(&zygote->server->loop, &zygote->maker_watch);
}

struct cell *zygote_take_cell(struct zygote *zygote, struct environment *environment) {
    struct plan *plan = environment->plan != NULL ? environment->plan : environment->bound;
    struct cell *cell = plan == NULL ? NULL : recycle_take(plan, zygote);
    if (cell == NULL) {
        cell = list_entry(list_pop_front(&zygote->cells), struct cell, node);
        zygote->n_cells--;
        cell->stocked = false;
        pools_taken(zygote->server, zygote->n_cells <= zygote->server->boot.shells / 4);
    }
    cell->environment = environment;
    return cell;
}

void cell_kill(struct cell *cell) {
    cell->stocked = false;
    cell->killed = true;
    if (cell->shell.anchor_pidfd >= 0)
        (void)pidfd_send_signal(cell->shell.anchor_pidfd, SIGKILL, NULL, 0);
}

void cell_free(struct cell *cell) {
    shell_close(&cell->shell);
    cell_close_pipes(cell);
    free(cell);
}

void zygote_refill(struct zygote *zygote) {
    const unsigned stock = zygote->n_cells + zygote->asked_cells, wanted = zygote->server->boot.shells;
    if (stock >= wanted || zygote->asked_cells >= CELLS_ASKED_MAX)
        return;
    uint32_t n = MIN(wanted - stock, CELLS_ASKED_MAX - zygote->asked_cells);
    if (shellmaker_request(&zygote->maker, n) == 0)
        zygote->asked_cells += n;
}
