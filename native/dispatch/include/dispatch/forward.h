/* Requests that are no invocations: passed to the control plane together with their connections, which the dispatcher
 * forgets then. Runs in the dispatcher's loop.
 *
 * What is passed: the connection, and a sealed memfd that holds what was read of it. The caller is known by then. Where
 * its peer's credentials or a bearer token say who it is, that is at the end of the head: the memfd holds the bytes as
 * they came, and the rest is still in the connection. A signature covers the body, so a signed request is passed when
 * its body is there and fits (FORWARD_WHOLE): no byte of somebody who is not known reaches the control plane.
 *
 * Memory: until it is proven a body counts among http.unproven, afterwards against the node's budget for payloads, until
 * the control plane says that it is done with it. Requests under way there are bounded by the credit that it gave, and
 * by FORWARD_SLOTS. Without credit or control plane the answer is 503 and the connection goes on. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

#define FORWARD_SLOTS 64u
#define FORWARD_BODY_MAX (72u << 20) /* a zip of 50 MB in base64, and what is around it */

struct budget;
struct dispatch;
struct http_connection;

/* The first loop's, for all: several loops take turns by loops_lock. */
struct forwards {
    _Atomic uint32_t credit;
    uint64_t last; /* id */
    struct forward_slot {
        uint64_t id; /* 0: free */
        uint64_t charged;
        struct budget *budget; /* of the loop that passed it on */
    } slots[FORWARD_SLOTS];
};

/* The head is there: `size` bytes from its first on were read. Afterwards the connection is gone, was answered, or
 * takes the body. */
void forward_begin(struct http_connection *connection, const uint8_t *data, size_t size);
/* A part of the body; may answer. */
void forward_append(struct http_connection *connection, struct wire_slice part);
/* The body is there and its signature fits. */
void forward_finish(struct http_connection *connection);
/* What was kept of a body, if anything was. */
void forward_drop(struct http_connection *connection);

/* CREDIT. done: a forward that is over; 0: none. */
void forwards_credit(struct dispatch *dispatch, uint64_t done, uint32_t n);
/* The control plane is gone, and with it what it was given. */
void forwards_forget(struct dispatch *dispatch);
