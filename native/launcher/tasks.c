/* Tasks; see the header. */
#include "tasks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/root.h"
#include "launcher.h"
#include "programs.h"

#define TASK_DESCRIPTORS 256

int tasks_init(struct server *server) {
    list_init(&server->tasks.waiting);
    for (unsigned i = 0; i < TASKS_MAX; i++) {
        server->tasks.slots[i].server = server;
        server->tasks.slots[i].jail = (struct jail_child)JAIL_CHILD_INIT;
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

/* ---- running ----------------------------------------------------------------------------------------------------- */

static void start_waiting(struct server *server);

static void send_done(struct server *server, const struct task *task, const struct wire_task_done *message) {
    LINK_SEND(&server->supervision.control.link, HEADER(task->id), task_done, *message, NULL, 0);
}

static void finish(struct task_slot *slot) {
    struct server *server = slot->server;

    if (slot->child_gone && !slot->told) {
        uint64_t kills = 0;
        (void)cgroup_oom_kills(&server->cgroups, &slot->cgroup, &kills);
        struct wire_task_done message = {
            .status = (uint32_t)slot->status, .timed_out = slot->timed_out, .oom = kills > 0};
        send_done(server, slot->task, &message);
        slot->told = true;
    }
    if (!slot->child_gone || slot->anchor.pid != 0)
        return;
    loop_timer_off(&slot->limit);
    jail_child_close(&slot->jail);
    struct leaf leaf;
    leaf_init(&leaf);
    leaf.cgroup = slot->cgroup;
    pools_drop_leaf(server, &leaf);
    free(slot->task);
    slot->task = NULL;
    start_waiting(server);
}

static void child_exited(void *owner, int status) {
    struct task_slot *slot = owner;
    slot->status = status;
    slot->child_gone = true;
    (void)jail_child_kill(&slot->jail);
    finish(slot);
}

static void anchor_exited(void *owner, int status) {
    (void)status;
    finish(owner);
}

static void limit_fire(void *owner) {
    struct task_slot *slot = owner;
    slot->timed_out = true;
    (void)jail_child_kill(&slot->jail);
}

static int fill_plan(const struct server *server, unsigned slot, const struct task *task, struct jail_plan *plan) {
    const char *program = task->kind == WIRE_TASK_KIND_PROBE ? "probe.py" : "compile.py";
    int r = program_fill(&server->boot, &server->boot.interpreters[task->interpreter], program, plan);
    plan->kind = JAIL_SANDBOX;
    plan->uid_base = boot_task_base(&server->boot, slot);
    plan->uid = plan->gid = TASK_UID;
    plan->memory_mb = task->memory_mb;
    plan->pids = TASK_PIDS;
    plan->descriptors = TASK_DESCRIPTORS;
    return r;
}

static int spawn(
    struct task_slot *slot, const struct task *task, int output, int error_output, struct jail_error *error) {
    struct server *server = slot->server;
    _cleanup_jail_plan_ struct jail_plan plan;
    _cleanup_close_ int tree = -1;
    struct jail_io io = JAIL_IO_INIT;
    char name[CGROUP_NAME_MAX];
    int r;

    jail_plan_init(&plan);
    r = fill_plan(server, (unsigned)(slot - server->tasks.slots), task, &plan);
    if (r < 0)
        return jail_fail(error, "plan", -r);
    if (task->kind == WIRE_TASK_KIND_COMPILE) {
        r = root_clone_tree(server->state_dir, task->staging, &tree);
        if (r < 0)
            return jail_fail(error, "staging", -r);
    }
    snprintf(name, sizeof(name), "t%llu", (unsigned long long)++server->tasks.serial);
    r = cgroup_make(&server->cgroups, name, &slot->cgroup);
    if (r < 0)
        return jail_fail(error, "cgroup", -r);
    const struct cgroup_limits limits = {.memory_mb = task->memory_mb, .pids = TASK_PIDS};
    r = cgroup_set_limits(&server->cgroups, &slot->cgroup, &limits);
    if (r < 0)
        r = jail_fail(error, "limits", -r);
    io.output = output;
    io.error = error_output;
    io.task_tree = tree;
    io.cgroups = &server->cgroups;
    io.cgroup = &slot->cgroup;
    if (r == 0)
        r = jail_spawn(&plan, &io, &slot->jail, error);
    if (r < 0)
        (void)cgroup_remove(&server->cgroups, &slot->cgroup);
    return r;
}

static int run(struct task_slot *slot, struct task *task, struct jail_error *error) {
    struct server *server = slot->server;
    int output[2] = {-1, -1}, errors[2] = {-1, -1}, r = 0;

    if (pipe2(output, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0)
        r = jail_fail(error, "pipe", errno);
    if (r == 0)
        r = spawn(slot, task, output[1], errors[1], error);
    if (r == 0) {
        slot->task = task;
        slot->child_gone = slot->timed_out = slot->told = false;
        reaper_add(&server->reaper, &slot->child, slot->jail.pid, child_exited, slot);
        reaper_add(&server->reaper, &slot->anchor, slot->jail.anchor, anchor_exited, slot);
        loop_timer(&server->loop, &slot->limit, (uint64_t)task->timeout_ms * 1000, limit_fire, slot);
        const int fds[2] = {output[0], errors[0]};
        struct wire_task_started message = {0};
        LINK_SEND(&server->supervision.control.link, HEADER(task->id), task_started, message, fds, 2);
    }
    for (unsigned i = 0; i < 2; i++) {
        cleanup_close(&output[i]);
        cleanup_close(&errors[i]);
    }
    return r;
}

static void start_waiting(struct server *server) {
    for (unsigned i = 0; i < TASKS_MAX && server->phase == PHASE_RUNNING; i++) {
        struct task_slot *slot = &server->tasks.slots[i];
        while (slot->task == NULL && !list_empty(&server->tasks.waiting)) {
            struct task *task = list_entry(list_pop_front(&server->tasks.waiting), struct task, node);
            struct jail_error error = {0};
            server->tasks.n_waiting--;
            int r = run(slot, task, &error);
            if (r == 0)
                continue;
            struct wire_task_done message = {.step = link_text(error.step), .error = (uint32_t)-r};
            send_done(server, task, &message);
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
        if (server->tasks.slots[i].task != NULL)
            (void)jail_child_kill(&server->tasks.slots[i].jail);
}
