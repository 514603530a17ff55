/* The environment's end of its channel to the dispatcher: a SOCK_SEQPACKET socket, one wire message a packet.
 * Runs in the environment, beside user code. Blocking; no state is shared between channels.
 *
 *   dispatcher: START                INVOKE CHUNK*                    INVOKE ...
 *   environment:      INIT_DONE                    RESULT CHUNK*
 *                     or INIT_ERROR                or STREAM_HEAD STREAM_CHUNK* STREAM_END
 *
 * A RESULT and a STREAM_END always carry the header flag READY: the runtime asks for its next invocation with it.
 *
 * Large bodies may lie in the arena, memory that is shared with the dispatcher and charged to this environment: it comes
 * with ATTACH and ARENA, between invocations, and is filled as far as ATTACH says, or as far as an answer needs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

/* Lambda's ceiling of a buffered payload, either way: 6 MiB and 100 bytes. */
#define ENDPOINT_BODY_MAX 6291556u

struct endpoint {
    int fd;
    uint64_t object; /* the environment, as START named it; repeated in every header sent */
    uint8_t *packet; /* WIRE_MESSAGE_MAX bytes: what arrived last; slices of decoded messages point into it */
    size_t size;
    uint8_t *arena; /* arena_size bytes, or NULL */
    uint32_t arena_size, arena_filled;
    bool arena_offered; /* for the answer to the invocation under way */
    bool ahead;         /* START said that nobody waits for this environment yet */
    bool rehearsing;
    const uint8_t *rehearsed; /* what arrives next, of rehearsed_size bytes; NULL: what the dispatcher sends */
    size_t rehearsed_size;
};

/* Answers up to here go through the socket. */
#define ENDPOINT_ARENA_LEAST (256u << 10)

#define ENDPOINT_INIT                                                                                                  \
    { .fd = -1 }

/* Without a descriptor. -ENOMEM. */
int endpoint_open(struct endpoint *endpoint);
/* Takes the descriptor (closed by endpoint_done) and makes it close-on-exec. */
void endpoint_attach(struct endpoint *endpoint, int fd);
void endpoint_done(struct endpoint *endpoint);

/* Waits for one packet; what concerns the arena is seen to on the way. Its size; 0: the dispatcher is gone; -EINTR: a
 * signal, call again; -EBADMSG: longer than any message, or no message of that kind. */
int endpoint_wait(struct endpoint *endpoint);

/* As if the packet, no longer than any message, had come, and to nobody: RESULTs are dropped until NULL ends it. The packet
 * stays the caller's, and is looked at by the next endpoint_wait. */
void endpoint_rehearse(struct endpoint *endpoint, const uint8_t *packet, size_t size);

/* To the launcher, before START: a spare, of that number, is complete. Its other end reads what comes before. */
int endpoint_send_ready(const struct endpoint *endpoint, uint64_t number);

/* Read the packet that arrived last. -EBADMSG: not that message, or malformed, or out of bounds. */
int endpoint_take_start(struct endpoint *endpoint, struct wire_start *ret_start);
/* A body in the arena is whole: body.size is total. */
int endpoint_take_invoke(struct endpoint *endpoint, struct wire_invoke *ret_invoke);
/* Appends to a body of `total` bytes, of which *filled are there. */
int endpoint_take_chunk(const struct endpoint *endpoint, uint8_t *body, uint32_t total, uint32_t *filled);

/* Block until the dispatcher's socket took everything. -EPIPE: it is gone; -EMSGSIZE: more than ENDPOINT_BODY_MAX (or
 * WIRE_INIT_ERROR_BODY_MAX), nothing was sent. Error types are cut at their maximum. */
int endpoint_send_init_done(const struct endpoint *endpoint);
int endpoint_send_init_error(const struct endpoint *endpoint, struct wire_slice type, struct wire_slice body);
/* error_type is looked at when `error`. */
int endpoint_send_result(struct endpoint *endpoint, const uint8_t id[16], bool error, struct wire_slice type,
    const uint8_t *body, size_t size);

/* A response in parts: its head with the first one (which may be empty), further ones, its end. Block as above, which
 * is how a slow caller holds up a handler. -EMSGSIZE: the error object has more than WIRE_STREAM_END_BODY_MAX bytes. */
int endpoint_send_head(
    const struct endpoint *endpoint, const uint8_t id[16], struct wire_slice content_type, struct wire_slice data);
int endpoint_send_part(const struct endpoint *endpoint, const uint8_t *data, size_t size);
/* error_type and body are looked at when `error`. */
int endpoint_send_end(const struct endpoint *endpoint, bool error, struct wire_slice type, struct wire_slice body);
