/* What a segment's footer will say, gathered while its groups are written or read back. */
#pragma once

#include "queue/segment.h"

struct built_event {
    uint8_t uid[16];
    struct footer_event event;
};

struct builder {
    struct built_event *events;
    struct footer_change *changes;
    uint32_t n_events, events_capacity, n_changes, changes_capacity;
    uint64_t sequence;
    uint64_t keyed_ms;
    uint64_t ordinals; /* the next event's */
};

void builder_reset(struct builder *builder, uint64_t sequence);
void builder_done(struct builder *builder);
/* One record that stands at `offset`. A MOVED event brings up to two changes: its own state, and that its origin is
 * settled. -ENOMEM; -EBADMSG for an ordinal or offset that cannot be. */
int builder_add(struct builder *builder, const struct record *record, uint64_t offset);
/* Room for that many more, so that builder_add cannot fail by memory. */
int builder_reserve(struct builder *builder, uint32_t events, uint32_t changes);
/* Sorted, as the footer wants them; the builder stays as it is but for the order of its events. */
int builder_footer(struct builder *builder, struct footer *ret_footer);
