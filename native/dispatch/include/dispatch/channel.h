/* The channel of an environment: START, INVOKE and its CHUNKs out; INIT_DONE, INIT_ERROR, RESULT, CHUNK, READY in.
 *
 * What comes in is hostile: decoded by the generated codec, checked against state and lengths announced, copied. No
 * descriptor is ever taken from it: the kernel is told to refuse them (SO_PASSRIGHTS, Linux 6.16), and they are
 * received into nothing.
 *
 * Of a target that speaks the Runtime API (runtime_connection.h) the channel carries START and at most one INIT_ERROR:
 * it ends with execve(2). From then on these functions stand for the runtime's connections. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct environment;

/* Packets read of one environment before others have their turn. */
#define CHANNEL_BATCH 16

int channel_attach(struct environment *environment, int fd);
/* Reads what has arrived. */
void channel_read(struct environment *environment);
/* What the end of the channel means, which a negative errno told, or 0: EVENT_HANGUP or EVENT_UNREAD. */
enum environment_event channel_end(const struct environment *environment, int error);
/* It was not read because a stream had to wait: it is again. Also of a runtime's connection. */
void channel_resume(struct environment *environment);
/* INVOKE has left whole. */
bool channel_sent_all(const struct environment *environment);
void channel_detach(struct environment *environment);
/* 0 or a negative errno: the environment cannot be used. */
int channel_start(struct environment *environment);
/* The environment, which is idle, goes to another loop; it has come to this one: 0 or a negative errno. */
void channel_leave(struct environment *environment);
int channel_settle_in(struct environment *environment);
/* Sends as much as the socket takes; the rest follows when it can. */
int channel_invoke(struct environment *environment);
