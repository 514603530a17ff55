/* The maker's side of a snapshot; see the header. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "snapshot.h"

/* Bits of an entry of /proc/PID/pagemap. */
#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_SWAPPED (UINT64_C(1) << 62)
#define PAGE_OF_FILE (UINT64_C(1) << 61)
/* Shorter gaps between pages with contents are written as well: a mapping less costs more than it saves. */
#define GAP_PAGES 16
/* Of the stack: what lies below the frame that the snapshot is taken in. */
#define BELOW_FRAME 8192

struct snapshot_memory *snapshot_memory;
volatile int snapshot_restored;
ucontext_t snapshot_context;

uint64_t snapshot_span(void) {
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return (sizeof(struct snapshot_memory) + page - 1) / page * page;
}

int snapshot_reserve(void) {
    void *memory =
        mmap(NULL, snapshot_span(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    (void)madvise(memory, snapshot_span(), MADV_NOHUGEPAGE);
    snapshot_memory = memory;
    return 0;
}

int snapshot_begin(void) {
    struct snapshot_memory *m = snapshot_memory;
    int r;

    if (m == NULL)
        return -SNAPSHOT_FAILED;
    m->page = (uint64_t)sysconf(_SC_PAGESIZE);
    m->filters = snapshot_count_filters();
    r = snapshot_read_process(&m->began);
    return r < 0 ? r : snapshot_read_regions(m->zygote, &m->began.n_regions, m->zygote_paths, &m->began.paths_size);
}

/* Regions of files that were mapped like this before any code of the function's ran are there in every child. */
static void keep_the_zygotes(struct snapshot_memory *m) {
    uint32_t k = 0;
    for (uint32_t i = 0; i < m->head.n_regions; i++) {
        struct region *now = &m->regions[i];
        if (now->kind != REGION_FILE)
            continue;
        while (k < m->began.n_regions && m->zygote[k].start < now->start)
            k++;
        if (k == m->began.n_regions)
            return;
        const struct region *then = &m->zygote[k];
        if (then->kind == REGION_FILE && then->start == now->start && then->end == now->end &&
            then->offset == now->offset && then->prot == now->prot && then->shared == now->shared &&
            strcmp(m->zygote_paths + then->path, m->paths + now->path) == 0)
            now->kind = REGION_KEEP;
    }
}

/* Every file must be there for the others too. */
static int check_paths(const struct snapshot_memory *m) {
    uint32_t last = SNAPSHOT_NO_PATH;
    struct stat st;

    for (uint32_t i = 0; i < m->head.n_regions; i++) {
        const struct region *region = &m->regions[i];
        if (region->kind != REGION_FILE || region->path == last)
            continue;
        last = region->path;
        if (stat(m->paths + last, &st) < 0 || !S_ISREG(st.st_mode) || strncmp(m->paths + last, "/tmp/", 5) == 0 ||
            strncmp(m->paths + last, "/proc/", 6) == 0)
            return -SNAPSHOT_MAPPINGS;
    }
    return 0;
}

static int add_run(struct snapshot_memory *m, const struct region *region, uint64_t start, uint64_t end) {
    if (m->head.n_runs == SNAPSHOT_RUNS_MAX)
        return -SNAPSHOT_TOO_LARGE;
    m->runs[m->head.n_runs++] =
        (struct run){.start = start, .end = end, .prot = region->prot, .stack = region->kind == REGION_STACK};
    return 0;
}

/* The pages of a region that are not a file's: those that were written to. */
static int find_runs(struct snapshot_memory *m, const struct region *region, int pagemap, bool of_file) {
    const uint64_t gap = of_file ? 0 : GAP_PAGES * m->page, all = (region->end - region->start) / m->page;
    uint64_t start = 0, end = 0;
    int r = 0;

    for (uint64_t first = 0; r == 0 && first < all; first += ARRAY_SIZE(m->pages)) {
        const uint64_t n = MIN(all - first, (uint64_t)ARRAY_SIZE(m->pages));
        const off_t at = (off_t)((region->start / m->page + first) * sizeof(m->pages[0]));
        if (pread(pagemap, m->pages, n * sizeof(m->pages[0]), at) != (ssize_t)(n * sizeof(m->pages[0])))
            return -SNAPSHOT_FAILED;
        for (uint64_t i = 0; r == 0 && i < n; i++) {
            const uint64_t here = region->start + (first + i) * m->page;
            if ((m->pages[i] & (PAGE_PRESENT | PAGE_SWAPPED)) == 0 ||
                (m->pages[i] & (PAGE_OF_FILE | PAGE_SWAPPED)) == PAGE_OF_FILE)
                continue;
            if (end != 0 && here - end > gap) {
                r = add_run(m, region, start, end);
                end = 0;
            }
            if (end == 0)
                start = here;
            end = here + m->page;
        }
    }
    return r == 0 && end != 0 ? add_run(m, region, start, end) : r;
}

static int find_all_runs(struct snapshot_memory *m, uint64_t frame) {
    uint64_t span = 0;
    int r = 0;
    _cleanup_close_ int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    if (pagemap < 0)
        return -SNAPSHOT_FAILED;
    for (uint32_t i = 0; r == 0 && i < m->head.n_regions; i++) {
        const struct region *region = &m->regions[i];
        const bool of_file = region->path != SNAPSHOT_NO_PATH;
        span += region->end - region->start;
        if (span > SNAPSHOT_SPAN_MAX && region->prot != 0)
            return -SNAPSHOT_TOO_LARGE;
        if ((region->prot & PROT_READ) == 0 || region->shared || region->wipe ||
            (region->kind == REGION_KEEP && !of_file))
            continue;
        if (region->kind == REGION_STACK) {
            const uint64_t from = MAX(region->start, (frame - BELOW_FRAME) / m->page * m->page);
            r = add_run(m, region, from, region->end);
        } else {
            r = find_runs(m, region, pagemap, of_file);
        }
    }
    return r;
}

static void note_changes(struct snapshot_memory *m) {
    m->head.changed_actions = 0;
    m->head.changed_limits = 0;
    for (unsigned i = 0; i < SNAPSHOT_SIGNALS; i++)
        if (memcmp(&m->head.actions[i], &m->began.actions[i], sizeof(m->head.actions[i])) != 0)
            m->head.changed_actions |= UINT64_C(1) << i;
    for (unsigned i = 0; i < SNAPSHOT_LIMITS; i++)
        if (m->head.limits[i].rlim_cur != m->began.limits[i].rlim_cur ||
            m->head.limits[i].rlim_max != m->began.limits[i].rlim_max)
            m->head.changed_limits |= 1u << i;
}

/* Where everything goes in the file. */
static void lay_out(struct snapshot_memory *m) {
    struct snapshot_head *head = &m->head;
    uint64_t at =
        sizeof(*head) + head->n_regions * sizeof(m->regions[0]) + head->n_runs * sizeof(m->runs[0]) + head->paths_size;

    at = (at + m->page - 1) / m->page * m->page;
    head->data = at;
    for (uint32_t i = 0; i < head->n_runs; i++) {
        m->runs[i].at = at;
        at += m->runs[i].end - m->runs[i].start;
    }
    head->size = at + m->page;
    head->magic = SNAPSHOT_MAGIC;
    head->context = (uint64_t)(uintptr_t)&snapshot_context;
}

static int survey(struct snapshot_memory *m, int pipe, uint64_t frame) {
    int r = snapshot_check_process(pipe);

    m->head = (struct snapshot_head){0};
    if (r == 0)
        r = snapshot_read_process(&m->head);
    if (r == 0)
        r = snapshot_read_regions(m->regions, &m->head.n_regions, m->paths, &m->head.paths_size);
    if (r < 0)
        return r;
    keep_the_zygotes(m);
    note_changes(m);
    r = check_paths(m);
    if (r == 0)
        r = find_all_runs(m, frame);
    if (r == 0)
        lay_out(m);
    return r;
}

static int write_out(const struct snapshot_memory *m, int pipe) {
    const struct snapshot_head *head = &m->head;
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction pipe_action;
    const struct {
        const void *data;
        size_t size;
    } tables[] = {
        {head, sizeof(*head)},
        {m->regions, head->n_regions * sizeof(m->regions[0])},
        {m->runs, head->n_runs * sizeof(m->runs[0])},
        {m->paths, head->paths_size},
    };
    static const uint64_t end = SNAPSHOT_END;
    uint64_t written = 0;
    int r = 0;

    (void)sigaction(SIGPIPE, &ignore, &pipe_action); /* the reader may have enough of it */
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(tables); i++) {
        r = write_all(pipe, tables[i].data, tables[i].size);
        written += tables[i].size;
    }
    memset(snapshot_memory->text, 0, SNAPSHOT_TEXT);
    if (r == 0)
        r = write_all(pipe, m->text, head->data - written);
    for (uint32_t i = 0; r == 0 && i < head->n_runs; i++)
        r = write_all(pipe, (const void *)(uintptr_t)m->runs[i].start, m->runs[i].end - m->runs[i].start);
    if (r == 0)
        r = write_all(pipe, m->text, m->page - sizeof(end));
    if (r == 0)
        r = write_all(pipe, &end, sizeof(end));
    (void)sigaction(SIGPIPE, &pipe_action, NULL);
    return r;
}

void snapshot_refuse(int pipe, enum snapshot_refusal refusal) {
    const uint8_t byte = (uint8_t)refusal;
    (void)write_all(pipe, &byte, sizeof(byte));
}

int snapshot_take(int pipe) {
    static sigset_t before;
    struct snapshot_memory *m = snapshot_memory;
    sigset_t all;
    int r;

    sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    snapshot_restored = 0;
    if (getcontext(&snapshot_context) < 0)
        r = -SNAPSHOT_FAILED;
    else if (snapshot_restored != 0)
        r = 1;
    else
        r = survey(m, pipe, (uint64_t)(uintptr_t)__builtin_frame_address(0));
    if (r < 0)
        snapshot_refuse(pipe, (enum snapshot_refusal) - r);
    else if (r == 0 && write_out(m, pipe) < 0)
        r = -SNAPSHOT_FAILED; /* the file is not whole, which the launcher sees */
    /* What was noted here is large, and needed no more. */
    if (r != 1)
        (void)madvise(m, snapshot_span(), MADV_DONTNEED);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return r;
}
