/* Links: the launcher's ends of the SEQPACKET sockets to the processes it started. Reading is bounded per turn; what
 * the kernel does not take at once is queued with its descriptors, and a peer that lets the queue grow beyond its bound
 * counts as gone (the owner ends it and starts a fresh one: every state here can be told again). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/descriptor.h"
#include "base/list.h"
#include "loop.h"
#include "protocol/wire.h"

#define LINK_TURN 64      /* packets read from one link before others have their turn */
#define LINK_QUEUE 16384u /* packets waiting to be sent */

struct link {
    struct loop *loop;
    struct watch watch;
    int fd;
    struct list out;
    unsigned queued;
    int error;      /* after a failure nothing is sent any more */
    uint32_t epoch; /* stamped on every message */
    const char *name;
    /* A whole packet; descriptors that the handler wants it takes out with link_take. The handler may close the link. */
    void (*message)(void *owner, const struct wire_header *header, struct packet *packet);
    /* End of stream, a packet that is not ours, or a full queue. Called once, from the loop, never from link_send. */
    void (*closed)(void *owner, int error);
    void *owner;
    struct timer failed; /* carries a send's failure to the loop */
    uint8_t *buffer;
};

bool link_is_open(const struct link *link);
/* Takes the descriptor, also on failure. The callbacks are set beforehand. */
int link_open(struct link *link, struct loop *loop, int fd, uint32_t epoch);
/* Closes and forgets what was queued. No callback. */
void link_close(struct link *link);
/* Copies the packet; the descriptors stay the caller's. After a failure of the link: dropped, as if the peer had read it and died. */
void link_send(struct link *link, const uint8_t *data, int size, const int *fds, unsigned n_fds);
/* Reads whatever has arrived, without bound: before its process is reaped. */
void link_drain(struct link *link);
/* One descriptor out of a packet, -1 when it has no such. */
int link_take(struct packet *packet, unsigned index);

struct wire_slice link_text(const char *text);
/* A field's text into a terminated buffer, cut to fit. */
void link_copy_text(struct wire_slice slice, char *buffer, size_t size);

/* LINK_SEND(link, header, plan_state, {.state = ..}, fds, n): encodes on the stack and sends. Messages of the launcher are small. */
#define LINK_SEND(link, header_, type, message_, fds, n_fds)                                                           \
    do {                                                                                                               \
        uint8_t _buffer[1024];                                                                                         \
        struct wire_header _header = (header_);                                                                        \
        _header.epoch = (link)->epoch;                                                                                 \
        int _size = wire_##type##_encode(&_header, &(message_), _buffer, sizeof(_buffer));                             \
        link_send((link), _buffer, _size, (fds), (n_fds));                                                             \
    } while (0)
#define HEADER(object_) ((struct wire_header){.object = (object_)})
