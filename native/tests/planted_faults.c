/* Faults planted in the event log itself, for print_power: the linker puts these in front of the log's own functions
 * (--wrap). With no fault planted they do what those do. One thread. */
#include "planted_faults.h"

#include "queue/record.h"

int __real_record_parse(const uint8_t *bytes, size_t left, uint32_t seed, struct record *ret_record);
int __wrap_record_parse(const uint8_t *bytes, size_t left, uint32_t seed, struct record *ret_record);
size_t __real_record_put_change(uint8_t *ret_bytes, const struct record_change *change);
size_t __wrap_record_put_change(uint8_t *ret_bytes, const struct record_change *change);

enum fault planted_fault;

/* Recovery that does not look at checksums. */
int __wrap_record_parse(const uint8_t *bytes, size_t left, uint32_t seed, struct record *ret_record) {
    return planted_fault == FAULT_CHECKSUM ? record_look(bytes, left, ret_record)
                                           : __real_record_parse(bytes, left, seed, ret_record);
}

/* An event is settled in memory, and its record says nothing of it. */
size_t __wrap_record_put_change(uint8_t *ret_bytes, const struct record_change *change) {
    struct record_change written = *change;
    if (planted_fault == FAULT_SETTLE && change->phase == PHASE_SETTLED && change->place.ordinal != ORDINAL_ALL)
        written.phase = PHASE_WAITING;
    return __real_record_put_change(ret_bytes, &written);
}
