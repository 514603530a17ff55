/* How long logs stay: bytes of one function, bytes of all, and age. Used by the log writer's thread; no state.
 *
 * Age is that of a segment's last write. The directory of a function that writes no more, because it was deleted or for
 * any other reason, goes with its last segment. A crash in the midst leaves less to remove. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct log_limits {
    uint64_t function_bytes; /* 0: LOG_SEGMENTS full segments */
    uint64_t node_bytes;     /* 0: any */
    uint64_t keep_us;        /* 0: for ever; see log_clock_believed */
};

/* What a sweep knows of the clocks since the one before; zeros at the start. */
struct log_clock {
    uint64_t real_us, boot_us, doubted_us;
    bool known, doubted;
};

/* A clock that jumped by more than that, or reads so much more than when anything was written last, is wrong or was: for
 * as long nothing is removed for its age. */
#define LOG_DOUBT_US UINT64_C(86400000000)
/* Are ages to be believed? `newest_us`: of the last write to any log, 0 when there is none. */
bool log_clock_believed(struct log_clock *clock, uint64_t real_us, uint64_t boot_us, uint64_t newest_us);

#define LOG_NAME_SIZE 24
void log_segment_name(char ret_name[LOG_NAME_SIZE], uint32_t sequence);
/* The size at which a segment is full. */
uint32_t log_segment_bytes(const struct log_limits *limits);

/* The sequence numbers in use; newest 0: none. */
int log_survey(int directory, uint32_t *ret_newest, uint32_t *ret_oldest);
/* When a segment begins, of those there are the newest stay that leave room for it: by size, so that small ones, which
 * restarts left, do not count as full. Returns the bytes removed. */
uint64_t log_drop_oldest(const struct log_limits *limits, int directory, uint32_t newest, uint32_t *oldest);
/* Removes what is too old, then the oldest of all functions until a sixteenth of the node's bytes is free, if they are
 * exceeded, both by the clocks now. Returns how many segments went, or a negative errno; *ret_bytes: what is left. */
int log_sweep(const struct log_limits *limits, struct log_clock *clock, int logs, uint64_t *ret_bytes);
