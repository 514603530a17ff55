/* Snapshots with real processes: this program is, in namespaces of its own, a zygote; one child becomes the maker, others
 * are restored from what it wrote. Needs root. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "zygote/snapshot.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(errno));                      \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

#define LIMIT_S 60
enum { PIECES = 2000, RESTORED = 42 };
/* The sanitizers' own memory spans terabytes: such a process is refused, and what comes before that is tested. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static int written = 1; /* .data */
static char zeroed[100000];
static volatile sig_atomic_t signalled;
static char *pieces[PIECES];

static void on_signal(int number) {
    signalled = number;
}

static pid_t *tid_address(void) {
    pid_t *address = NULL;
    CHECK(prctl(PR_GET_TID_ADDRESS, &address, 0, 0, 0) == 0);
    return address;
}

/* A process that is to be left: fork without libc, as the zygote does it. */
static pid_t fork_plainly(void) {
    return (pid_t)syscall(SYS_clone, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL,
#if defined(__x86_64__)
        tid_address(), NULL
#else
        NULL, tid_address()
#endif
    );
}

static int gather(int pipe) {
    char buffer[65536];
    ssize_t n;
    int file = memfd_create("snapshot", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK(file >= 0);
    while ((n = read(pipe, buffer, sizeof(buffer))) > 0)
        CHECK(write_all(file, buffer, (size_t)n) == 0);
    CHECK(n == 0);
    return file;
}

static int status_of(pid_t pid) {
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

/* Everything that a process can hold in memory, and what else is put back. */
static int initialise_and_take(int pipe) {
    char on_stack[5000];
    char *mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *wiped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action = {.sa_handler = on_signal};
    struct rlimit limit = {.rlim_cur = 100, .rlim_max = 100};
    void *library = dlopen("libanl.so.1", RTLD_NOW);
    int r;

    if (library == NULL)
        library = dlopen("libresolv.so.2", RTLD_NOW);
    CHECK(library != NULL && mapped != MAP_FAILED && wiped != MAP_FAILED);
    memset(on_stack, 's', sizeof(on_stack));
    memset(mapped, 'm', 4096);
    memset(mapped + 900000, 'M', 4096);
    memset(wiped, 'w', 4096);
    CHECK(madvise(wiped, 4096, MADV_WIPEONFORK) == 0);
    memset(zeroed + 50000, 'z', 100);
    written = 77;
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = malloc((size_t)(i % 300) * 20 + 8);
        CHECK(pieces[i] != NULL);
        sprintf(pieces[i], "%d", i);
    }
    for (int i = 0; i < PIECES; i += 3) {
        free(pieces[i]);
        pieces[i] = NULL;
    }
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    (void)umask(027);
    r = snapshot_take(pipe);
    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(on_stack); i++)
        CHECK(on_stack[i] == 's');
    for (int i = 0; i < 4096; i++)
        CHECK(mapped[i] == 'm' && mapped[900000 + i] == 'M' && mapped[500000 + i] == 0);
    for (int i = 0; i < 4096; i++)
        CHECK(wiped[i] == (r == 1 ? 0 : 'w'));
    CHECK(zeroed[50000] == 'z' && zeroed[49999] == 0 && written == 77);
    for (int i = 0; i < PIECES; i++)
        CHECK(pieces[i] == NULL || atoi(pieces[i]) == i);
    CHECK(raise(SIGUSR1) == 0 && signalled == SIGUSR1);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 100);
    CHECK(umask(0) == 027);
    CHECK(*tid_address() == gettid());
    for (int i = 0; i < PIECES; i++) { /* the heap works on */
        free(pieces[i]);
        pieces[i] = malloc((size_t)(i % 500) * 30 + 8);
        CHECK(pieces[i] != NULL);
        memset(pieces[i], 'n', 8);
    }
    CHECK(malloc(3 << 20) != NULL);
    CHECK(dlclose(library) == 0);
    written = 78; /* what one does, no other sees */
    memset(mapped, 'x', 4096);
    return r;
}

static void *sleep_on(void *unused) {
    for (;;)
        pause();
    return unused;
}

static int take_with(int pipe, enum snapshot_refusal what) {
    pthread_t thread;
    struct itimerval timer = {.it_value.tv_sec = 1000};

    switch (what) {
    case SNAPSHOT_THREADS:
        CHECK(pthread_create(&thread, NULL, sleep_on, NULL) == 0);
        break;
    case SNAPSHOT_DESCRIPTORS:
        CHECK(open("/dev/null", O_RDONLY) >= 0);
        break;
    case SNAPSHOT_SHARED:
        CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
        break;
    case SNAPSHOT_CHILDREN:
        if (fork() == 0) {
            close(pipe); /* whose end is waited for */
            (void)sleep_on(NULL);
        }
        break;
    case SNAPSHOT_TIMERS:
        CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
        break;
    case SNAPSHOT_IPC:
        CHECK(shmget(IPC_PRIVATE, 4096, 0600) >= 0);
        break;
    case SNAPSHOT_FILES:
        CHECK(mkdir("/tmp/left", 0700) == 0);
        break;
    case SNAPSHOT_MAPPINGS: {
        int fd = open("/tmp/mapped", O_RDWR | O_CREAT, 0600);
        CHECK(fd >= 0 && ftruncate(fd, 4096) == 0 && unlink("/tmp/mapped") == 0);
        CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED && close(fd) == 0);
        break;
    }
    default:
        CHECK(false);
    }
    return snapshot_take(pipe);
}

static pid_t make(int *ret_pipe, enum snapshot_refusal what) {
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    pid_t pid = fork_plainly();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(dup2(ends[1], SNAPSHOT_DESCRIPTOR) == SNAPSHOT_DESCRIPTOR);
        CHECK(close_range(SNAPSHOT_DESCRIPTOR + 1, ~0u, 0) == 0);
        CHECK(snapshot_begin() == 0);
        int r =
            what == SNAPSHOT_TAKEN ? initialise_and_take(SNAPSHOT_DESCRIPTOR) : take_with(SNAPSHOT_DESCRIPTOR, what);
        _exit(r == 1 ? RESTORED : r == -(int)what ? 0 : 2);
    }
    close(ends[1]);
    *ret_pipe = ends[0];
    return pid;
}

static int restore(int file) {
    pid_t pid = fork_plainly();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)snapshot_restore(file, tid_address());
        _exit(3);
    }
    return status_of(pid);
}

static bool exited(int status, int with) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == with)
        return true;
    fprintf(stderr, "status %x instead of an exit with %d\n", (unsigned)status, with);
    return false;
}

static void test_restored(void) {
    int pipe;
    pid_t maker = make(&pipe, SNAPSHOT_TAKEN);
    int file = gather(pipe);

    if (SANITIZED) {
        uint8_t byte = 0;
        (void)status_of(maker);
        CHECK(pread(file, &byte, 1, 0) == 1 && byte == SNAPSHOT_TOO_LARGE);
        return;
    }
    CHECK(exited(status_of(maker), 0));
    for (int i = 0; i < 5; i++) /* the maker is dead, and each begins where it was */
        CHECK(exited(restore(file), RESTORED));
    CHECK(written == 1);
    close(file);
    close(pipe);
}

static void test_refused(void) {
    static const enum snapshot_refusal all[] = {SNAPSHOT_THREADS, SNAPSHOT_DESCRIPTORS, SNAPSHOT_SHARED,
        SNAPSHOT_TIMERS, SNAPSHOT_IPC, SNAPSHOT_MAPPINGS, SNAPSHOT_CHILDREN, SNAPSHOT_FILES};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        int pipe;
        uint8_t byte = 0;
        struct stat st;
        pid_t maker = make(&pipe, all[i]);
        int file = gather(pipe);
        if (all[i] == SNAPSHOT_CHILDREN)
            (void)kill(-1, SIGKILL);
        else
            CHECK(exited(status_of(maker), 0));
        while (waitpid(-1, NULL, 0) > 0)
            ;
        CHECK(fstat(file, &st) == 0 && st.st_size == 1 && pread(file, &byte, 1, 0) == 1);
        if (byte != all[i])
            fprintf(stderr, "refused with %d instead of %d\n", byte, (int)all[i]);
        CHECK(byte == all[i]);
        if (all[i] == SNAPSHOT_IPC) {
            struct shmid_ds segment;
            CHECK(shmctl(shmctl(0, SHM_STAT, &segment), IPC_RMID, NULL) == 0);
        }
        close(file);
        close(pipe);
    }
}

/* Not whole, or of another shape: nothing of it is used. */
static void test_damaged(void) {
    int pipe;
    pid_t maker = make(&pipe, SNAPSHOT_TAKEN);
    int file = gather(pipe);
    struct stat st;
    const uint64_t far = UINT64_MAX - 4095;
    char none[64] = {0};

    (void)status_of(maker);
    CHECK(fstat(file, &st) == 0);
    CHECK(ftruncate(file, st.st_size - 4096) == 0 && exited(restore(file), 3));
    CHECK(ftruncate(file, st.st_size) == 0 && exited(restore(file), 3)); /* no end mark any more */
    CHECK(pwrite(file, none, sizeof(none), 0) == sizeof(none) && exited(restore(file), 3));
    CHECK(pwrite(file, &far, sizeof(far), 8) == sizeof(far) && exited(restore(file), 3));
    CHECK(ftruncate(file, 0) == 0 && exited(restore(file), 3));
    close(file);
    close(pipe);
}

static void be_the_zygote(void) {
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("proc", "/proc", "proc", 0, NULL) == 0 && mount("tmp", "/tmp", "tmpfs", 0, NULL) == 0);
    CHECK(snapshot_reserve() == 0);
    test_restored();
    if (!SANITIZED)
        test_damaged();
    test_refused(); /* leaves files in /tmp */
}

int main(void) {
    alarm(LIMIT_S);
    CHECK(unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC) == 0);
    pid_t zygote = fork();
    CHECK(zygote >= 0);
    if (zygote == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        be_the_zygote();
        _exit(0);
    }
    _exit(exited(status_of(zygote), 0) ? 0 : 1);
}
