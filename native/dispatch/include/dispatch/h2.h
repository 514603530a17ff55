/* HTTP/2 connections, for gRPC: runtimed.v1.Invocations on the sockets of http.h, told from HTTP/1.1 by the
 * preface (prior knowledge; no upgrade). Runs in the dispatcher's loop; frames and header compression are nghttp2's.
 *
 *   h2.c         the session: its frames, of which nobody needs too many; beginning and end
 *   h2_output.c  bytes in and out, time
 *   h2_stream.c  one call: from headers and message to an exchange
 *   h2_answer.c  from an answer to headers, data under the peer's window, and trailers
 *   h2_parts.c   the same of responses that come in parts
 *   grpc.c       the bytes of gRPC (pure)
 *
 * Each stream is a caller of its own. What a connection may hold: H2_STREAMS_MAX streams, and as many invocations,
 * those counted too that go on after their streams were reset. Messages take memory from the node's budget as they
 * come, and only then is the peer given room for more (no automatic window updates); answers wait for the peer's
 * window in the budget while their environments are free. While the peer does not read, it is not read from.
 *
 * Frames by which a peer makes work for nothing are counted in allowances: resets (ours that its faults caused
 * included), settings, pings and the like, CONTINUATIONs of one header block. Above them: GOAWAY ENHANCE_YOUR_CALM.
 *
 * Nothing that may end other calls happens while an answer is handed over: streams that are gone, and connections that
 * cannot go on, are seen to after the reading, or after the batch (h2_collect).
 *
 * Time: as http.h has it: HTTP_IDLE_US without a call, HTTP_HEAD_US for the peer's settings and for a header block, a
 * message HTTP_BODY_US and HTTP_BODY_RATE on top, loops.stall_us without progress of an answer or of the socket. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

#include "base/list.h"
#include "dispatch/exchange.h"
#include "dispatch/grpc.h"
#include "dispatch/outflow.h"
#include "dispatch/pace.h"
#include "dispatch/timers.h"

#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define H2_PREFACE_SIZE 24u
#define H2_STREAMS_MAX 1000u
#define H2_STREAM_WINDOW (256u << 10)
#define H2_WINDOW (1u << 20)
#define H2_HEADERS_MAX 65536u
#define H2_CONTINUATIONS_MAX 6u /* with 16 KiB each more than H2_HEADERS_MAX */
#define H2_ACKS_MAX 100u
#define H2_CHARGE 16384u  /* bytes that a connection costs which says nothing more */
#define H2_SHARE 8u       /* of the budget for payloads, one part in so many: so much may connections cost beside it */
#define H2_QUEUE_MAX 256u /* frames that wait for the socket: above it nothing more is read */
#define H2_OUTPUT_SIZE 131072u /* several of the largest frames that are sent */

/* So many at once, and so many a second. */
#define H2_RESETS_BURST 1000u
#define H2_RESETS_RATE 100u
#define H2_SETTINGS_BURST 20u
#define H2_SETTINGS_RATE 1u
#define H2_IDLE_BURST 1000u /* pings, empty data, priorities */
#define H2_IDLE_RATE 100u

#define H2_FIELDS_MAX 10
#define H2_MESSAGE_MAX 3072u /* percent-encoded */

struct dispatch;
struct h2_parts;
struct http;
struct http_connection;

struct allowance {
    uint64_t used_us; /* 1,000,000 for each, less what has passed */
    uint64_t at_us;
};

struct h2 {
    struct http_connection *connection;
    nghttp2_session *session;
    struct caller_load *load;
    struct list streams; /* struct h2_stream */
    struct list gone;    /* those whose stream has ended */
    unsigned n_streams;
    uint8_t *output; /* bytes that the socket did not take */
    uint32_t output_size, output_sent;
    uint64_t progress_us; /* the socket took something */
    struct pace pace;
    uint64_t began_us; /* the connection, or the header block that is coming */
    uint64_t used_us;  /* a call came or went */
    struct allowance resets, settings, idle;
    unsigned continuations; /* of the header block */
    bool settled;           /* the peer's settings have come */
    bool in_headers;
    bool reading, sending;
    bool ending;  /* the last GOAWAY was submitted */
    bool broken;  /* the socket cannot go on */
    bool leaving; /* the first GOAWAY of a drain is out */
    bool left;    /* it was heard: no more calls come */
};

enum h2_phase {
    H2_HEADERS,
    H2_MESSAGE, /* it is coming */
    H2_WAIT,    /* the exchange has it */
    H2_ANSWER,  /* on its way */
};

struct h2_stream {
    struct caller caller;
    struct h2 *h2;
    struct list node; /* in h2.streams, or .gone */
    struct timer timer;
    int32_t id;
    enum h2_phase phase;
    struct exchange *exchange; /* until it is answered */

    /* The headers. */
    uint32_t headers_size;
    bool is_post, is_grpc, is_invoke, is_stream, is_encoded, is_known, has_key, is_malformed;
    uint64_t deadline_us; /* 0: none */

    /* The message. */
    uint8_t prefix[GRPC_PREFIX];
    uint32_t n_prefix;
    uint8_t *message;
    uint32_t message_total, message_size, message_room; /* room: charged to the budget */
    uint64_t began_us, taken;
    bool ended; /* the peer has said all */

    /* The answer: a head and a body. */
    uint8_t *head, *body;
    uint32_t head_size, body_size, sent;
    uint32_t charged;
    uint64_t progress_us;
    struct pace pace;
    struct h2_parts *parts; /* of an answer that comes in parts; NULL: it does not */
    bool is_gone;           /* nobody is there for it */
    int status;             /* enum grpc_status where it has none of Lambda's codes; -1 */
};

/* Takes over a connection whose first bytes are the preface. 0 or -ENOMEM. */
int h2_begin(struct http_connection *connection);
/* Ends all: nobody waits any more. */
void h2_free(struct h2 *h2);
/* Bytes from the socket, the preface included. Afterwards the connection may be closed. */
void h2_read(struct h2 *h2, const uint8_t *data, size_t size);
/* The socket takes bytes again. */
void h2_write(struct h2 *h2);
/* After the batch: sends, sees to what ended. */
void h2_collect(struct h2 *h2);
void h2_on_timer(struct h2 *h2);
/* The first of two GOAWAYs: calls that are on their way are still taken, and refused. */
void h2_drain(struct h2 *h2);
/* Everything answered has left. */
bool h2_flushed(const struct h2 *h2);
/* The second GOAWAY, as far as the socket takes it. */
void h2_goodbye(struct h2 *h2);

/* Between the files. */
struct dispatch *h2_dispatch(const struct h2 *h2);
/* Sends what the socket takes. */
void h2_flush(struct h2 *h2);
/* Frames were submitted: sends them now, unless that is about to happen anyway. */
void h2_kick(struct h2 *h2);
/* GOAWAY; what comes is not read any more. */
void h2_end(struct h2 *h2, uint32_t error);
/* May it have another one? Ends the connection when not. */
bool h2_allow(struct h2 *h2, struct allowance *allowance, uint64_t burst, uint64_t rate);

struct h2_stream *h2_stream_new(struct h2 *h2, int32_t id);
/* Its exchange is answered or abandoned. */
void h2_stream_free(struct h2_stream *stream);
void h2_stream_header(struct h2_stream *stream, struct wire_slice name, struct wire_slice value);
/* The headers are whole. */
void h2_stream_begin(struct h2_stream *stream);
void h2_stream_data(struct h2_stream *stream, const uint8_t *data, size_t size);
/* The peer has said all. */
void h2_stream_finish(struct h2_stream *stream);
void h2_stream_arm(struct h2_stream *stream);
void h2_forget_message(struct h2_stream *stream);
struct h2_fields {
    nghttp2_nv all[H2_FIELDS_MAX];
    size_t n;
};
/* Both texts must stay until it is submitted. */
void h2_put(struct h2_fields *fields, const char *name, const char *value);

/* Of the stream's caller. */
int h2_begin_parts(struct exchange *exchange, const struct answer *head);
int h2_put_chunk(struct exchange *exchange, struct wire_slice data);
/* The end of what began, or all of it. */
void h2_end_parts(struct h2_stream *stream, bool begun, const struct answer *answer);
/* It waits for its source, not for the peer. */
bool h2_parts_idle(const struct h2_stream *stream);
void h2_parts_free(struct h2_stream *stream);
void h2_answer(struct exchange *exchange, struct answer *answer);
/* A status that has no code of Lambda's. */
void h2_refuse(struct h2_stream *stream, enum grpc_status status, const char *message);
