/* Scope-bound release of resources, after systemd's manner: `_cleanup_close_ int fd = -1;`. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_close(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline void cleanup_free(void *pointer) {
    free(*(void **)pointer);
}

static inline void cleanup_fclose(FILE **file) {
    if (*file != NULL)
        fclose(*file);
}

#define _cleanup_close_ __attribute__((cleanup(cleanup_close)))
#define _cleanup_free_ __attribute__((cleanup(cleanup_free)))
#define _cleanup_fclose_ __attribute__((cleanup(cleanup_fclose)))

/* Takes the value out of a variable that has a cleanup, leaving -1 or NULL. */
static inline int steal_fd(int *fd) {
    int value = *fd;
    *fd = -1;
    return value;
}
#define steal_pointer(p)                                                                                               \
    ({                                                                                                                 \
        __typeof__(p) _value = (p);                                                                                    \
        (p) = NULL;                                                                                                    \
        _value;                                                                                                        \
    })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
/* Of these two what is given is looked at twice: nothing that does something. */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
