/* Whose turn an environment is on a full node, where functions take turns at environments. Pure: numbers in, a time out.
 *
 * Making an environment costs far more than most invocations. An environment that gave way to whoever waits as soon as its
 * own function had nothing waiting, be it for the moment that a caller needs to call again, would be made for a
 * single invocation, and another after it. So a turn lasts: since the environment was made, or since another began to wait,
 * whichever is later, TURN_US, or its part of it where more functions wait than there are environments, but no less than
 * what it took to make. Then who waits for room waits about TURN_US, or about twice as long as it would if nobody had turns.
 *
 *   While the turn lasts the environment serves its function; idle, it stays for as long as it took to make, TURN_LINGER_US at
 *   most, where the last two pauses of its function were shorter than that.
 *   After it, it still serves what came before who waits for room.
 *
 * So functions that are called without end share environments by turns of the same length, and each turn serves many
 * invocations; who is called now and then keeps nothing that others wait for. */
#pragma once

#include <stdint.h>

#define TURN_US UINT64_C(100000)
#define TURN_LINGER_US UINT64_C(5000)

struct turn_view {
    uint64_t now_us;
    uint64_t made_us;  /* when it was through its init phase */
    uint64_t cost_us;  /* what it took until then, from its launch on */
    uint64_t idle_us;  /* since when it is idle; now, if it would be */
    uint64_t pause_us; /* of its function without any invocation: the longer one of the last two; UINT64_MAX: unknown */
    uint64_t own_us;   /* when the first of its function that waits arrived; 0: none does */
    uint64_t other_us; /* the same of those that wait for room; 0: nobody, though room is wanted */
    uint32_t line;     /* functions that wait for room */
    uint32_t places;   /* environments that there may be */
};

/* It stays until then; 0: it gives way now. Asked again whenever something of the view has changed. */
uint64_t turn_until(const struct turn_view *view);
