/* Landlock; see the header. Runs in the sandbox as its last step but one, with paths that are ours until user code runs.
 * The numbers are the kernel's; the headers of the oldest supported build machine lack some. */
#include "jail/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

/* include/uapi/linux/landlock.h, with the ABI that brought each. */
#define FS_WRITE_FILE (1ull << 1)
#define FS_REMOVE_DIR (1ull << 4)
#define FS_REMOVE_FILE (1ull << 5)
#define FS_MAKE (0x7full << 6)                 /* CHAR, DIR, REG, SOCK, FIFO, BLOCK, SYM */
#define FS_REFER (1ull << 13)                  /* 2 */
#define FS_TRUNCATE (1ull << 14)               /* 3 */
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ull << 0) /* 6 */
#define SCOPE_SIGNAL (1ull << 1)               /* 6 */
/* No audit records: a function could fill the host's log with refusals. LOG_SAME_EXEC_OFF, LOG_SUBDOMAINS_OFF; 7 */
#define QUIET (1u << 0 | 1u << 2)
#define RULE_PATH_BENEATH 1
#define CREATE_RULESET_VERSION 1u

struct ruleset_attributes {
    uint64_t handled_access_fs, handled_access_net, scoped;
};

struct path_beneath {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

int landlock_abi(void) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : (int)abi;
}

static int allow(int ruleset, const char *path, uint64_t access) {
    struct path_beneath rule = {.allowed_access = access};
    int r = 0;

    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0)
        r = -errno;
    close(rule.parent_fd);
    return r;
}

int landlock_restrict(void) {
    int abi = landlock_abi();
    uint64_t write = FS_WRITE_FILE | (abi >= 3 ? FS_TRUNCATE : 0);
    uint64_t all = write | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE | FS_REFER;
    struct ruleset_attributes attributes = {.handled_access_fs = all};
    size_t size = sizeof(attributes.handled_access_fs);
    int ruleset, r;

    if (abi < 2)
        return 0;
    if (abi >= 6) {
        attributes.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
        size = sizeof(attributes);
    }
    ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
    if (ruleset < 0)
        return -errno;
    r = allow(ruleset, "/tmp", all);
    if (r == 0)
        r = allow(ruleset, "/dev", write);
    if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, abi >= 7 ? QUIET : 0u) < 0)
        r = -errno;
    close(ruleset);
    return r;
}
