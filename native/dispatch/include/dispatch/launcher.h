/* The link to the launcher (descriptor 3), on which every loop sends: LAUNCH, ARENA, END, SERVING out; LAUNCHED,
 * LAUNCH_FAILED, ARENA, EXITED, PEER, DRAIN, HAND_OVER in; HANDED both ways (handover.h). When it closes, all ends:
 * environments are the launcher's children. What the socket does not take waits as a bit on its
 * environment. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/loop.h"
#include "protocol/wire.h"

struct dispatch;
struct environment;
struct packet;

struct launcher_link {
    struct watch watch;
    struct dispatch *dispatch;
    struct list outbox;
    char build[WIRE_HELLO_BUILD_MAX + 1]; /* the launcher's: the control plane's must be the same */
    uint32_t launching;                   /* this loop's LAUNCHes that are not answered */
    bool first;                           /* the first loop's: it reads */
    bool hello_sent, writing;
    bool serving_unsent;  /* SERVING is to be told */
    struct list unknown;  /* struct unknown: environments of others that are to end */
    uint8_t packet[4096]; /* larger messages it does not send */
};

/* launcher_packets.c. What it said. */
void launcher_packet(struct launcher_link *link, struct packet *packet);
int launcher_open(struct launcher_link *link, struct dispatch *dispatch, int fd);
void launcher_close(struct launcher_link *link);
void launcher_launch(struct environment *environment);
void launcher_ask_arena(struct environment *environment);
void launcher_end(struct environment *environment, uint8_t reason);
/* The same for one that was handed over and cannot be used. */
void launcher_end_unknown(struct launcher_link *link, uint64_t id);
/* To a BEAT. Lost when the socket is full: the next one comes. */
void launcher_answer_beat(struct launcher_link *link, uint32_t seq);
/* Calls are taken. */
void launcher_serving(struct launcher_link *link);
/* HANDED, with copies of the descriptors. 0 or a negative errno; -EAGAIN: when the socket takes more. */
int launcher_hand(struct launcher_link *link, uint8_t kind, uint64_t id, const uint8_t *state, uint32_t size,
    const int *fds, unsigned n_fds);
