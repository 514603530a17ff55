/* What logs.c needs of log_records.c: records into the ring, tagged. Both run in the loop. */
#pragma once

#include "dispatch/environment.h"
#include "dispatch/logs.h"

/* One record, its payload in up to two parts. What the ring does not take is counted, and told by a DROPPED record in
 * its place as soon as there is room. */
void log_emit(struct environment *environment, enum log_kind kind, const struct log_tag *tag, uint64_t time_us,
    struct wire_slice first, struct wire_slice second);
/* Where lines outside of any invocation go besides the log; NULL once the first invocation has begun. */
struct log_tail *logs_early(struct environment *environment);
/* invocation NULL: outside of any. */
struct log_tag log_tag_of(const struct environment *environment, const struct invocation *invocation);
