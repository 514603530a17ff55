/* Files in memory below the event log, for its tests: they remember what was synced, and can lose the rest. */
#pragma once

#include <stdbool.h>

#include "queue/file.h"

#define MEMORY_FILES 256
#define MEMORY_NAMES 256

/* Planted faults: what a wrong log or a lying disk would do. */
enum fault { FAULT_NONE, FAULT_SYNC, FAULT_DIRECTORY, FAULT_SALT, FAULT_EARLY, FAULT_CHECKSUM, FAULT_SETTLE };

struct memory_file {
    uint8_t *now, *disk; /* as programs see it; as a power cut leaves it */
    uint8_t *dirty;      /* by sector: written since the last sync */
    uint64_t size, disk_size, capacity;
    bool used;
};

struct memory_name {
    char name[40];
    int file; /* -1: none of that name */
};

struct memory_step { /* of the directory, not yet synced: one or two names get another file */
    struct memory_name names[2];
    unsigned n;
};

struct memory {
    struct files files; /* first: the log's view */
    struct memory_file inodes[MEMORY_FILES];
    struct memory_name now[MEMORY_NAMES], disk[MEMORY_NAMES];
    struct memory_step steps[64];
    unsigned n_steps;
    uint64_t random;
    enum fault fault;
    uint64_t operations; /* that change something, so far */
    uint64_t crash_at;   /* the operation at which all ends; 0: never */
    bool crashed;
    uint64_t fail_at, fail_for; /* operations from here on fail, so many; 0: none */
    int fail_with;
    bool fail_syncs_only;
    const struct memory_file *bad; /* has a sector that cannot be read */
    uint64_t bad_offset;
    uint64_t room; /* bytes that files may have together; 0: any */
};

uint64_t memory_random(struct memory *memory);
void memory_init(struct memory *memory, uint64_t seed);
void memory_done(struct memory *memory);
/* The power goes: of what was not synced, a random part is there, whole, garbled or not at all. */
void memory_cut(struct memory *memory);
/* For looking at what is there. NULL when there is no such file. */
const struct memory_file *memory_find(const struct memory *memory, const char *name);
