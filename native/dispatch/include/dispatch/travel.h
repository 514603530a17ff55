/* Environments that go from one loop to another. Only idle ones do, at the end of a turn, whole: descriptors, pipes,
 * connections of its runtime; while it travels it is in the mail, and belongs to nobody.
 *
 * Why one goes:
 * - A loop has waiting invocations for which it would launch an environment, and another loop shows idle ones: it
 *   wishes for one instead (the wish counts as an environment that is starting). Whoever has none any more refuses.
 * - A loop is hungry: invocations waited long enough, whether an environment is being launched for them or cannot be (the
 *   target has as many as it may). Whose environment frees up gives it, when it has nobody waiting itself, or those
 *   came TRAVEL_PATIENCE_US later: a busy loop does not keep others out for ever.
 *
 * That nobody misses the other: a loop first shows that it is hungry and then looks for idle ones; one with an idle
 * environment first shows it and then looks for hungry ones. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct dispatch;
struct environment;
struct invocation;
struct target;

#define TRAVEL_PATIENCE_US 10000u

/* Wishes for up to `n`; returns for how many. */
uint32_t travel_wish(struct target *target, uint32_t n);
/* So many invocations, the oldest of them since then, have no environment here; 0: none. */
void travel_show_hungry(struct target *target, uint32_t n, uint64_t since_us);
/* A free environment goes to a loop that is hungry, if there is one with better right to it than `own` (NULL: nobody).
 * True: it is going; nothing else may be done with it. */
bool travel_give(struct environment *environment, const struct invocation *own);
/* It lies in the idle stack; another loop may be waiting for it. True: it is going. */
bool travel_offer(struct environment *environment);
/* It was going, and is not idle any more. */
void travel_missed(struct environment *environment);
/* Sends off what is going. At the end of a turn. */
void travel_depart(struct dispatch *dispatch);
/* Is any environment of this target on its way to this loop, or wished for? While it stands still. */
bool travel_is_expected(struct dispatch *dispatch, uint64_t target);
/* Calls for each that is on its way to this loop. While it stands still. */
void travel_look(
    struct dispatch *dispatch, void (*see)(struct environment *environment, void *argument), void *argument);
/* Frees all that is in the mailbox. No loop runs any more. */
void travel_discard(struct dispatch *dispatch);
