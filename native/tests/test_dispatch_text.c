/* Texts that the dispatcher makes or judges: JSON, error bodies, log lines, ids. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/failure.h"
#include "dispatch/json.h"
#include "dispatch/random.h"
#include "dispatch/render.h"
#include "protocol/wire.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static const uint8_t id[16] = {
    0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x80, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77};
#define ID "12345678-9abc-4def-8011-223344556677"

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static const char *const valid[] = {"{}", "[]", "0", "-0", "1.5e+10", "\"\"", "null", "true", "false", " \t\r\n{} ",
    "{\"a\":1}", "{\"a\":{\"b\":[1,2,{\"c\":null}]},\"d\":\"\\u00e9\\n\"}", "[[],[[]],{}]", "1e5", "1E-5", "[1,2,3]",
    "{\"\":0}", "\"\xc3\xa9\"", "\"\xf4\x8f\xbf\xbf\"", "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
    "123456789012345678901234567890"};
static const char *const invalid[] = {"", " ", "{", "}", "[", "]", "{]", "[}", "01", "-", "+1", "1.", ".5", "1e", "1e+",
    "tru", "truex", "nul", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\\u12\"", "\"\n\"", "[1,]", "[,1]", "[1 2]", "{\"a\"}",
    "{\"a\":}", "{\"a\":1,}", "{,}", "{1:2}", "{\"a\":1 \"b\":2}", "{} {}", "1 2", "'a'", "NaN", "Infinity", "[1]]",
    "{}}", "\"\\", "{\"a\":1", "[\"a\"", "//", "\xff", "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"",
    "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"\x80\""};

static bool judged(const char *text, size_t size) {
    /* Where it ends is where its memory ends. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, text, size);
    bool result = json_valid(copy, size);
    free(copy);
    return result;
}

static void test_json(void) {
    for (size_t i = 0; i < ARRAY_SIZE(valid); i++) {
        if (!judged(valid[i], strlen(valid[i]))) {
            fprintf(stderr, "refused: %s\n", valid[i]);
            exit(1);
        }
        /* No beginning of a container or string is whole. */
        if (valid[i][0] == '{' || valid[i][0] == '[' || valid[i][0] == '"')
            for (size_t size = 0; size < strlen(valid[i]); size++)
                CHECK(!judged(valid[i], size));
    }
    for (size_t i = 0; i < ARRAY_SIZE(invalid); i++)
        if (judged(invalid[i], strlen(invalid[i]))) {
            fprintf(stderr, "taken: %s\n", invalid[i]);
            exit(1);
        }
    char deep[2 * JSON_DEPTH_MAX + 4];
    for (unsigned depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        CHECK(judged(deep, 2 * (size_t)depth) == (depth == JSON_DEPTH_MAX));
    }
}

static void test_escape(void) {
    char out[16];
    CHECK(json_escape(out, sizeof(out), "a\"b\\c", 5) == 7 && strcmp(out, "a\\\"b\\\\c") == 0);
    CHECK(json_escape(out, sizeof(out), "\n\xff", 2) == 12 && strcmp(out, "\\u000a\\u00ff") == 0);
    CHECK(json_escape(out, 7, "ab\n", 3) == 2 && strcmp(out, "ab") == 0); /* not cut in two */
    CHECK(json_escape(out, 1, "a", 1) == 0 && out[0] == '\0');
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static void is_failure(const struct failure *failure, const char *type, const char *message) {
    char expected[FAILURE_BODY_MAX];
    snprintf(expected, sizeof(expected), "{\"errorType\":\"%s\",\"errorMessage\":\"%s\"}", type, message);
    CHECK(strcmp(failure->type, type) == 0);
    CHECK(failure->size == strlen(expected) && memcmp(failure->body, expected, failure->size) == 0);
    CHECK(json_valid((const uint8_t *)failure->body, failure->size));
}

static void test_failures(void) {
    struct failure failure;
    char text[64];

    failure_timed_out(&failure, id, 3000);
    is_failure(&failure, "Sandbox.Timedout", "RequestId: " ID " Error: Task timed out after 3.00 seconds");
    failure_timed_out(&failure, id, 900050);
    is_failure(&failure, "Sandbox.Timedout", "RequestId: " ID " Error: Task timed out after 900.05 seconds");
    failure_exited(&failure, id, 0, 0);
    is_failure(&failure, "Runtime.ExitError", "RequestId: " ID " Error: Runtime exited without providing a reason");
    failure_exited(&failure, id, 127 << 8, 0);
    is_failure(&failure, "Runtime.ExitError", "RequestId: " ID " Error: Runtime exited with error: exit status 127");
    failure_exited(&failure, id, SIGTERM, 0);
    is_failure(&failure, "Runtime.ExitError", "RequestId: " ID " Error: Runtime exited with error: signal: terminated");
    failure_exited(&failure, id, SIGKILL, 1);
    is_failure(&failure, "Runtime.OutOfMemory", "RequestId: " ID " Error: Runtime exited with error: signal: killed");
    failure_sandbox(&failure, id, "say \"no\"");
    is_failure(&failure, "Sandbox.Failure", "RequestId: " ID " Error: say \\\"no\\\"");
    failure_response_too_large(&failure);
    CHECK(json_valid((const uint8_t *)failure.body, failure.size) && strstr(failure.body, "6291556") != NULL);
    failure_status_text(SIGABRT | 0x80, text, sizeof(text));
    CHECK(strcmp(text, "signal: aborted (core dumped)") == 0);
    char endless[2000];
    memset(endless, '"', sizeof(endless) - 1);
    endless[sizeof(endless) - 1] = '\0';
    failure_sandbox(&failure, id, endless);
    CHECK(json_valid((const uint8_t *)failure.body, failure.size));
}

/* ---- log lines ------------------------------------------------------------------------------------------------- */

static void is_line(const char *line, size_t size, const char *expected) {
    if (size != strlen(expected) || memcmp(line, expected, size) != 0) {
        fprintf(stderr, "%.*s\nis not\n%s\n", (int)size, line, expected);
        exit(1);
    }
}

static void test_lines(void) {
    const uint64_t time = 1709251199999000u; /* 2024-02-29T23:59:59.999Z */
    struct log_report report = {
        .duration_us = 1234, .billed_ms = 103, .init_us = 101015, .memory_mb = 128, .peak_mb = 35};
    char line[RENDER_MAX];

    is_line(line, render_start(line, 0, time, id, "$LATEST"), "START RequestId: " ID " Version: $LATEST\n");
    is_line(line, render_start(line, 1, time, id, "7"),
        "{\"time\":\"2024-02-29T23:59:59.999Z\",\"type\":\"platform.start\",\"record\":{\"requestId\":\"" ID
        "\",\"version\":\"7\"}}\n");
    is_line(line, render_end(line, 0, id), "END RequestId: " ID "\n");
    CHECK(render_end(line, 1, id) == 0);
    is_line(line, render_report(line, 0, time, id, &report),
        "REPORT RequestId: " ID
        "\tDuration: 1.23 ms\tBilled Duration: 103 ms\tMemory Size: 128 MB\tMax Memory Used: 35 "
        "MB\tInit Duration: 101.02 ms\n");
    report.init_us = 0;
    report.status = LOG_STATUS_TIMEOUT;
    is_line(line, render_report(line, 0, time, id, &report),
        "REPORT RequestId: " ID
        "\tDuration: 1.23 ms\tBilled Duration: 103 ms\tMemory Size: 128 MB\tMax Memory Used: 35 "
        "MB\tStatus: timeout\n");
    report.status = LOG_STATUS_FAILURE;
    report.error_type = "Runtime.ExitError";
    report.error_type_size = 17;
    is_line(line, render_report(line, 0, time, id, &report),
        "REPORT RequestId: " ID
        "\tDuration: 1.23 ms\tBilled Duration: 103 ms\tMemory Size: 128 MB\tMax Memory Used: 35 "
        "MB\tStatus: error\tError Type: Runtime.ExitError\n");
    is_line(line, render_init_report(line, 0, time, &report),
        "INIT_REPORT Init Duration: 1.23 ms\tPhase: init\tStatus: error\tError Type: Runtime.ExitError\n");
    report.init_us = 5;
    is_line(line, render_report(line, 1, time, id, &report),
        "{\"time\":\"2024-02-29T23:59:59.999Z\",\"type\":\"platform.report\",\"record\":{\"requestId\":\"" ID
        "\",\"status\":\"failure\",\"errorType\":\"Runtime.ExitError\",\"metrics\":{\"durationMs\":1.23,"
        "\"billedDurationMs\":103,\"memorySizeMB\":128,\"maxMemoryUsedMB\":35,\"initDurationMs\":0.01}}}\n");
}

static void test_restores(void) {
    const uint64_t time = 1709251199999000u;
    struct log_report report = {.duration_us = 1234,
        .billed_ms = 9,
        .init_us = 7001,
        .memory_mb = 128,
        .peak_mb = 35,
        .init_type = WIRE_INIT_TYPE_SNAP_START};
    char line[RENDER_MAX];

    is_line(line, render_report(line, 0, time, id, &report),
        "REPORT RequestId: " ID "\tDuration: 1.23 ms\tBilled Duration: 9 ms\tMemory Size: 128 MB\tMax Memory Used: 35 "
        "MB\tRestore Duration: 7.00 ms\tBilled Restore Duration: 8 ms\n");
    is_line(line, render_report(line, 1, time, id, &report),
        "{\"time\":\"2024-02-29T23:59:59.999Z\",\"type\":\"platform.report\",\"record\":{\"requestId\":\"" ID
        "\",\"status\":\"success\",\"metrics\":{\"durationMs\":1.23,"
        "\"billedDurationMs\":9,\"memorySizeMB\":128,\"maxMemoryUsedMB\":35,\"restoreDurationMs\":7.00,"
        "\"billedRestoreDurationMs\":8}}}\n");
    is_line(line, render_init_report(line, 0, time, &report), "RESTORE_REPORT Restore Duration: 1.23 ms\n");
    report.status = LOG_STATUS_TIMEOUT;
    is_line(line, render_init_report(line, 0, time, &report),
        "RESTORE_REPORT Restore Duration: 1.23 ms\tStatus: timeout\n");
    report.status = LOG_STATUS_FAILURE;
    report.error_type = "Runtime.AfterRestoreError";
    report.error_type_size = 25;
    is_line(line, render_init_report(line, 1, time, &report),
        "{\"time\":\"2024-02-29T23:59:59.999Z\",\"type\":\"platform.restoreReport\",\"record\":{\"status\":\"error\","
        "\"errorType\":\"Runtime.AfterRestoreError\",\"metrics\":{\"durationMs\":1.23}}}\n");
}

static void test_streams(void) {
    const uint64_t environment = 1709164800000ull << 20 | 5; /* 2024-02-29T00:00:00Z */
    char name[96], hex[33], other[33];
    log_stream_hex(environment, hex);
    log_stream_hex(environment + 1, other);
    CHECK(strlen(hex) == 32 && strcmp(hex, other) != 0);
    log_stream_name(environment, "$LATEST", name, sizeof(name));
    CHECK(strncmp(name, "2024/02/29/[$LATEST]", 20) == 0 && strcmp(name + 20, hex) == 0);
    log_stream_name(0, "1", name, sizeof(name));
    CHECK(strncmp(name, "1970/01/01/[1]", 14) == 0);
}

static void test_tail(void) {
    static struct log_tail tail;
    char out[LOG_TAIL_MAX], big[10000], byte;

    CHECK(log_tail_copy(&tail, out) == 0);
    log_tail_append(&tail, "hello", 5);
    CHECK(log_tail_copy(&tail, out) == 5 && memcmp(out, "hello", 5) == 0);
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)(i * 7);
    log_tail_append(&tail, big, sizeof(big));
    CHECK(log_tail_copy(&tail, out) == LOG_TAIL_MAX);
    CHECK(memcmp(out, big + sizeof(big) - LOG_TAIL_MAX, LOG_TAIL_MAX) == 0);
    for (unsigned i = 0; i < 5000; i++) {
        byte = (char)i;
        log_tail_append(&tail, &byte, 1);
    }
    CHECK(log_tail_copy(&tail, out) == LOG_TAIL_MAX);
    for (unsigned i = 0; i < LOG_TAIL_MAX; i++)
        CHECK(out[i] == (char)(5000 - LOG_TAIL_MAX + i));
}

static void test_ids(void) {
    static struct randomness randomness;
    uint8_t uuid[16], seen[16] = {0};
    char text[37];
    for (unsigned i = 0; i < 10000; i++) {
        random_uuid(&randomness, uuid);
        CHECK((uuid[6] & 0xf0) == 0x40 && (uuid[8] & 0xc0) == 0x80 && memcmp(uuid, seen, 16) != 0);
        memcpy(seen, uuid, 16);
        CHECK(random_u16(&randomness) < 65536);
    }
    uuid_text(id, text);
    CHECK(strcmp(text, ID) == 0);
}

int main(void) {
    test_json();
    test_escape();
    test_failures();
    test_lines();
    test_restores();
    test_streams();
    test_tail();
    test_ids();
    return 0;
}
