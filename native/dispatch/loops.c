/* What the loops have in common; see the header. */
#include "dispatch/loops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dispatch/dispatch.h"

int loops_new(struct loops **ret_loops, unsigned n, uint64_t payload_bytes, uint32_t concurrency) {
    struct loops *loops = calloc(1, sizeof(*loops));

    if (loops == NULL)
        return -ENOMEM;
    loops->n = n;
    loops->budget.limit = payload_bytes;
    loops->budget.left = payload_bytes;
    loops->stream_limits = stream_limits(0, 0, 0);
    loops->stall_us = HTTP_STALL_US;
    loops->ration = RATION_RATE;
    bucket_init(&loops->log_bucket, LOG_NODE_RATE, clock_monotonic_us());
    if (account_init(&loops->account, n, concurrency) < 0) {
        free(loops);
        return -ENOMEM;
    }
    *ret_loops = loops;
    return 0;
}

void loops_free(struct loops *loops) {
    account_done(&loops->account);
    table_done(&loops->functions);
    table_done(&loops->targets);
    free(loops);
}
