/* Loading a filter; see the header. Runs in every sandbox and in the dispatcher. */
#include "jail/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

int seccomp_apply(const struct seccomp_filter *filter) {
    struct sock_fprog program = {.len = filter->size, .filter = (struct sock_filter *)filter->instructions};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}
