/* Logs of functions: what arrives by an environment's log pipe and what the platform says about it, as records in
 * files.
 *
 * Runs in the dispatcher: each loop reads its environments' pipes and tags lines (logs.c), a thread of its own writes files
 * (log_writer.c), a ring is between each loop and it (log_ring.h), so that a slow disk never stalls an invocation.
 *
 * Files: <function uid, 32 hex>/<sequence, 8 hex>.log below the logs directory. A segment is closed at
 * LOG_SEGMENT_BYTES; how many of them are kept, and for how long: log_sweep.h. A
 * dispatcher that starts opens a new segment: no segment is ever appended to by two processes. Little-endian, nothing
 * aligned:
 *
 *   segment   "RTLG" | u32 version (1) | u64 created, microseconds since the epoch | 16 bytes function uid
 *   record     0 u32 size of the whole record, header included
 *              4 u32 crc32c of everything after this field; 0: not computed (as today)
 *              8 u64 time, microseconds since the epoch
 *             16 u8  kind (LOG_KIND_*)
 *             17 u24 function version; 0: $LATEST
 *             20 u64 environment
 *             28 16  request id; zeros: outside of any invocation
 *             44     payload
 *   LINE         the line, without its newline; any bytes. Of a burst of short lines many, with newlines between them
 *   START, END   nothing
 *   REPORT       struct log_report (40 bytes, LOG_REPORT_SIZE) and the error type's bytes
 *   INIT_START   the environment's init type (u8, enum wire_init_type); snap_start: it was restored
 *   INIT_REPORT  as REPORT; duration is the init's; written when the init phase failed, and of every environment that
 *                was restored from a snapshot (init type snap_start)
 *   DROPPED      u64 records, u64 bytes, u8 reason (LOG_DROPPED_*)
 *
 * A record is valid when its size is at least 44 and it lies within the file; a reader that follows stops in front of
 * what is not there yet, and skips the rest of a segment when size is below 44 (a torn tail after a crash) and a
 * newer segment exists.
 *
 * Log stream of a record: YYYY/MM/DD/[version]hex, from the record alone: the date (UTC) is that of environment >>
 * 20, milliseconds since the epoch; hex is log_stream_hex() of the environment.
 *
 * Bounds: a line above LOG_LINE_MAX is cut into several; a token bucket for each function and one for the node, from
 * which each record takes its bytes, header included: above it the pipe is not read, so the function blocks in its write, under its own time-out. What is in the pipe when a
 * result arrives is always read (LOG_DRAIN_MAX at most), so that lines carry the right request id; the bucket then
 * goes into debt. A full disk drops records and counts them. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch/loop.h"

#define LOG_MAGIC 0x474c5452u /* "RTLG" */
#define LOG_VERSION 1u
#define LOG_SEGMENT_HEADER 32u
#define LOG_RECORD_HEADER 44u
#define LOG_REPORT_SIZE 40u
#define LOG_SEGMENT_BYTES (8u << 20)
#define LOG_SEGMENTS 4u
#define LOG_LINE_MAX (256u << 10)
#define LOG_LINES_MAX 1024u /* of one read; what comes after them in it is one record */
#define LOG_DRAIN_MAX (256u << 10)
#define LOG_READ_SIZE (64u << 10) /* a pipe's capacity */
#define LOG_PAUSE_US 5000u /* a pipe that was read is not watched for so long: prints do not wake the loop each */
#define LOG_FUNCTION_RATE (4u << 20) /* bytes a second, and twice that at once */
#define LOG_NODE_RATE (32u << 20)

enum log_kind {
    LOG_KIND_LINE = 1,
    LOG_KIND_START = 2,
    LOG_KIND_END = 3,
    LOG_KIND_REPORT = 4,
    LOG_KIND_INIT_START = 5,
    LOG_KIND_INIT_REPORT = 6,
    LOG_KIND_DROPPED = 7,
};

enum log_dropped {
    LOG_DROPPED_BUSY = 1, /* the writer did not keep up */
    LOG_DROPPED_DISK = 2, /* full, or an error */
};

enum log_status {
    LOG_STATUS_SUCCESS = 0,
    LOG_STATUS_ERROR = 1,   /* the handler's own */
    LOG_STATUS_FAILURE = 2, /* the platform's: exit, out of memory, sandbox; text says Status: error */
    LOG_STATUS_TIMEOUT = 3,
    LOG_STATUS_INIT_ERROR = 4, /* the init phase raised: text says Status: error, JSON "error" */
};

/* On disk in this order, little-endian, without padding. */
struct log_report {
    uint64_t duration_us;
    uint64_t billed_ms; /* init included, rounded up */
    uint64_t init_us;   /* 0: warm */
    uint32_t memory_mb;
    uint32_t peak_mb; /* sampled */
    uint8_t status;   /* enum log_status */
    uint8_t init_type;
    uint16_t error_type_size;
    uint32_t reserved;
    const char *error_type; /* not in the 40 bytes: follows them */
};

struct log_tag {
    uint64_t environment;
    uint32_t version; /* 0: $LATEST */
    uint8_t request_id[16];
};

/* A token bucket as one moment: when all that was taken is paid for, at `rate` a second. Of several loops. */
struct bucket {
    _Atomic uint64_t paid_ns;
    uint64_t rate;
};

struct counters;
struct dispatch;
struct environment;
struct log_ring;
struct log_writer;
struct log_file;
struct log_limits;
struct log_tail;
struct invocation;

struct logs {
    struct log_ring *ring;
    struct bucket *bucket; /* the node's */
    uint8_t *buffer;       /* LOG_READ_SIZE */
    struct counters *counters;
};

/* An environment's pipe, inside struct environment. */
struct log_pipe {
    struct watch watch; /* fd -1: none, or its end was reached */
    struct timer timer; /* when it is looked at again */
    uint8_t *partial;   /* a line without its newline yet */
    uint32_t partial_size, partial_capacity;
    struct log_tail *early; /* what came before the first invocation, for its tail; NULL: nothing */
};

/* One loop's side: its ring, in front of which a writer is to be started. */
int logs_open(struct logs *logs, struct counters *counters, struct bucket *bucket);
void logs_close(struct logs *logs);

void logs_attach(struct environment *environment, int fd);
/* Reads what is in the pipe now; lines, and a last one without newline, belong to the present invocation. */
void logs_drain(struct environment *environment);
void logs_detach(struct environment *environment);
/* The environment goes to another loop; it has come to this one: 0 or a negative errno. */
void logs_leave(struct environment *environment);
int logs_settle_in(struct environment *environment);
/* What was kept of the init phase goes into the tail of the invocation that bears it, and is forgotten. */
void logs_hand_over(struct environment *environment, struct invocation *invocation);
void logs_forget(struct environment *environment);

/* Platform records; they count against no bucket. */
void logs_start(struct environment *environment, const struct invocation *invocation);
void logs_report(struct environment *environment, const struct invocation *invocation, const struct log_report *report);
void logs_init_start(struct environment *environment);
void logs_init_report(struct environment *environment, const struct log_report *report);

/* Pure parts. */
void bucket_init(struct bucket *bucket, uint64_t rate, uint64_t now_us);
/* Takes n, into debt if need be. Returns how long until the bucket is out of debt: 0 when it is not in it. */
uint64_t bucket_take(struct bucket *bucket, uint64_t n, uint64_t now_us);
uint64_t bucket_wait(const struct bucket *bucket, uint64_t now_us);
void log_stream_hex(uint64_t environment, char ret_hex[33]);
/* Writes YYYY/MM/DD/[version]hex, terminated; size at least 80. */
void log_stream_name(uint64_t environment, const char *version, char *ret_name, size_t size);
void log_record_header(uint8_t ret_header[LOG_RECORD_HEADER], uint32_t payload, uint64_t time_us, enum log_kind kind,
    const struct log_tag *tag);
void log_report_pack(uint8_t ret_packed[LOG_REPORT_SIZE], const struct log_report *report);
