/* Tasks; see the header. */
#include "tasks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/root.h"
#include "jail/spawn.h"
#include "launcher.h"
#include "programs.h"

#define TASK_DESCRIPTORS 256
/* What is wanted no more ends within this. */
#define END_LIMIT_US 2000000

int tasks_init(struct server *server) {
    list_init(&server->tasks.waiting);
    for (unsigned i = 0; i < TASKS_MAX; i++) {
        struct task_slot *slot = &server->tasks.slots[i];
        slot->server = server;
        slot->output[0] = slot->output[1] = slot->errors[0] = slot->errors[1] = -1;
    }
    return 0;
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

static int refuse(struct refusal *refusal, const char *field, const char *reason) {
    refusal->field = field;
    refusal->reason = reason;
    return -EINVAL;
}

/* A name of one directory: hexadecimal digits and hyphens. */
static bool is_staging(struct wire_slice text) {
    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c == '-' && i > 0)))
            return false;
    }
    return text.size > 0;
}

static int check(const struct server *server, const struct wire_task *m, struct refusal *refusal) {
    if (m->kind != WIRE_TASK_KIND_PROBE && m->kind != WIRE_TASK_KIND_COMPILE)
        return refuse(refusal, "kind", "no such task");
    if (m->interpreter >= server->boot.n_interpreters)
        return refuse(refusal, "interpreter", "no interpreter of that number is in the boot configuration");
    if (m->kind == WIRE_TASK_KIND_COMPILE && !is_staging(m->staging))
        return refuse(refusal, "staging", "not the name of a staging directory");
    if (m->memory_mb < TASK_MIN_MEMORY_MB || m->memory_mb > TASK_MAX_MEMORY_MB)
        return refuse(refusal, "memory_mb", "out of range");
    if (m->timeout_ms == 0 || m->timeout_ms > TASK_MAX_TIMEOUT_MS)
        return refuse(refusal, "timeout_ms", "out of range");
    return 0;
}

/* ---- the side process -------------------------------------------------------------------------------------------- */

enum report_kind { REPORT_STARTED, REPORT_FAILED, REPORT_DONE };

struct report {
    enum report_kind kind;
    int status; /* DONE: as wait(2) gives it */
    bool oom;
    struct jail_error error; /* FAILED */
};

static void report(int socket, const struct report *report) {
    (void)packet_send(socket, report, sizeof(*report), NULL, 0);
}

static int fill_plan(const struct task_slot *slot, struct jail_plan *plan) {
    const struct server *server = slot->server;
    const struct task *task = slot->task;
    const char *program = task->kind == WIRE_TASK_KIND_PROBE ? "probe.py" : "compile.py";
    int r = program_fill(&server->boot, &server->boot.interpreters[task->interpreter], program, plan);
    plan->kind = JAIL_SANDBOX;
    plan->uid_base = boot_task_base(&server->boot, (unsigned)(slot - server->tasks.slots));
    plan->uid = plan->gid = TASK_UID;
    plan->memory_mb = task->memory_mb;
    plan->pids = TASK_PIDS;
    plan->descriptors = TASK_DESCRIPTORS;
    return r;
}

static int spawn(
    const struct task_slot *slot, struct cgroup *cgroup, struct jail_child *ret_child, struct jail_error *error) {
    const struct server *server = slot->server;
    const struct task *task = slot->task;
    const struct cgroup_limits limits = {.memory_mb = task->memory_mb, .pids = TASK_PIDS, .fresh = true};
    struct jail_plan plan;
    struct jail_io io = JAIL_IO_INIT;
    int tree = -1, r;

    jail_plan_init(&plan);
    r = fill_plan(slot, &plan);
    if (r < 0)
        return jail_fail(error, "plan", -r);
    if (task->kind == WIRE_TASK_KIND_COMPILE) {
        r = root_clone_tree(server->state_dir, task->staging, &tree);
        if (r < 0)
            return jail_fail(error, "staging", -r);
    }
    r = cgroup_make(&server->cgroups, slot->cgroup, cgroup);
    if (r == 0)
        r = cgroup_set_limits(&server->cgroups, cgroup, &limits);
    if (r < 0)
        return jail_fail(error, "cgroup", -r);
    io.output = slot->output[1];
    io.error = slot->errors[1];
    io.task_tree = tree;
    io.cgroups = &server->cgroups;
    io.cgroup = cgroup;
    return jail_spawn(&plan, &io, ret_child, error);
}

/* What it leaves open it does not close: it ends. */
static void task_run(int socket, void *argument) {
    struct task_slot *slot = argument;
    struct report what = {.kind = REPORT_FAILED};
    struct jail_child child = JAIL_CHILD_INIT;
    struct cgroup cgroup;
    uint64_t kills = 0;

    if (spawn(slot, &cgroup, &child, &what.error) < 0) {
        report(socket, &what);
        return;
    }
    close(slot->output[1]);
    close(slot->errors[1]);
    what.kind = REPORT_STARTED;
    report(socket, &what);
    /* Until it ends, or the launcher wants no more of it. */
    struct pollfd pollers[2] = {{.fd = child.pidfd, .events = POLLIN}, {.fd = socket, .events = POLLIN}};
    while (poll(pollers, 2, -1) < 0 && errno == EINTR)
        ;
    if (pollers[0].revents == 0)
        (void)jail_child_kill(&child);
    (void)waitpid(child.pid, &what.status, 0);
    (void)jail_child_kill(&child);
    (void)waitpid(child.anchor, NULL, 0);
    what.kind = REPORT_DONE;
    what.oom = cgroup_oom_kills(&slot->server->cgroups, &cgroup, &kills) == 0 && kills > 0;
    report(socket, &what);
}

/* ---- the launcher ------------------------------------------------------------------------------------------------- */

static void start_waiting(struct server *server);

static void send_done(struct task_slot *slot, const struct report *what) {
    struct wire_task_done message = {
        .status = (uint32_t)what->status,
        .timed_out = slot->timed_out && WIFSIGNALED(what->status), /* it may have ended just before */
        .oom = what->oom,
        .step = link_text(what->error.step),
        .error = (uint32_t)what->error.error,
    };
    if (slot->told)
        return;
    slot->told = true;
    LINK_SEND(&slot->server->supervision.control.link, HEADER(slot->task->id), task_done, message, NULL, 0);
}

static void close_pipes(struct task_slot *slot) {
    for (unsigned i = 0; i < 2; i++) {
        cleanup_close(&slot->output[i]);
        cleanup_close(&slot->errors[i]);
    }
}

static void message(struct side *side, struct packet *packet) {
    struct task_slot *slot = (struct task_slot *)(void *)((char *)side - offsetof(struct task_slot, side));
    struct report what;

    if (packet->size != sizeof(what))
        return;
    memcpy(&what, packet->data, sizeof(what));
    if (what.kind != REPORT_STARTED) {
        send_done(slot, &what);
        return;
    }
    const int fds[2] = {slot->output[0], slot->errors[0]};
    struct wire_task_started started = {0};
    LINK_SEND(&slot->server->supervision.control.link, HEADER(slot->task->id), task_started, started, fds, 2);
    close_pipes(slot);
}

/* It ended, of itself or by us, and the program with it. */
static void gone(void *owner, const char *name) {
    struct task_slot *slot = owner;
    struct server *server = slot->server;
    const struct report killed = {.kind = REPORT_DONE, .status = SIGKILL};
    struct leaf leaf;
    (void)name;

    send_done(slot, &killed);
    loop_timer_off(&slot->limit);
    close_pipes(slot);
    leaf_init(&leaf);
    memcpy(leaf.cgroup.name, slot->cgroup, sizeof(leaf.cgroup.name));
    leaf_drop(server, &leaf);
    free(slot->task);
    slot->task = NULL;
    start_waiting(server);
}

static void kill_fire(void *owner) {
    const struct task_slot *slot = owner;
    if (slot->side.child.pid != 0)
        (void)kill(slot->side.child.pid, SIGKILL);
}

/* The side process ends the program and itself; it is killed only when it does not, for a process that it is just
 * making might outlive it. */
static void end(struct task_slot *slot) {
    if (slot->side.socket >= 0)
        (void)shutdown(slot->side.socket, SHUT_WR);
    loop_timer(&slot->server->loop, &slot->limit, END_LIMIT_US, kill_fire, slot);
}

static void limit_fire(void *owner) {
    struct task_slot *slot = owner;
    slot->timed_out = true;
    end(slot);
}

static int run(struct task_slot *slot, struct task *task) {
    struct server *server = slot->server;
    int keep[4 + 2 * CGROUP_HIERARCHIES], r = 0;
    unsigned n = 0;

    if (pipe2(slot->output, O_CLOEXEC) < 0 || pipe2(slot->errors, O_CLOEXEC) < 0)
        return -errno;
    slot->task = task;
    slot->told = slot->timed_out = false;
    snprintf(slot->cgroup, sizeof(slot->cgroup), "t%llu", (unsigned long long)++server->tasks.serial);
    keep[n++] = server->state_dir;
    keep[n++] = slot->output[1];
    keep[n++] = slot->errors[1];
    for (unsigned i = 0; i < server->cgroups.n; i++) {
        keep[n++] = server->cgroups.hierarchies[i].fd;
        keep[n++] = server->cgroups.hierarchies[i].parent;
    }
    slot->side.message = message;
    slot->side.gone = gone;
    slot->side.owner = slot;
    r = side_start(&slot->side, &server->loop, &server->reaper, "runtimed-task", task_run, slot, keep, n);
    if (r < 0)
        return r;
    loop_timer(&server->loop, &slot->limit, (uint64_t)task->timeout_ms * 1000, limit_fire, slot);
    return 0;
}

static void start_waiting(struct server *server) {
    for (unsigned i = 0; i < TASKS_MAX && server->phase == PHASE_RUNNING; i++) {
        struct task_slot *slot = &server->tasks.slots[i];
        while (slot->task == NULL && !list_empty(&server->tasks.waiting)) {
            struct task *task = list_entry(list_pop_front(&server->tasks.waiting), struct task, node);
            server->tasks.n_waiting--;
            int r = run(slot, task);
            if (r == 0)
                continue;
            struct wire_task_done done = {.step = link_text("start"), .error = (uint32_t)-r};
            LINK_SEND(&server->supervision.control.link, HEADER(task->id), task_done, done, NULL, 0);
            close_pipes(slot);
            slot->task = NULL;
            free(task);
        }
    }
}

int tasks_put(struct server *server, const struct wire_header *header, const struct wire_task *message,
    struct refusal *ret_refusal) {
    char name[WIRE_TASK_STAGING_MAX + 1];
    int r = check(server, message, ret_refusal);

    if (r < 0)
        return r;
    if (server->tasks.n_waiting >= TASKS_WAITING_MAX) {
        (void)refuse(ret_refusal, "object", "too many tasks wait");
        return -EAGAIN;
    }
    struct task *task = calloc(1, sizeof(*task));
    if (task == NULL) {
        (void)refuse(ret_refusal, "object", "out of memory");
        return -ENOMEM;
    }
    task->server = server;
    task->id = header->object;
    task->kind = message->kind;
    task->interpreter = message->interpreter;
    task->memory_mb = message->memory_mb;
    task->timeout_ms = message->timeout_ms;
    link_copy_text(message->staging, name, sizeof(name));
    snprintf(task->staging, sizeof(task->staging), "staging/%s/tree", name);
    list_push_back(&server->tasks.waiting, &task->node);
    server->tasks.n_waiting++;
    start_waiting(server);
    return 0;
}

void tasks_end_all(struct server *server) {
    list_for_each_safe(node, &server->tasks.waiting) {
        list_remove(node);
        free(list_entry(node, struct task, node));
    }
    server->tasks.n_waiting = 0;
    for (unsigned i = 0; i < TASKS_MAX; i++)
        if (server->tasks.slots[i].task != NULL) {
            server->tasks.slots[i].told = true; /* nobody to tell */
            end(&server->tasks.slots[i]);
        }
}
