/* The packets of the hot path: without descriptors, never blocking. */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* size: what an encoder returned, an error included. 0 or a negative errno; -EAGAIN when the socket is full. */
static inline int packet_send_plain(int socket, const uint8_t *data, int size) {
    ssize_t n;
    if (size < 0)
        return size;
    do
        n = send(socket, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Returns the size, 0 at end of stream, -EAGAIN, or -EMSGSIZE for what does not fit. Descriptors that came along are
 * dropped by the kernel, as there is no room for them. */
static inline int packet_receive_plain(int socket, uint8_t *ret_data, size_t capacity) {
    ssize_t n;
    do
        n = recv(socket, ret_data, capacity, MSG_DONTWAIT | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return (size_t)n > capacity ? -EMSGSIZE : (int)n;
}
