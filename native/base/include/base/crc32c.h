/* CRC-32C (Castagnoli), with the processor's instruction where it has one. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Goes on from `crc`, the value for what came before (0: nothing): crc32c(crc32c(0, a), b) is that of a followed by b. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);
/* The same by tables alone: what processors without the instruction run, and the test's comparison. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);
