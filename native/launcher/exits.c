/* Environments: what zygotes tell of them, and their end. Order of an end: the process or its anchor is reaped; the
 * anchor is killed (on v1 a frozen process dies only when thawed, so kill, then thaw); the cgroup is read; EXITED is
 * sent; when both are reaped nothing can run in the shell any more, and cgroup, id and grant are given back. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"
#include "zygote/serve.h"

void environment_kill(struct environment *environment) {
    struct server *server = environment->server;

    spares_forget(environment);
    environment->killed = true;
    if (environment->cell == NULL)
        return;
    /* The process alone, when it is known: the shell may be used again if nothing else runs in it. Only we reap it, so
     * its number is its own. */
    if (environment->phase == ENVIRONMENT_RUNNING && environment->child.pid != 0)
        (void)kill(environment->child.pid, SIGKILL);
    else
        cell_kill(environment->cell);
    if (environment->phase != ENVIRONMENT_FORKING)
        (void)cgroup_freeze(&server->cgroups, &environment->leaf.cgroup, false);
}

void environment_fail(struct environment *environment, const char *step, int error) {
    if (environment->error.error == 0)
        (void)jail_fail(&environment->error, step, error);
    environment_kill(environment);
}

static void tell_exited(struct environment *environment) {
    struct server *server = environment->server;
    uint64_t kills = 0, peak_kb = 0;

    if (leaf_is_there(&environment->leaf)) {
        (void)cgroup_oom_kills(&server->cgroups, &environment->leaf.cgroup, &kills);
        (void)cgroup_peak_kb(&server->cgroups, &environment->leaf.cgroup, &peak_kb);
    }
    struct wire_exited message = {
        .status = (uint32_t)environment->status,
        .oom = kills > 0 && !environment->killed && WIFSIGNALED(environment->status) &&
            WTERMSIG(environment->status) == SIGKILL,
        .peak_kb = peak_kb,
        .step = link_text(environment->error.step),
        .error = (uint32_t)environment->error.error,
    };
    LINK_SEND(&environment->owner->link, HEADER(environment->id), exited, message, NULL, 0);
}

static void tell_once(struct environment *environment) {
    if (environment->told)
        return;
    tell_exited(environment);
    environment->told = true;
}

/* Nothing of it runs any more: gives everything back. */
static void finish(struct environment *environment) {
    if (!environment->child_gone || environment->cell != NULL)
        return;
    leaf_drop(environment->server, &environment->leaf);
    environment_free(environment);
}

/* On its way to being an environment it sees the zygote's socket end, and can tell nobody. */
static bool died_with_its_zygote(const struct environment *environment, int status) {
    const struct zygote *zygote = environment->zygote;
    return WIFEXITED(status) && WEXITSTATUS(status) == SERVE_EXIT_JAIL && environment->error.error == 0 &&
        (zygote->incarnation != environment->incarnation || zygote->state == ZYGOTE_ABSENT);
}

static void child_exited(void *owner, int status) {
    struct environment *environment = owner;

    if (died_with_its_zygote(environment, status))
        (void)jail_fail(&environment->error, "zygote", EPIPE);
    spares_forget(environment);
    environment->status = status;
    environment->child_gone = true;
    environment->phase = ENVIRONMENT_DYING;
    tell_once(environment);
    if (environment->cell != NULL && !recycle_cell(environment)) {
        cell_kill(environment->cell);
        (void)cgroup_freeze(&environment->server->cgroups, &environment->leaf.cgroup, false);
    }
    environment_release(environment);
    finish(environment);
}

void launches_anchor_gone(struct environment *environment) {
    struct cell *cell = environment->cell;

    spares_forget(environment);
    environment->phase = ENVIRONMENT_DYING; /* the kernel has killed what was in the shell */
    environment->cell = NULL;
    cell_free(cell);
    (void)cgroup_freeze(&environment->server->cgroups, &environment->leaf.cgroup, false);
    finish(environment);
}

/* There is no process and there will be none. */
static void never_born(struct environment *environment) {
    if (environment->cell != NULL)
        cell_kill(environment->cell);
    environment->status = SIGKILL;
    environment->child_gone = true;
    environment->phase = ENVIRONMENT_DYING;
    tell_once(environment);
    environment_release(environment);
    finish(environment);
}

/* ---- what zygotes tell ------------------------------------------------------------------------------------------- */

/* A pid that a zygote names is a claim: it counts when both it and the pidfd are of a child of ours, and nothing else here
 * stands for it. What the pidfd says while the child lives is only that there is a child: the pid is asked for too. */
static int take_child(struct environment *environment, pid_t pid, int pidfd) {
    struct reaper *reaper = &environment->server->reaper;
    siginfo_t info = {0}, named = {0};
    int status;

    if (pid <= 1 || pidfd < 0 || reaper_knows(reaper, pid))
        return -EBADMSG;
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
        if (info.si_pid != 0 && info.si_pid != pid)
            return -EBADMSG;
        if (waitid(P_PID, (id_t)pid, &named, WEXITED | WNOHANG | WNOWAIT) < 0)
            return -EBADMSG;
        reaper_add(reaper, &environment->child, pid, child_exited, environment);
        if (environment->phase == ENVIRONMENT_FORKING)
            environment->phase = ENVIRONMENT_RUNNING;
        spares_born(environment, pidfd);
        return 0;
    }
    if (errno != ECHILD || !reaper_claim_early(reaper, pid, &status))
        return -EBADMSG;
    child_exited(environment, status);
    return 0;
}

static int take_forked(struct zygote *zygote, struct environment *environment, pid_t pid, int pidfd) {
    if (environment->child_gone || environment->child.pid != 0)
        return -EBADMSG;
    int r = take_child(environment, pid, pidfd);
    if (r == 0)
        zygote_reseat(zygote);
    return r;
}

/* The zygote itself could not fork; otherwise the child says so, and FORKED comes too. */
static bool has_no_child(const char *step) {
    return strcmp(step, "setns") == 0 || strcmp(step, "clone") == 0;
}

/* The anchor was killed, or is being: its namespace takes no process any more, for which the kernel's word is ENOMEM. */
static bool has_no_shell(const char *step, uint32_t error) {
    return (strcmp(step, "setns") == 0 && error == ESRCH) || (strcmp(step, "clone") == 0 && error == ENOMEM);
}

static void take_failed(
    struct zygote *zygote, struct environment *environment, const struct wire_fork_failed *message) {
    char step[JAIL_STEP_MAX];

    link_copy_text(message->step, step, sizeof(step));
    if (environment->error.error == 0)
        (void)jail_fail(
            &environment->error, has_no_shell(step, message->error) ? "shell" : step, (int)MIN(message->error, 4095u));
    if (!has_no_child(step) || environment->child_gone || environment->child.pid != 0)
        return;
    zygote_reseat(zygote);
    never_born(environment);
}

int launches_zygote_message(struct zygote *zygote, const struct wire_header *header, struct packet *packet) {
    struct table_node *node = table_get(&zygote->server->launches.serials, header->object);
    struct environment *environment = node == NULL ? NULL : table_entry(node, struct environment, serial);
    struct wire_header h;

    if (environment != NULL && (environment->zygote != zygote || environment->incarnation != zygote->incarnation))
        return -EBADMSG;
    if (header->type == WIRE_FORKED) {
        struct wire_forked forked;
        if (wire_forked_decode(packet->data, packet->size, &h, &forked) < 0 || environment == NULL ||
            packet->n_fds != 1)
            return -EBADMSG;
        return take_forked(zygote, environment, (pid_t)MIN(forked.pid, (uint32_t)INT32_MAX), packet->fds[0]);
    }
    struct wire_fork_failed failed;
    if (wire_fork_failed_decode(packet->data, packet->size, &h, &failed) < 0)
        return -EBADMSG;
    if (environment != NULL) /* a child's last word may come when all is over */
        take_failed(zygote, environment, &failed);
    return 0;
}

void launches_zygote_gone(struct zygote *zygote) {
    spares_zygote_gone(zygote);
    list_for_each_safe(node, &zygote->server->launches.all) {
        struct environment *environment = list_entry(node, struct environment, all);
        if (environment->zygote != zygote || environment->incarnation != zygote->incarnation ||
            environment->child_gone || environment->child.pid != 0)
            continue;
        /* A process that was cloned and not told of dies with the anchor and is reaped unclaimed. */
        environment_fail(environment, "zygote", EPIPE);
        never_born(environment);
    }
}

void environment_abandon(struct environment *environment) {
    environment->told = true;
    if (environment->phase == ENVIRONMENT_WAITING) {
        environment_free(environment);
        return;
    }
    environment_release(environment);
    environment_kill(environment);
}

void launches_end_all(struct server *server, const struct service *service) {
    list_for_each_safe(node, &server->launches.all) {
        struct environment *environment = list_entry(node, struct environment, all);
        if (service == NULL || environment->owner == service)
            environment_abandon(environment);
    }
}
