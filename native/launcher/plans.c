/* Launch plans; see the header. */
#include "plans.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher.h"

#define BUCKETS 4096
#define TOKEN 1000000u
#define KEY_SIZE 64 /* hex sha256 */
#define DIGEST_SIZE 32

int plans_init(struct plans *plans) {
    return table_init(&plans->table, BUCKETS);
}

struct plan *plans_get(struct server *server, uint64_t id) {
    struct table_node *node = table_get(&server->plans.table, id);
    return node == NULL ? NULL : table_entry(node, struct plan, node);
}

static bool is_key(struct wire_slice text) {
    if (text.size != KEY_SIZE)
        return false;
    for (uint32_t i = 0; i < text.size; i++)
        if (!((text.data[i] >= '0' && text.data[i] <= '9') || (text.data[i] >= 'a' && text.data[i] <= 'f')))
            return false;
    return true;
}

static int refuse(struct refusal *refusal, const char *field, const char *reason) {
    refusal->field = field;
    refusal->reason = reason;
    return -EINVAL;
}

static int check(const struct wire_put_plan *m, struct refusal *refusal) {
    const struct {
        const char *field;
        uint32_t value, min, max;
    } numbers[] = {
        {"max", m->max, 0, PLAN_MAX_ENVIRONMENTS},
        {"rate", m->rate, 1, PLAN_MAX_RATE},
        {"memory_mb", m->memory_mb, PLAN_MIN_MEMORY_MB, PLAN_MAX_MEMORY_MB},
        {"storage_mb", m->storage_mb, PLAN_MIN_STORAGE_MB, PLAN_MAX_STORAGE_MB},
        {"pids", m->pids, PLAN_MIN_PIDS, PLAN_MAX_PIDS},
        {"descriptors", m->descriptors, PLAN_MIN_DESCRIPTORS, PLAN_MAX_DESCRIPTORS},
        {"cpu", m->cpu, WIRE_CPU_MODE_WEIGHT, WIRE_CPU_MODE_HARD},
        {"snapshot", m->snapshot, WIRE_SNAPSHOT_MODE_OFF, WIRE_SNAPSHOT_MODE_AUTOMATIC},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i].value < numbers[i].min || numbers[i].value > numbers[i].max)
            return refuse(refusal, numbers[i].field, "out of range");
    if (!is_key(m->package))
        return refuse(refusal, "package", "not a lower-case hexadecimal sha256");
    if (m->layers.size != 0 && m->layers.size != DIGEST_SIZE)
        return refuse(refusal, "layers", "at most one layer is supported");
    return 0;
}

/* Would an environment of it be another one? */
static bool is_same(const struct plan *before, const struct plan *after) {
    return before->runtime == after->runtime && strcmp(before->package, after->package) == 0 &&
        strcmp(before->layer, after->layer) == 0;
}

static void fill(
    struct plan *plan, const struct wire_header *header, const struct wire_put_plan *m, struct runtime *runtime) {
    plan->generation = header->generation;
    plan->marked = false;
    plan->max = m->max;
    plan->rate = m->rate;
    plan->runtime = runtime;
    snprintf(plan->package, sizeof(plan->package), "packages/sha256/%.*s", KEY_SIZE, (const char *)m->package.data);
    plan->layer[0] = '\0';
    if (m->layers.size == DIGEST_SIZE) {
        int n = snprintf(plan->layer, sizeof(plan->layer), "packages/sha256/");
        for (unsigned i = 0; i < DIGEST_SIZE; i++)
            n += snprintf(plan->layer + n, sizeof(plan->layer) - (size_t)n, "%02x", m->layers.data[i]);
    }
    plan->storage_mb = m->storage_mb;
    plan->pids = m->pids;
    plan->descriptors = m->descriptors;
    plan->limits =
        (struct cgroup_limits){.memory_mb = m->memory_mb, .pids = m->pids, .cpu_hard = m->cpu == WIRE_CPU_MODE_HARD};
}

void plan_tell(struct server *server, struct plan *plan) {
    const char *reason;
    struct wire_plan_state message = {.state = runtime_state(plan->runtime, &reason),
        .snapshot = snapshot_state(&plan->snapshot),
        .refusal = plan->snapshot.refusal};
    if (plan->retired) /* the control plane has forgotten it */
        return;
    message.reason = link_text(reason);
    LINK_SEND(&server->supervision.control.link, HEADER(plan->node.key), plan_state, message, NULL, 0);
}

int plans_put(struct server *server, const struct wire_header *header, const struct wire_put_plan *message,
    struct refusal *ret_refusal) {
    struct plan *plan = plans_get(server, header->object);
    struct runtime *runtime = zygotes_find(server, message->runtime);
    int r = check(message, ret_refusal);

    if (r < 0)
        return r;
    if (plan != NULL && header->generation < plan->generation)
        return 0;
    if (runtime == NULL) {
        (void)refuse(ret_refusal, "runtime", "no such runtime was put before");
        return -ENOENT;
    }
    if (plan == NULL) {
        if (server->plans.table.count >= PLANS_MAX) {
            (void)refuse(ret_refusal, "object", "too many plans");
            return -ENOSPC;
        }
        plan = calloc(1, sizeof(*plan));
        if (plan == NULL) {
            (void)refuse(ret_refusal, "object", "out of memory");
            return -ENOMEM;
        }
        list_init(&plan->cells);
        snapshot_init(&plan->snapshot, server, plan);
        plan->filled_us = server->loop.now_us;
        plan->tokens = (uint64_t)message->rate * TOKEN;
        table_add(&server->plans.table, &plan->node, header->object);
    }
    recycle_drop(server, plan, NULL); /* its code may be another now */
    spares_plan_gone(plan);
    const struct plan before = *plan;
    fill(plan, header, message, runtime);
    snapshot_put(&plan->snapshot, message->snapshot, !is_same(&before, plan));
    pools_expect_tmp(server, plan->storage_mb);
    zygotes_need(runtime);
    spares_expect(plan);
    plan_tell(server, plan);
    return 0;
}

static void retire(struct server *server, struct plan *plan) {
    table_remove(&server->plans.table, &plan->node);
    plan->retired = true;
    recycle_drop(server, plan, NULL);
    spares_plan_gone(plan);
    snapshot_free(&plan->snapshot);
    if (plan->environments == 0)
        free(plan);
}

void plans_delete(struct server *server, uint64_t id, uint64_t generation) {
    struct plan *plan = plans_get(server, id);
    if (plan != NULL && generation >= plan->generation)
        retire(server, plan);
}

void plans_mark(struct server *server) {
    table_for_each(node, &server->plans.table) table_entry(node, struct plan, node)->marked = true;
}

void plans_sweep(struct server *server) {
    table_for_each(node, &server->plans.table) {
        struct plan *plan = table_entry(node, struct plan, node);
        if (plan->marked)
            retire(server, plan);
    }
}

int plan_redeem(struct plan *plan, unsigned dispatchers, uint64_t now_us) {
    const uint64_t full = (uint64_t)plan->rate * TOKEN;
    uint64_t gained = now_us > plan->filled_us ? (now_us - plan->filled_us) * plan->rate : 0;

    if (plan->environments >= (uint64_t)plan->max * dispatchers)
        return -EDQUOT;
    plan->tokens = plan->tokens + gained > full ? full : plan->tokens + gained;
    plan->filled_us = now_us;
    if (plan->tokens < TOKEN)
        return -EAGAIN;
    plan->tokens -= TOKEN;
    plan->environments++;
    return 0;
}

void plan_release(struct plan *plan) {
    plan->environments--;
    if (plan->retired && plan->environments == 0)
        free(plan);
}

void plans_tell(struct server *server, const struct runtime *runtime) {
    table_for_each(node, &server->plans.table) {
        struct plan *plan = table_entry(node, struct plan, node);
        if (runtime == NULL || plan->runtime == runtime)
            plan_tell(server, plan);
    }
}

bool plans_need(struct server *server, const struct runtime *runtime) {
    table_for_each(
        node, &server->plans.table) if (table_entry(node, struct plan, node)->runtime == runtime) return true;
    return false;
}
