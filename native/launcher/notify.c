/* sd_notify; see the header. */
#include "notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

void notify(const char *format, ...) {
    char state[512];
    va_list arguments;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t length = path != NULL ? strlen(path) : 0;

    if (length < 2 || length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    va_start(arguments, format);
    int size = vsnprintf(state, sizeof(state), format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof(state))
        return;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') /* abstract */
        address.sun_path[0] = '\0';
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        (void)sendto(fd, state, (size_t)size, MSG_NOSIGNAL, (const struct sockaddr *)&address,
            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
}

static bool read_number(const char *name, uint64_t *ret) {
    const char *text = getenv(name);
    char *end;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

uint64_t notify_watchdog_us(void) {
    uint64_t pid, period;
    if (getenv("NOTIFY_SOCKET") == NULL || !read_number("WATCHDOG_USEC", &period))
        return 0;
    return read_number("WATCHDOG_PID", &pid) && pid != (uint64_t)getpid() ? 0 : period;
}
