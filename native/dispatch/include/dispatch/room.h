/* The node's room for environments: how many there may be over all functions, and whose go when another function needs
 * one. Runs in the loop.
 *
 * Every environment counts from its LAUNCH until its EXITED. When there is no room for one that is needed, the idle
 * environment that was used longest ago ends, whosever it is; when none is idle, the next that frees up does, and
 * targets that wait for room get it in turn. An environment serves its own function's queue first, unless somebody of
 * another function has waited ROOM_PATIENCE_US longer than the head of that queue: a busy function does not keep
 * others out for ever. (An init repeated inside an invocation is launched while its predecessor ends: one above.) */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define ROOM_PATIENCE_US 100000u

struct dispatch;
struct environment;
struct target;

struct room {
    uint32_t limit;      /* 0: none */
    uint32_t leaving;    /* environments that were told to end and have not */
    uint32_t wanted;     /* sum of the targets' missing ones */
    struct list idle;    /* environments, used longest ago first */
    struct list waiting; /* targets that miss some, in turn */
};

void room_init(struct room *room);
/* How many may be launched now. */
uint32_t room_left(const struct dispatch *dispatch);
/* The target needs so many more than there is room for; 0: none. Ends idle environments of others. */
void room_want(struct target *target, uint32_t missing);
/* Must this environment, which is free, make room instead of going on? */
bool room_is_owed(const struct environment *environment);
/* An environment is gone, or the limit was changed. */
void room_changed(struct dispatch *dispatch);
