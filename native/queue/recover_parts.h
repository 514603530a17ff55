/* What the two files of recovery share. */
#pragma once

#include "log_parts.h"

struct found {
    uint64_t sequence;
    bool aside;                  /* damaged, found by an earlier start */
    struct log_segment *segment; /* NULL: set aside, or removed */
};

struct retry {
    struct place place;
    uint8_t attempts;
    uint64_t due_ms;
};

struct recovery {
    struct log *log;
    struct log_found *report;
    struct found *found; /* by sequence */
    size_t n, capacity;
    int error;
    bool counted;                /* the report has what was found in groups */
    uint64_t highest, done_with; /* segments up to this one may be missing, and go */
    struct builder builder;
    struct retry *retries; /* those that hold, by place */
    size_t n_retries, retries_capacity;
};

/* What the segment's footer says, or would say. */
int recover_load(struct recovery *r, struct found *found, struct footer *ret_footer);
uint64_t recover_end(const struct recovery *r, const struct found *found);
int recover_set_aside(struct log *log, uint64_t sequence);
/* recover_events.c: states of its events, and what its changes say of others. */
int recover_changes(struct recovery *r, struct found *found);
/* Removes what is done with, and says what is missing. */
int recover_remove(struct recovery *r);
/* Into the log's list, and to the sink. */
int recover_announce(struct recovery *r, struct found *found);
int recover_salvage(struct recovery *r, uint64_t now_ms);
