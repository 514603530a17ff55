/* The parts of a segment's file but its records; layout in the header. Any thread; nothing is kept between calls. */
#include "queue/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crc32c.h"

#define VERSION 1u
#define GROUP_MAGIC 0x47515452u  /* RTQG */
#define FOOTER_MAGIC 0x46515452u /* RTQF */

_Static_assert(sizeof(struct footer_queue) == FOOTER_ITEM && sizeof(struct footer_event) == FOOTER_ITEM &&
        sizeof(struct footer_change) == FOOTER_ITEM,
    "items of the footer are written as they stand in memory");

void segment_name(char ret_name[SEGMENT_NAME_SIZE], uint64_t sequence) {
    snprintf(ret_name, SEGMENT_NAME_SIZE, "%016llx.log", (unsigned long long)sequence);
}

uint64_t segment_sequence(const char *name) {
    uint64_t sequence = 0;
    for (int i = 0; i < 16; i++) {
        unsigned c = (unsigned char)name[i];
        if (c >= '0' && c <= '9')
            sequence = sequence * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f')
            sequence = sequence * 16 + (c - 'a' + 10);
        else
            return 0;
    }
    return strcmp(name + 16, ".log") == 0 ? sequence : 0;
}

static uint32_t state_sectors(uint32_t events_max) {
    return (events_max + STATES_IN_SECTOR - 1) / STATES_IN_SECTOR;
}

uint64_t segment_start(uint32_t events_max) {
    return HEADER_SIZE + 2ull * SECTOR * state_sectors(events_max);
}

uint32_t segment_changes_max(uint32_t events_max) {
    return 2 * events_max;
}

uint64_t segment_footer_max(uint32_t events_max) {
    return sector_up(FOOTER_HEADER + (uint64_t)FOOTER_ITEM * (2ull * events_max + segment_changes_max(events_max)));
}

/* ---- header ---------------------------------------------------------------------------------------------------- */

void segment_put_header(uint8_t sector[HEADER_SIZE], const struct segment_header *h) {
    uint32_t version = VERSION, crc;
    memset(sector, 0, SECTOR);
    memcpy(sector, "RTEVENTS", 8);
    memcpy(sector + 8, &version, 4);
    memcpy(sector + 16, &h->salt, 8);
    memcpy(sector + 24, &h->sequence, 8);
    memcpy(sector + 32, &h->size, 8);
    memcpy(sector + 40, &h->events_max, 4);
    memcpy(sector + 48, &h->oldest, 8);
    memcpy(sector + 56, &h->previous, 8);
    memcpy(sector + 64, &h->previous_end, 8);
    memcpy(sector + 72, &h->created_ms, 8);
    crc = crc32c(0, sector + 16, SECTOR - 16);
    memcpy(sector + 12, &crc, 4);
    memcpy(sector + SECTOR, sector, SECTOR);
}

static int parse_header(const uint8_t sector[SECTOR], struct segment_header *ret_header) {
    struct segment_header h;
    uint32_t version, crc;

    memcpy(&version, sector + 8, 4);
    memcpy(&crc, sector + 12, 4);
    if (memcmp(sector, "RTEVENTS", 8) != 0)
        return -EBADMSG;
    if (crc32c(0, sector + 16, SECTOR - 16) != crc)
        return -EBADMSG;
    if (version != VERSION)
        return -EPROTONOSUPPORT;
    memcpy(&h.salt, sector + 16, 8);
    memcpy(&h.sequence, sector + 24, 8);
    memcpy(&h.size, sector + 32, 8);
    memcpy(&h.events_max, sector + 40, 4);
    memcpy(&h.oldest, sector + 48, 8);
    memcpy(&h.previous, sector + 56, 8);
    memcpy(&h.previous_end, sector + 64, 8);
    memcpy(&h.created_ms, sector + 72, 8);
    if (h.sequence == 0 || h.events_max == 0 || h.events_max > SEGMENT_EVENTS_MAX || h.oldest == 0 ||
        h.oldest > h.sequence + 1 || h.previous >= h.sequence || h.size > (uint64_t)UINT32_MAX * 8)
        return -EBADMSG;
    *ret_header = h;
    return 0;
}

int segment_parse_header(const uint8_t bytes[HEADER_SIZE], struct segment_header *ret_header) {
    int first = parse_header(bytes, ret_header);
    int second = first == 0 ? 0 : parse_header(bytes + SECTOR, ret_header);
    /* A version that one copy alone speaks of is a flipped bit: the checksum does not cover it. */
    return second == 0 || first == second ? second : -EBADMSG;
}

/* ---- groups ---------------------------------------------------------------------------------------------------- */

void group_finish(uint8_t *bytes, const struct group_header *h) {
    uint32_t magic = GROUP_MAGIC, crc;
    uint64_t end = GROUP_HEADER + (uint64_t)h->size;
    memcpy(bytes, &magic, 4);
    memcpy(bytes + 8, &h->salt, 8);
    memcpy(bytes + 16, &h->number, 8);
    memcpy(bytes + 24, &h->durable, 8);
    memcpy(bytes + 32, &h->size, 4);
    memcpy(bytes + 36, &h->records, 4);
    memcpy(bytes + 40, &h->at_ms, 8);
    crc = crc32c(0, bytes + 8, GROUP_HEADER - 8);
    memcpy(bytes + 4, &crc, 4);
    memset(bytes + end, 0, sector_up(end) - end);
}

int group_parse(const uint8_t *bytes, uint64_t salt, struct group_header *ret_header) {
    uint32_t magic, crc;
    struct group_header h;
    memcpy(&magic, bytes, 4);
    memcpy(&crc, bytes + 4, 4);
    memcpy(&h.salt, bytes + 8, 8);
    if (magic != GROUP_MAGIC || h.salt != salt || crc32c(0, bytes + 8, GROUP_HEADER - 8) != crc)
        return -EBADMSG;
    memcpy(&h.number, bytes + 16, 8);
    memcpy(&h.durable, bytes + 24, 8);
    memcpy(&h.size, bytes + 32, 4);
    memcpy(&h.records, bytes + 36, 4);
    memcpy(&h.at_ms, bytes + 40, 8);
    *ret_header = h;
    return 0;
}

/* ---- footers --------------------------------------------------------------------------------------------------- */

int footer_encode(const struct footer *f, uint64_t salt, uint64_t offset, uint8_t **ret_bytes, size_t *ret_size) {
    size_t body = (size_t)FOOTER_ITEM * ((size_t)f->n_queues + f->n_events + f->n_changes);
    size_t size = sector_up(FOOTER_HEADER + body);
    uint8_t *bytes = calloc(1, size), *at;
    uint32_t magic = FOOTER_MAGIC, crc;

    if (bytes == NULL)
        return -ENOMEM;
    at = bytes + FOOTER_HEADER;
    memcpy(at, f->queues, (size_t)f->n_queues * FOOTER_ITEM);
    at += (size_t)f->n_queues * FOOTER_ITEM;
    if (f->n_events > 0)
        memcpy(at, f->events, (size_t)f->n_events * FOOTER_ITEM);
    at += (size_t)f->n_events * FOOTER_ITEM;
    if (f->n_changes > 0)
        memcpy(at, f->changes, (size_t)f->n_changes * FOOTER_ITEM);
    memcpy(bytes, &magic, 4);
    memcpy(bytes + 8, &salt, 8);
    memcpy(bytes + 16, &offset, 8);
    memcpy(bytes + 24, &f->n_queues, 4);
    memcpy(bytes + 28, &f->n_events, 4);
    memcpy(bytes + 32, &f->n_changes, 4);
    crc = crc32c(0, bytes + FOOTER_HEADER, body);
    memcpy(bytes + 36, &crc, 4);
    memcpy(bytes + 40, &f->keyed_ms, 8);
    memcpy(bytes + 48, &f->ordinals, 8);
    crc = crc32c(0, bytes + 8, FOOTER_HEADER - 8);
    memcpy(bytes + 4, &crc, 4);
    *ret_bytes = bytes;
    *ret_size = size;
    return 0;
}

int footer_found(const uint8_t *bytes, uint64_t salt, uint64_t offset, struct footer *ret_sizes) {
    uint32_t magic, crc;
    uint64_t its_salt, its_offset;
    memcpy(&magic, bytes, 4);
    memcpy(&crc, bytes + 4, 4);
    memcpy(&its_salt, bytes + 8, 8);
    memcpy(&its_offset, bytes + 16, 8);
    if (magic != FOOTER_MAGIC || its_salt != salt || its_offset != offset ||
        crc32c(0, bytes + 8, FOOTER_HEADER - 8) != crc)
        return -EBADMSG;
    memset(ret_sizes, 0, sizeof(*ret_sizes));
    memcpy(&ret_sizes->n_queues, bytes + 24, 4);
    memcpy(&ret_sizes->n_events, bytes + 28, 4);
    memcpy(&ret_sizes->n_changes, bytes + 32, 4);
    memcpy(&ret_sizes->keyed_ms, bytes + 40, 8);
    memcpy(&ret_sizes->ordinals, bytes + 48, 8);
    if (ret_sizes->n_events > SEGMENT_EVENTS_MAX || ret_sizes->n_queues > ret_sizes->n_events ||
        ret_sizes->ordinals > SEGMENT_EVENTS_MAX || ret_sizes->n_changes > segment_changes_max(SEGMENT_EVENTS_MAX))
        return -EBADMSG;
    return 0;
}

static int footer_consistent(const struct footer *f) {
    uint32_t next = 0;
    for (uint32_t i = 0; i < f->n_queues; i++) {
        if (f->queues[i].first != next || f->queues[i].count > f->n_events - next)
            return -EBADMSG;
        next += f->queues[i].count;
    }
    for (uint32_t i = 0; i < f->n_events; i++)
        if (event_ordinal(&f->events[i]) >= f->ordinals)
            return -EBADMSG;
    for (uint32_t i = 0; i < f->n_changes; i++)
        if (f->changes[i].segment == 0)
            return -EBADMSG;
    return next == f->n_events ? 0 : -EBADMSG;
}

int footer_read(struct files *files, int file, uint64_t salt, uint64_t offset, struct footer *ret_footer) {
    uint8_t head[FOOTER_HEADER];
    struct footer f;
    uint32_t crc;
    int64_t n = files->operations->read(files, file, head, sizeof(head), offset);
    if (n < 0)
        return (int)n;
    if (n < (int64_t)sizeof(head) || footer_found(head, salt, offset, &f) < 0)
        return -EBADMSG;
    size_t body = (size_t)FOOTER_ITEM * ((size_t)f.n_queues + f.n_events + f.n_changes);
    f.queues = malloc(body + 1);
    if (f.queues == NULL)
        return -ENOMEM;
    f.events = (struct footer_event *)(void *)(f.queues + f.n_queues);
    f.changes = (struct footer_change *)(void *)(f.events + f.n_events);
    n = files->operations->read(files, file, f.queues, body, offset + FOOTER_HEADER);
    memcpy(&crc, head + 36, 4);
    if (n != (int64_t)body || crc32c(0, f.queues, body) != crc || footer_consistent(&f) < 0) {
        footer_done(&f);
        return n < 0 ? (int)n : -EBADMSG;
    }
    *ret_footer = f;
    return 0;
}

void footer_done(struct footer *footer) {
    free(footer->queues);
    *footer = (struct footer){0};
}

/* ---- the state area -------------------------------------------------------------------------------------------- */

struct state_sector {
    uint32_t crc, which;
    uint64_t salt, generation;
    uint8_t states[STATES_IN_SECTOR];
};
_Static_assert(sizeof(struct state_sector) == SECTOR, "one sector");

/* The copy that holds; generation 0: none was ever written. */
static int states_load(
    struct files *files, int file, uint64_t salt, uint32_t which, struct state_sector *ret_sector, unsigned *ret_copy) {
    struct state_sector both[2];
    uint64_t unreadable = 0;
    int64_t n = files_read_most(files, file, both, sizeof(both), HEADER_SIZE + 2ull * SECTOR * which, &unreadable);
    if (n < 0)
        return (int)n;
    memset(ret_sector, 0, sizeof(*ret_sector));
    *ret_copy = 1;
    for (unsigned copy = 0; copy < (unsigned)n / SECTOR; copy++) {
        struct state_sector *s = &both[copy];
        if (s->salt == salt && s->which == which && s->generation > ret_sector->generation &&
            crc32c(0, &s->which, SECTOR - 4) == s->crc) {
            *ret_sector = *s;
            *ret_copy = copy;
        }
    }
    return 0;
}

int states_write(struct files *files, int file, const struct segment_header *h, const uint8_t *states, uint32_t n) {
    bool written = false;
    for (uint32_t which = 0; which < state_sectors(h->events_max); which++) {
        struct state_sector sector;
        unsigned copy;
        bool any = false;
        for (uint32_t i = 0; i < STATES_IN_SECTOR && which * STATES_IN_SECTOR + i < n; i++)
            any = any || states[which * STATES_IN_SECTOR + i] != 0;
        if (!any)
            continue;
        int r = states_load(files, file, h->salt, which, &sector, &copy);
        if (r < 0)
            return r;
        for (uint32_t i = 0; i < STATES_IN_SECTOR && which * STATES_IN_SECTOR + i < n; i++)
            sector.states[i] = state_merged(sector.states[i], states[which * STATES_IN_SECTOR + i]);
        sector.salt = h->salt;
        sector.which = which;
        sector.generation++;
        sector.crc = crc32c(0, &sector.which, SECTOR - 4);
        r = files->operations->write(files, file, &sector, SECTOR, HEADER_SIZE + (2ull * which + !copy) * SECTOR);
        if (r < 0)
            return r;
        written = true;
    }
    return written ? files->operations->sync(files, file) : 0;
}

int states_read(struct files *files, int file, const struct segment_header *h, uint8_t *states, uint32_t n) {
    for (uint32_t which = 0; which < state_sectors(h->events_max); which++) {
        struct state_sector sector;
        unsigned copy;
        int r = states_load(files, file, h->salt, which, &sector, &copy);
        if (r < 0)
            return r;
        for (uint32_t i = 0; i < STATES_IN_SECTOR && which * STATES_IN_SECTOR + i < n; i++)
            states[which * STATES_IN_SECTOR + i] = state_merged(states[which * STATES_IN_SECTOR + i], sector.states[i]);
    }
    return 0;
}
