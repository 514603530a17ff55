/* The messages of gRPC: the input is an InvokeRequest. Every slice must lie within it, and its texts be UTF-8 in the
 * sense that cutting it anywhere never reads beyond. The same bytes are read as a time-out and written as a message. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/grpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(const uint8_t *data, size_t size, struct wire_slice slice) {
    if (slice.size > 0 && (slice.data < data || slice.size > size || (size_t)(slice.data - data) > size - slice.size))
        abort();
}

static void read_invoke(const uint8_t *data, size_t size) {
    struct grpc_invoke invoke;
    if (grpc_read_invoke(data, size, &invoke) < 0)
        return;
    within(data, size, invoke.function);
    within(data, size, invoke.qualifier);
    within(data, size, invoke.client_context);
    within(data, size, invoke.trace);
    within(data, size, invoke.tenant);
    within(data, size, invoke.payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[64], message[48];
    uint8_t head[GRPC_HEAD_MAX];
    uint64_t us;
    size_t n = MIN(size, sizeof(text) - 1);
    struct grpc_result result = {
        .status = 200, .id = "", .version = text, .failed = size & 1, .payload = (uint32_t)size};

    /* In memory of exactly its size, so that the sanitizers see what is read beyond. */
    for (size_t cut = size; cut + 4 > size && cut <= size; cut--) {
        uint8_t *copy = malloc(cut > 0 ? cut : 1);
        if (copy == NULL)
            return 0;
        memcpy(copy, data, cut);
        read_invoke(copy, cut);
        free(copy);
    }
    (void)grpc_read_timeout((struct wire_slice){data, (uint32_t)size}, &us);
    memcpy(text, data, n);
    text[n] = '\0';
    if (grpc_write_message(message, sizeof(message), text) >= sizeof(message))
        abort();
    result.log_tail = (struct wire_slice){data, (uint32_t)size};
    if (grpc_write_response(&result, head) > sizeof(head))
        abort();
    return 0;
}
