/* The Runtime API of one environment: HTTP/1.1 on the listener that the launcher made in its net namespace. Runs in the
 * loop. Everything read here was written by the function.
 *
 * Bounds: RUNTIME_CONNECTIONS_MAX connections are taken, others wait in the kernel's queue; a head has H1_HEAD_MAX
 * bytes, a body RESPONSE_BODY_MAX (what is more is read and forgotten), both counted against the node's budget for
 * payloads where they are large; of that budget one environment's connections hold RUNTIME_HELD_MAX together, enough
 * for an event that is not read and a response. Time needs no bounds of its own: who sends slowly runs into the limits
 * of init and invocation, and everything here ends with the environment. What a connection will not take at once is
 * copied, so an invocation never waits for it. What all of it costs the loop is bounded by the environment's ration
 * (ration.h), and by RUNTIME_CALLS_MAX calls that are read of one connection before others have their turn. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dispatch/h1.h"
#include "dispatch/loop.h"
#include "dispatch/request.h"
#include "dispatch/runtime_api.h"

#define RUNTIME_CONNECTIONS_MAX 8u
#define RUNTIME_CALLS_MAX 32u
#define RUNTIME_HELD_MAX (2u * RESPONSE_BODY_MAX)

struct dispatch;
struct environment;
struct runtime_connection;

struct runtime {
    struct environment *environment;
    struct watch listener; /* fd -1: closed; the environment's listener_fd */
    bool full;             /* the listener is not watched: no connection more, or a rest */
    bool gone;             /* the process has ended: what it said is read, nothing new begins */
    enum runtime_state state;
    struct list connections;
    uint32_t n_connections;
    uint32_t held;                       /* bytes of the budget: bodies that are coming, answers that are not taken */
    struct runtime_connection *waiting;  /* in next, for an event */
    struct runtime_connection *streamer; /* whose body is the response under way, as it comes */
    struct runtime_connection *bearer;   /* which was sent the event and has said nothing since; NULL: none */
    bool unread;                         /* it was sent to nobody, or its bearer went away before it had read it */
};

enum runtime_reading {
    RUNTIME_HEAD,
    RUNTIME_BODY,
    RUNTIME_WAIT,    /* in next */
    RUNTIME_SENDING, /* answered, and the socket has not taken all of it: nothing is read */
    RUNTIME_LINGER,  /* answered for the last time: read and forgotten until its end */
};

/* What is told instead of 202. */
struct runtime_refusal {
    uint16_t status; /* 0: none */
    const char *type;
    char message[160];
};

struct runtime_connection {
    struct runtime *runtime;
    struct dispatch *dispatch;
    struct watch watch;
    struct list node; /* in runtime.connections; closed: in dispatch.runtime_closed */
    enum runtime_reading reading;
    bool close; /* after the answer */
    bool closed;
    uint32_t events; /* watched for */

    struct h1_head head;
    struct h1_chunks chunks;
    uint8_t *input; /* bytes of a head, or behind a request; NULL: none */
    uint32_t input_size;

    enum runtime_call call;
    struct wire_slice id; /* in id_text */
    uint8_t id_text[RUNTIME_ID_MAX];
    char error_type[WIRE_RESULT_ERROR_TYPE_MAX + 1];
    struct runtime_refusal refusal;
    uint64_t body_left; /* of one with a length */
    uint8_t *body;
    uint32_t body_size, body_room; /* body_room is taken from the budget */
    bool too_large, no_memory;     /* the body is read and forgotten */
    bool wants_stream;             /* it is to go on as it comes */
    bool streaming;                /* and does */
    uint8_t *trailers;             /* room for those of its body */

    uint8_t *output; /* what the socket did not take; NULL: nothing */
    uint32_t output_size, output_sent, output_charge;
};

/* Begins to serve environment->listener_fd. 0 or a negative errno. */
int runtime_open(struct environment *environment);
/* Closes all connections; the memory of `environment->runtime` goes with the environment. Harmless when closed. */
void runtime_close(struct environment *environment);
/* It wants an event, and has no connection but the one that waits for it. */
bool runtime_is_simple(const struct runtime *runtime);
/* As it was in another dispatcher: it wants an event. fd: the connection that waits for it, taken over; -1: none. close: it
 * ends with its answer. 0 or a negative errno. */
int runtime_resume(struct runtime *runtime, int fd, bool close);
/* An invocation was assigned. */
int runtime_invoke(struct environment *environment);
/* The event that it was assigned was not read, which a reset connection shows as long as the runtime does not ask for one. */
bool runtime_is_unread(const struct environment *environment);
/* The process has ended: reads what it still said. */
void runtime_drain(struct environment *environment);
/* The environment goes to another loop; it has come to this one; it is watched there: 0 or a negative errno. */
void runtime_leave(struct environment *environment);
void runtime_come(struct environment *environment);
int runtime_settle_in(struct environment *environment);
/* Frees closed connections. */
void runtime_collect(struct dispatch *dispatch);

/* ---- between runtime_connection.c and runtime_calls.c ---------------------------------------------------------- */

/* Of a connection's descriptor. */
void runtime_ready(struct watch *watch, uint32_t events);
/* Of the listener's: takes who has come. */
void runtime_accept(struct watch *watch, uint32_t events);
/* A connection has ended: there may be room for another. */
void runtime_listen_again(struct runtime *runtime);
/* Its ration is used up: nothing more is read. And is there again. */
void runtime_rest(struct runtime *runtime);
void runtime_wake(struct runtime *runtime);
bool runtime_rests(const struct runtime *runtime);

/* The head is read; sets `reading`, or answers. */
void runtime_call_begin(struct runtime_connection *connection, const uint8_t *data);
void runtime_call_body(struct runtime_connection *connection, struct wire_slice part);
/* The request is whole. */
void runtime_call_finish(struct runtime_connection *connection);
/* It is not, and never will be. */
void runtime_call_cut_short(struct runtime_connection *connection);
void runtime_call_refuse(struct runtime_connection *connection, uint16_t status, const char *type, const char *message);
/* Sends; what the socket does not take is copied and follows. May close the connection. */
void runtime_send(struct runtime_connection *connection, struct wire_slice head, struct wire_slice body);
void runtime_connection_close(struct runtime_connection *connection);
/* From the budget, for one of its connections. False: it or its share is used up. */
bool runtime_hold(struct runtime_connection *connection, uint32_t size);
void runtime_let_go(struct runtime_connection *connection, uint32_t size);
/* Gives the body's memory back. */
void runtime_body_drop(struct runtime_connection *connection);
/* Watches for what its state asks for. */
void runtime_watch(struct runtime_connection *connection);

/* ---- runtime_stream.c -------------------------------------------------------------------------------------------- */

/* The head of a response in parts is read; `no_memory` is set when it cannot be served. */
void runtime_stream_begin(struct runtime_connection *connection, const uint8_t *data);
void runtime_stream_body(struct runtime_connection *connection, struct wire_slice part);
void runtime_stream_finish(struct runtime_connection *connection);
void runtime_stream_cut_short(struct runtime_connection *connection);
/* Nothing of it is to be read now. */
bool runtime_stream_waits(const struct runtime_connection *connection);
void runtime_stream_resume(struct environment *environment);
void runtime_stream_drop(struct runtime_connection *connection);
