/* The log writer's thread: takes records out of the loops' rings and appends them to the functions' segments (format and caps
 * in logs.h). Nothing it does can stall the loop. Errors drop what they hit, are counted, and are tried again. */
#pragma once

#include <stdint.h>

struct counters;
struct log_file;
struct log_limits;
struct log_ring;
struct log_writer;

/* Starts the thread, which calls confine (if not NULL) before anything else. rings: the first of the chain. 0 or a
 * negative errno. */
int log_writer_start(struct log_writer **ret_writer, struct log_ring *rings, struct counters *counters, int directory,
    const struct log_limits *limits, int (*confine)(void));
/* After ring_stop: writes the rest, ends the thread, frees every file. */
void log_writer_join(struct log_writer *writer);

/* From the loop. A file belongs to the thread from the first record on; it is freed by an empty entry in
 * each ring. */
struct log_file *log_file_new(const uint8_t function_uid[16]);
