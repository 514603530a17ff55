/* The link to the launcher; see the header. */
#include "dispatch/launcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/perform.h"

#define BATCH 32

/* One that was handed over to us, and that we do not take. */
struct unknown {
    struct list node;
    uint64_t id;
};

/* ---- out ------------------------------------------------------------------------------------------------------- */

static uint32_t epoch_of(const struct launcher_link *link) {
    return atomic_load_explicit(&link->dispatch->loops->launcher_epoch, memory_order_relaxed);
}

static int send_hello(struct launcher_link *link) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = epoch_of(link)};
    struct wire_hello hello = {.role = WIRE_ROLE_DISPATCH, .features = HANDOVER_VERSION};
    int size = wire_hello_encode(&header, &hello, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, &link->dispatch->counters.fd, 1);
}

static int send_serving(struct launcher_link *link) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = epoch_of(link)};
    struct wire_serving serving = {0};
    int size = wire_serving_encode(&header, &serving, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

static int send_launch(struct launcher_link *link, const struct environment *environment) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = epoch_of(link), .object = environment->id};
    struct wire_launch launch = {.plan = environment->target->plan};
    int size = wire_launch_encode(&header, &launch, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

static int send_arena(struct launcher_link *link, const struct environment *environment) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = epoch_of(link), .object = environment->id};
    struct wire_arena arena = {0};
    int size = wire_arena_encode(&header, &arena, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

static int send_end(struct launcher_link *link, uint64_t id, uint8_t reason) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = epoch_of(link), .object = id};
    struct wire_end end = {.reason = reason};
    int size = wire_end_encode(&header, &end, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

void launcher_answer_beat(struct launcher_link *link, uint32_t seq) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = epoch_of(link), .seq = seq};
    struct wire_beat beat = {0};
    int size = wire_beat_encode(&header, &beat, packet, WIRE_MESSAGE_MAX);
    if (size >= 0)
        (void)packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

/* Any error but a full socket means that the launcher is gone; its end is seen by reading. */
static bool flush(struct launcher_link *link) {
    if (link->watch.fd < 0)
        return true;
    if (link->first && !link->hello_sent && send_hello(link) == -EAGAIN)
        return false;
    link->hello_sent = true;
    if (link->serving_unsent && send_serving(link) == -EAGAIN)
        return false;
    link->serving_unsent = false;
    while (!list_empty(&link->unknown)) {
        struct unknown *unknown = list_entry(link->unknown.next, struct unknown, node);
        if (send_end(link, unknown->id, WIRE_END_REASON_SPINDOWN) == -EAGAIN)
            return false;
        list_remove(&unknown->node);
        free(unknown);
    }
    while (!list_empty(&link->outbox)) {
        struct environment *environment = list_entry(link->outbox.next, struct environment, outbox);
        if (environment->launch_unsent && send_launch(link, environment) == -EAGAIN)
            return false;
        environment->launch_unsent = false;
        if (environment->arena_unsent && send_arena(link, environment) == -EAGAIN)
            return false;
        environment->arena_unsent = false;
        if (environment->end_unsent && send_end(link, environment->id, environment->end_reason) == -EAGAIN)
            return false;
        environment->end_unsent = false;
        list_remove(&environment->outbox);
    }
    return true;
}

static void watch_writing(struct launcher_link *link, bool writing) {
    if (writing == link->writing || link->watch.fd < 0)
        return;
    link->writing = writing;
    if (link->first)
        (void)loop_change(&link->dispatch->loop, &link->watch, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
    else if (writing)
        (void)loop_add(&link->dispatch->loop, &link->watch, EPOLLOUT);
    else
        loop_remove(&link->dispatch->loop, &link->watch);
}

static void flush_and_watch(struct launcher_link *link) {
    watch_writing(link, !flush(link));
}

void launcher_launch(struct environment *environment) {
    struct launcher_link *link = &environment->dispatch->launcher;
    link->launching++;
    atomic_fetch_add_explicit(&environment->dispatch->loops->launching, 1, memory_order_relaxed);
    count_one(&environment->dispatch->counters.node->launches);
    environment->launch_unsent = true;
    list_push_back(&link->outbox, &environment->outbox);
    flush_and_watch(link);
}

void launcher_ask_arena(struct environment *environment) {
    struct launcher_link *link = &environment->dispatch->launcher;
    environment->arena_unsent = true;
    list_remove(&environment->outbox);
    list_push_back(&link->outbox, &environment->outbox);
    flush_and_watch(link);
}

void launcher_end(struct environment *environment, uint8_t reason) {
    struct launcher_link *link = &environment->dispatch->launcher;
    if (environment->ended)
        return;
    environment->ended = true;
    environment->end_reason = reason;
    environment->end_unsent = true;
    list_remove(&environment->outbox);
    list_push_back(&link->outbox, &environment->outbox);
    flush_and_watch(link);
}

void launcher_end_unknown(struct launcher_link *link, uint64_t id) {
    struct unknown *unknown = malloc(sizeof(*unknown));
    if (unknown == NULL)
        return; /* it ends with us */
    unknown->id = id;
    list_push_back(&link->unknown, &unknown->node);
    flush_and_watch(link);
}

void launcher_serving(struct launcher_link *link) {
    link->serving_unsent = true;
    flush_and_watch(link);
}

int launcher_hand(struct launcher_link *link, uint8_t kind, uint64_t id, const uint8_t *state, uint32_t size,
    const int *fds, unsigned n_fds) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = epoch_of(link), .object = id};
    struct wire_handed message = {.version = HANDOVER_VERSION, .kind = kind, .state = {state, size}};
    int n = wire_handed_encode(&header, &message, packet, WIRE_MESSAGE_MAX), r;

    if (n < 0 || link->watch.fd < 0)
        return n < 0 ? n : -EPIPE;
    r = packet_send(link->watch.fd, packet, (size_t)n, fds, n_fds);
    if (r == -EAGAIN)
        watch_writing(link, true);
    return r;
}

/* ---- the link --------------------------------------------------------------------------------------------------- */

/* The other loops still send on it: it is closed when they are gone. */
static void lost(struct launcher_link *link) {
    loop_remove(&link->dispatch->loop, &link->watch);
    link->dispatch->leave = true;
}

static void on_ready(struct watch *watch, uint32_t events) {
    struct launcher_link *link = list_entry(watch, struct launcher_link, watch);
    struct packet packet = {.data = link->packet, .capacity = sizeof(link->packet)};

    if (events & EPOLLOUT)
        flush_and_watch(link);
    if (!link->first && (events & (EPOLLHUP | EPOLLERR)))
        loop_remove(&link->dispatch->loop, watch); /* the first loop sees it as well, and the process leaves */
    for (unsigned i = 0; i < BATCH && link->first; i++) {
        int n = packet_receive(link->watch.fd, &packet, MSG_DONTWAIT);
        if (n == -EAGAIN || (n == -EBADMSG && packet.size == 0))
            return;
        /* No room for its descriptors (none are left to us): what it says counts, and they are missing. */
        if (n == -EBADMSG)
            n = (int)packet.size;
        if (n <= 0) {
            lost(link);
            return;
        }
        launcher_packet(link, &packet);
        packet_close_fds(&packet);
    }
}

int launcher_open(struct launcher_link *link, struct dispatch *dispatch, int fd) {
    int r;
    *link = (struct launcher_link){
        .watch = {.fd = fd, .ready = on_ready}, .dispatch = dispatch, .first = dispatch->number == 0};
    list_init(&link->outbox);
    list_init(&link->unknown);
    if (!link->first)
        return 0;
    r = fd_set_nonblocking(fd, 1);
    if (r >= 0)
        r = loop_add(&dispatch->loop, &link->watch, EPOLLIN);
    if (r >= 0)
        flush_and_watch(link);
    return r;
}

void launcher_close(struct launcher_link *link) {
    struct list *node;
    loop_remove(&link->dispatch->loop, &link->watch);
    if (link->first)
        cleanup_close(&link->watch.fd);
    link->watch.fd = -1;
    while ((node = list_pop_front(&link->unknown)) != NULL)
        free(list_entry(node, struct unknown, node));
}
