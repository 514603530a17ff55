/* Files in memory that a power cut can hit; see the header. One thread. */
#include "memory_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct memory *of(struct files *files) {
    return (struct memory *)(void *)files;
}

uint64_t memory_random(struct memory *m) { /* splitmix64 */
    uint64_t z = (m->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int find_name(const struct memory_name *names, const char *name) {
    for (int i = 0; i < MEMORY_NAMES; i++)
        if (names[i].name[0] != '\0' && strcmp(names[i].name, name) == 0)
            return i;
    return -1;
}

static void set_name(struct memory_name *names, const struct memory_name *to) {
    int at = find_name(names, to->name);
    for (int i = 0; at < 0 && i < MEMORY_NAMES; i++)
        if (names[i].name[0] == '\0' || names[i].file < 0)
            at = i;
    if (at < 0)
        abort();
    names[at] = *to;
}

const struct memory_file *memory_find(const struct memory *m, const char *name) {
    int at = find_name(m->now, name);
    return at < 0 || m->now[at].file < 0 ? NULL : &m->inodes[m->now[at].file];
}

/* One more operation. Negative: it fails; *ret_crash: it is the last, and takes effect in part. */
static int begin(struct memory *m, bool sync, bool *ret_crash) {
    *ret_crash = false;
    if (m->crashed)
        return -EIO;
    m->operations++;
    if (m->crash_at != 0 && m->operations >= m->crash_at) {
        m->crashed = *ret_crash = true;
        return 0;
    }
    if (m->fail_at != 0 && m->operations >= m->fail_at && m->operations < m->fail_at + m->fail_for &&
        (sync || !m->fail_syncs_only))
        return m->fail_with;
    return 0;
}

static void step(struct memory *m, const char *name, int file, const char *other) {
    struct memory_step s = {.n = other != NULL ? 2 : 1};
    snprintf(s.names[0].name, sizeof(s.names[0].name), "%s", name);
    s.names[0].file = file;
    if (other != NULL) {
        snprintf(s.names[1].name, sizeof(s.names[1].name), "%s", other);
        s.names[1].file = -1;
    }
    for (unsigned i = 0; i < s.n; i++)
        set_name(m->now, &s.names[i]);
    if (m->n_steps == sizeof(m->steps) / sizeof(m->steps[0])) { /* the oldest has come to the disk by itself */
        for (unsigned i = 0; i < m->steps[0].n; i++)
            set_name(m->disk, &m->steps[0].names[i]);
        memmove(m->steps, m->steps + 1, --m->n_steps * sizeof(m->steps[0]));
    }
    m->steps[m->n_steps++] = s;
}

static int memory_list(struct files *files, void (*each)(void *, const char *), void *context) {
    struct memory *m = of(files);
    for (int i = 0; i < MEMORY_NAMES; i++)
        if (m->now[i].name[0] != '\0' && m->now[i].file >= 0)
            each(context, m->now[i].name);
    return 0;
}

static void collect_garbage(struct memory *m) {
    bool used[MEMORY_FILES] = {0};
    for (int i = 0; i < MEMORY_NAMES; i++) {
        if (m->now[i].name[0] != '\0' && m->now[i].file >= 0)
            used[m->now[i].file] = true;
        if (m->disk[i].name[0] != '\0' && m->disk[i].file >= 0)
            used[m->disk[i].file] = true;
    }
    for (unsigned s = 0; s < m->n_steps; s++)
        for (unsigned i = 0; i < m->steps[s].n; i++)
            if (m->steps[s].names[i].file >= 0)
                used[m->steps[s].names[i].file] = true;
    for (int i = 0; i < MEMORY_FILES; i++)
        if (m->inodes[i].used && !used[i]) {
            free(m->inodes[i].now);
            free(m->inodes[i].disk);
            free(m->inodes[i].dirty);
            m->inodes[i] = (struct memory_file){0};
        }
}

static int memory_open(struct files *files, const char *name, int create) {
    struct memory *m = of(files);
    bool crash;
    int at = find_name(m->now, name), r, file = 0;
    if (at >= 0 && m->now[at].file >= 0)
        return create ? -EEXIST : m->now[at].file;
    if (!create)
        return -ENOENT;
    r = begin(m, false, &crash);
    if (r < 0)
        return r;
    collect_garbage(m);
    while (file < MEMORY_FILES && m->inodes[file].used)
        file++;
    if (file == MEMORY_FILES)
        abort();
    m->inodes[file].used = true;
    step(m, name, file, NULL);
    return crash ? -EIO : file;
}

static void memory_close(struct files *files, int file) {
    (void)files;
    (void)file;
}

static int grow(struct memory *m, struct memory_file *f, uint64_t size) {
    uint64_t all = 0, capacity = (size + SECTOR - 1) / SECTOR * SECTOR;
    if (capacity <= f->capacity)
        return 0;
    collect_garbage(m);
    for (int i = 0; i < MEMORY_FILES; i++)
        all += m->inodes[i].used && &m->inodes[i] != f ? m->inodes[i].capacity : 0;
    if (m->room != 0 && all + capacity > m->room)
        return -ENOSPC;
    f->now = realloc(f->now, capacity);
    f->disk = realloc(f->disk, capacity);
    f->dirty = realloc(f->dirty, capacity / SECTOR);
    memset(f->now + f->capacity, 0, capacity - f->capacity);
    memset(f->disk + f->capacity, 0, capacity - f->capacity);
    memset(f->dirty + f->capacity / SECTOR, 0, (capacity - f->capacity) / SECTOR);
    f->capacity = capacity;
    return 0;
}

static int memory_allocate(struct files *files, int file, uint64_t size) {
    struct memory *m = of(files);
    struct memory_file *f = &m->inodes[file];
    bool crash;
    int r = begin(m, false, &crash);
    if (r == 0)
        r = grow(m, f, size);
    if (r == 0)
        f->size = size > f->size ? size : f->size;
    return crash ? -EIO : r;
}

static int memory_truncate(struct files *files, int file, uint64_t size) {
    struct memory *m = of(files);
    bool crash;
    int r = begin(m, false, &crash);
    if (r == 0)
        m->inodes[file].size = size;
    return crash ? -EIO : r;
}

static int memory_size(struct files *files, int file, uint64_t *ret_size) {
    *ret_size = of(files)->inodes[file].size;
    return 0;
}

static int memory_write(struct files *files, int file, const void *data, size_t size, uint64_t offset) {
    struct memory *m = of(files);
    struct memory_file *f = &m->inodes[file];
    bool crash;
    int r = begin(m, false, &crash);
    if (m->crashed && !crash)
        return r;
    if (r < 0) /* a part of it may be there */
        size = size / SECTOR > 0 ? memory_random(m) % (size / SECTOR + 1) * SECTOR : 0;
    if (size > 0) {
        int grown = grow(m, f, offset + size);
        if (grown < 0)
            return grown;
        memcpy(f->now + offset, data, size);
        for (uint64_t s = offset / SECTOR; s <= (offset + size - 1) / SECTOR; s++)
            f->dirty[s] = 1;
        f->size = offset + size > f->size ? offset + size : f->size;
    }
    return crash ? -EIO : r;
}

static int64_t memory_read(struct files *files, int file, void *data, size_t size, uint64_t offset) {
    const struct memory_file *f = &of(files)->inodes[file];
    if (offset >= f->size)
        return 0;
    size = size < f->size - offset ? size : (size_t)(f->size - offset);
    if (f == of(files)->bad && offset < of(files)->bad_offset + SECTOR && offset + size > of(files)->bad_offset)
        return -EIO;
    memcpy(data, f->now + offset, size);
    return (int64_t)size;
}

static int memory_sync(struct files *files, int file) {
    struct memory *m = of(files);
    struct memory_file *f = &m->inodes[file];
    bool crash;
    int r = begin(m, true, &crash);
    if (m->crashed && !crash)
        return -EIO;
    if (crash)
        return -EIO; /* the cut decides about every sector */
    if (m->fault == FAULT_SYNC && memory_random(m) % 4 == 0)
        return 0;
    for (uint64_t s = 0; s < f->capacity / SECTOR; s++) {
        /* A sync that fails writes a part, and forgets that the rest was ever to be written. */
        if (f->dirty[s] && (r == 0 || memory_random(m) % 2))
            memcpy(f->disk + s * SECTOR, f->now + s * SECTOR, SECTOR);
        f->dirty[s] = 0;
    }
    f->disk_size = f->size;
    return r;
}

static int memory_rename(struct files *files, const char *from, const char *to) {
    struct memory *m = of(files);
    bool crash;
    int at = find_name(m->now, from);
    int r = begin(m, false, &crash);
    if (r < 0)
        return r;
    if (at < 0 || m->now[at].file < 0)
        return -ENOENT;
    step(m, to, m->now[at].file, from);
    return crash ? -EIO : 0;
}

static int memory_remove(struct files *files, const char *name) {
    struct memory *m = of(files);
    bool crash;
    int at = find_name(m->now, name), r;
    if (at < 0 || m->now[at].file < 0)
        return -ENOENT;
    r = begin(m, false, &crash);
    if (r < 0)
        return r;
    step(m, name, -1, NULL);
    return crash ? -EIO : 0;
}

static int memory_sync_directory(struct files *files) {
    struct memory *m = of(files);
    bool crash;
    int r = begin(m, true, &crash);
    if (r < 0 || crash)
        return r < 0 ? r : -EIO;
    if (m->fault == FAULT_DIRECTORY)
        return 0;
    memcpy(m->disk, m->now, sizeof(m->disk));
    m->n_steps = 0;
    return 0;
}

static void cut_file(struct memory *m, struct memory_file *f) {
    uint64_t size = memory_random(m) % 2 ? f->size : f->disk_size;
    uint64_t mood = memory_random(m) % 4; /* all, none, or each sector by itself */
    for (uint64_t s = 0; s < f->capacity / SECTOR; s++) {
        uint64_t what = mood == 0 ? 0 : mood == 1 ? 7 : memory_random(m) % 8;
        uint8_t *disk = f->disk + s * SECTOR;
        if (!f->dirty[s])
            continue;
        if (what < 4) {
            memcpy(disk, f->now + s * SECTOR, SECTOR);
        } else if (what == 4) {
            for (unsigned i = 0; i < SECTOR; i++)
                disk[i] = (uint8_t)memory_random(m);
        } else if (what == 5) { /* one bit wrong */
            memcpy(disk, f->now + s * SECTOR, SECTOR);
            disk[memory_random(m) % SECTOR] ^= (uint8_t)(1u << memory_random(m) % 8);
        } else if (what == 6) { /* half of it */
            memcpy(disk, f->now + s * SECTOR, memory_random(m) % SECTOR);
        }
    }
    memset(f->dirty, 0, f->capacity / SECTOR);
    f->size = f->disk_size = size;
    memcpy(f->now, f->disk, f->capacity);
    if (size < f->capacity) { /* what is behind the end reads as zeros when the file grows again */
        memset(f->now + size, 0, f->capacity - size);
        memset(f->disk + size, 0, f->capacity - size);
    }
}

void memory_cut(struct memory *m) {
    for (unsigned s = 0; s < m->n_steps; s++)
        if (memory_random(m) % 2)
            for (unsigned i = 0; i < m->steps[s].n; i++)
                set_name(m->disk, &m->steps[s].names[i]);
    m->n_steps = 0;
    memcpy(m->now, m->disk, sizeof(m->now));
    for (int i = 0; i < MEMORY_FILES; i++)
        if (m->inodes[i].used && m->inodes[i].capacity > 0)
            cut_file(m, &m->inodes[i]);
    collect_garbage(m);
    m->crashed = false;
    m->crash_at = 0;
}

void memory_init(struct memory *m, uint64_t seed) {
    static const struct file_operations operations = {
        .list = memory_list,
        .open = memory_open,
        .close = memory_close,
        .allocate = memory_allocate,
        .truncate = memory_truncate,
        .size = memory_size,
        .write = memory_write,
        .read = memory_read,
        .sync = memory_sync,
        .rename = memory_rename,
        .remove = memory_remove,
        .sync_directory = memory_sync_directory,
    };
    *m = (struct memory){.files = {.operations = &operations}, .random = seed};
}

void memory_done(struct memory *m) {
    for (int i = 0; i < MEMORY_FILES; i++) {
        free(m->inodes[i].now);
        free(m->inodes[i].disk);
        free(m->inodes[i].dirty);
    }
}
