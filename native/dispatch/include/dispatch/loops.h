/* What the dispatcher's loops have in common: limits (pool.h), functions and targets (common.h), memory for payloads
 * (request.h), the log writer, the node's room. Made for several loops; the dispatcher runs one, the first. */
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
struct events;
struct log_writer;

struct loops {
    unsigned n;
    struct dispatch *each[LOOPS_MAX]; /* the first is the process's own */
    struct account account;
    struct stream_limits stream_limits; /* this and the next two: changed while all loops but one stand still */
    uint64_t stall_us;                  /* without progress in taking an answer: its connection ends */
    uint32_t ration;                    /* ration.h */
    struct table functions, targets;    /* common.h */
    struct budget_common budget;
    struct bucket log_bucket;
    struct log_writer *log_writer;
    struct events *events; /* NULL: this node has no event log */
    struct room_common room;
};

/* What they have in common, made before any of them. 0 or a negative errno. */
int loops_new(struct loops **ret_loops, unsigned n, uint64_t payload_bytes, uint32_t concurrency);
/* Nothing uses it any more. */
void loops_free(struct loops *loops);
