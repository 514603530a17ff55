/* A SNAPSHOT: all environments of all loops at one moment, sent as fast as the control plane reads. What changes while it
 * is on its way is dirty, and told after it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct control;

struct snapshot_row {
    uint64_t id, target, invocations;
    uint8_t state; /* as on the wire */
};

/* Fills control->rows, oldest first. 0 or -ENOMEM. */
int control_snapshot_take(struct control *control);
/* It was told, or is not wanted any more; again: another is to be begun. */
void control_snapshot_done(struct control *control, bool again);
