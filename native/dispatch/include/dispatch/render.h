/* Platform records as people read them (text or JSON lines), and the log tail of a call. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "dispatch/logs.h"

#define RENDER_MAX 768
#define LOG_TAIL_MAX 4096u

/* All write one line with its newline and return its length. version: terminated. */
size_t render_start(char ret_line[RENDER_MAX], int json, uint64_t time_us, const uint8_t id[16], const char *version);
/* Text only; JSON logs have no such line: 0. */
size_t render_end(char ret_line[RENDER_MAX], int json, const uint8_t id[16]);
size_t render_report(
    char ret_line[RENDER_MAX], int json, uint64_t time_us, const uint8_t id[16], const struct log_report *report);
size_t render_init_report(char ret_line[RENDER_MAX], int json, uint64_t time_us, const struct log_report *report);

/* The last LOG_TAIL_MAX bytes of what was appended. */
struct log_tail {
    uint64_t written;
    char ring[LOG_TAIL_MAX];
};
void log_tail_append(struct log_tail *tail, const void *data, size_t size);
/* Straightens it out. Returns the size. */
size_t log_tail_copy(const struct log_tail *tail, char ret_text[LOG_TAIL_MAX]);
