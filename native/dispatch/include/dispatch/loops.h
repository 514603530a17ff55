/* The dispatcher's loops: a thread each with an epoll, tables, connections and environments of its own. A call is served by
 * the loop of its connection, from its first byte to its last; it is the environments that go where they are needed
 * (travel.h). The first loop is the process's main thread.
 *
 * Who owns what:
 *   one loop alone        connections, exchanges, invocations, streams; environments, with channel, arena, log pipe and
 *                         runtime; its copies of targets, routes, keys; timers; what it has drawn of the budget; its
 *                         region of the counters; its log ring, which the log writer's thread empties
 *   the first alone       listeners (spread.h says who has what they take), what the launcher says (passed on by mail),
 *                         the control plane's link and SNAPSHOTs, `reaper`, `depth`
 *   whoever, atomically   tokens of limits (pool.h); common_target.live and what loops show in its views (common.h); the
 *                         node's room (room.h); the budget's common part and functions' shares (request.h); buckets of
 *                         logs; flags for the first: is_over, gave_all; what this structure has so
 *   whoever, under `lock` `owners`; the forwards under way and their credit (forward.h), with the sending of FORWARD
 *   whoever, by packets   the launcher's socket: whole packets, each about what the loop has itself
 *   standing still        everything of everybody, by the first between loops_stop and loops_go: all that the control
 *                         plane puts, DRAIN and HAND_OVER, SNAPSHOT, freeing of functions and targets, the end
 *   in the mail           an environment, connection or packet on its way: nobody, until it is delivered
 *
 * With a single loop there is no thread, no mailbox, no lock, and nothing stands still. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/descriptor.h"
#include "dispatch/admission.h"
#include "dispatch/balance.h"
#include "dispatch/logs.h"
#include "dispatch/mailbox.h"
#include "dispatch/pool.h"
#include "dispatch/request.h"
#include "dispatch/room.h"
#include "dispatch/stream.h"
#include "dispatch/table.h"

#define LOOPS_REAP_US 100000u /* between looks at retired targets */
#define LOOPS_PATIENCE_US (UINT64_C(3600) * 1000000)

struct dispatch;
struct events;
struct log_writer;

/* A packet of the launcher on its way to the loop that it is for. */
struct parcel {
    struct mail mail;
    uint32_t size;
    unsigned n_fds;
    int fds[DESCRIPTORS_MAX];
    uint8_t data[];
};

struct loops {
    unsigned n;
    struct dispatch *each[LOOPS_MAX]; /* the first is the process's own */
    pthread_t threads[LOOPS_MAX];
    unsigned n_threads; /* besides the main one */
    int (*confine)(void);
    pthread_barrier_t confined;

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
    uint32_t burst; /* environments more of a function at once, and again in each BURST_WINDOW_US; 0: without limit */
    struct timer reaper;         /* retired targets are looked at again */
    struct balance_rule balance; /* of connections over loops */

    _Atomic uint32_t launching; /* LAUNCHes of all loops that are not answered */
    _Atomic uint64_t unproven;  /* bytes of bodies whose signatures are not checked yet, of all loops */
    _Atomic uint32_t launcher_epoch;
    _Atomic bool connected; /* there is a control plane to tell */
    _Atomic bool leave;     /* what the others should do */

    pthread_mutex_t lock; /* of what follows; never taken on an invocation's way */
    pthread_cond_t changed;
    unsigned depth;      /* of loops_stop; the first loop's */
    unsigned still;      /* loops that stand still */
    uint32_t rounds;     /* ended */
    struct table owners; /* id of an environment that left the loop that launched it → struct dispatch */
};

/* What they have in common, made before any of them. 0 or a negative errno. */
int loops_new(struct loops **ret_loops, unsigned n, uint64_t payload_bytes, uint32_t concurrency);
/* Starts a thread for each loop but the first, and confines them. All of `each` are open. */
int loops_start(struct loops *loops, int (*confine)(void));
/* Ends the threads: from here on the caller is alone. */
void loops_join(struct loops *loops);
/* Nothing uses it any more. */
void loops_free(struct loops *loops);

void loops_post(struct loops *loops, unsigned number, struct mail *mail);
/* Delivers what has come for this loop. */
void loops_read_mail(struct dispatch *dispatch);
/* Opens a loop's mailbox; with a single loop it has none. */
int loops_open_mailbox(struct dispatch *dispatch);
/* The first loop's: the others stand still between two events, all their memory is the caller's, until loops_go. Each
 * stop needs a go. */
void loops_stop(struct loops *loops);
void loops_go(struct loops *loops);

/* Around the little that loops change of what is the first's. Nothing with a single loop. */
void loops_lock(struct loops *loops);
void loops_unlock(struct loops *loops);

/* The loop that an environment belongs to, or is on its way to. */
unsigned loops_owner(struct loops *loops, uint64_t environment);
/* It goes to that one, being in the mail. 0 or -ENOMEM: it stays. */
int loops_move(struct loops *loops, uint64_t environment, unsigned to, struct mail *mail);
/* It is no more. */
void loops_disown(struct loops *loops, uint64_t environment);
/* Passes a packet of the launcher on, descriptors and all. */
void loops_pass_on(struct loops *loops, unsigned number, struct packet *packet);
/* Does no loop have anything left to do, being drained, or replaced? The first loop's, at the end of its turn. */
bool loops_over(struct loops *loops);
/* Retired targets that no loop has any use for are freed, now and as long as there are any. While the others stand
 * still. With a single loop each goes by itself. */
void loops_reap(struct loops *loops);
/* Other loops look at their idle environments: one of this loop waits for room; or there is some again. */
void loops_tell_room(struct dispatch *dispatch);
