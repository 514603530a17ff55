/* CRC-32C: the known answers, and the processor's instruction against the tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

int main(void) {
    uint8_t bytes[300];
    memset(bytes, 0, 32);
    CHECK(crc32c(0, "123456789", 9) == 0xe3069283u);
    CHECK(crc32c(0, bytes, 32) == 0x8a9136aau); /* RFC 3720, B.4 */
    memset(bytes, 0xff, 32);
    CHECK(crc32c(0, bytes, 32) == 0x62a8ab43u);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 37);
    for (unsigned at = 0; at < 9; at++)
        for (unsigned size = 0; size + at < sizeof(bytes); size++) {
            uint32_t whole = crc32c(5, bytes + at, size);
            CHECK(whole == crc32c_portable(5, bytes + at, size));
            CHECK(whole == crc32c(crc32c(5, bytes + at, size / 3), bytes + at + size / 3, size - size / 3));
        }
    return 0;
}
