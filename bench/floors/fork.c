/* Floor: a fork into new namespaces and nothing else. A shared object that a bare interpreter (zygote.py) calls, so that
 * the forked process is as large as a zygote's.
 * Raw clone with the settid flags, without which the C library would go on with the parent's thread id. */
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

long floor_fork(void) {
    unsigned long flags =
        SIGCHLD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
    int *tid = NULL;
    prctl(PR_GET_TID_ADDRESS, &tid);
#if defined(__x86_64__)
    return syscall(SYS_clone, flags, NULL, NULL, tid, NULL);
#else
    return syscall(SYS_clone, flags, NULL, NULL, NULL, tid);
#endif
}
