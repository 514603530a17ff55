/* Launch plans: what the control plane granted ahead of time, keyed by its number. The dispatcher redeems them. Every
 * field is validated when it is put; redeeming costs two comparisons. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "jail/cgroup.h"
#include "protocol/wire.h"
#include "snapshots.h"
#include "table.h"

struct server;
struct runtime;

/* Bounds of the fields; a plan outside them is refused. */
#define PLAN_MAX_ENVIRONMENTS 10000u
#define PLAN_MAX_RATE 100000u
#define PLAN_MIN_MEMORY_MB 32u
#define PLAN_MAX_MEMORY_MB 32768u
#define PLAN_MIN_STORAGE_MB 16u
#define PLAN_MAX_STORAGE_MB 10240u
#define PLAN_MIN_PIDS 8u
#define PLAN_MAX_PIDS 32768u
#define PLAN_MIN_DESCRIPTORS 32u
#define PLAN_MAX_DESCRIPTORS 65536u
#define PLANS_MAX 65536u

/* What a field's check found wrong, for NACK. */
struct refusal {
    const char *field;
    const char *reason;
};

struct plan {
    struct table_node node; /* by the control plane's number, unless retired */
    uint64_t generation;
    bool marked;  /* not put again since SYNC_BEGIN */
    bool retired; /* deleted; lives on while environments of it do */
    uint32_t max, rate;
    struct runtime *runtime;
    char package[96]; /* "packages/sha256/<key>", below the state directory */
    char layer[96];   /* the same; empty: none */
    uint32_t storage_mb, pids, descriptors;
    struct cgroup_limits limits;
    unsigned environments; /* waiting or alive */
    uint64_t in_vain;      /* launches.round in which one of it was tried last and something was not at hand */
    struct list cells;     /* shells that its environments left clean */
    uint64_t tokens;       /* launches left, in millionths; filled with time up to one second's worth */
    uint64_t filled_us;
    struct snapshot snapshot;
};

struct plans {
    struct table table;
};

int plans_init(struct plans *plans);
struct plan *plans_get(struct server *server, uint64_t id);
/* 0, or a negative errno with the refusal filled in. */
int plans_put(struct server *server, const struct wire_header *header, const struct wire_put_plan *message,
    struct refusal *ret_refusal);
void plans_delete(struct server *server, uint64_t id, uint64_t generation);
void plans_mark(struct server *server);
void plans_sweep(struct server *server);
/* One more environment of the plan: 0, or -EDQUOT (as many as granted are there), -EAGAIN (faster than granted). Granted to
 * each of `dispatchers`: while one hands over to another, the old one may have given away what its last calls need. */
int plan_redeem(struct plan *plan, unsigned dispatchers, uint64_t now_us);
/* The environment is gone. May free the plan. */
void plan_release(struct plan *plan);
/* PLAN_STATE to the control plane for the plans of a runtime, or (NULL) all. */
void plans_tell(struct server *server, const struct runtime *runtime);
/* And for one. */
void plan_tell(struct server *server, struct plan *plan);
/* Does any plan need the runtime? */
bool plans_need(struct server *server, const struct runtime *runtime);
