/* What a process has mapped, as /proc/self/smaps tells it: the kernel's words about ourselves. Memory is not allocated
 * here: it would change what is read. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "snapshot.h"

struct reading {
    struct region *regions;
    char *paths;
    uint32_t n, paths_size;
    struct region now; /* the one whose lines are being read */
    const char *name;
    bool special; /* the kernel's own */
    bool deleted;
};

static uint64_t hex(const char **at) {
    uint64_t value = 0;
    for (;; (*at)++) {
        const char c = **at;
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else
            return value;
        value = value << 4 | digit;
    }
}

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && memcmp(text + n - m, end, m) == 0;
}

/* "start-end perms offset device inode   name" */
static int read_head(struct reading *reading, const char *line) {
    struct region region = {.path = SNAPSHOT_NO_PATH};
    const char *at = line;

    region.start = hex(&at);
    if (*at++ != '-')
        return -SNAPSHOT_FAILED;
    region.end = hex(&at);
    at++;
    if (strlen(at) < 5)
        return -SNAPSHOT_FAILED;
    region.prot =
        (uint8_t)((at[0] == 'r' ? PROT_READ : 0) | (at[1] == 'w' ? PROT_WRITE : 0) | (at[2] == 'x' ? PROT_EXEC : 0));
    region.shared = at[3] == 's';
    at += 5;
    region.offset = hex(&at);
    for (unsigned fields = 0; fields < 3 && *at != '\0'; fields++) { /* over the device and the inode */
        at += strspn(at, " ");
        if (fields < 2)
            at += strcspn(at, " ");
    }
    reading->special = reading->deleted = false;
    region.kind = REGION_ANON;
    if (strcmp(at, "[stack]") == 0) {
        region.kind = REGION_STACK;
    } else if (strncmp(at, "[v", 2) == 0 || strcmp(at, "[uprobes]") == 0) {
        region.kind = REGION_KEEP;
        reading->special = true;
    } else if (at[0] == '/') {
        const size_t size = strlen(at) + 1;
        region.kind = REGION_FILE;
        reading->deleted = ends_with(at, " (deleted)");
        if (size > SNAPSHOT_PATHS_MAX - reading->paths_size)
            return -SNAPSHOT_TOO_LARGE;
        /* Neighbours are mostly of one file. */
        if (reading->n > 0 && reading->regions[reading->n - 1].path != SNAPSHOT_NO_PATH &&
            strcmp(reading->paths + reading->regions[reading->n - 1].path, at) == 0) {
            region.path = reading->regions[reading->n - 1].path;
        } else {
            region.path = reading->paths_size;
            memcpy(reading->paths + region.path, at, size);
            reading->paths_size += (uint32_t)size;
        }
    }
    reading->now = region;
    return 0;
}

static bool has_flag(const char *flags, const char *flag) {
    for (const char *at = flags; (at = strstr(at, flag)) != NULL; at++)
        if (at[-1] == ' ' && (at[2] == ' ' || at[2] == '\0'))
            return true;
    return false;
}

static int add(struct reading *reading, const struct region *region) {
    if (region->start >= region->end)
        return 0;
    if (reading->n == SNAPSHOT_REGIONS_MAX)
        return -SNAPSHOT_TOO_LARGE;
    reading->regions[reading->n++] = *region;
    return 0;
}

/* The reserved memory may have grown together with its neighbours. */
static int add_around_reserved(struct reading *reading, const struct region *region) {
    const uint64_t from = (uint64_t)(uintptr_t)snapshot_memory, to = from + snapshot_span();
    struct region part = *region;
    int r;

    if (region->end <= from || region->start >= to)
        return add(reading, region);
    part.end = from;
    r = add(reading, &part);
    part = (struct region){
        .start = MAX(region->start, from), .end = MIN(region->end, to), .kind = REGION_KEEP, .path = SNAPSHOT_NO_PATH};
    if (r == 0)
        r = add(reading, &part);
    part = *region;
    part.start = to;
    return r < 0 ? r : add(reading, &part);
}

/* The last line of a region. */
static int read_flags(struct reading *reading, const char *flags) {
    struct region *region = &reading->now;

    if (region->start > INT64_MAX || (has_flag(flags, "dc") && !reading->special))
        return 0; /* x86-64's vsyscall page, where nothing can be mapped; what a fork would not have either */
    if (reading->special)
        return add(reading, region);
    if (region->shared && (has_flag(flags, "mw") || region->kind != REGION_FILE))
        return -SNAPSHOT_SHARED;
    if (reading->deleted || has_flag(flags, "io") || has_flag(flags, "pf") || has_flag(flags, "ht") ||
        has_flag(flags, "ss"))
        return -SNAPSHOT_MAPPINGS;
    region->wipe = has_flag(flags, "wf");
    return add_around_reserved(reading, region);
}

static bool is_head(const char *line) {
    return (line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f');
}

static int read_line(struct reading *reading, const char *line) {
    static const char flags[] = "VmFlags:";
    if (is_head(line))
        return read_head(reading, line);
    if (strncmp(line, flags, sizeof(flags) - 1) == 0)
        return read_flags(reading, line + sizeof(flags) - 1);
    return 0;
}

int snapshot_read_regions(struct region *regions, uint32_t *ret_n, char *paths, uint32_t *ret_paths_size) {
    struct reading reading = {.regions = regions, .paths = paths};
    char *text = snapshot_memory->text;
    size_t filled = 0;
    int r = 0;
    _cleanup_close_ int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -SNAPSHOT_FAILED;
    while (r == 0) {
        ssize_t n = read(fd, text + filled, SNAPSHOT_TEXT - 1 - filled);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            r = n < 0 || filled > 0 || reading.n == 0 ? -SNAPSHOT_FAILED : 0;
            break;
        }
        filled += (size_t)n;
        text[filled] = '\0';
        char *at = text, *end;
        for (; r == 0 && (end = strchr(at, '\n')) != NULL; at = end + 1) {
            *end = '\0';
            r = read_line(&reading, at);
        }
        filled -= (size_t)(at - text);
        memmove(text, at, filled);
    }
    *ret_n = reading.n;
    *ret_paths_size = reading.paths_size;
    return r;
}
