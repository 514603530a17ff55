/* Runtimes and their zygotes. A runtime is an interpreter of the boot configuration that the control plane gave a name;
 * its zygotes start when the first plan needs them, and again, after a pause, when they die.
 *
 * Each zygote has a block of 65,536 host ids of its own, which outlives its incarnations: one id for each environment,
 * never given again while the environment lives, and then only after all others had their turn. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "boot.h"
#include "jail/shell.h"
#include "links.h"
#include "reap.h"
#include "seater.h"
#include "spares.h"

struct server;
struct environment;
struct plan;

#define ZYGOTE_SHELLS_MAX 256

enum zygote_state {
    ZYGOTE_ABSENT,
    ZYGOTE_STARTING, /* executed, has not said that it is ready */
    ZYGOTE_READY,
};

enum seat_state {
    SEAT_NONE,
    SEAT_ASKED,
    SEAT_TAKEN,   /* the next fork lands in `leaf` */
    SEAT_FORKING, /* v1: that fork was asked for; the zygote may not be moved before it has answered */
};

/* A shell and its anchor. */
struct cell {
    struct list node; /* of the zygote's stock, or of the recycled */
    struct list of_plan;
    bool stocked;
    bool killed;           /* its anchor dies: no good to anybody */
    struct plan *plan;     /* recycled: for whom */
    uint64_t left_us;      /* recycled: since when */
    struct zygote *zygote; /* the slot; its incarnation may have ended */
    struct shell shell;
    struct child anchor;
    /* Of the environment to come. [0] is the dispatcher's end and does not block, [1] the environment's. */
    int channel[2], log[2];
    struct environment *environment; /* whose shell it is, or NULL */
};

struct zygote {
    struct server *server;
    struct runtime *runtime;
    unsigned index; /* within the runtime */
    uint32_t uid_base;
    enum zygote_state state;
    uint32_t incarnation;
    struct child child;
    int pidfd;
    struct link link;
    struct shellmaker maker;
    struct child maker_child;
    struct watch maker_watch;
    struct list cells;
    unsigned n_cells, asked_cells;
    enum seat_state seat;
    struct leaf leaf;
    uint32_t next_uid;
    uint8_t uids[JAIL_IDS / 8]; /* a bit for each id in use */
    struct timer restart, limit, reseat;
    unsigned failures; /* in a row */
    char reason[128];  /* of the last failure */
};

struct runtime {
    struct server *server;
    unsigned index;                           /* in the boot configuration */
    char name[WIRE_PUT_RUNTIME_NAME_MAX + 1]; /* empty: not put */
    uint64_t generation;
    bool marked;
    struct zygote zygotes[BOOT_ZYGOTES_MAX];
    unsigned turn;               /* where the next choice starts */
    struct cgroup_limits limits; /* of the last launch: seats are made for one more of its kind */
    struct list waiting;         /* environments that wait for a zygote, a shell or an image */
    unsigned n_waiting;
    struct spare_stock spares;
    uint8_t told; /* WIRE_PROGRESS_* last sent; 0: none */
};

struct zygotes {
    struct runtime *runtimes; /* one for each interpreter of the boot configuration */
    unsigned n;
};

int zygotes_init(struct server *server);
void zygotes_free(struct server *server);
struct runtime *zygotes_find(struct server *server, struct wire_slice name);
/* 0, or a negative errno with the reason. */
int zygotes_put(struct server *server, const struct wire_header *header, const struct wire_put_runtime *message,
    const char **ret_reason);
void zygotes_mark(struct server *server);
void zygotes_sweep(struct server *server);
/* Starts what is not running. */
void zygotes_need(struct runtime *runtime);
/* WIRE_PROGRESS_*, with the reason of a failure. */
uint8_t runtime_state(const struct runtime *runtime, const char **ret_reason);
/* RUNTIME_STATE to the control plane for all that were put. */
void zygotes_tell(struct server *server);
/* A zygote became ready or failed: tells the state of the runtime and of its plans if that changed it. */
void runtime_changed(struct runtime *runtime);
/* Somebody waits for it: no pauses. */
void runtime_urge(struct runtime *runtime);
/* Some zygote has a seat; without one nothing is launched. */
bool runtime_is_seated(const struct runtime *runtime);
/* One that can fork for the plan at once, or NULL. */
struct zygote *runtime_choose(struct runtime *runtime, struct plan *plan);
/* v1: the zygote has forked and is to leave the environment's cgroup: soon, or at once when somebody waits for it. */
void zygote_reseat(struct zygote *zygote);
/* It has a seat, or (error) could not be given one. */
void zygote_seated(struct zygote *zygote, int error);
/* A leaf is in stock: for a zygote that was to be seated and found none. */
void zygotes_leaf_came(struct server *server);
/* Asks for shells until the stock is full. */
void zygotes_refill(struct server *server);
/* Reads whatever zygotes and shellmakers have sent. */
void zygotes_drain(struct server *server);
/* Kills all, for the end. */
void zygotes_stop(struct server *server);

/* The same for one, in zygote_process.c. */
void zygote_init(struct server *server, struct runtime *runtime, unsigned index);
void zygote_start(struct zygote *zygote);
void zygote_stop(struct zygote *zygote);
/* Its processes, because they broke a rule; the reaper brings the rest. */
void zygote_kill(struct zygote *zygote);

/* In cells.c. */
void zygote_refill(struct zygote *zygote);
void zygote_receive_cells(struct zygote *zygote);
void zygote_maker_ready(void *owner, uint32_t events);

/* A free id inside the zygote's user namespace, 1..65535; 0: none left. */
uint32_t zygote_take_uid(struct zygote *zygote);
void zygote_give_uid(struct zygote *zygote, uint32_t uid);

/* Out of stock, for that environment. Not NULL when runtime_choose named the zygote for its plan. */
struct cell *zygote_take_cell(struct zygote *zygote, struct environment *environment);
int cell_open_pipes(struct cell *cell);
/* The sockets and pipes were handed over. */
void cell_close_pipes(struct cell *cell);
/* Kills the anchor, and with it whatever runs in the shell. */
void cell_kill(struct cell *cell);
/* Frees a cell whose anchor is reaped. */
void cell_free(struct cell *cell);
