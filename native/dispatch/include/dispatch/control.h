/* The link to the control plane. The launcher hands over a fresh socket with PEER for each incarnation of it; without
 * one the dispatcher serves on with the tables it has.
 *
 * Order on a new link: HELLO out (with the counters page's descriptor); HELLO in; SNAPSHOT_ENVIRONMENT for each
 * environment and SNAPSHOT_END out; then SYNC_BEGIN, PUTs, SYNC_END in. What was not put again is retired at
 * SYNC_END. Everything with a seq is acknowledged, cumulatively, at the end of each batch; a NACK goes out before the
 * ACK that covers it. At most CONTROL_WINDOW messages may be unacknowledged.
 *
 * Towards the control plane go levels, not streams: one dirty bit per environment, target and limit, newest value
 * only, sent every CONTROL_LEVELS_US at most and CONTROL_LEVELS_BATCH at a time. An environment that died is
 * remembered until that was told, CONTROL_DEAD_MAX of them at most: then the control plane gets a new SNAPSHOT
 * instead.
 *
 * The link is the first loop's. What comes in is applied to every loop's tables while the others stand still; each has a
 * struct control of its own for the marks of synchronisations. What other loops have to tell comes to the first by
 * mail (levels_notes.c). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/loop.h"
#include "protocol/wire.h"

#define CONTROL_WINDOW 256u
#define CONTROL_LEVELS_US 50000u
#define CONTROL_LEVELS_BATCH 64u
#define CONTROL_DEAD_MAX 1024u

struct dispatch;
struct environment;
struct notes;
struct snapshot_row;
struct target;

struct refusal {
    uint32_t seq, error;
    const char *field, *reason; /* constants */
};

/* An environment that is no more, until it was told. */
struct dead {
    struct list node;
    uint64_t id, target;
    char reason[192];
};

struct levels {
    struct list environments, targets, dead; /* dirty ones */
    uint32_t n_dead;
    bool account;        /* LIMIT_STATE is dirty */
    bool overflow;       /* too many dead: a new SNAPSHOT is due. Of a loop besides the first */
    struct notes *notes; /* what such a loop has to say, and where it is */
    bool notes_away;
    struct list arrived; /* the first loop's: what others said, oldest first: struct notes */
    struct timer timer;  /* makes the loop turn when the next batch may go */
    uint64_t next_us;
};

struct control {
    struct watch watch; /* fd -1: no control plane */
    struct dispatch *dispatch;
    uint32_t epoch;
    bool hello_sent, greeted;
    bool writing, writable;      /* watched for EPOLLOUT; which has come */
    bool synchronising;          /* between SYNC_BEGIN and SYNC_END */
    bool pressed;                /* PUT_PRESSURE has come since SYNC_BEGIN */
    uint32_t mark;               /* counts synchronisations */
    uint32_t seen, acknowledged; /* seq */
    struct refusal refusals[CONTROL_WINDOW];
    unsigned n_refusals;
    bool snapshot;             /* one is under way, or to be begun */
    struct snapshot_row *rows; /* what it tells; NULL: to be begun */
    size_t n_rows, rows_sent;
    uint32_t rows_in_flight;
    struct levels levels;
};

void control_init(struct control *control, struct dispatch *dispatch);
/* A fresh socket; the old link, if any, is closed. */
void control_adopt(struct control *control, int fd, uint32_t epoch);
void control_close(struct control *control);
/* Sends what is due: after each batch. */
void control_flush(struct control *control);

void levels_environment(struct environment *environment);
void levels_environment_gone(struct environment *environment);
void levels_target(struct target *target);
void levels_account(struct dispatch *dispatch);

/* control_tables.c: applies one message. 0, or -errno with what to tell. */
int control_apply(struct control *control, const uint8_t *packet, size_t size, const struct wire_header *header,
    struct refusal *refusal);
