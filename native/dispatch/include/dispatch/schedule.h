/* Which invocation goes to which environment, and when another environment is launched. Runs in the loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct dispatch;
struct environment;
struct invocation;
struct target;

/* A call that is never given an environment is refused after the target's init limit and time-out and this. */
#define SCHEDULE_WAIT_SLACK_US 2000000u
#define SCHEDULE_BACKOFF_MIN_MS 4u
#define SCHEDULE_BACKOFF_MAX_MS 500u
/* LAUNCHes without an answer, of the node: whichever loop needs them. */
#define SCHEDULE_LAUNCHES_MAX 64u

/* A new invocation: to an idle environment, or into the queue. */
void schedule_invocation(struct invocation *invocation);
/* Would one more invocation be served in time? False: the function grows as fast as it may, and too many wait already. */
bool schedule_serves(const struct target *target);
/* The idle environment that is used next, or NULL. */
struct environment *schedule_idle(const struct target *target);
/* An environment is free. */
void schedule_environment(struct environment *environment);
/* Launches what is needed and sets the target's timer. After everything that changes queue or environments. */
void schedule_target(struct target *target);
/* Takes an invocation out of the queue. */
void schedule_unqueue(struct invocation *invocation);
/* The oldest waiting invocation, or NULL. */
struct invocation *schedule_head(const struct target *target);
/* The same, unqueued. */
struct invocation *schedule_pop(struct target *target);
/* Back to the front. */
void schedule_push_back(struct invocation *invocation);
/* Of one that was assigned already: to who is idle, or to the head of the queue. */
void schedule_again(struct invocation *invocation);
/* A new environment, LAUNCH sent. reserved: the invocation that its init runs inside, or NULL. NULL: out of memory. */
struct environment *schedule_launch(struct target *target, struct invocation *reserved, uint32_t incarnation);
void schedule_timer(struct target *target);
