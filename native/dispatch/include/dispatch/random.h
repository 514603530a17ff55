/* Randomness from the kernel, fetched in blocks: request ids (UUID version 4), route weights. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct randomness {
    uint8_t pool[4096];
    size_t left;
};

void random_bytes(struct randomness *randomness, uint8_t *ret_bytes, size_t size);
/* Version 4, variant 1. */
void random_uuid(struct randomness *randomness, uint8_t ret_uuid[16]);
uint32_t random_u16(struct randomness *randomness);
/* 8-4-4-4-12 and a NUL. */
void uuid_text(const uint8_t uuid[16], char ret_text[37]);
void hex_text(const uint8_t *bytes, size_t size, char *ret_text);
