/* The thread that writes the event log: log_flush whenever something was appended. There is no delay: what comes while it
 * writes is the next group. */
#pragma once

struct log;
struct flusher;

/* Starts the thread, which calls confine (if not NULL) before anything else. What it finished raises log->wake_fd, if that
 * is not -1. 0 or a negative errno. */
int flusher_start(struct flusher **ret_flusher, struct log *log, int (*confine)(void));
/* Writes what was appended, then ends the thread. */
void flusher_stop(struct flusher *flusher);
