/* What the queues' files share. */
#pragma once

#include "queue/queue.h"

#define TAG_RETRY (1ull << 62) /* with the record's place in its file: the tag of a retry that is written anew */

enum { TIMED_RUN = 1, TIMED_RETRY = 2, TIMED_GATE = 3 };

/* runs.c */
int runs_event(void *context, struct log_segment *segment, const uint8_t uid[16], const struct footer_event *event);
int runs_sealed(void *context, struct log_segment *segment, const struct footer_queue *queues, uint32_t n);
void runs_returned(void *context, struct log_segment *segment, const uint8_t uid[16]);
void runs_removed(void *context, struct log_segment *segment);
struct run *runs_find(struct log_segment *segment, const struct queue *queue);
/* The next entry of the run that is due and holds: 1. 0: none is; the run is out of queue->runs then, and in the wheel if
 * there is something later. */
int run_next(struct queues *queues, struct run *run, struct footer_event *ret_entry);
/* The clock was set back: retries that are written wait no longer for it. */
void runs_clock_back(struct queues *queues, uint64_t by_ms);

/* take.c */
/* A retry could not be written anew. */
void queue_retry_failed(struct queues *queues, const struct batch_item *item);

/* queue.c */
/* Into the circle of those that have something to take, or out of it. */
void queue_rouse(struct queues *queues, struct queue *queue);
int queue_back(struct queues *queues, struct queue *queue, const struct taken *taken);
