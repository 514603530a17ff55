/* Links; see the header. */
#include "links.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

struct queued {
    struct list node;
    size_t size;
    int fds[DESCRIPTORS_MAX];
    unsigned n_fds;
    uint8_t data[];
};

bool link_is_open(const struct link *link) {
    return link->loop != NULL && link->fd >= 0;
}

static void forget(struct link *link, struct queued *queued) {
    list_remove(&queued->node);
    link->queued--;
    for (unsigned i = 0; i < queued->n_fds; i++)
        close(queued->fds[i]);
    free(queued);
}

static void tell_closed(struct link *link, int error) {
    loop_timer_off(&link->failed);
    link->error = error != 0 ? error : -EPIPE;
    loop_unwatch(link->loop, &link->watch); /* the owner closes the descriptor */
    link->closed(link->owner, error);
}

static void failed_fire(void *owner) {
    struct link *link = owner;
    if (link_is_open(link))
        tell_closed(link, link->error);
}

static void fail(struct link *link, int error) {
    if (link->error != 0)
        return;
    link->error = error;
    loop_timer(link->loop, &link->failed, 0, failed_fire, link);
}

/* One packet. False: nothing more to read now, or the link is gone. */
static bool read_one(struct link *link) {
    struct packet packet = {.data = link->buffer, .capacity = WIRE_MESSAGE_MAX};
    struct wire_header header;
    int n = packet_receive(link->fd, &packet, MSG_DONTWAIT);

    if (n == -ECONNRESET) /* told once, of a peer that died with messages unread; its own are still there */
        n = packet_receive(link->fd, &packet, MSG_DONTWAIT);
    if (n == -EAGAIN)
        return false;
    if (n > 0)
        n = wire_peek(packet.data, packet.size, &header) < 0 ? -EBADMSG : n;
    if (n <= 0) {
        packet_close_fds(&packet);
        tell_closed(link, n);
        return false;
    }
    link->message(link->owner, &header, &packet);
    packet_close_fds(&packet);
    return link_is_open(link) && link->watch.fd >= 0;
}

static void flush(struct link *link) {
    while (!list_empty(&link->out)) {
        struct queued *queued = list_entry(link->out.next, struct queued, node);
        int r = packet_send(link->fd, queued->data, queued->size, queued->fds, queued->n_fds);
        if (r == -EAGAIN)
            return;
        if (r < 0) {
            fail(link, r);
            return;
        }
        forget(link, queued);
    }
    (void)loop_rewatch(link->loop, &link->watch, EPOLLIN);
}

static void ready(void *owner, uint32_t events) {
    struct link *link = owner;

    if ((events & EPOLLOUT) != 0 && link->error == 0)
        flush(link);
    for (unsigned i = 0; i < LINK_TURN; i++)
        if (!read_one(link))
            return;
}

int link_open(struct link *link, struct loop *loop, int fd, uint32_t epoch) {
    int r;

    link->loop = loop;
    link->error = 0;
    link->epoch = epoch;
    link->queued = 0;
    link->fd = -1;
    link->watch.fd = -1;
    list_init(&link->out);
    r = fd_set_nonblocking(fd, 1);
    if (r == 0 && link->buffer == NULL && (link->buffer = malloc(WIRE_MESSAGE_MAX)) == NULL)
        r = -ENOMEM;
    if (r == 0)
        r = loop_watch(loop, &link->watch, fd, EPOLLIN, ready, link);
    if (r < 0)
        close(fd);
    link->fd = r < 0 ? -1 : fd;
    return r;
}

void link_close(struct link *link) {
    if (link->loop == NULL)
        return;
    loop_timer_off(&link->failed);
    loop_unwatch(link->loop, &link->watch);
    cleanup_close(&link->fd);
    list_for_each_safe(node, &link->out) forget(link, list_entry(node, struct queued, node));
}

static int enqueue(struct link *link, const uint8_t *data, size_t size, const int *fds, unsigned n_fds) {
    if (link->queued >= LINK_QUEUE)
        return -ENOBUFS;
    struct queued *queued = malloc(sizeof(*queued) + size);
    if (queued == NULL)
        return -ENOMEM;
    queued->size = size;
    queued->n_fds = 0;
    memcpy(queued->data, data, size);
    list_push_back(&link->out, &queued->node);
    if (link->queued++ == 0)
        (void)loop_rewatch(link->loop, &link->watch, EPOLLIN | EPOLLOUT);
    for (unsigned i = 0; i < n_fds; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
            return -errno;
        queued->fds[queued->n_fds++] = copy;
    }
    return 0;
}

void link_send(struct link *link, const uint8_t *data, int size, const int *fds, unsigned n_fds) {
    int r = -EAGAIN;

    if (!link_is_open(link) || link->error != 0)
        return;
    if (size < 0) {
        fail(link, size);
        return;
    }
    if (list_empty(&link->out))
        r = packet_send(link->fd, data, (size_t)size, fds, n_fds);
    if (r == -EAGAIN)
        r = enqueue(link, data, (size_t)size, fds, n_fds);
    if (r < 0)
        fail(link, r);
}

void link_drain(struct link *link) {
    if (!link_is_open(link) || link->watch.fd < 0)
        return;
    while (read_one(link))
        ;
}

int link_take(struct packet *packet, unsigned index) {
    return index < packet->n_fds ? steal_fd(&packet->fds[index]) : -1;
}

struct wire_slice link_text(const char *text) {
    return (struct wire_slice){.data = (const uint8_t *)text, .size = (uint32_t)strlen(text)};
}

void link_copy_text(struct wire_slice slice, char *buffer, size_t size) {
    size_t n = MIN((size_t)slice.size, size - 1);
    if (n > 0)
        memcpy(buffer, slice.data, n);
    buffer[n] = '\0';
}
