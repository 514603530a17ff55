/* CRC-32C; see the header. The polynomial is reflected: 0x82f63b78. */
#include "base/crc32c.h"

#include <string.h>
#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define HWCAP_CRC32_BIT (1u << 7)
#endif

static uint32_t tables[8][256];

__attribute__((constructor)) static void crc32c_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
        tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 255u];
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= crc;
        crc = tables[7][word & 255u] ^ tables[6][(word >> 8) & 255u] ^ tables[5][(word >> 16) & 255u] ^
            tables[4][(word >> 24) & 255u] ^ tables[3][(word >> 32) & 255u] ^ tables[2][(word >> 40) & 255u] ^
            tables[1][(word >> 48) & 255u] ^ tables[0][word >> 56];
    }
    for (; size > 0; size--, at++)
        crc = (crc >> 8) ^ tables[0][(crc ^ *at) & 255u];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_machine(uint32_t crc, const uint8_t *at, size_t size) {
    uint64_t wide = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    uint32_t narrow = (uint32_t)wide;
    for (; size > 0; size--, at++)
        narrow = __builtin_ia32_crc32qi(narrow, *at);
    return ~narrow;
}

static int has_machine(void) {
    return __builtin_cpu_supports("sse4.2");
}
#elif defined(__aarch64__)
__attribute__((target("+crc"))) static uint32_t crc32c_machine(uint32_t crc, const uint8_t *at, size_t size) {
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        crc = __crc32cd(crc, word);
    }
    for (; size > 0; size--, at++)
        crc = __crc32cb(crc, *at);
    return ~crc;
}

static int has_machine(void) {
    return (getauxval(AT_HWCAP) & HWCAP_CRC32_BIT) != 0;
}
#else
#define crc32c_machine crc32c_portable
static int has_machine(void) {
    return 0;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t size) {
    return has_machine() ? crc32c_machine(crc, data, size) : crc32c_portable(crc, data, size);
}
