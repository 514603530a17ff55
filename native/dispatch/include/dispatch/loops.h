/* The loops of the dispatcher and what they have in common.
 *
 * Each loop is a thread with a whole struct dispatch: tables, connections, environments, timers, counters, log ring,
 * randomness. An invocation stays on the loop that its connection belongs to, and runs in an environment of that loop:
 * on its way it meets no lock and no memory that another loop writes. The first loop, the process's main thread, also
 * has the sockets to the launcher and the control plane, and the listeners: it hands connections out, to the loop with
 * the fewest.
 *
 *   control plane   What it puts is applied to all loops' tables by the first one while the others stand still
 *                   (loops_stop, loops_go): once acknowledged, every loop knows it. Levels come to the first loop by
 *                   mail, a batch at a time.
 *   launcher        Every loop sends on the one socket (packets are whole); what comes in is passed on by mail to the
 *                   loop whose environment it is about. Four bits of an environment's id name the loop that launched
 *                   it; `owners` says where it went since.
 *   limits          pool.h; memory for payloads: request.h.
 *   environments    belong to one loop, and change it while they are idle: travel.h. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dispatch/admission.h"
#include "dispatch/logs.h"
#include "dispatch/mailbox.h"
#include "dispatch/pool.h"
#include "dispatch/request.h"
#include "dispatch/room.h"
#include "dispatch/stream.h"
#include "dispatch/table.h"

struct dispatch;
struct log_writer;

struct loops {
    unsigned n;
    struct dispatch *each[LOOPS_MAX]; /* the first is the process's own */
    struct account account;
    struct stream_limits stream_limits; /* changed while all loops but one stand still */
    struct table functions, targets;    /* common.h */
    struct budget_common budget;
    struct bucket log_bucket;
    struct log_writer *log_writer;
    struct room_common room;
};

/* What they have in common, made before any of them. 0 or a negative errno. */
int loops_new(struct loops **ret_loops, unsigned n, uint64_t payload_bytes, uint32_t concurrency);
/* Nothing uses it any more. */
void loops_free(struct loops *loops);
