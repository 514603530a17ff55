/* Randomness; see the header. */
#include "dispatch/random.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void refill(struct randomness *randomness) {
    size_t have = 0;
    while (have < sizeof(randomness->pool)) {
        ssize_t n = getrandom(randomness->pool + have, sizeof(randomness->pool) - have, 0);
        if (n < 0 && errno != EINTR)
            abort(); /* cannot happen after boot; an id that is not random must never leave */
        if (n > 0)
            have += (size_t)n;
    }
    randomness->left = sizeof(randomness->pool);
}

void random_bytes(struct randomness *randomness, uint8_t *ret_bytes, size_t size) {
    if (randomness->left < size)
        refill(randomness);
    randomness->left -= size;
    memcpy(ret_bytes, randomness->pool + randomness->left, size);
    memset(randomness->pool + randomness->left, 0, size);
}

void random_uuid(struct randomness *randomness, uint8_t ret_uuid[16]) {
    random_bytes(randomness, ret_uuid, 16);
    ret_uuid[6] = (uint8_t)((ret_uuid[6] & 0x0f) | 0x40);
    ret_uuid[8] = (uint8_t)((ret_uuid[8] & 0x3f) | 0x80);
}

uint32_t random_u16(struct randomness *randomness) {
    uint8_t bytes[2];
    random_bytes(randomness, bytes, sizeof(bytes));
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

void hex_text(const uint8_t *bytes, size_t size, char *ret_text) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        ret_text[2 * i] = digits[bytes[i] >> 4];
        ret_text[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_text[2 * size] = '\0';
}

void uuid_text(const uint8_t uuid[16], char ret_text[37]) {
    static const uint8_t groups[] = {4, 2, 2, 2, 6};
    size_t at = 0;
    for (size_t i = 0; i < sizeof(groups); i++) {
        hex_text(uuid + at, groups[i], ret_text);
        ret_text += 2 * groups[i];
        at += groups[i];
        *ret_text++ = i + 1 < sizeof(groups) ? '-' : '\0';
    }
}
