/* Base64 with its padding (RFC 4648, 4). Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

/* No blanks. Three bytes for each four characters are enough. Returns the length or -EINVAL. */
int base64_decode(struct wire_slice text, uint8_t *into);
/* Four characters for each three bytes begun; not terminated. Returns their number. */
size_t base64_encode(const uint8_t *data, size_t size, char *into);
