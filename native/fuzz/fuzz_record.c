/* Records, group headers, footers and segments' headers from bytes that anyone may have damaged; with checksums made good,
 * since otherwise little would get past them. What is read is written again and read the same. */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "queue/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good) {
    if (!good)
        abort();
}

static void fuzz_record(uint8_t *bytes, size_t size, bool mend) {
    uint32_t seed = record_seed(7), its;
    struct record record, again;
    if (mend && size >= RECORD_PREFIX) {
        memcpy(&its, bytes + 4, 4);
        if (its >= RECORD_PREFIX && its <= size)
            record_finish(bytes, seed, 3);
    }
    if (record_parse(bytes, size, seed, &record) < 0)
        return;
    check(record.padded <= size && record.size <= record.padded);
    uint8_t *copy = malloc(record.padded);
    if (copy == NULL)
        return;
    size_t n =
        record.kind == RECORD_CHANGE ? record_put_change(copy, &record.change) : record_put_event(copy, &record.event);
    check(n == record.padded);
    record_finish(copy, seed, record.ordinal);
    check(record_parse(copy, n, seed, &again) == 0 && again.kind == record.kind && again.ordinal == record.ordinal);
    free(copy);
}

static void fuzz_heads(uint8_t *bytes, size_t size, bool mend) {
    struct group_header group;
    struct segment_header segment;
    struct footer footer;
    uint64_t salt;
    uint32_t crc;
    if (size < HEADER_SIZE)
        return;
    memcpy(&salt, bytes + 8, 8);
    (void)segment_parse_header(bytes, &segment);
    if (mend) {
        crc = crc32c(0, bytes + 16, SECTOR - 16);
        memcpy(bytes, "RTEVENTS\1\0\0\0", 12);
        memcpy(bytes + 12, &crc, 4);
        if (segment_parse_header(bytes, &segment) == 0)
            check(segment.events_max <= SEGMENT_EVENTS_MAX && segment.previous < segment.sequence);
        crc = crc32c(0, bytes + 8, GROUP_HEADER - 8);
        memcpy(bytes, "RTQG", 4);
        memcpy(bytes + 4, &crc, 4);
        check(group_parse(bytes, salt, &group) < 0 || group.salt == salt);
        crc = crc32c(0, bytes + 8, FOOTER_HEADER - 8);
        memcpy(bytes, "RTQF", 4);
        memcpy(bytes + 4, &crc, 4);
    }
    memcpy(&salt, bytes + 8, 8);
    (void)group_parse(bytes, salt, &group);
    memcpy(&crc, bytes + 16, 4);
    if (footer_found(bytes, salt, crc, &footer) == 0)
        check(footer.n_events <= SEGMENT_EVENTS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    uint8_t *copy = malloc(size - 1);
    if (copy == NULL)
        return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1)
        fuzz_heads(copy, size - 1, data[0] & 2);
    else
        fuzz_record(copy, size - 1, data[0] & 2);
    free(copy);
    return 0;
}
