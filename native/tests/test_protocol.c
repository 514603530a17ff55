/* The C codec against the golden vectors: each packet decodes, encodes to the same bytes, and is refused when it is cut
 * anywhere, too long, of another version, or of another type. On refusal the outputs stay untouched. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/wire.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, name, #condition);                                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint8_t *vector_read(const char *name, const char *word, size_t *ret_size) {
    char path[512];
    static uint8_t buffer[WIRE_MESSAGE_MAX];
    snprintf(path, sizeof(path), VECTORS "/%s.%s.bin", name, word);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t size = read(fd, buffer, sizeof(buffer));
    CHECK(size >= WIRE_HEADER_SIZE);
    close(fd);
    *ret_size = (size_t)size;
    return buffer;
}

/* A copy that ends where its allocation ends, so that the sanitizer sees each read beyond it. */
static uint8_t *exact(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    return copy;
}

#define TEST_VECTOR(message, MESSAGE)                                                                                  \
    static void test_##message(const char *word) {                                                                     \
        const char *name = #message;                                                                                   \
        struct wire_header header, untouched_header;                                                                   \
        struct wire_##message decoded, untouched;                                                                      \
        static uint8_t out[WIRE_MESSAGE_MAX];                                                                          \
        size_t size;                                                                                                   \
        uint8_t *packet = vector_read(name, word, &size);                                                              \
        CHECK(wire_##message##_decode(packet, size, &header, &decoded) == 0);                                          \
        CHECK(strcmp(wire_name(header.type), name) == 0);                                                              \
        CHECK(wire_##message##_encode(&header, &decoded, out, sizeof(out)) == (int)size);                              \
        CHECK(memcmp(out, packet, size) == 0);                                                                         \
        CHECK(wire_##message##_encode(&header, &decoded, out, size - 1) == -EMSGSIZE);                                 \
        memset(&untouched, 0xa5, sizeof(untouched));                                                                   \
        memset(&untouched_header, 0xa5, sizeof(untouched_header));                                                     \
        memcpy(&decoded, &untouched, sizeof(decoded));                                                                 \
        memcpy(&header, &untouched_header, sizeof(header));                                                            \
        for (size_t length = 0; length <= size + 1; length++) {                                                        \
            if (length == size)                                                                                        \
                continue;                                                                                              \
            uint8_t *other = exact(packet, length);                                                                    \
            CHECK(wire_##message##_decode(other, length, &header, &decoded) == -EBADMSG);                              \
            free(other);                                                                                               \
        }                                                                                                              \
        packet[2] ^= 1; /* version */                                                                                  \
        CHECK(wire_##message##_decode(packet, size, &header, &decoded) == -EBADMSG);                                   \
        packet[2] ^= 1;                                                                                                \
        packet[0] ^= 0x40; /* type */                                                                                  \
        CHECK(wire_##message##_decode(packet, size, &header, &decoded) == -EBADMSG);                                   \
        packet[0] ^= 0x40;                                                                                             \
        packet[12] = 1; /* reserved */                                                                                 \
        CHECK(wire_##message##_decode(packet, size, &header, &decoded) == -EBADMSG);                                   \
        CHECK(memcmp(&decoded, &untouched, sizeof(decoded)) == 0);                                                     \
        CHECK(memcmp(&header, &untouched_header, sizeof(header)) == 0);                                                \
    }
WIRE_MESSAGES(TEST_VECTOR)

static void test_limits(void) {
    const char *name = "limits";
    static uint8_t out[WIRE_MESSAGE_MAX], body[WIRE_CHUNK_DATA_MAX + 1];
    struct wire_header header = {.object = 1};
    struct wire_chunk chunk = {.data = {.data = body, .size = WIRE_CHUNK_DATA_MAX}};
    struct wire_put_runtime runtime = {.name = {.data = (const uint8_t *)"python3.11\0x", .size = 12}};
    int size = wire_chunk_encode(&header, &chunk, out, sizeof(out));
    CHECK(size == (int)(WIRE_HEADER_SIZE + 4 + WIRE_CHUNK_DATA_MAX));
    CHECK(wire_chunk_decode(out, (size_t)size, &header, &chunk) == 0);
    chunk.data.size++;
    CHECK(wire_chunk_encode(&header, &chunk, out, sizeof(out)) == -EINVAL);
    CHECK(wire_put_runtime_encode(&header, &runtime, out, sizeof(out)) == -EINVAL); /* NUL in a str */
    runtime.name.size = 10;
    size = wire_put_runtime_encode(&header, &runtime, out, sizeof(out));
    CHECK(size > 0);
    out[WIRE_HEADER_SIZE + 4 + 3] = 0;
    CHECK(wire_put_runtime_decode(out, (size_t)size, &header, &runtime) == -EBADMSG);
}

int main(void) {
#define RUN(message, MESSAGE)                                                                                          \
    test_##message("small");                                                                                           \
    test_##message("large");
    WIRE_MESSAGES(RUN)
    test_limits();
    return 0;
}
