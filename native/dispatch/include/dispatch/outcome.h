/* The ANSWER commands of environments that fail: each finds the one invocation that the end concerns (the bound one;
 * during init the one it was reserved for, else the head of the queue; maybe none) and answers it. */
#pragma once

#include "dispatch/environment.h"

/* Of restoring a snapshot, hooks included: Lambda's. */
#define OUTCOME_RESTORE_US UINT64_C(10000000)

void outcome_init_error(struct environment *environment, const struct environment_detail *detail);
void outcome_exit(struct environment *environment, const struct environment_detail *detail);
/* Not an answer: its invocation is as before it was assigned. */
void outcome_unread(struct environment *environment);
void outcome_timeout(struct environment *environment);
void outcome_violation(struct environment *environment, const struct environment_detail *detail);
void outcome_launch(struct environment *environment, const struct environment_detail *detail);

/* How long the init phase may take; of a restored environment: its restoring. */
uint64_t outcome_init_limit_us(const struct environment *environment);
/* Restoring has ended well, or took too long: no second attempt inside the invocation. */
void outcome_restored(struct environment *environment);
void outcome_restore_timeout(struct environment *environment);
