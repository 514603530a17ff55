/* Error bodies of the platform; see the header. */
#include "dispatch/failure.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "dispatch/json.h"
#include "dispatch/random.h"
#include "dispatch/request.h"

/* Go's names, by number; those that Linux does not have everywhere print as "signal N". */
static const char *const signals[] = {
    [1] = "hangup",
    [2] = "interrupt",
    [3] = "quit",
    [4] = "illegal instruction",
    [5] = "trace/breakpoint trap",
    [6] = "aborted",
    [7] = "bus error",
    [8] = "floating point exception",
    [9] = "killed",
    [10] = "user defined signal 1",
    [11] = "segmentation fault",
    [12] = "user defined signal 2",
    [13] = "broken pipe",
    [14] = "alarm clock",
    [15] = "terminated",
};

static void make(struct failure *failure, const char *type, const uint8_t id[16], const char *message) {
    char text[37], escaped[FAILURE_BODY_MAX - 128];
    int n;

    uuid_text(id, text);
    json_escape(escaped, sizeof(escaped), message, strlen(message));
    failure->type = type;
    n = snprintf(failure->body, sizeof(failure->body),
        "{\"errorType\":\"%s\",\"errorMessage\":\"RequestId: %s Error: %s\"}", type, text, escaped);
    failure->size = MIN((size_t)n, sizeof(failure->body) - 1);
}

void failure_timed_out(struct failure *ret_failure, const uint8_t id[16], uint64_t timeout_ms) {
    char message[96];
    snprintf(message, sizeof(message), "Task timed out after %" PRIu64 ".%02u seconds", timeout_ms / 1000,
        (unsigned)(timeout_ms % 1000 / 10));
    make(ret_failure, "Sandbox.Timedout", id, message);
}

void failure_status_text(uint32_t status, char *ret_text, size_t size) {
    int value = (int)status;
    if (WIFSIGNALED(value)) {
        unsigned number = (unsigned)WTERMSIG(value);
        const char *core = WCOREDUMP(value) ? " (core dumped)" : "";
        if (number < ARRAY_SIZE(signals) && signals[number] != NULL)
            snprintf(ret_text, size, "signal: %s%s", signals[number], core);
        else
            snprintf(ret_text, size, "signal: signal %u%s", number, core);
    } else {
        snprintf(ret_text, size, "exit status %d", WEXITSTATUS(value));
    }
}

void failure_exited(struct failure *ret_failure, const uint8_t id[16], uint32_t status, int out_of_memory) {
    char text[64], message[128];

    if (out_of_memory) {
        make(ret_failure, "Runtime.OutOfMemory", id, "Runtime exited with error: signal: killed");
        return;
    }
    if (status == 0) {
        make(ret_failure, "Runtime.ExitError", id, "Runtime exited without providing a reason");
        return;
    }
    failure_status_text(status, text, sizeof(text));
    snprintf(message, sizeof(message), "Runtime exited with error: %s", text);
    make(ret_failure, "Runtime.ExitError", id, message);
}

void failure_stream_too_large(struct failure *ret_failure, uint64_t limit) {
    ret_failure->type = FAILURE_TOO_LARGE;
    ret_failure->size = (size_t)snprintf(ret_failure->body, sizeof(ret_failure->body),
        "{\"errorType\":\"" FAILURE_TOO_LARGE "\",\"errorMessage\":\"Response payload size exceeded maximum "
        "allowed payload size (%" PRIu64 " bytes).\"}",
        limit);
}

void failure_response_too_large(struct failure *ret_failure) {
    failure_stream_too_large(ret_failure, RESPONSE_BODY_MAX);
}

void failure_sandbox(struct failure *ret_failure, const uint8_t id[16], const char *what) {
    make(ret_failure, "Sandbox.Failure", id, what);
}
