/* Arenas: shared memory for one environment's large payloads, asked for by the dispatcher and passed to it, which passes it
 * on. Declared in launches.h.
 *
 * A memfd without memory yet: whoever touches a page first pays for it, and that is the environment, inside its cgroup
 * (dispatch/arena.h). It can neither be resized, which would be SIGBUS for whoever reads it, nor executed. Nothing of it
 * stays here: what no process holds any more is gone, and none is used twice. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* The largest answer that an environment may give, 6 MiB and 100 bytes, in whole pages of any size. */
#define ARENA_SIZE ((6u << 20) + (64u << 10))

static int make(int *ret_fd) {
    _cleanup_close_ int fd = memfd_create("runtimed-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* Linux before 6.3 */
        fd = memfd_create("runtimed-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, ARENA_SIZE) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return -errno;
    *ret_fd = steal_fd(&fd);
    return 0;
}

void launches_send_arena(struct service *service, uint64_t id) {
    _cleanup_close_ int fd = -1;
    struct wire_arena arena = {0};

    if (launches_find(service, id) != NULL && make(&fd) == 0)
        arena.size = ARENA_SIZE;
    LINK_SEND(&service->link, HEADER(id), arena, arena, &fd, fd >= 0 ? 1 : 0);
}
