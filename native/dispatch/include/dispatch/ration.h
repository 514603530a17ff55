/* What an environment may have the loop do of its own accord: connect to the Runtime API, ask what nobody waits for,
 * answer in the smallest of parts. Runs in the loop.
 *
 * A token bucket in units that cost about a microsecond of the loop each, however fast the machine is: so many
 * of them a second (loops.ration), RATION_BURST times that at once, and RATION_INVOCATION with each invocation, so that
 * who does what is asked of it never runs out. Over it the environment rests: its listener, its connections and its channel are not read, what it
 * says waits with it, until some are there again. What is told to it goes out all the same. How far the
 * debt can go is bounded by what is read at once of one descriptor. A process that has ended is read to its end whatever
 * it costs: that is no more than its sockets held.
 *
 * Not counted here: the log pipe, which is read every LOG_PAUSE_US at most and has buckets of its own (logs.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dispatch/timers.h"

struct environment;

#define RATION_RATE 50000u /* a second, unless set otherwise (loops.ration): a twentieth of a core */
#define RATION_RATE_MAX 1000000u
#define RATION_BURST 2u  /* seconds' worth, at once */
#define RATION_AWAKE 50u /* the part of a second's worth that must be there again */
#define RATION_INVOCATION 4000u

#define RATION_CONNECTION 25u /* its end, too */
#define RATION_WAKE 5u        /* a descriptor that has something to read */
#define RATION_CALL 10u       /* of the Runtime API, with its answer */
#define RATION_PART 4u        /* a packet of a body that comes in several */
#define RATION_UNIT_BYTES 4096u

struct ration {
    int64_t left; /* negative: in debt */
    uint64_t filled_us;
    struct timer timer; /* the end of a rest; or a channel that could not be watched is tried again */
    bool resting;
};

void ration_init(struct environment *environment);
void ration_done(struct environment *environment);
/* So many units are used up, and the bytes that were read. */
void ration_spend(struct environment *environment, uint32_t units, uint64_t bytes);
/* An invocation is given to it. */
void ration_grant(struct environment *environment);
/* The environment goes to another loop; it has come to this one: a rest goes on there. */
void ration_leave(struct environment *environment);
void ration_settle_in(struct environment *environment);
bool ration_rests(const struct environment *environment);
/* Its channel is to be watched again in a moment. */
void ration_retry(struct environment *environment);
