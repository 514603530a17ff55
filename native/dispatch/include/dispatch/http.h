/* HTTP/1.1 connections: Lambda's Invoke on RUN/invoke.sock and on a TCP port. Runs in the dispatcher's loop. Those
 * that begin with the preface of HTTP/2 are h2.h's from then on.
 *
 *   http.c          listeners, connections, time limits, reading
 *   http_read.c     from bytes to an exchange: the head to a call, the body to its parts
 *   http_trust.c    who may: keys and signatures
 *   http_answer.c   from an answer to bytes, and what the socket did not take
 *   http_stream.c   the same of responses that come in parts
 *   forward.c       requests that are no invocations: to the control plane, with the connection
 *   http_drain.c    leaving, taking over, and changing loops
 *
 * One request of a connection at a time: the next one's bytes (pipelining) are read when the answer before has left,
 * so that answers stand in order and a caller who does not read holds no environment and no more memory than one
 * answer. What a connection holds: its head as far as it came (HTTP_INPUT_MAX), one body and one answer, all within the
 * node's budget for payloads; when that is used up, 503.
 *
 * Who may call on the unix socket: root, the control plane's user, and members of the group (SO_PEERCRED,
 * SO_PEERGROUPS); others are answered 403. On the port: who shows a key, by "Authorization: Bearer TOKEN" or by a
 * signature (sigv4.h). A signature covers the body and is checked when that is there: bodies that are not proven yet
 * may take HTTP_UNPROVEN_SHARE of the budget together. The order is: route, key and date, body, signature, (policy,)
 * admission.
 *
 * Time: HTTP_IDLE_US between requests, HTTP_HEAD_US for a head, a body HTTP_BODY_US and HTTP_BODY_RATE
 * on top, loops.stall_us without progress in writing (HTTP_STALL_US unless set); then 408 where a request had begun, and the
 * connection ends. Progress is what pace.h says.
 *
 * After a request that cannot be trusted (h1.h) or whose body nobody wants, the answer says "connection: close", and
 * the connection lingers for HTTP_LINGER_US: closing it at once would reset it under an answer that was not read. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "dispatch/exchange.h"
#include "dispatch/h1.h"
#include "dispatch/loop.h"
#include "dispatch/pace.h"
#include "dispatch/render.h"

#define HTTP_CONNECTIONS_MAX 16384u
#define HTTP_INPUT_MAX 131072u   /* more than a head may have, so that its end or its excess shows */
#define HTTP_DISCARD_MAX 262144u /* of a body that nobody wants: read on rather than close */
#define HTTP_IDLE_US (75u * 1000000u)
#define HTTP_HEAD_US (10u * 1000000u)
#define HTTP_BODY_US (10u * 1000000u)
#define HTTP_BODY_RATE 16384u /* bytes a second */
#define HTTP_STALL_US (30u * 1000000u)
#define HTTP_LINGER_US (2u * 1000000u)
#define HTTP_TRACE_MAX 256u
#define HTTP_GROUPS_MAX 256
/* Fixed fields, a trace, and a log tail in base64. */
#define HTTP_ANSWER_HEAD_MAX (1280u + HTTP_TRACE_MAX + (LOG_TAIL_MAX + 2) / 3 * 4)

enum http_state {
    HTTP_HEAD,    /* between requests, or in a head */
    HTTP_BODY,    /* the exchange takes it */
    HTTP_WAIT,    /* the request is whole, its answer is awaited or on its way */
    HTTP_DISCARD, /* answered; the rest of the body is read and forgotten */
    HTTP_LINGER,  /* answered for the last time; read and forgotten until the peer closes */
};

/* Of the budget: one part in so many. */
#define HTTP_UNPROVEN_SHARE 4u

enum http_trust {
    HTTP_TRUSTED, /* its peer's credentials are enough */
    HTTP_REFUSED, /* they are not */
    HTTP_KEYED,   /* each request shows a key */
};

struct http {
    struct watch listener, tcp; /* fd -1: none */
    struct list connections, closed;
    struct list kept; /* answered connections with further requests in their input: read after the batch */
    unsigned n_connections;
    unsigned n_h2, h2_max; /* of them, those that speak HTTP/2 */
    bool listening;
    bool leaving;          /* connections end with their next answer */
    struct timer pause;    /* accepting failed */
    gid_t group;           /* whose members may call */
    uint64_t unproven;     /* bytes of bodies whose signatures are not checked yet: this loop's */
    uint64_t unproven_max; /* of all loops together */
    uint8_t *input;        /* HTTP_INPUT_MAX: what was just read; holds nothing across turns */
    uint8_t *output;       /* H2_OUTPUT_SIZE; the same for what is sent */
    char date[32];         /* of answers, and of which second */
    uint64_t date_s;
};

struct forward;
struct h2;
struct http_stream;

struct http_connection {
    struct caller caller;
    struct watch watch;
    struct list node; /* in http.connections, or .closed */
    struct list kept; /* in http.kept */
    struct timer timer;
    struct h2 *h2; /* it speaks HTTP/2; NULL: it does not */
    enum http_state state;
    struct h1_head head;
    struct h1_chunks chunks;
    uint8_t *input; /* bytes that wait to be read, own memory; NULL: none */
    uint32_t input_size, input_room;
    uint32_t head_size; /* of `input`, what the head under way was told of */
    struct exchange *exchange;
    struct forward *forward; /* whose body is being kept until its signature is checked; NULL: none */
    uint64_t body_left, body_taken, body_began_us;
    uint64_t used_us;           /* last read from */
    uint64_t moved_us;          /* came from another loop; 0: never */
    struct list unsent;         /* struct http_outgoing */
    struct http_stream *stream; /* an answer that comes in parts, until it has left; NULL: none */
    struct pace pace;
    enum http_trust trust;
    uint64_t principal;  /* the key that the request under way showed; 0: none */
    struct sigv4 *sigv4; /* of the request whose body is being read; NULL: nothing to check */
    uint32_t unproven;   /* its share of http.unproven */
    bool paused;         /* not watched for reading: its input is full */
    bool writing;        /* watched for writing */
    bool advancing;      /* http_advance is under way */
    bool close;          /* after the answer under way */
    bool sniffed;        /* which protocol it speaks is known */
    bool closed;
    char trace[HTTP_TRACE_MAX + 1];
};

/* group: (gid_t)-1 for none. */
void http_init(struct http *http, int listener, int tcp, gid_t group);
int http_listen(struct http *http);
/* Accepts no more. */
void http_deafen(struct http *http);
/* The dispatcher leaves: connections are told where they can be. */
void http_drain(struct http *http);
/* All that could be told so have heard it. */
bool http_settled(const struct http *http);
/* Nobody takes connections any more: what was kept for whom they were to go to is read here. */
void http_read_on(struct http *http);
/* The next requests of some connection may be read here: it has more of them than could go with it, or could not go yet.
 * keeping: none goes, and what counts is what was read of them. */
bool http_brings_more(const struct http *http, bool keeping);
/* A connection that another dispatcher accepted, with what it had read of the next request. 0 or a negative errno. */
int http_take(struct http *http, int fd, bool is_tcp, struct wire_slice input);
/* To another loop, if it can go now: between two requests, and not moved lately. True: it is gone. */
bool http_move(struct http_connection *connection, unsigned to, uint64_t now);
void http_done(struct http *http);
/* After a batch: reads what was kept, frees what was closed. */
void http_collect(struct http *http);
bool http_flushed(const struct http *http);
/* A connection that is there already, whether or not there is room for one more. */
int http_adopt(struct http *http, int fd, enum http_trust trust);

/* Between the files. */
/* It has as many connections as a loop may have. */
bool http_is_full(const struct http *http);
/* Bytes behind those that wait already. False: no memory. */
bool http_keep_input(struct http_connection *connection, const uint8_t *data, size_t size);
/* Takes the bytes out; the caller frees them before the loop turns. */
uint8_t *http_take_input(struct http_connection *connection, uint32_t *ret_size);
void http_forget_input(struct http_connection *connection);
/* For what it said: answered 503 where that can be, and closed. */
void http_no_room(struct http_connection *connection);
/* What the kernel says of a peer on the unix socket: may it call? */
bool http_may_call(const struct http *http, int fd);
void http_close(struct http_connection *connection);
void http_watch_reading(struct http_connection *connection, bool reading);
void http_want_writing(struct http_connection *connection, bool writing);
/* Reads as many requests from the bytes as may be read now. `data` are the bytes from the first that was not used up;
 * what is left of them afterwards is kept. */
void http_advance(struct http_connection *connection, const uint8_t *data, size_t size);
/* Of the connection's caller. */
void http_answer(struct exchange *exchange, struct answer *answer);
/* Answers a request that has no exchange yet; the connection goes on when the rest of its body is small. */
void http_refuse_request(struct http_connection *connection, uint16_t status, const char *code, const char *message);
/* Answers the request under way, or one that cannot be read, for the last time: the connection ends. */
void http_refuse(struct http_connection *connection, uint16_t status, const char *code, const char *message);
/* Is the caller one of ours, as far as the head says? Answers when not. `body`: bytes that may come and be kept until
 * a signature over them is checked. */
bool http_trust_head(struct http_connection *connection, const uint8_t *data, uint64_t body);
/* Does the signature fit, now that the body is there? Answers when not. */
bool http_trust_body(struct http_connection *connection);
void http_trust_forget(struct http_connection *connection);
void http_say_continue(struct http_connection *connection);
int http_begin_stream(struct exchange *exchange, const struct answer *head);
int http_put_chunk(struct exchange *exchange, struct wire_slice data);
/* The end of what began, or all of it. The connection may be closed afterwards. */
void http_end_stream(struct http_connection *connection, bool begun, const struct answer *answer);
size_t http_render_stream_head(
    struct http_connection *connection, const struct answer *head, char ret_head[HTTP_ANSWER_HEAD_MAX]);
/* Sends on. 0, or a negative errno: the connection cannot go on. */
int http_stream_send(struct http_connection *connection);
void http_stream_free(struct http_connection *connection);
/* Is an answer on its way? */
bool http_sending(const struct http_connection *connection);
/* Sends on what is unsent. 0, or a negative errno: the connection cannot go on. */
int http_send(struct http_connection *connection);
void http_forget_unsent(struct http_connection *connection);
/* The answer has left whole. */
void http_answered(struct http_connection *connection);
struct http *http_of(const struct http_connection *connection);
