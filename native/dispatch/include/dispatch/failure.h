/* Error bodies that the platform makes rather than the runtime, as Lambda words them, and API errors. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FAILURE_BODY_MAX 1024

struct failure {
    const char *type; /* errorType */
    size_t size;
    char body[FAILURE_BODY_MAX]; /* JSON */
};

void failure_timed_out(struct failure *ret_failure, const uint8_t id[16], uint64_t timeout_ms);
/* status as wait(2) gives it. */
void failure_exited(struct failure *ret_failure, const uint8_t id[16], uint32_t status, int out_of_memory);
#define FAILURE_TOO_LARGE "Function.ResponseSizeTooLarge"
void failure_response_too_large(struct failure *ret_failure);
/* limit: bytes. */
void failure_stream_too_large(struct failure *ret_failure, uint64_t limit);
/* The sandbox failed or broke the channel's protocol. */
void failure_sandbox(struct failure *ret_failure, const uint8_t id[16], const char *what);
/* As Go prints a process state, which is what Lambda shows: "exit status 1", "signal: killed". */
void failure_status_text(uint32_t status, char *ret_text, size_t size);
