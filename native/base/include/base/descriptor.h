/* Descriptors and the packets that carry them. All functions: 0 or a count on success, negative errno on failure. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DESCRIPTORS_MAX 8

struct packet {
    uint8_t *data; /* the caller's buffer */
    size_t capacity;
    size_t size;
    int fds[DESCRIPTORS_MAX];
    unsigned n_fds;
    pid_t pid; /* from SCM_CREDENTIALS, or 0 */
};

/* One SOCK_SEQPACKET message with descriptors (not consumed). -EAGAIN: nothing was sent and it may be tried again; the socket
 * is full, or the kernel has no memory for it now (then the socket stays writable). */
int packet_send(int socket, const void *data, size_t size, const int *fds, unsigned n_fds);
/* Receives one packet; descriptors arrive close-on-exec. Returns its size, 0 at end of stream, -EAGAIN, or -EBADMSG when
 * it or its descriptors were truncated (what arrived is closed; size is not 0 when only descriptors are missing). */
int packet_receive(int socket, struct packet *packet, int flags);
void packet_close_fds(struct packet *packet);

/* Both ends close-on-exec; nonblocking: bit 0 the first, bit 1 the second. Send buffers are raised to fit a message. */
int socketpair_seqpacket(int ret_pair[2], unsigned nonblocking);
int fd_set_nonblocking(int fd, int on);
int fd_set_cloexec(int fd, int on);
/* Whole buffer, over EINTR and short writes. */
int write_all(int fd, const void *data, size_t size);
/* Small files: reads at most size - 1 bytes and terminates. Returns the length. */
int read_file_at(int directory, const char *path, char *buffer, size_t size);
int write_file_at(int directory, const char *path, const char *text);
