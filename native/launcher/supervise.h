/* Supervision of the control plane and the dispatcher: start, restart with a growing pause, fresh sockets between them,
 * draining and stopping. */
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
    struct timer deadline, poll;
    uint64_t stopping_us;
};

int supervise_start(struct server *server);
/* Drain, then stop. A second call stops at once. */
void supervise_stop(struct server *server);
/* Looks whether the next step of stopping can be taken. */
void supervise_stop_poll(struct server *server);
/* The control plane has said everything (SYNC_END): the node is ready. */
void supervise_synced(struct server *server);
/* A process that broke the protocol is ended; it is started again when it is reaped. */
void supervise_kill(struct service *service, const char *why);
