/* The ANSWER commands of environments that fail: each finds the one invocation that the end concerns (the bound one;
 * during init the one it was reserved for, else the head of the queue; maybe none) and answers it. */
#pragma once

#include "dispatch/environment.h"

void outcome_init_error(struct environment *environment, const struct environment_detail *detail);
void outcome_exit(struct environment *environment, const struct environment_detail *detail);
void outcome_timeout(struct environment *environment);
void outcome_violation(struct environment *environment, const struct environment_detail *detail);
void outcome_launch(struct environment *environment, const struct environment_detail *detail);
