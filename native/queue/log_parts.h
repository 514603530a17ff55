/* What the files of the log share among themselves. */
#pragma once

#include "queue/log.h"

#define TAG_MOVE (UINT64_MAX - 1) /* of a compaction's moves: not told to the sink */
#define DROP_SECTORS 4u           /* kept at a segment's end for the record that lets the oldest one go */

/* writer.c: the flusher's segments */
/* A new segment in place of the one in use, if any, which is sealed. spare_allowed: also in the spare file. On failure
 * (-ENOSPC before anything was touched) the old one stays in use if it was. */
int writer_begin(struct log *log, bool spare_allowed, uint64_t now_ms, struct batch *batch);
/* Writes the footer of the segment in use, which ends its use. */
int writer_seal(struct log *log, struct batch *batch);
void writer_abandon(struct log *log);
/* The spare file, and the one of the next segment: with both, accepting goes on. */
int writer_ensure_room(struct log *log);
/* The file of a segment that is done with becomes the spare one, or goes. */
int writer_remove(struct log *log, uint64_t sequence);
uint64_t writer_limit(const struct segment_header *header);

/* log.c */
struct log_segment *log_segment_new(const struct segment_header *header, int file);
void log_segment_free(struct log *log, struct log_segment *segment);
int log_segment_grow(struct log_segment *segment, uint32_t ordinals);
/* All its events are settled. */
void log_segment_forget(struct log_segment *segment);
void log_settled(struct log *log, struct log_segment *segment, uint32_t ordinal);
/* A change as it stands in `record`, whatever it is about. */
int log_append_change(struct log *log, const uint8_t *record, uint64_t *ret_batch);
void batch_free(struct batch *batch);
/* Which record, from `at` on; returns where the next one begins. */
size_t batch_step(const struct batch *batch, size_t at, uint8_t *ret_kind);

/* recover.c */
int log_recover(struct log *log, uint64_t now_ms, struct log_found *report);
