/* Supervision of the control plane and the dispatcher: start, restart with a growing pause, fresh sockets between them,
 * heartbeats, draining and stopping; and what of it the service manager is told.
 *
 * There are two dispatchers while one is replaced (upgrade.c):
 *
 *   NONE      `dispatch` runs
 *   STARTING  SIGHUP came: `other` was started beside it, and is told the tables; it says SERVING when it takes calls
 *   HANDING   they changed places: `dispatch` is the new one, `other` the old. The old one hands its idle environments
 *             and connections over, finishes what it runs, and leaves; at the end of its time it is killed
 *
 * Whichever of them dies, at whatever moment, `dispatch` is one that serves or is about to be started. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "links.h"
#include "reap.h"

struct server;

struct service {
    struct server *server;
    const char *name;
    struct child child;
    struct link link;
    uint32_t epoch;          /* incarnation */
    bool greeted;            /* its HELLO came */
    bool serving;            /* its SERVING came */
    uint32_t reads;          /* dispatcher: the version of HANDED that it reads, from its HELLO; 0: none */
    int counters;            /* dispatcher: its counters page, which came with HELLO; -1: none */
    uint32_t beat, answered; /* seq of the last BEAT sent, and of the last answered */
    unsigned missed;         /* beats in a row without an answer in time */
    uint32_t unacknowledged; /* seq of the last good request not yet answered by ACK */
    uint64_t started_us;
    unsigned failures;    /* in a row */
    struct timer restart; /* while it is gone; while it leaves: how long that may take */
};

enum upgrade {
    UPGRADE_NONE,
    UPGRADE_STARTING,
    UPGRADE_HANDING,
};

struct supervision {
    struct service control, dispatchers[2];
    struct service *dispatch, *other; /* each is one of `dispatchers` */
    enum upgrade upgrade;
    int counters;          /* the page of a dispatcher that died, for the next one, until that serves; -1: none */
    bool lost;             /* HANDING: the new one has died, what the old one hands over is ended */
    struct timer patience; /* of the upgrade's step */
    uint32_t peer_epoch;   /* of the pair last made */
    bool ready;            /* the service manager was told */
    bool expired;          /* no more time to drain */
    struct timer deadline, poll, beats;
    uint64_t beat_us;    /* between beats; 0: none */
    unsigned missed_max; /* who missed as many is hung */
    bool watchdog;       /* the service manager wants to be told that we live */
    char status[128];    /* what it was told last of what we do */
    uint64_t stopping_us;
};

int supervise_start(struct server *server);
/* Replaces the dispatcher; nothing while one is being replaced. */
void supervise_upgrade(struct server *server);
/* Drain, then stop. A second call stops at once. */
void supervise_stop(struct server *server);
/* Looks whether the next step of stopping can be taken. */
void supervise_stop_poll(struct server *server);
/* The control plane serves. */
void supervise_serving(struct server *server);
/* Beats: to each service every few seconds (beats.c). */
void beats_start(struct server *server);
/* A service is started anew. */
void beats_reset(struct service *service);
/* Tells the service manager what we are doing, if that has changed. */
void beats_tell_status(struct server *server);

/* Between supervise.c and upgrade.c. */

/* Starts the service, unless it runs. */
void service_start(struct service *service);
/* A pause, then service_start. */
void service_restart(struct service *service);
bool service_is_dispatcher(const struct service *service);
/* A fresh socket between the control plane and this dispatcher. */
void supervise_introduce(struct server *server, struct service *dispatch);
/* A new control plane: the dispatcher that it is to know. */
void upgrade_introduce(struct server *server);
/* SERVING of a dispatcher. */
void upgrade_serving(struct service *service);
/* HELLO of the one that is to take over. */
void upgrade_greeted(struct service *service);
/* HANDED. 0, or -EBADMSG. */
int upgrade_message(struct service *service, const struct wire_header *header, struct packet *packet);
/* A dispatcher has ended, of which nothing is left; clean: it owed nothing to anybody any more. */
void upgrade_exited(struct service *service, bool clean);

/* A process that broke the protocol is ended; it is started again when it is reaped. */
void supervise_kill(struct service *service, const char *why);
