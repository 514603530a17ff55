/* Connections on their way to the loop that serves them, and from one loop to another; by what balance.h decides. Runs in
 * every loop; with a single one nothing of it does anything.
 *
 * A loop accounts for its load while it turns: processor time of its thread, without what it spun away, over the time since
 * the last account, SPREAD_ACCOUNT_US apart at least. One that sleeps says nothing, and is taken for idle soon after its last
 * word; it has no timer for this.
 *
 * A connection changes loops between two requests only, with nothing of the next one read: as a descriptor and what is
 * known of its peer, so that it is to its new loop like one just accepted. What the peer sends meanwhile waits in the
 * socket. Calls of RUN/dispatch.sock count alike: none may be open. Connections that speak HTTP/2 stay: their sessions' state
 * is large, and clients open few of them. A connection in the mail belongs to nobody, as an environment does; when the
 * process leaves it is closed, and when the dispatcher is replaced it is given from the loop that it comes to.
 *
 * Nothing is moved while the node drains or hands over. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dispatch/balance.h"
#include "dispatch/mailbox.h"

#define SPREAD_ACCOUNT_US 50000u
#define SPREAD_STALE_US 200000u
#define SPREAD_ACTIVE_US 200000u /* a connection used since then is active */
#define SPREAD_ROOM 512u         /* connections that are packed on one loop */
#define SPREAD_LOOK_MAX 2048u    /* connections looked at in one account */

#define SPREAD_LEAVING_US 200000u /* those that should go and cannot by then, stay */

struct dispatch;
struct loops;

/* A connection on its way. */
struct newcomer {
    struct mail mail;
    int fd;
    uint64_t detail;
    void (*take)(struct dispatch *dispatch, int fd, uint64_t detail);
};

/* Connections that should go. */
struct spread_leaving {
    unsigned to;
    uint32_t count;
    uint64_t used_us; /* only those used since then */
    uint64_t until_us;
};

/* Of one loop. */
struct spread {
    struct balance_state state;
    struct spread_leaving leaving;
    uint64_t account_us, cpu_us, spun_us; /* at the last account */
    char apart[64];                       /* from what only the loop touches */
    _Atomic uint32_t load;                /* per mille */
    _Atomic uint64_t load_us;             /* as of then */
    _Atomic uint64_t taken, sent, open;   /* connections: come by mail, gone by mail to this loop, and open */
    char apart_too[64];
};

/* The loop that a new connection should go to. */
unsigned spread_choose(struct loops *loops);
/* One is on its way to that loop by other mail; it counts itself as taken there. */
void spread_sent(struct loops *loops, unsigned to);
void spread_took(struct dispatch *dispatch);
/* `take` is called in that loop. */
void spread_send(struct dispatch *from, unsigned to, int fd, uint64_t detail,
    void (*take)(struct dispatch *dispatch, int fd, uint64_t detail));
/* A new one, from the first loop to the one that should have it. */
void spread_hand_out(
    struct dispatch *first, int fd, uint64_t detail, void (*take)(struct dispatch *dispatch, int fd, uint64_t detail));
/* After each batch. */
void spread_step(struct dispatch *dispatch);
