/* Prepares the zygote's memory for being copied.
 *
 * A child that allocates from what the zygote once freed writes here and there over the whole heap, and each page that
 * it writes first is copied. So before the first fork everything free is taken and never given back, until both
 * allocators (the interpreter's for small objects, libc's for the rest) have to carve from fresh memory: what children
 * allocate then lies together. Costs the zygote what was free, about half a megabyte, once. */
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "module.h"

/* The interpreter's allocator: up to this size, in steps. */
#define SMALL_MAX 512
#define SMALL_STEP 16
/* Where its pools may begin. */
#define POOL_ALIGNMENT 4096
/* A guard against an allocator that works in another way. */
#define BLOCKS_MAX 16384
/* libc's: sizes that are drained, larger ones are rare and have pages of their own anyway. */
#define CHUNK_MAX 65536
#define CHUNK_STEP 16

/* Blocks that follow each other from near the beginning of a page come from a pool that was never used. */
static void settle_small(size_t size) {
    char *last = NULL;
    unsigned run = 0;

    for (unsigned i = 0; i < BLOCKS_MAX && run < 3; i++) {
        char *block = PyObject_Malloc(size);
        if (block == NULL)
            return;
        run = last != NULL && block == last + size && (run > 0 || ((uintptr_t)last & (POOL_ALIGNMENT - 1)) < 128)
            ? run + 1
            : 0;
        last = block;
    }
}

/* Where the heap's last, never divided piece begins. */
static uintptr_t heap_edge(void) {
#if __GLIBC_PREREQ(2, 33)
    size_t last = mallinfo2().keepcost;
#else
    size_t last = (size_t)mallinfo().keepcost;
#endif
    return (uintptr_t)sbrk(0) - last;
}

/* Takes what lies before that piece, the largest first. */
static void settle_chunks(void) {
    const uintptr_t edge = heap_edge();
    for (size_t size = CHUNK_MAX; size >= CHUNK_STEP; size -= CHUNK_STEP) {
        void *chunk = malloc(size);
        while (chunk != NULL && (uintptr_t)chunk < edge)
            chunk = malloc(size);
        free(chunk);
    }
}

PyObject *module_settle(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    for (size_t size = SMALL_STEP; size <= SMALL_MAX; size += SMALL_STEP)
        settle_small(size);
    settle_chunks();
    Py_RETURN_NONE;
}
