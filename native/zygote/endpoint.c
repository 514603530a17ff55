/* The environment's channel; see the header. Bodies are the last field of every message that has one: their packets are
 * encoded with an empty body, the length is patched in, and the bytes go out as a second vector, uncopied. */
#include "zygote/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"

#ifndef MADV_POPULATE_WRITE /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

/* Header, the fields before the body, and its length. */
#define PREFIX_MAX 256
#define HEAD_PREFIX_MAX 512

_Static_assert(
    WIRE_HEADER_SIZE + 16 + 1 + 4 + WIRE_RESULT_ERROR_TYPE_MAX + 4 + 4 <= PREFIX_MAX, "RESULT's prefix fits");
_Static_assert(
    WIRE_HEADER_SIZE + 16 + 4 + WIRE_STREAM_HEAD_CONTENT_TYPE_MAX + 4 <= HEAD_PREFIX_MAX, "STREAM_HEAD's prefix fits");
_Static_assert(WIRE_RESULT_BODY_MAX == WIRE_CHUNK_DATA_MAX, "a chunk carries as much as a first part");

int endpoint_open(struct endpoint *endpoint) {
    uint8_t *packet = malloc(WIRE_MESSAGE_MAX);
    if (packet == NULL)
        return -ENOMEM;
    *endpoint = (struct endpoint){.fd = -1, .packet = packet};
    return 0;
}

void endpoint_attach(struct endpoint *endpoint, int fd) {
    (void)fd_set_cloexec(fd, 1);
    endpoint->fd = fd;
}

static void drop_arena(struct endpoint *endpoint) {
    if (endpoint->arena != NULL)
        (void)munmap(endpoint->arena, endpoint->arena_size);
    endpoint->arena = NULL;
    endpoint->arena_size = endpoint->arena_filled = 0;
    endpoint->arena_offered = false;
}

void endpoint_done(struct endpoint *endpoint) {
    drop_arena(endpoint);
    cleanup_close(&endpoint->fd);
    free(endpoint->packet);
    endpoint->packet = NULL;
}

/* Only when the function made the socket nonblocking. */
static int wait_for(int fd, short events) {
    struct pollfd poll_fd = {.fd = fd, .events = events};
    return poll(&poll_fd, 1, -1) < 0 ? -errno : 0;
}

/* The socket, however the function left it, must hand over what it has with a packet. */
static int receive_arena(struct endpoint *endpoint, int *ret_fd) {
    struct packet packet = {.data = endpoint->packet, .capacity = WIRE_MESSAGE_MAX};
    struct wire_header header;
    struct wire_arena arena;
    int r;

    while ((r = packet_receive(endpoint->fd, &packet, 0)) == -EAGAIN)
        if ((r = wait_for(endpoint->fd, POLLIN)) < 0 && r != -EINTR)
            return r;
    if (r <= 0)
        return r == 0 ? -EPIPE : r;
    r = wire_arena_decode(packet.data, packet.size, &header, &arena);
    if (r == 0)
        *ret_fd = packet.n_fds > 0 ? steal_fd(&packet.fds[0]) : -1;
    packet_close_fds(&packet);
    return r;
}

/* Memory comes from this process's cgroup. What there is none for is found missing by the dispatcher. */
static void fill(struct endpoint *endpoint, uint32_t size) {
    size = MIN(size, endpoint->arena_size);
    if (size > endpoint->arena_filled && madvise(endpoint->arena, size, MADV_POPULATE_WRITE) == 0)
        endpoint->arena_filled = size;
}

/* 0 or a positive errno, which the dispatcher is told. */
static int map(struct endpoint *endpoint, int fd, uint32_t size) {
    void *memory = fd >= 0 ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (memory == MAP_FAILED)
        return fd >= 0 ? errno : ENFILE;
    (void)madvise(memory, size, MADV_DONTFORK);
    endpoint->arena = memory;
    endpoint->arena_size = size;
    return 0;
}

static int send_vector(int fd, struct iovec *vector, size_t n);

static int take_attach(struct endpoint *endpoint) {
    const struct wire_header object = {.object = endpoint->object};
    struct wire_attached attached = {0};
    struct wire_header header;
    struct wire_attach attach;
    _cleanup_close_ int fd = -1;
    uint8_t packet[PREFIX_MAX];
    int size, r = wire_attach_decode(endpoint->packet, endpoint->size, &header, &attach);

    if (r < 0)
        return r;
    if (attach.size > 0 || attach.fill == 0)
        drop_arena(endpoint);
    if (attach.size > 0) {
        r = receive_arena(endpoint, &fd);
        if (r < 0)
            return r;
        attached.error = (uint32_t)map(endpoint, fd, attach.size);
    }
    fill(endpoint, attach.fill);
    if (attach.size == 0)
        return 0;
    size = wire_attached_encode(&object, &attached, packet, sizeof(packet));
    return size < 0 ? size : send_vector(endpoint->fd, &(struct iovec){.iov_base = packet, .iov_len = (size_t)size}, 1);
}

static int receive(struct endpoint *endpoint) {
    ssize_t n;
    int r;

    for (;;) {
        n = recv(endpoint->fd, endpoint->packet, WIRE_MESSAGE_MAX, MSG_TRUNC);
        if (n >= 0)
            break;
        if (errno == ECONNRESET)
            return 0;
        if (errno != EAGAIN)
            return -errno;
        r = wait_for(endpoint->fd, POLLIN);
        if (r < 0)
            return r;
    }
    if (n > WIRE_MESSAGE_MAX)
        return -EBADMSG;
    endpoint->size = (size_t)n;
    return (int)n;
}

void endpoint_rehearse(struct endpoint *endpoint, const uint8_t *packet, size_t size) {
    endpoint->rehearsing = packet != NULL;
    endpoint->rehearsed = packet;
    endpoint->rehearsed_size = MIN(size, (size_t)WIRE_MESSAGE_MAX);
}

int endpoint_wait(struct endpoint *endpoint) {
    if (endpoint->rehearsed != NULL) {
        memcpy(endpoint->packet, endpoint->rehearsed, endpoint->rehearsed_size);
        endpoint->size = endpoint->rehearsed_size;
        endpoint->rehearsed = NULL;
        return (int)endpoint->size;
    }
    for (;;) {
        struct wire_header header;
        int n = receive(endpoint), r;
        if (n <= 0 || wire_peek(endpoint->packet, endpoint->size, &header) < 0 || header.type != WIRE_ATTACH)
            return n;
        r = take_attach(endpoint);
        if (r < 0)
            return r == -EPIPE ? 0 : r;
    }
}

int endpoint_take_start(struct endpoint *endpoint, struct wire_start *ret_start) {
    struct wire_header header;
    int r = wire_start_decode(endpoint->packet, endpoint->size, &header, ret_start);
    if (r < 0)
        return r;
    endpoint->object = header.object;
    endpoint->ahead = (header.flags & WIRE_HEADER_AHEAD) != 0;
    return 0;
}

int endpoint_take_invoke(struct endpoint *endpoint, struct wire_invoke *ret_invoke) {
    struct wire_header header;
    struct wire_invoke invoke;
    int r = wire_invoke_decode(endpoint->packet, endpoint->size, &header, &invoke);
    if (r < 0)
        return r;
    if (invoke.total > ENDPOINT_BODY_MAX || invoke.body.size > invoke.total)
        return -EBADMSG;
    endpoint->arena_offered = (header.flags & WIRE_HEADER_ARENA) != 0 && endpoint->arena != NULL;
    if ((header.flags & WIRE_HEADER_ARENA) != 0 && invoke.body.size == 0 && invoke.total > 0) {
        if (invoke.total > endpoint->arena_size)
            return -EBADMSG;
        invoke.body = (struct wire_slice){endpoint->arena, invoke.total};
    }
    *ret_invoke = invoke;
    return 0;
}

int endpoint_take_chunk(const struct endpoint *endpoint, uint8_t *body, uint32_t total, uint32_t *filled) {
    struct wire_header header;
    struct wire_chunk chunk;
    int r = wire_chunk_decode(endpoint->packet, endpoint->size, &header, &chunk);
    if (r < 0)
        return r;
    /* An empty chunk would let a sender keep this loop busy without an end. */
    if (chunk.data.size == 0 || chunk.data.size > total - *filled)
        return -EBADMSG;
    memcpy(body + *filled, chunk.data.data, chunk.data.size);
    *filled += chunk.data.size;
    return 0;
}

static int send_vector(int fd, struct iovec *vector, size_t n) {
    const struct msghdr message = {.msg_iov = vector, .msg_iovlen = n};
    while (sendmsg(fd, &message, MSG_NOSIGNAL) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == ECONNRESET)
            return -EPIPE;
        if (errno != EAGAIN)
            return -errno;
        int r = wait_for(fd, POLLOUT);
        if (r < 0 && r != -EINTR)
            return r;
    }
    return 0;
}

/* A packet whose last field is the body, encoded with an empty one. */
static int send_with_body(int fd, uint8_t *prefix, int size, const uint8_t *body, uint32_t length) {
    struct iovec vector[2] = {
        {.iov_base = prefix, .iov_len = (size_t)size},
        {.iov_base = (void *)body, .iov_len = length},
    };
    for (unsigned i = 0; i < 4; i++)
        prefix[size - 4 + (int)i] = (uint8_t)(length >> (8 * i));
    return send_vector(fd, vector, length > 0 ? 2 : 1);
}

static struct wire_slice cut(struct wire_slice slice, uint32_t maximum) {
    /* Never in the middle of a UTF-8 sequence. */
    if (slice.size > maximum) {
        slice.size = maximum;
        while (slice.size > 0 && (slice.data[slice.size] & 0xc0) == 0x80)
            slice.size--;
    }
    return slice;
}

int endpoint_send_init_done(const struct endpoint *endpoint) {
    const struct wire_header header = {.object = endpoint->object};
    const struct wire_init_done done = {0};
    uint8_t packet[PREFIX_MAX];
    int size = wire_init_done_encode(&header, &done, packet, sizeof(packet));
    if (size < 0)
        return size;
    return send_vector(endpoint->fd, &(struct iovec){.iov_base = packet, .iov_len = (size_t)size}, 1);
}

int endpoint_send_ready(const struct endpoint *endpoint, uint64_t number) {
    const struct wire_header header = {.object = number};
    const struct wire_ready ready = {0};
    uint8_t packet[PREFIX_MAX];
    int size = wire_ready_encode(&header, &ready, packet, sizeof(packet));
    if (size < 0)
        return size;
    return send_vector(endpoint->fd, &(struct iovec){.iov_base = packet, .iov_len = (size_t)size}, 1);
}

int endpoint_send_init_error(const struct endpoint *endpoint, struct wire_slice type, struct wire_slice body) {
    const struct wire_header header = {.object = endpoint->object};
    const struct wire_init_error error = {.error_type = cut(type, WIRE_INIT_ERROR_ERROR_TYPE_MAX)};
    uint8_t prefix[PREFIX_MAX];
    int size;

    if (body.size > WIRE_INIT_ERROR_BODY_MAX)
        return -EMSGSIZE;
    size = wire_init_error_encode(&header, &error, prefix, sizeof(prefix));
    if (size < 0)
        return size;
    return send_with_body(endpoint->fd, prefix, size, body.data, body.size);
}

/* Copies an answer into the arena. False: it goes through the socket. */
static bool place_result(struct endpoint *endpoint, const uint8_t *body, size_t total) {
    if (total <= ENDPOINT_ARENA_LEAST || !endpoint->arena_offered || total > endpoint->arena_size)
        return false;
    fill(endpoint, (uint32_t)total);
    if (total > endpoint->arena_filled)
        return false;
    memcpy(endpoint->arena, body, total);
    return true;
}

int endpoint_send_result(struct endpoint *endpoint, const uint8_t id[16], bool error, struct wire_slice type,
    const uint8_t *body, size_t total) {
    struct wire_header header = {.object = endpoint->object, .flags = WIRE_HEADER_READY};
    struct wire_result result = {.error = error, .total = (uint32_t)total};
    uint8_t prefix[PREFIX_MAX];
    uint32_t part = (uint32_t)MIN(total, WIRE_RESULT_BODY_MAX);
    int size, r;

    if (total > ENDPOINT_BODY_MAX)
        return -EMSGSIZE;
    if (error)
        result.error_type = cut(type, WIRE_RESULT_ERROR_TYPE_MAX);
    memcpy(result.id, id, sizeof(result.id));
    if (place_result(endpoint, body, total)) {
        header.flags |= WIRE_HEADER_ARENA;
        part = 0;
    }
    size = wire_result_encode(&header, &result, prefix, sizeof(prefix));
    if (size < 0 || endpoint->rehearsing)
        return MIN(size, 0);
    r = send_with_body(endpoint->fd, prefix, size, body, part);
    if (header.flags & WIRE_HEADER_ARENA)
        return r;
    for (size_t sent = part; r == 0 && sent < total; sent += part) {
        const struct wire_header plain = {.object = endpoint->object};
        const struct wire_chunk chunk = {0};
        part = (uint32_t)MIN(total - sent, WIRE_CHUNK_DATA_MAX);
        size = wire_chunk_encode(&plain, &chunk, prefix, sizeof(prefix));
        if (size < 0)
            return size;
        r = send_with_body(endpoint->fd, prefix, size, body + sent, part);
    }
    return r;
}

/* ---- responses in parts ----------------------------------------------------------------------------------------- */

int endpoint_send_head(
    const struct endpoint *endpoint, const uint8_t id[16], struct wire_slice content_type, struct wire_slice data) {
    const struct wire_header header = {.object = endpoint->object};
    struct wire_stream_head head = {.content_type = cut(content_type, WIRE_STREAM_HEAD_CONTENT_TYPE_MAX)};
    uint8_t prefix[HEAD_PREFIX_MAX];
    uint32_t part = MIN(data.size, WIRE_STREAM_HEAD_DATA_MAX);
    int size, r;

    memcpy(head.id, id, sizeof(head.id));
    size = wire_stream_head_encode(&header, &head, prefix, sizeof(prefix));
    if (size < 0)
        return size;
    r = send_with_body(endpoint->fd, prefix, size, data.data, part);
    if (r < 0)
        return r;
    return endpoint_send_part(endpoint, data.data + part, data.size - part);
}

int endpoint_send_part(const struct endpoint *endpoint, const uint8_t *data, size_t total) {
    const struct wire_header header = {.object = endpoint->object};
    const struct wire_stream_chunk chunk = {0};
    uint8_t prefix[PREFIX_MAX];
    int r = 0;

    for (size_t sent = 0; r == 0 && sent < total;) {
        uint32_t part = (uint32_t)MIN(total - sent, WIRE_STREAM_CHUNK_DATA_MAX);
        int size = wire_stream_chunk_encode(&header, &chunk, prefix, sizeof(prefix));
        if (size < 0)
            return size;
        r = send_with_body(endpoint->fd, prefix, size, data + sent, part);
        sent += part;
    }
    return r;
}

int endpoint_send_end(const struct endpoint *endpoint, bool error, struct wire_slice type, struct wire_slice body) {
    const struct wire_header header = {.object = endpoint->object, .flags = WIRE_HEADER_READY};
    const struct wire_stream_end end = {.error = error, .error_type = cut(type, WIRE_STREAM_END_ERROR_TYPE_MAX)};
    uint8_t prefix[PREFIX_MAX];
    int size;

    if (body.size > WIRE_STREAM_END_BODY_MAX)
        return -EMSGSIZE;
    size = wire_stream_end_encode(&header, &end, prefix, sizeof(prefix));
    return size < 0 ? size : send_with_body(endpoint->fd, prefix, size, body.data, body.size);
}
