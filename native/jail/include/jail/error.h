/* The step of building a jail that failed, and why. Filled on failure only; `error` is a positive errno. */
#pragma once

#include <stdint.h>
#include <string.h>

#define JAIL_STEP_MAX 32

struct jail_error {
    char step[JAIL_STEP_MAX]; /* "mount proc", "capset", "exec": names a line of the code, for people and tests */
    int32_t error;
};

/* Records the failure and returns it as a negative errno, for `return jail_fail(ret_error, "step", errno);`. Plain
 * memory only: called between clone and exec. */
static inline int jail_fail(struct jail_error *error, const char *step, int number) {
    if (number <= 0)
        number = number < 0 ? -number : 5 /* EIO: a step failed without saying why */;
    if (error != NULL) {
        size_t i = 0;
        for (; i + 1 < sizeof(error->step) && step[i] != '\0'; i++)
            error->step[i] = step[i];
        memset(error->step + i, 0, sizeof(error->step) - i);
        error->error = number;
    }
    return -number;
}
