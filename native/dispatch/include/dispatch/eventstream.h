/* The encoding application/vnd.amazon.eventstream, as far as InvokeWithResponseStream's answers need it: PayloadChunk
 * and InvokeComplete. Pure. botocore's decoder is the oracle in the tests. A message, integers big-endian:
 *
 *   u32 size of all | u32 size of the headers | u32 crc32 of these eight bytes
 *   headers: u8 size of the name | name | u8 7 (a string) | u16 size of the value | value
 *   payload
 *   u32 crc32 of everything before */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

#define EVENTSTREAM_TYPE "application/vnd.amazon.eventstream"
/* What a message takes besides its payload, at most. */
#define EVENTSTREAM_HEAD_MAX 112u
#define EVENTSTREAM_TAIL 4u
/* Of an error object in an InvokeComplete; it is cut there. */
#define EVENTSTREAM_DETAILS_MAX (256u << 10)

/* The polynomial of zlib and Ethernet. `crc`: of what came before; 0 at first. */
uint32_t eventstream_crc(uint32_t crc, const void *data, size_t size);

/* A PayloadChunk of `size` bytes: what goes before them. Returns its size. */
size_t eventstream_chunk_head(uint32_t size, uint8_t ret_head[EVENTSTREAM_HEAD_MAX]);
/* And what goes behind them. */
void eventstream_tail(
    const uint8_t *head, size_t head_size, struct wire_slice payload, uint8_t ret_tail[EVENTSTREAM_TAIL]);

struct eventstream_complete {
    struct wire_slice error_code, error_details; /* code empty: all went well */
    struct wire_slice log;                       /* empty: none */
};

/* Room that the whole InvokeComplete needs at most. */
size_t eventstream_complete_max(const struct eventstream_complete *complete);
/* Returns its size. */
size_t eventstream_write_complete(const struct eventstream_complete *complete, uint8_t *into);
