/* Supervision of the control plane and the dispatcher: start, restart with a growing pause, fresh sockets between them,
 * heartbeats, draining and stopping; and what of it the service manager is told. */
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
    bool serving;            /* the control plane: its SERVING came */
    uint32_t beat, answered; /* seq of the last BEAT sent, and of the last answered */
    unsigned missed;         /* beats in a row without an answer in time */
    uint32_t unacknowledged; /* seq of the last good request not yet answered by ACK */
    uint64_t started_us;
    unsigned failures;    /* in a row */
    struct timer restart; /* while it is gone; while it leaves: how long that may take */
};

struct supervision {
    struct service control, dispatch;
    uint32_t peer_epoch; /* of the pair last made */
    bool ready;          /* the service manager was told */
    bool expired;        /* no more time to drain */
    struct timer deadline, poll, beats;
    uint64_t beat_us;    /* between beats; 0: none */
    unsigned missed_max; /* who missed as many is hung */
    bool watchdog;       /* the service manager wants to be told that we live */
    char status[128];    /* what it was told last of what we do */
    uint64_t stopping_us;
};

int supervise_start(struct server *server);
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
/* A process that broke the protocol is ended; it is started again when it is reaped. */
void supervise_kill(struct service *service, const char *why);
