/* HTTP/1.1 as it is read: request heads and chunked bodies, by RFC 9110 and 9112 and no looser. Pure: looks at bytes
 * that lie in memory, keeps offsets into them, does no input or output.
 *
 * Where a lenient reader and a strict one could see different requests in the same bytes (smuggling), the request is
 * refused and the connection with it:
 * - lines end in CR LF; a bare LF, a CR elsewhere, and NUL are wrong anywhere in a head;
 * - no folded lines, no space before a colon, no empty names;
 * - Content-Length: digits only, once; Transfer-Encoding: "chunked" only, once, never with Content-Length, never in
 *   HTTP/1.0; Host: exactly once in HTTP/1.1, at most once in HTTP/1.0;
 * - chunk sizes: hexadecimal digits only; trailers are read by the rules of fields and forgotten, or kept as they came.
 * One empty line before a request is skipped (RFC 9112, 2.2). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

#define H1_TARGET_MAX 8192u
#define H1_LINE_MAX 16384u
#define H1_HEAD_MAX 65536u
#define H1_FIELDS_MAX 100u
#define H1_CHUNK_LINE_MAX 256u
#define H1_TRAILER_MAX 8192u

enum h1_result {
    H1_MORE, /* all that is there was looked at; more must come */
    H1_DONE,
    H1_WRONG, /* status and reason say why; nothing after it can be trusted */
};

struct h1_range {
    uint32_t at, size;
};

struct h1_field {
    struct h1_range name, value; /* without surrounding blanks */
};

struct h1_head {
    uint32_t size;                  /* bytes of the head, when it is DONE */
    struct h1_range method, target; /* target: path and query; without scheme and authority if it had them */
    uint8_t minor;                  /* of HTTP/1.x */
    unsigned n_fields;
    struct h1_field fields[H1_FIELDS_MAX];

    bool has_length, chunked;
    uint64_t length;
    bool close; /* the connection ends with this request */
    bool expect_continue;
    struct h1_range host;

    uint16_t status; /* when it is WRONG: what to answer */
    const char *reason;

    uint32_t line, scanned; /* where the line under way begins; up to where it has no end */
    bool begun, encoded, hosted;
};

void h1_begin(struct h1_head *head);
/* `data`: the connection's bytes from the first of this head on; call again with more of them after MORE. */
enum h1_result h1_read(struct h1_head *head, const uint8_t *data, size_t size);
struct wire_slice h1_slice(const uint8_t *data, struct h1_range range);
/* The value of a field by its lower-case name; the first, if there are several; size 0 if there is none. */
struct wire_slice h1_find(const struct h1_head *head, const uint8_t *data, const char *name);
/* Is it this token, whatever the case? `token` in lower case. */
bool h1_is(struct wire_slice text, const char *token);

struct h1_chunks {
    uint8_t state;
    uint64_t left;  /* of the chunk under way */
    uint32_t count; /* bytes of the line or the trailers under way */
    uint16_t status;
    const char *reason;
    uint8_t *keep; /* room for the trailers; NULL: they are forgotten */
    uint32_t keep_room, kept;
};

void h1_chunks_begin(struct h1_chunks *chunks);
/* The trailers are written to `room` as they came, lines with their CR LF, and may be as long as that is. */
void h1_chunks_keep(struct h1_chunks *chunks, uint8_t *room, uint32_t size);
/* The value of one of them by its lower-case name; the first, if there are several; size 0 if there is none. */
struct wire_slice h1_trailer(struct wire_slice trailers, const char *name);
/* Takes from `data`: *ret_taken bytes are used up, *ret_body is what they hold of the body. MORE: call again with
 * what follows the taken bytes (when nothing is left of the data: when more has come). DONE: the body and its
 * trailers are over. */
enum h1_result h1_chunks_read(
    struct h1_chunks *chunks, const uint8_t *data, size_t size, size_t *ret_taken, struct wire_slice *ret_body);
