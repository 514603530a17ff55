/* Is it JSON? RFC 8259, in UTF-8, nesting at most JSON_DEPTH_MAX. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 1024u

bool json_valid(const uint8_t *text, size_t size);
/* Writes the text as the inside of a JSON string, at most size - 1 bytes and a NUL; never cuts an escape in two.
 * Returns the length. Bytes that are not printable ASCII become \u00XX. */
size_t json_escape(char *ret_text, size_t size, const char *text, size_t length);
