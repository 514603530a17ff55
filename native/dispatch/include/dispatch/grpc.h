/* gRPC's bytes, as far as runtimed.v1.Invocations needs them: the frame around a message, its messages
 * (proto/runtimed/v1/invocations.proto), statuses and time-outs. Pure: looks at bytes that lie in memory.
 *
 * Messages are read as proto3 says: fields in any order, the last of several counts, unknown ones are passed over,
 * groups included; texts must be UTF-8. The generated Python code is the oracle in the tests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch/request.h"
#include "protocol/wire.h"

#define GRPC_PREFIX 5u                               /* compressed or not, length big-endian */
#define GRPC_MESSAGE_MAX (REQUEST_BODY_MAX + 16384u) /* a payload and all texts at their longest */
#define GRPC_HEAD_MAX 4608u                          /* what grpc_write_response writes at most, with a log's tail */
#define GRPC_PATH "/runtimed.v1.Invocations/Invoke"
#define GRPC_STREAM_PATH "/runtimed.v1.Invocations/InvokeStream"
#define GRPC_START_MAX 512u     /* what grpc_write_start writes at most */
#define GRPC_CHUNK_HEAD_MAX 16u /* grpc_write_chunk */
#define GRPC_TIMEOUT_NONE UINT64_MAX

/* google.rpc.Code */
enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16,
};

enum grpc_invocation_type { GRPC_TYPE_EVENT = 2, GRPC_TYPE_DRY_RUN = 3 };
enum grpc_log_type { GRPC_LOG_TAIL = 2 };

/* An InvokeRequest; slices point into the message. */
struct grpc_invoke {
    struct wire_slice function, qualifier, client_context, trace, tenant, event_id, payload;
    int32_t type, log;
};

/* An InvokeResponse, but for the payload's bytes. */
struct grpc_result {
    uint16_t status;
    const char *id, *version;
    bool failed;                /* function_error: Unhandled */
    struct wire_slice log_tail; /* empty: none */
    uint32_t payload;           /* bytes that follow the head */
    uint64_t duration_us, init_us;
};

/* 0, or -EBADMSG: not a message of this type. */
int grpc_read_invoke(const uint8_t *data, size_t size, struct grpc_invoke *ret);
/* The frame's prefix and all of the message but its payload, which is to follow. Returns the size. */
size_t grpc_write_response(const struct grpc_result *result, uint8_t ret_head[GRPC_HEAD_MAX]);
/* An InvokeStreamResponse with `complete`, but for the error details' bytes. */
struct grpc_complete {
    uint16_t status;
    struct wire_slice error_code; /* empty: the function succeeded */
    struct wire_slice log_tail;   /* empty: none */
    uint32_t details;             /* bytes that follow the head */
    uint64_t duration_us, init_us;
};

/* Likewise the messages of InvokeStream, each with its frame: the first one, whole; one with a part of the payload,
 * whose bytes are to follow; the last one, the same of its error details. */
size_t grpc_write_start(
    const char *id, const char *version, struct wire_slice content_type, uint8_t ret_message[GRPC_START_MAX]);
size_t grpc_write_chunk(uint32_t size, uint8_t ret_head[GRPC_CHUNK_HEAD_MAX]);
size_t grpc_write_complete(const struct grpc_complete *complete, uint8_t ret_head[GRPC_HEAD_MAX]);
/* Microseconds, or -EINVAL. */
int grpc_read_timeout(struct wire_slice text, uint64_t *ret_us);
/* For an error's code and its HTTP status: the table of runtimed/model/errors.py. */
enum grpc_status grpc_status_of(const char *code, uint16_t status);
/* The code as callers over gRPC are told it. */
const char *grpc_code_of(const char *code, uint16_t status);
/* Percent-encoded, as grpc-message has it; cut to `size`, terminated. Returns the length. */
size_t grpc_write_message(char *ret_text, size_t size, const char *message);
