/* Records as text; see the header. Integers only: durations have two decimals of a millisecond. */
#include "dispatch/render.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/json.h"
#include "dispatch/random.h"
#include "protocol/wire.h"

/* ---- dates ----------------------------------------------------------------------------------------------------- */

struct date {
    unsigned year, month, day;
};

/* The civil calendar from days since the epoch; gmtime_r would read the machine's time zone files. */
static struct date date_of(uint64_t days) {
    uint64_t z = days + 719468, era = z / 146097;
    unsigned doe = (unsigned)(z - era * 146097), yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    struct date date = {.day = doy - (153 * mp + 2) / 5 + 1, .month = mp < 10 ? mp + 3 : mp - 9};
    date.year = (unsigned)(yoe + era * 400) + (date.month <= 2);
    return date;
}

#define ISO_SIZE 40
static void iso_time(char ret_text[ISO_SIZE], uint64_t time_us) {
    uint64_t seconds = time_us / 1000000;
    struct date date = date_of(seconds / 86400);
    unsigned second = (unsigned)(seconds % 86400);
    snprintf(ret_text, ISO_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", date.year, date.month, date.day, second / 3600,
        second / 60 % 60, second % 60, (unsigned)(time_us % 1000000 / 1000));
}

static uint64_t spread(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void log_stream_hex(uint64_t environment, char ret_hex[33]) {
    snprintf(ret_hex, 33, "%016" PRIx64 "%016" PRIx64, spread(environment), spread(~environment));
}

void log_stream_name(uint64_t environment, const char *version, char *ret_name, size_t size) {
    struct date date = date_of((environment >> 20) / 86400000);
    char hex[33];
    log_stream_hex(environment, hex);
    snprintf(ret_name, size, "%04u/%02u/%02u/[%s]%s", date.year, date.month, date.day, version, hex);
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

static size_t fits(int n) {
    return n < 0 ? 0 : MIN((size_t)n, (size_t)RENDER_MAX - 1);
}

/* Two decimals, rounded to the nearest. */
static void milliseconds(char ret_text[32], uint64_t us) {
    uint64_t hundredths = (us + 5) / 10;
    snprintf(ret_text, 32, "%" PRIu64 ".%02u", hundredths / 100, (unsigned)(hundredths % 100));
}

size_t render_start(char ret_line[RENDER_MAX], int json, uint64_t time_us, const uint8_t id[16], const char *version) {
    char uuid[37], time[ISO_SIZE];
    uuid_text(id, uuid);
    if (!json)
        return fits(snprintf(ret_line, RENDER_MAX, "START RequestId: %s Version: %s\n", uuid, version));
    iso_time(time, time_us);
    return fits(snprintf(ret_line, RENDER_MAX,
        "{\"time\":\"%s\",\"type\":\"platform.start\",\"record\":{\"requestId\":\"%s\",\"version\":\"%s\"}}\n", time,
        uuid, version));
}

size_t render_end(char ret_line[RENDER_MAX], int json, const uint8_t id[16]) {
    char uuid[37];
    if (json)
        return 0;
    uuid_text(id, uuid);
    return fits(snprintf(ret_line, RENDER_MAX, "END RequestId: %s\n", uuid));
}

static bool is_restored(const struct log_report *report) {
    return report->init_type == WIRE_INIT_TYPE_SNAP_START;
}

/* What is billed: whole milliseconds. */
static uint64_t rounded_up(uint64_t us) {
    return (us + 999) / 1000;
}

static size_t report_text(char *line, const char *uuid, const struct log_report *report) {
    char duration[32], init[32], init_part[128] = "", status[192] = "";

    milliseconds(duration, report->duration_us);
    milliseconds(init, report->init_us);
    if (report->init_us != 0 && is_restored(report))
        snprintf(init_part, sizeof(init_part), "\tRestore Duration: %s ms\tBilled Restore Duration: %" PRIu64 " ms",
            init, rounded_up(report->init_us));
    else if (report->init_us != 0)
        snprintf(init_part, sizeof(init_part), "\tInit Duration: %s ms", init);
    if (report->status == LOG_STATUS_TIMEOUT)
        snprintf(status, sizeof(status), "\tStatus: timeout");
    else if (report->status == LOG_STATUS_FAILURE || report->status == LOG_STATUS_INIT_ERROR)
        snprintf(status, sizeof(status), "\tStatus: error\tError Type: %.*s", (int)report->error_type_size,
            report->error_type);
    return fits(snprintf(line, RENDER_MAX,
        "REPORT RequestId: %s\tDuration: %s ms\tBilled Duration: %" PRIu64 " ms\tMemory Size: %" PRIu32
        " MB\tMax Memory Used: %" PRIu32 " MB%s%s\n",
        uuid, duration, report->billed_ms, report->memory_mb, report->peak_mb, init_part, status));
}

static const char *status_word(uint8_t status) {
    switch (status) {
    case LOG_STATUS_SUCCESS:
        return "success";
    case LOG_STATUS_TIMEOUT:
        return "timeout";
    case LOG_STATUS_ERROR:
    case LOG_STATUS_INIT_ERROR:
        return "error";
    default:
        return "failure";
    }
}

size_t render_report(
    char ret_line[RENDER_MAX], int json, uint64_t time_us, const uint8_t id[16], const struct log_report *report) {
    char uuid[37], time[ISO_SIZE], duration[32], init[32], init_part[128] = "", escaped[160], error[192] = "";

    uuid_text(id, uuid);
    if (!json)
        return report_text(ret_line, uuid, report);
    iso_time(time, time_us);
    milliseconds(duration, report->duration_us);
    milliseconds(init, report->init_us);
    if (report->init_us != 0 && is_restored(report))
        snprintf(init_part, sizeof(init_part), ",\"restoreDurationMs\":%s,\"billedRestoreDurationMs\":%" PRIu64, init,
            rounded_up(report->init_us));
    else if (report->init_us != 0)
        snprintf(init_part, sizeof(init_part), ",\"initDurationMs\":%s", init);
    if (report->error_type_size > 0) {
        json_escape(escaped, sizeof(escaped), report->error_type, report->error_type_size);
        snprintf(error, sizeof(error), ",\"errorType\":\"%s\"", escaped);
    }
    return fits(snprintf(ret_line, RENDER_MAX,
        "{\"time\":\"%s\",\"type\":\"platform.report\",\"record\":{\"requestId\":\"%s\",\"status\":\"%s\"%s,"
        "\"metrics\":{"
        "\"durationMs\":%s,\"billedDurationMs\":%" PRIu64 ",\"memorySizeMB\":%" PRIu32 ",\"maxMemoryUsedMB\":%" PRIu32
        "%s}}}\n",
        time, uuid, status_word(report->status), error, duration, report->billed_ms, report->memory_mb, report->peak_mb,
        init_part));
}

/* Of one that succeeded the text shows the duration alone. */
static size_t render_restore_report(char *line, int json, uint64_t time_us, const struct log_report *report) {
    const char *status = status_word(report->status == LOG_STATUS_FAILURE ? LOG_STATUS_ERROR : report->status);
    char time[ISO_SIZE], duration[32], escaped[160] = "", error[192] = "";

    milliseconds(duration, report->duration_us);
    if (!json) {
        if (report->status != LOG_STATUS_SUCCESS)
            snprintf(error, sizeof(error), "\tStatus: %s%s%.*s", status,
                report->error_type_size > 0 ? "\tError Type: " : "", (int)report->error_type_size,
                report->error_type_size > 0 ? report->error_type : "");
        return fits(snprintf(line, RENDER_MAX, "RESTORE_REPORT Restore Duration: %s ms%s\n", duration, error));
    }
    iso_time(time, time_us);
    if (report->error_type_size > 0) {
        json_escape(escaped, sizeof(escaped), report->error_type, report->error_type_size);
        snprintf(error, sizeof(error), ",\"errorType\":\"%s\"", escaped);
    }
    return fits(snprintf(line, RENDER_MAX,
        "{\"time\":\"%s\",\"type\":\"platform.restoreReport\",\"record\":{\"status\":\"%s\"%s,"
        "\"metrics\":{\"durationMs\":%s}}}\n",
        time, status, error, duration));
}

size_t render_init_report(char ret_line[RENDER_MAX], int json, uint64_t time_us, const struct log_report *report) {
    if (is_restored(report))
        return render_restore_report(ret_line, json, time_us, report);
    const char *status = report->status == LOG_STATUS_TIMEOUT ? "timeout" : "error";
    bool typed = report->status != LOG_STATUS_TIMEOUT && report->error_type_size > 0;
    char time[ISO_SIZE], duration[32], escaped[160] = "", error[192] = "";

    milliseconds(duration, report->duration_us);
    if (!json) {
        if (typed)
            snprintf(error, sizeof(error), "\tError Type: %.*s", (int)report->error_type_size, report->error_type);
        return fits(snprintf(ret_line, RENDER_MAX, "INIT_REPORT Init Duration: %s ms\tPhase: init\tStatus: %s%s\n",
            duration, status, error));
    }
    iso_time(time, time_us);
    if (typed) {
        json_escape(escaped, sizeof(escaped), report->error_type, report->error_type_size);
        snprintf(error, sizeof(error), ",\"errorType\":\"%s\"", escaped);
    }
    return fits(snprintf(ret_line, RENDER_MAX,
        "{\"time\":\"%s\",\"type\":\"platform.initReport\",\"record\":{\"initializationType\":\"on-demand\","
        "\"phase\":\"init\",\"status\":\"%s\"%s,\"metrics\":{\"durationMs\":%s}}}\n",
        time, status, error, duration));
}

/* ---- the tail -------------------------------------------------------------------------------------------------- */

void log_tail_append(struct log_tail *tail, const void *data, size_t size) {
    const char *from = data;
    if (size > LOG_TAIL_MAX) {
        tail->written += size - LOG_TAIL_MAX;
        from += size - LOG_TAIL_MAX;
        size = LOG_TAIL_MAX;
    }
    while (size > 0) {
        size_t at = (size_t)(tail->written % LOG_TAIL_MAX), n = MIN(size, LOG_TAIL_MAX - at);
        memcpy(tail->ring + at, from, n);
        tail->written += n;
        from += n;
        size -= n;
    }
}

size_t log_tail_copy(const struct log_tail *tail, char ret_text[LOG_TAIL_MAX]) {
    size_t at = (size_t)(tail->written % LOG_TAIL_MAX);
    if (tail->written <= LOG_TAIL_MAX) {
        memcpy(ret_text, tail->ring, (size_t)tail->written);
        return (size_t)tail->written;
    }
    memcpy(ret_text, tail->ring + at, LOG_TAIL_MAX - at);
    memcpy(ret_text + LOG_TAIL_MAX - at, tail->ring, at);
    return LOG_TAIL_MAX;
}
