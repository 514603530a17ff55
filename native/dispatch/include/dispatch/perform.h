/* Carries out what the state table commands. */
#pragma once

#include "dispatch/environment.h"

struct target;

/* Time limits of ours, not the function's. */
#define PERFORM_LAUNCH_US 30000000u /* LAUNCH until LAUNCHED */
#define PERFORM_LEAVE_US 200000u    /* hang-up until END */
#define PERFORM_EXIT_US 5000000u    /* that END until EXITED */
#define PERFORM_PEAK_US 100000u     /* peak memory is read at most so often */

/* The environment may be gone when this returns (state DEAD); its memory is freed after the batch. */
void environment_handle(
    struct environment *environment, enum environment_event event, const struct environment_detail *detail);
struct environment *environment_new(struct target *target);
/* One that another dispatcher began: idle, and offered to nobody yet. NULL: out of memory. */
struct environment *environment_take(struct target *target, uint64_t id);
/* Frees those that died during the batch. */
void environments_collect(struct dispatch *dispatch);

/* freezer.c. Reads peak memory unless it was read a moment ago. */
void environment_sample(struct environment *environment);
void environment_see_peak(struct environment *environment, uint64_t kb);
void environment_freeze(struct environment *environment);
void environment_thaw(struct environment *environment);
/* It was frozen by another dispatcher. */
void environment_was_frozen(struct environment *environment);
/* Counts it among the frozen ones of this loop, and out of them. */
void environment_is_frozen(struct environment *environment);
void environment_not_frozen(struct environment *environment);
