/* The environment's end of its channel to the dispatcher: a SOCK_SEQPACKET socket, one wire message a packet.
 * Runs in the environment, beside user code. Blocking; no state is shared between channels.
 *
 *   dispatcher: START                INVOKE CHUNK*                    INVOKE ...
 *   environment:      INIT_DONE                    RESULT CHUNK*
 *                     or INIT_ERROR
 *
 * A RESULT always carries the header flag READY: the runtime asks for its next invocation with it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

/* Lambda's ceiling of a buffered payload, either way: 6 MiB and 100 bytes. */
#define CHANNEL_BODY_MAX 6291556u

struct channel {
    int fd;
    uint64_t object; /* the environment, as START named it; repeated in every header sent */
    uint8_t *packet; /* WIRE_MESSAGE_MAX bytes: what arrived last; slices of decoded messages point into it */
    size_t size;
};

#define CHANNEL_INIT                                                                                                   \
    { .fd = -1 }

/* Takes the descriptor (closed by channel_done) and makes it close-on-exec. -ENOMEM. */
int channel_open(struct channel *channel, int fd);
void channel_done(struct channel *channel);

/* Waits for one packet. Its size; 0: the dispatcher is gone; -EINTR: a signal, call again; -EBADMSG: longer than any
 * message. */
int channel_wait(struct channel *channel);

/* Read the packet that arrived last. -EBADMSG: not that message, or malformed, or out of bounds. */
int channel_take_start(struct channel *channel, struct wire_start *ret_start);
int channel_take_invoke(const struct channel *channel, struct wire_invoke *ret_invoke);
/* Appends to a body of `total` bytes, of which *filled are there. */
int channel_take_chunk(const struct channel *channel, uint8_t *body, uint32_t total, uint32_t *filled);

/* Block until the dispatcher's socket took everything. -EPIPE: it is gone; -EMSGSIZE: more than CHANNEL_BODY_MAX (or
 * WIRE_INIT_ERROR_BODY_MAX), nothing was sent. Error types are cut at their maximum. */
int channel_send_init_done(const struct channel *channel);
int channel_send_init_error(const struct channel *channel, struct wire_slice type, struct wire_slice body);
/* error_type is looked at when `error`. */
int channel_send_result(const struct channel *channel, const uint8_t id[16], bool error, struct wire_slice type,
                        const uint8_t *body, size_t size);
