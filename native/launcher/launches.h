/* Environments: from LAUNCH to EXITED and until nothing of them is left.
 *
 *   WAITING   granted; no zygote with a seat, shell or /tmp image at hand
 *   FORKING   FORK sent, LAUNCHED sent
 *   RUNNING   the zygote told its pid, which was verified to be a child of ours
 *   DYING     its process or its anchor is gone; EXITED sent; the rest is being collected
 *
 * The limits are written before LAUNCHED is sent, and user code starts with START, which the dispatcher sends after it:
 * no line of a function ever runs without limits. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/descriptor.h"
#include "base/list.h"
#include "forking.h"
#include "jail/error.h"
#include "protocol/wire.h"
#include "reap.h"
#include "seater.h"
#include "table.h"

struct server;
struct plan;
struct runtime;
struct service;
struct zygote;
struct cell;

/* Environments that wait at once; above it LAUNCH is refused. */
#define LAUNCHES_WAITING_MAX 1024
/* How long one waits for what it needs. */
#define LAUNCHES_PATIENCE_US UINT64_C(10000000)

enum environment_phase {
    ENVIRONMENT_WAITING,
    ENVIRONMENT_FORKING,
    ENVIRONMENT_RUNNING,
    ENVIRONMENT_DYING,
};

/* What of it is a spare's: spares.h. */
enum spare_state {
    SPARE_NONE, /* it is not one, or no more */
    SPARE_MAKING,
    SPARE_READY,
};

/* Which file a descriptor is. */
struct passed {
    uint64_t device, inode; /* 0: none */
};

struct environment {
    struct table_node node;   /* by the dispatcher's id, while its dispatcher lives and EXITED is not sent */
    struct list all;          /* launches.all */
    struct list queue;        /* WAITING: of its runtime; a spare that is ready: of its runtime's */
    struct table_node serial; /* by our own number, which is what zygotes are told */
    struct server *server;
    struct service *owner; /* the dispatcher that uses it */
    uint64_t id;
    bool told; /* EXITED or LAUNCH_FAILED sent, or nobody to tell */
    bool last; /* of a target that is deleted: nobody will use again what it leaves */
    enum environment_phase phase;
    struct plan *plan; /* until EXITED is sent */
    struct zygote *zygote;
    uint32_t incarnation; /* of the zygote */
    uint32_t uid;         /* inside the zygote's namespace */
    struct cell *cell;    /* until its anchor is reaped */
    struct leaf leaf;
    int tmp; /* our hold on the image of its /tmp; -1: none, it goes with the environment */
    uint32_t tmp_mb;
    struct child child;
    bool child_gone;             /* reaped, or there was none */
    bool restored;               /* from a snapshot */
    struct footprint *footprint; /* of that one */
    bool killed;                 /* by us: a SIGKILL is no sign of an exhausted memory limit */
    int status;
    struct jail_error error;
    uint64_t asked_us;
    struct passed passed[5]; /* with LAUNCHED, in the order of its flags */
    enum spare_state spare;
    struct shape shape; /* of a spare */
    struct plan *bound; /* the same, in a shell that an environment of the plan left: for that plan alone */
    int pidfd;          /* the same; otherwise -1 */
};

struct launches {
    struct table table;
    struct table serials;
    uint64_t serial; /* last given */
    struct list all;
    unsigned count;
    unsigned waiting;
    uint64_t round; /* of looking at those that wait */
    struct timer patience;
};

int launches_init(struct server *server);
/* False: the node's disk is nearly full, nothing is to be begun. */
bool launches_disk_has_room(const struct server *server);
/* LAUNCH, ARENA and END. 0, or -EBADMSG. */
int launches_message(struct service *service, const struct wire_header *header, const struct packet *packet);
/* ARENA: a fresh one for that environment, or none (arenas.c). */
void launches_send_arena(struct service *service, uint64_t id);
/* That one of the dispatcher's environments which has this number, and a process or soon will; or NULL. */
struct environment *launches_find(struct service *service, uint64_t id);
/* FORKED and FORK_FAILED. */
int launches_zygote_message(struct zygote *zygote, const struct wire_header *header, struct packet *packet);
/* Something arrived that launches of the runtime may wait for. */
void launches_retry(struct runtime *runtime);
void launches_retry_all(struct server *server);
/* The zygote died: what it was to fork will not come. */
void launches_zygote_gone(struct zygote *zygote);
/* The dispatcher died: its channels did, so its environments end. NULL: those of all. */
void launches_end_all(struct server *server, const struct service *service);
/* Nobody uses it any more. */
void environment_abandon(struct environment *environment);
/* The anchor of its shell was reaped. */
void launches_anchor_gone(struct environment *environment);

/* LAUNCHED carries these, one for each of the flags (upgrade.c). */
void environment_remember(struct environment *environment, uint8_t flags, const int *fds);

/* Between launches.c, exits.c and spares.c. */

/* Of nobody yet: no number of a dispatcher's, no plan. NULL: out of memory. */
struct environment *environment_new(struct server *server);
/* Out of the queue of its runtime, if it is there. */
void environment_stop_waiting(struct environment *environment);
/* Its grant is free again. */
void environment_release(struct environment *environment);
/* Takes it out of everything; nothing of it may be alive. */
void environment_free(struct environment *environment);
/* SIGKILL to whatever runs in its shell. */
void environment_kill(struct environment *environment);
/* A step of ours failed: EXITED will name it. */
void environment_fail(struct environment *environment, const char *step, int error);
