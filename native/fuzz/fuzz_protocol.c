/* Any packet through every decoder; what decodes must encode to the same bytes. The corpus is the golden vectors. */
#include <stdlib.h>
#include <string.h>

#include "protocol/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t out[WIRE_MESSAGE_MAX];
    struct wire_header header;
    if (wire_peek(data, size, &header) < 0)
        return 0;
    switch (header.type) {
#define TRY(message, MESSAGE)                                                                                          \
    case WIRE_##MESSAGE: {                                                                                             \
        struct wire_##message decoded;                                                                                 \
        if (wire_##message##_decode(data, size, &header, &decoded) == 0 &&                                             \
            (wire_##message##_encode(&header, &decoded, out, sizeof(out)) != (int)size ||                              \
                memcmp(out, data, size) != 0))                                                                         \
            abort();                                                                                                   \
        break;                                                                                                         \
    }
        WIRE_MESSAGES(TRY)
    default:
        break;
    }
    return 0;
}
