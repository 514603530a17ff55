/* From one dispatcher to the one that replaces it, so that no call fails. Runs in the loops of each; the launcher passes
 * HANDED on between them, says when, and keeps the record of who owns which environment.
 *
 *   handover.c   the old one, from HAND_OVER on: gives what is idle, finishes what it runs, leaves
 *   takeover.c   the new one: checks what it is given and takes it, or has it ended
 *
 * Given are: environments that are idle (channel, log pipe, freezer, peak, the Runtime API's listener and its parked
 * connection; counts and ages), also those that become so later; callers' connections between two requests over HTTP/1.1,
 * with what was read of the next one; connections of RUN/dispatch.sock, whose next calls the new one reads while answers to
 * those before still come from the old one (when that dies, the new one ends the connections on which it owed some).
 * HTTP/2 has state that cannot be given: its callers hear GOAWAY, and connect anew once their calls are answered. What is not
 * idle stays: environments at work, requests whose body is coming, the waiting queue with as many environments as it needs.
 * An environment whose runtime has more connections than the parked one is ended when it is idle.
 *
 * Order: connections first; then HANDOVER_SETTLE_US at most until HTTP/2's callers have heard; then environments, those used
 * longest ago first. The new one launches nothing before all were given (or HANDOVER_EXPECT_US have passed): what it needs is
 * on its way.
 *
 * Several loops: all begin while they stand still, and each gives what it has; ALL is said by the first when each has gone
 * once through its own; it leaves when it sees none of them, and no mail between them, with anything left, while they
 * stand still. In the new one connections go where new ones would (balance.h), and environments to the one that their id names
 * (loops_owner), or to the first; ALL goes around behind them. Neither needs as many loops as the other.
 *
 * Counters go on where the old one's stand (inherit.h). The event log is not given: it is closed here once nobody is about
 * to bring an event and no attempt runs, EVENTS_GIVE_US after HAND_OVER at the latest, and opened by the new one, whose
 * callers wait for that.
 *
 * Not given: what was kept of an init phase for the first log tail. Each of the two has its own account of concurrency: while
 * both run, together they may exceed a limit.
 *
 * Trust: what comes is checked as if the old one were hostile (kinds of descriptors, targets, numbers). Whose an environment
 * is, and that the descriptors are its own, the launcher says, which gave them; who a caller is, is asked of the kernel
 * again. A state of a version above HANDOVER_VERSION cannot be read, and the old one is told so beforehand: it then gives
 * nothing, lets go of its callers as they are answered, and its environments end with it. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dispatch/timers.h"

#define HANDOVER_VERSION 1u
#define HANDOVER_SETTLE_US 200000u
#define HANDOVER_EXPECT_US 2000000u

struct dispatch;
struct environment;
struct loops;
struct packet;

struct handover {
    /* The old one. */
    bool giving;
    bool keeping;              /* nobody reads what would be given */
    _Atomic bool gave_all;     /* once through all of this loop */
    bool told_all;             /* that every loop has: the first's */
    _Atomic bool events_quiet; /* nobody is about to bring an event to this loop */
    bool gave_events;          /* to none: the first's */
    uint64_t began_us;
    struct timer timer; /* makes the loop turn */

    /* The new one. */
    uint64_t expecting_us; /* until then, environments may come; 0: none will */
};

void handover_init(struct handover *handover);
/* HAND_OVER. version: what the other one reads. */
void handover_begin(struct loops *loops, uint32_t version);
/* After each batch. */
void handover_step(struct dispatch *dispatch);
/* This loop owes nothing to anybody any more. */
bool handover_done(const struct dispatch *dispatch);

/* Another dispatcher runs, and gives what it has. */
void takeover_expect(struct loops *loops);
/* Calls are taken: the first loop tells the launcher. */
void takeover_serve(struct dispatch *dispatch);
/* Are environments on their way? Then this is until when to wait for them. */
uint64_t takeover_expected_us(const struct dispatch *dispatch);
/* HANDED. */
void takeover_message(struct dispatch *dispatch, struct packet *packet);
