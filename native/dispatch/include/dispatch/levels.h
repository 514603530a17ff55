/* Levels towards the control plane: what is dirty is sent, newest value only; see control.h. */
#pragma once

#include <stdint.h>

#include "base/list.h"
#include "dispatch/control.h"

void levels_init(struct levels *levels);
/* Sends what is dirty, if its time has come. 0 or a negative errno; -EAGAIN: later. */
int levels_send(struct control *control);
/* Without a control plane nobody needs to hear of the dead: the next SNAPSHOT lacks them. */
void levels_forget(struct control *control);
/* For its users here: sends what was encoded into dispatch.packet_out. */
int control_send(struct control *control, int size, const int *fds, unsigned n_fds);
