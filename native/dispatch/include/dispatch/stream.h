/* A response that comes in parts: from its environment to its caller, or into memory for a caller that wants it whole.
 * Part of an invocation; runs in the loop.
 *
 *   environment (STREAM_HEAD, STREAM_CHUNK*, STREAM_END, or the Runtime API) → stream → caller.begin, .chunk, .answer
 *
 * The two ends have lives of their own. When the caller is gone, the rest is read and forgotten, and the environment
 * finishes as it would have. When the environment is done, it is free, and what the caller has not taken yet lies in
 * its connection's memory. The one end of a stream is the exchange's one answer (exchange_answer): by whatever came
 * first of the environment's own end, its exit, time-out or violation, or the caller's.
 *
 * Bounds: a caller that holds STREAM_BUFFER unsent bytes is full: the environment is not read until half of them are
 * gone, so that its handler blocks in its write, under the function's time-out. Time without any progress is the
 * connection's affair (loops.stall_us): it is cut, and the environment goes on. What a process said before it ended
 * is read whatever it is, which is as much as its socket held. The first limits.burst bytes pass at full speed, then
 * limits.rate a second; what is above limits.bytes is not sent any more: the caller is told so at once. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dispatch/timers.h"
#include "protocol/wire.h"

struct environment;
struct environment_detail;
struct invocation;

/* Lambda's. */
#define STREAM_BYTES_MAX ((uint64_t)200 << 20)
#define STREAM_BURST (6u << 20)
#define STREAM_RATE (2u << 20)
/* Ours. */
#define STREAM_BUFFER (256u << 10)

struct stream_limits {
    uint64_t bytes, burst, rate; /* a second */
};

/* 0: Lambda's. */
struct stream_limits stream_limits(uint64_t bytes, uint32_t burst, uint32_t rate);

struct stream {
    struct invocation *invocation;
    uint64_t bytes; /* of the response, as far as it came */
    int64_t tokens; /* bytes that may pass now; negative: none */
    uint64_t filled_us;
    struct timer timer; /* there are tokens again */
    bool full;          /* the caller takes no more for now */
    bool slow;          /* no tokens */
    bool buffered;      /* the caller wants it whole */
    bool over;          /* nobody is told any more: the rest is forgotten */
    bool too_large;     /* and the caller knows why */
};

/* Takes the packet of that type. NULL, or how it breaks the channel's protocol. */
const char *stream_head(struct environment *environment, const uint8_t *packet, size_t size);
const char *stream_chunk(struct environment *environment, const uint8_t *packet, size_t size);
const char *stream_end(struct environment *environment, const uint8_t *packet, size_t size);

/* The same steps from a runtime of the function's own. The first one is followed by EVENT_RESULT_PART. -ENOMEM: it is
 * refused, and the rest is forgotten. */
int stream_begin(struct invocation *invocation, struct wire_slice content_type);
void stream_take(struct invocation *invocation, struct wire_slice data);
/* Makes of an end what EVENT_BODY_DONE is told with. */
void stream_finish(struct invocation *invocation, struct environment_detail *detail);

/* The environment's socket is not to be read now. */
bool stream_waits(const struct environment *environment);
/* The caller takes more, or is gone. */
void stream_resume(struct invocation *invocation);
void stream_free(struct invocation *invocation);
