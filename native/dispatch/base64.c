/* Base64; see the header. */
#include "dispatch/base64.h"

#include <errno.h>

static int base64_digit(uint8_t c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(struct wire_slice text, uint8_t *into) {
    uint32_t n = text.size, bits = 0;
    int size = 0;

    if (n % 4 != 0)
        return -EINVAL;
    while (n > 0 && text.size - n < 2 && text.data[n - 1] == '=')
        n--;
    for (uint32_t i = 0; i < n; i++) {
        int digit = base64_digit(text.data[i]);
        if (digit < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 > 0)
            into[size++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    return size;
}

size_t base64_encode(const uint8_t *data, size_t size, char *into) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)data[i] << 16;
        bits |= i + 1 < size ? (uint32_t)data[i + 1] << 8 : 0;
        bits |= i + 2 < size ? data[i + 2] : 0;
        into[n++] = digits[bits >> 18];
        into[n++] = digits[bits >> 12 & 63];
        into[n++] = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        into[n++] = i + 2 < size ? digits[bits & 63] : '=';
    }
    return n;
}
