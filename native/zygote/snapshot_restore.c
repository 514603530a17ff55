/* The restored side of a snapshot; see the header. Runs in a child of the zygote that went through jail_enter: whatever the
 * file says, it concerns this environment alone. Until the file is closed it may not get at our code here: nothing of it
 * is mapped over that, the memory it works with, or the kernel's own pages.
 *
 * All memory but that is replaced while this code runs, the stack it was called on too: it works on a stack of its own,
 * calls nothing but system calls, and replaces each piece by one call, so that no piece is ever missing. Of the pieces
 * that libc has its state in, the old and the new contents are the same where system calls look at them: both processes
 * are copies of one zygote. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "snapshot.h"

#define MASK_SIZE 8
/* libc registers it with the kernel, which writes the number of the processor there. */
#define RSEQ_SIZE 32

#if defined(__has_attribute)
#if __has_attribute(no_stack_protector)
#define NO_GUARD __attribute__((no_stack_protector))
#endif
#endif
#ifndef NO_GUARD
#define NO_GUARD
#endif

/* Of the program or library that this is in: the linker's. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char etext[] __attribute__((visibility("hidden")));
/* glibc 2.35 and later. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

static bool touches(uint64_t start, uint64_t end, const void *from, uint64_t size) {
    const uint64_t low = (uint64_t)(uintptr_t)from;
    return start < low + size && low < end;
}

/* Not over the hand that works. */
static bool is_allowed(const struct snapshot_memory *m, uint64_t start, uint64_t end) {
    return start < end && start % m->page == 0 && end % m->page == 0 && start > 0 &&
        !touches(start, end, m, snapshot_span()) &&
        !touches(start, end, __ehdr_start, (uint64_t)(etext - __ehdr_start));
}

static int check_tables(const struct snapshot_memory *m) {
    const struct snapshot_head *head = &m->head;
    uint64_t last = 0;

    for (uint32_t i = 0; i < head->n_regions; last = m->regions[i++].end) {
        const struct region *region = &m->regions[i];
        if (region->start < last || region->start >= region->end || region->kind > REGION_STACK ||
            (region->kind != REGION_KEEP && !is_allowed(m, region->start, region->end)) ||
            (region->kind == REGION_FILE && region->path >= head->paths_size))
            return -EBADMSG;
    }
    last = 0;
    for (uint32_t i = 0; i < head->n_runs; last = m->runs[i++].end) {
        const struct run *run = &m->runs[i];
        if (run->start < last || !is_allowed(m, run->start, run->end) || run->at % m->page != 0 ||
            run->at > head->size || run->end - run->start > head->size - run->at)
            return -EBADMSG;
    }
    return head->paths_size == 0 || m->paths[head->paths_size - 1] == '\0' ? 0 : -EBADMSG;
}

static int read_at(int file, void *data, uint64_t size, uint64_t at) {
    return size == 0 || pread(file, data, size, (off_t)at) == (ssize_t)size ? 0 : -EBADMSG;
}

static int read_tables(struct snapshot_memory *m, int file) {
    struct snapshot_head *head = &m->head;
    uint64_t at = sizeof(*head), end = 0;
    struct stat st;
    int r;

    if (fstat(file, &st) < 0)
        return -errno;
    m->page = (uint64_t)sysconf(_SC_PAGESIZE);
    r = read_at(file, head, sizeof(*head), 0);
    if (r < 0)
        return r;
    if (head->magic != SNAPSHOT_MAGIC || head->size != (uint64_t)st.st_size || head->size < sizeof(end) ||
        head->n_regions > SNAPSHOT_REGIONS_MAX || head->n_runs > SNAPSHOT_RUNS_MAX ||
        head->paths_size > SNAPSHOT_PATHS_MAX)
        return -EBADMSG;
    r = read_at(file, &end, sizeof(end), head->size - sizeof(end));
    if (r == 0)
        r = read_at(file, m->regions, head->n_regions * sizeof(m->regions[0]), at);
    at += head->n_regions * sizeof(m->regions[0]);
    if (r == 0)
        r = read_at(file, m->runs, head->n_runs * sizeof(m->runs[0]), at);
    at += head->n_runs * sizeof(m->runs[0]);
    if (r == 0)
        r = read_at(file, m->paths, head->paths_size, at);
    if (r == 0 && end != SNAPSHOT_END)
        r = -EBADMSG;
    return r == 0 ? check_tables(m) : r;
}

/* ---- on the own stack -------------------------------------------------------------------------------------------- */

NO_GUARD static void place(uint64_t start, uint64_t end, int prot, int flags, int file, uint64_t at) {
    const long r =
        syscall(SYS_mmap, start, end - start, prot, flags | MAP_FIXED | MAP_NORESERVE, file, (unsigned long)at);
    if (r != (long)start)
        _exit(SNAPSHOT_EXIT);
}

/* A piece of a region that has no contents of its own. */
NO_GUARD static void place_base(const struct region *region, int fd, uint64_t start, uint64_t end) {
    if (start >= end || region->kind == REGION_KEEP || region->kind == REGION_STACK)
        return;
    if (region->kind == REGION_FILE)
        place(start, end, region->prot, region->shared ? MAP_SHARED : MAP_PRIVATE, fd,
            region->offset + (start - region->start));
    else
        place(start, end, region->prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

NO_GUARD static void place_run(const struct snapshot_memory *m, const struct run *run) {
    if (!run->stack) {
        place(run->start, run->end, (int)run->prot, MAP_PRIVATE, m->file, run->at);
        return;
    }
    for (uint64_t done = 0; done < run->end - run->start;) {
        const long n = syscall(SYS_pread64, m->file, run->start + done, run->end - run->start - done, run->at + done);
        if (n <= 0)
            _exit(SNAPSHOT_EXIT);
        done += (uint64_t)n;
    }
}

NO_GUARD static void clear(uint64_t start, uint64_t end) {
    if (start < end && syscall(SYS_munmap, start, end - start) < 0)
        _exit(SNAPSHOT_EXIT);
}

NO_GUARD static void fill_memory(struct snapshot_memory *m) {
    uint64_t last = m->page * 16; /* below it nothing can be mapped */
    uint32_t next = 0, path = SNAPSHOT_NO_PATH;
    int fd = -1;

    (void)syscall(SYS_brk, m->head.brk);
    for (uint32_t i = 0; i < m->head.n_regions; i++) {
        const struct region *region = &m->regions[i];
        uint64_t at = region->start;
        if (region->kind == REGION_FILE && region->path != path) {
            if (fd >= 0)
                (void)syscall(SYS_close, fd);
            path = region->path;
            fd = (int)syscall(SYS_openat, AT_FDCWD, m->paths + path, O_RDONLY | O_CLOEXEC, 0);
            if (fd < 0)
                _exit(SNAPSHOT_EXIT);
        }
        clear(last, region->start);
        last = region->end;
        for (; next < m->head.n_runs && m->runs[next].start < region->end; next++) {
            place_base(region, fd, at, m->runs[next].start);
            place_run(m, &m->runs[next]);
            at = m->runs[next].end;
        }
        place_base(region, fd, at, region->end);
        if (region->wipe)
            (void)syscall(SYS_madvise, region->start, region->end - region->start, MADV_WIPEONFORK);
    }
    if (fd >= 0)
        (void)syscall(SYS_close, fd);
}

NO_GUARD static void restore_process(const struct snapshot_head *head) {
    (void)syscall(SYS_umask, head->umask);
    (void)syscall(SYS_prctl, PR_SET_NAME, head->name, 0, 0, 0);
    if ((head->stack.ss_flags & SS_DISABLE) == 0)
        (void)syscall(SYS_sigaltstack, &head->stack, NULL);
    for (unsigned i = 0; i < SNAPSHOT_SIGNALS; i++)
        if ((head->changed_actions & UINT64_C(1) << i) != 0)
            (void)syscall(SYS_rt_sigaction, i + 1, &head->actions[i], NULL, MASK_SIZE);
    for (unsigned i = 0; i < SNAPSHOT_LIMITS; i++)
        if ((head->changed_limits & 1u << i) != 0)
            (void)syscall(SYS_prlimit64, 0, i, &head->limits[i], NULL);
}

NO_GUARD static void restore_here(void) {
    struct snapshot_memory *m = snapshot_memory;
    volatile uint8_t *rseq = NULL;
    uint8_t saved[RSEQ_SIZE];
    const unsigned rseq_size = &__rseq_size != NULL ? __rseq_size : 0;

    if (rseq_size > 0) {
        rseq = (volatile uint8_t *)__builtin_thread_pointer() + __rseq_offset;
        for (unsigned i = 0; i < RSEQ_SIZE; i++)
            saved[i] = rseq[i];
    }
    fill_memory(m);
    if (rseq != NULL)
        for (unsigned i = 0; i < RSEQ_SIZE; i++)
            rseq[i] = saved[i];
    *m->tid_address = (pid_t)syscall(SYS_gettid);
    snapshot_memory = m;
    snapshot_restored = 1;
    restore_process(&m->head);
    (void)syscall(SYS_close, m->file);
    (void)setcontext((const ucontext_t *)(uintptr_t)m->head.context);
    _exit(SNAPSHOT_EXIT);
}

int snapshot_restore(int file, pid_t *tid_address) {
    struct snapshot_memory *m = snapshot_memory;
    ucontext_t context;
    sigset_t all;
    int r;

    if (m == NULL)
        return -ENOMEM;
    r = read_tables(m, file);
    if (r < 0)
        return r;
    m->file = file;
    m->tid_address = tid_address;
    sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    if (getcontext(&context) < 0)
        return -errno;
    context.uc_stack.ss_sp = m->stack;
    context.uc_stack.ss_size = sizeof(m->stack);
    context.uc_link = NULL;
    makecontext(&context, restore_here, 0);
    (void)setcontext(&context);
    return -ENOTSUP;
}
