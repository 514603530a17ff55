/* Levels towards the control plane: what is dirty is sent, newest value only; see control.h. */
#pragma once

#include <stdint.h>

#include "base/list.h"
#include "dispatch/control.h"

struct dead;
struct demand_elsewhere;
struct dispatch;
struct target;

void levels_init(struct levels *levels);
void levels_done(struct levels *levels);
/* Sends what is dirty, if its time has come. 0 or a negative errno; -EAGAIN: later. */
int levels_send(struct control *control);
/* Without a control plane nobody needs to hear of the dead: the next SNAPSHOT lacks them. */
void levels_forget(struct control *control);
/* levels_notes.c. Of a loop besides the first: what is dirty goes to the first by mail, if its time has come. */
void levels_post(struct dispatch *dispatch);
/* Makes the loop turn. */
void levels_wake(struct dispatch *dispatch);
/* Of the first: what came of environments is not true of the next control plane, which begins with a SNAPSHOT. While all
 * others stand still. */
void levels_void(struct dispatch *first);
/* Of the first: sends on what came. 0 or a negative errno. */
int levels_send_arrived(struct control *control);

/* Between levels.c and levels_notes.c. */
bool levels_anything(const struct levels *levels);
struct demand_elsewhere levels_demand(const struct target *target);
int levels_send_state(struct control *control, uint64_t id, uint64_t target, uint8_t state, const char *reason);
void levels_told(struct levels *levels, struct dead *dead);
/* For its users here: sends what was encoded into dispatch.packet_out. */
int control_send(struct control *control, int size, const int *fds, unsigned n_fds);
