/* Reads a segment's groups one after the other, as recovery does where there is no footer, and tells damage from a torn
 * tail. What was torn is not delivered; of what is damaged, every record that is whole. */
#pragma once

#include "queue/segment.h"

struct scan_sink {
    void *context;
    /* `offset` is the record's in the file. Negative: stop with that. */
    int (*record)(void *context, const struct record *record, uint64_t offset);
};

struct scan {
    uint64_t end;     /* behind the last good group: where a footer would stand */
    uint64_t durable; /* below this everything was known to be synced */
    uint64_t last;    /* where the last good group begins; 0: there is none */
    uint64_t number;  /* the highest seen */
    uint64_t groups;
    uint64_t latest_ms;     /* of them */
    uint64_t damaged_bytes; /* unreadable, below what must be readable */
    uint64_t damaged_areas;
    uint64_t torn_bytes; /* of a group at the end that nobody was told of */
    uint64_t footer;     /* a footer stands here; 0: none */
};

/* `known_end`: from the successor's header, below which all must be readable and behind which nothing counts; 0: not
 * known. 0 or a negative errno from reading or from the sink. */
int segment_scan(struct files *files, int file, const struct segment_header *header, uint64_t known_end,
    const struct scan_sink *sink, struct scan *ret_scan);
