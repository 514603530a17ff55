/* Descriptors and packets; see the header. Used by every process; no state, no allocation. */
#include "base/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* What passes: the socket is full, the kernel has no memory for the packet, or too many descriptors are on their way. */
static bool passes(int error) {
    return error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

int packet_send(int socket, const void *data, size_t size, const int *fds, unsigned n_fds) {
    struct iovec vector = {.iov_base = (void *)data, .iov_len = size};
    union {
        char buffer[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX)];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    ssize_t n;

    if (n_fds > DESCRIPTORS_MAX)
        return -EINVAL;
    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.buffer;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
    }
    do
        n = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n >= 0 ? 0 : passes(errno) ? -EAGAIN : -errno;
}

static void take_control(struct msghdr *message, struct packet *packet) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_RIGHTS) {
            unsigned n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            for (unsigned i = 0; i < n; i++) {
                int fd;
                memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                if (packet->n_fds < DESCRIPTORS_MAX)
                    packet->fds[packet->n_fds++] = fd;
                else
                    close(fd);
            }
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(c), sizeof(credentials));
            packet->pid = credentials.pid;
        }
    }
}

int packet_receive(int socket, struct packet *packet, int flags) {
    struct iovec vector = {.iov_base = packet->data, .iov_len = packet->capacity};
    union {
        char buffer[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX) + CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof(control.buffer)};
    ssize_t n;

    packet->size = 0;
    packet->n_fds = 0;
    packet->pid = 0;
    do
        n = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    take_control(&message, packet);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        packet_close_fds(packet);
        packet->size = (message.msg_flags & MSG_TRUNC) == 0 ? (size_t)n : 0;
        return -EBADMSG;
    }
    packet->size = (size_t)n;
    return (int)n;
}

void packet_close_fds(struct packet *packet) {
    for (unsigned i = 0; i < packet->n_fds; i++)
        cleanup_close(&packet->fds[i]);
    packet->n_fds = 0;
}

int socketpair_seqpacket(int ret_pair[2], unsigned nonblocking) {
    int pair[2];
    const int size = 512 * 1024;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    for (unsigned i = 0; i < 2; i++) {
        /* The forced form needs CAP_NET_ADMIN; without it the system's limit holds, which fits two messages. */
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
            (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        if ((nonblocking & (1u << i)) != 0 && fd_set_nonblocking(pair[i], 1) < 0) {
            int error = -errno;
            close(pair[0]);
            close(pair[1]);
            return error;
        }
    }
    ret_pair[0] = pair[0];
    ret_pair[1] = pair[1];
    return 0;
}

int fd_set_nonblocking(int fd, int on) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

int fd_set_cloexec(int fd, int on) {
    return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

int write_all(int fd, const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

int read_file_at(int directory, const char *path, char *buffer, size_t size) {
    _cleanup_close_ int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    if (fd < 0)
        return -errno;
    while (length < size - 1) {
        ssize_t n = read(fd, buffer + length, size - 1 - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        length += (size_t)n;
    }
    buffer[length] = '\0';
    return (int)length;
}

int write_file_at(int directory, const char *path, const char *text) {
    _cleanup_close_ int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write_all(fd, text, strlen(text));
}
