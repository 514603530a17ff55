/* The launcher's place on the machine; see the header. */
#include "place.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher.h"

#define LOCK "launcher.lock"
/* Beside the run directory, which belongs to the control plane: whoever reads it must be able to trust it. */
#define PID_SUFFIX ".pid"
#define DISPATCH_SOCKET "dispatch.sock"
#define INVOKE_SOCKET "invoke.sock"
/* Made by the control plane, which may be killed before it removes it. */
#define CONTROL_SOCKET "control.sock"
#define BACKLOG 512

static int open_directory(const char *path, int *ret) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        say("%s: %s", path, strerror(error));
        return -error;
    }
    *ret = fd;
    return 0;
}

static int make_directory(struct server *server, const char *name, mode_t mode) {
    if (mkdirat(server->state_dir, name, mode) < 0 && errno != EEXIST) {
        int error = errno;
        say("%s/%s: %s", server->boot.state_dir, name, strerror(error));
        return -error;
    }
    return 0;
}

/* Who holds the lock on that file, as the kernel lists it; 0: not known. */
static pid_t holder(int fd) {
    char line[160], inode[32];
    pid_t found = 0, pid;
    struct stat about;
    FILE *locks = fopen("/proc/locks", "re");

    if (locks == NULL)
        return 0;
    if (fstat(fd, &about) == 0) {
        snprintf(inode, sizeof(inode), ":%llu ", (unsigned long long)about.st_ino);
        while (found == 0 && fgets(line, sizeof(line), locks) != NULL)
            if (strstr(line, " FLOCK ") != NULL && strstr(line, inode) != NULL &&
                sscanf(line, "%*s %*s %*s %*s %d", &pid) == 1)
                found = pid;
    }
    (void)fclose(locks);
    return found;
}

static int take_lock(int fd, const char *directory) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    say("another runtimed uses %s: process %d; stop it, or choose another directory", directory, (int)holder(fd));
    return -EBUSY;
}

/* One launcher for each run directory, and one for each state directory. */
static int lock(struct server *server) {
    int fd = openat(server->run_dir, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int error = errno;

    if (fd < 0) {
        say("%s/" LOCK ": %s", server->boot.run_dir, strerror(error));
        return -error;
    }
    server->lock = fd;
    int r = take_lock(fd, server->boot.run_dir);
    return r < 0 ? r : take_lock(server->state_dir, server->boot.state_dir);
}

static void clear(const struct server *server) {
    static const char *const names[] = {DISPATCH_SOCKET, INVOKE_SOCKET, CONTROL_SOCKET};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        (void)unlinkat(server->run_dir, names[i], 0);
}

static int pid_path(const struct server *server, char *ret_path, size_t size) {
    size_t length = strlen(server->boot.run_dir);
    while (length > 1 && server->boot.run_dir[length - 1] == '/')
        length--;
    int n = snprintf(ret_path, size, "%.*s" PID_SUFFIX, (int)length, server->boot.run_dir);
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static void clear_pid(const struct server *server) {
    char path[PATH_MAX];
    if (pid_path(server, path, sizeof(path)) == 0)
        (void)unlink(path);
}

/* bind(2) with mode 0660 from birth: a chmod afterwards would follow a link that somebody put in its place. */
static int bind_closed(int fd, const struct sockaddr_un *address) {
    const mode_t before = umask(0117);
    int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
    (void)umask(before);
    return r;
}

/* The control plane owns the socket, so that it and root may connect; members of the group may too. */
static int listen_for_calls(struct server *server, const char *name, int type, int *ret_listener) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error;

    /* A run directory's path may be longer than an address. */
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", server->run_dir, name);
    error = fd < 0 ? errno : -bind_closed(fd, &address);
    if (error == 0 &&
        (fchownat(server->run_dir, name, server->boot.control.uid, server->boot.socket_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
            listen(fd, BACKLOG) < 0))
        error = errno;
    if (error != 0) {
        say("%s/%s: %s", server->boot.run_dir, name, strerror(error));
        return -error;
    }
    *ret_listener = steal_fd(&fd);
    return 0;
}

static int listen_on_port(struct server *server) {
    const struct boot *boot = &server->boot;
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)boot->invoke_port)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)boot->invoke_port)};
    bool is_v4 = inet_pton(AF_INET, boot->invoke_address, &v4.sin_addr) == 1;
    const struct sockaddr *address = is_v4 ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6;
    _cleanup_close_ int fd = -1;
    int error = 0;

    if (!is_v4 && inet_pton(AF_INET6, boot->invoke_address, &v6.sin6_addr) != 1)
        error = EINVAL;
    if (error == 0)
        fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (error == 0 &&
        (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
            bind(fd, address, is_v4 ? sizeof(v4) : sizeof(v6)) < 0 || listen(fd, BACKLOG) < 0))
        error = errno;
    if (error != 0) {
        say("invoke.listen: %s port %u: %s", boot->invoke_address, boot->invoke_port, strerror(error));
        return -error;
    }
    server->http_tcp = steal_fd(&fd);
    return 0;
}

static int write_pid(const struct server *server) {
    char text[16], path[PATH_MAX];
    int r = pid_path(server, path, sizeof(path));

    if (r < 0)
        return r;
    clear_pid(server);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno == EROFS ? 0 : -errno; /* a service manager that shows no more of /run knows the process itself */
    snprintf(text, sizeof(text), "%d\n", getpid());
    return write_all(fd, text, strlen(text));
}

/* A directory of the dispatcher's, to be handed to it. */
static int open_for_dispatch(struct server *server, const char *name, mode_t mode, gid_t group, int *ret_fd) {
    int r = make_directory(server, name, mode);
    if (r < 0)
        return r;
    *ret_fd = openat(server->state_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*ret_fd < 0 || fchown(*ret_fd, server->boot.dispatch_uid, group) < 0) {
        r = -errno;
        say("%s/%s: %s", server->boot.state_dir, name, strerror(-r));
        return r;
    }
    return 0;
}

int place_open(struct server *server) {
    int r;

    server->run_dir = server->state_dir = server->lock = server->listener = server->http = server->http_tcp =
        server->logs = server->queue = -1;
    r = open_directory(server->boot.run_dir, &server->run_dir);
    if (r == 0)
        r = open_directory(server->boot.state_dir, &server->state_dir);
    if (r == 0)
        r = lock(server);
    if (r < 0)
        return r;
    clear(server);
    r = make_directory(server, "tmp", 0700);
    if (r == 0) /* the control plane reads it */
        r = open_for_dispatch(server, "logs", 0750, server->boot.control.gid, &server->logs);
    if (r == 0) /* payloads: nobody else reads them */
        r = open_for_dispatch(server, "queue", 0700, server->boot.dispatch_gid, &server->queue);
    if (r < 0)
        return r;
    r = listen_for_calls(server, DISPATCH_SOCKET, SOCK_SEQPACKET, &server->listener);
    if (r == 0)
        r = listen_for_calls(server, INVOKE_SOCKET, SOCK_STREAM, &server->http);
    if (r == 0 && server->boot.invoke_address[0] != '\0')
        r = listen_on_port(server);
    return r < 0 ? r : write_pid(server);
}

void place_close(struct server *server) {
    clear(server);
    clear_pid(server);
    (void)unlinkat(server->run_dir, LOCK, 0);
    cleanup_close(&server->listener);
    cleanup_close(&server->http);
    cleanup_close(&server->http_tcp);
    cleanup_close(&server->logs);
    cleanup_close(&server->queue);
    cleanup_close(&server->state_dir);
    cleanup_close(&server->lock);
    cleanup_close(&server->run_dir);
}
