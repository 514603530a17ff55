/* What fuzzers share: how they say that something does not hold, and an input as a tape. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* At its end come zeros. */
struct tape {
    const uint8_t *at, *end;
};

static inline uint8_t take(struct tape *tape) {
    return tape->at < tape->end ? *tape->at++ : 0;
}
