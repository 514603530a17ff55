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
#define DESCRIPTOR_KINDS 5

/* One that was handed over to us, and that we do not take. */
struct unknown {
    struct list node;
    uint64_t id;
};

/* ---- out ------------------------------------------------------------------------------------------------------- */

static int send_hello(struct launcher_link *link) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = link->epoch};
    struct wire_hello hello = {.role = WIRE_ROLE_DISPATCH, .features = HANDOVER_VERSION};
    int size = wire_hello_encode(&header, &hello, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, &link->dispatch->counters.fd, 1);
}

static int send_serving(struct launcher_link *link) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = link->epoch};
    struct wire_serving serving = {0};
    int size = wire_serving_encode(&header, &serving, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

static int send_launch(struct launcher_link *link, const struct environment *environment) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = link->epoch, .object = environment->id};
    struct wire_launch launch = {.plan = environment->target->plan};
    int size = wire_launch_encode(&header, &launch, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

static int send_arena(struct launcher_link *link, const struct environment *environment) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = link->epoch, .object = environment->id};
    struct wire_arena arena = {0};
    int size = wire_arena_encode(&header, &arena, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

static int send_end(struct launcher_link *link, uint64_t id, uint8_t reason) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = link->epoch, .object = id};
    struct wire_end end = {.reason = reason};
    int size = wire_end_encode(&header, &end, packet, WIRE_MESSAGE_MAX);
    return size < 0 ? size : packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

/* Lost when the socket is full: the next one comes. */
static void answer_beat(struct launcher_link *link, uint32_t seq) {
    uint8_t *packet = link->dispatch->packet_out;
    struct wire_header header = {.epoch = link->epoch, .seq = seq};
    struct wire_beat beat = {0};
    int size = wire_beat_encode(&header, &beat, packet, WIRE_MESSAGE_MAX);
    if (size >= 0)
        (void)packet_send(link->watch.fd, packet, (size_t)size, NULL, 0);
}

/* Any error but a full socket means that the launcher is gone; its end is seen by reading. */
static bool flush(struct launcher_link *link) {
    if (link->watch.fd < 0)
        return true;
    if (!link->hello_sent && send_hello(link) == -EAGAIN)
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

static void flush_and_watch(struct launcher_link *link) {
    bool writing = !flush(link);
    if (writing == link->writing || link->watch.fd < 0)
        return;
    link->writing = writing;
    (void)loop_change(&link->dispatch->loop, &link->watch, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void launcher_launch(struct environment *environment) {
    struct launcher_link *link = &environment->dispatch->launcher;
    link->launching++;
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
    struct wire_header header = {.epoch = link->epoch, .object = id};
    struct wire_handed message = {.version = HANDOVER_VERSION, .kind = kind, .state = {state, size}};
    int n = wire_handed_encode(&header, &message, packet, WIRE_MESSAGE_MAX), r;

    if (n < 0 || link->watch.fd < 0)
        return n < 0 ? n : -EPIPE;
    r = packet_send(link->watch.fd, packet, (size_t)n, fds, n_fds);
    if (r == -EAGAIN && !link->writing) {
        link->writing = true;
        (void)loop_change(&link->dispatch->loop, &link->watch, EPOLLIN | EPOLLOUT);
    }
    return r;
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

static struct environment *find(struct launcher_link *link, uint64_t id) {
    return table_get(&link->dispatch->environments, id);
}

static void answered(struct environment *environment) {
    struct launcher_link *link = &environment->dispatch->launcher;
    if (environment->answered)
        return;
    environment->answered = true;
    link->launching--;
}

static void on_launched(struct launcher_link *link, struct packet *packet) {
    struct wire_header header;
    struct wire_launched message;
    struct environment *environment;
    int fds[DESCRIPTOR_KINDS] = {-1, -1, -1, -1, -1};
    unsigned n = 0;

    if (wire_launched_decode(packet->data, packet->size, &header, &message) < 0)
        return;
    environment = find(link, header.object);
    for (unsigned i = 0; i < DESCRIPTOR_KINDS; i++)
        if ((message.descriptors & (1u << i)) != 0 && n < packet->n_fds)
            fds[i] = steal_fd(&packet->fds[n++]);
    if (environment != NULL)
        answered(environment);
    if (environment != NULL && environment->state == ENVIRONMENT_LAUNCHING) {
        struct environment_detail detail = {.fds = fds};
        environment->uid = message.uid;
        environment_handle(environment, EVENT_LAUNCHED, &detail);
        return;
    }
    for (unsigned i = 0; i < DESCRIPTOR_KINDS; i++)
        cleanup_close(&fds[i]);
    if (environment != NULL)
        environment_handle(environment, EVENT_LAUNCHED, NULL);
}

static void on_launch_failed(struct launcher_link *link, const struct packet *packet) {
    struct wire_header header;
    struct wire_launch_failed message;
    struct environment *environment;
    char reason[WIRE_LAUNCH_FAILED_REASON_MAX + 1];
    struct environment_detail detail;

    if (wire_launch_failed_decode(packet->data, packet->size, &header, &message) < 0)
        return;
    environment = find(link, header.object);
    if (environment == NULL)
        return;
    answered(environment);
    snprintf(reason, sizeof(reason), "%.*s", (int)message.reason.size, (const char *)message.reason.data);
    detail = (struct environment_detail){
        .retryable = message.retryable != 0, .errno_value = message.error, .step = message.step, .what = reason};
    environment_handle(environment, EVENT_LAUNCH_FAILED, &detail);
}

static void on_arena(struct launcher_link *link, struct packet *packet) {
    struct wire_header header;
    struct wire_arena message;
    struct environment *environment;

    if (wire_arena_decode(packet->data, packet->size, &header, &message) < 0)
        return;
    environment = find(link, header.object);
    if (environment != NULL)
        arena_came(environment, packet->n_fds == 1 ? steal_fd(&packet->fds[0]) : -1, message.size);
}

static void on_exited(struct launcher_link *link, const struct packet *packet) {
    struct wire_header header;
    struct wire_exited message;
    struct environment *environment;
    struct environment_detail detail;

    if (wire_exited_decode(packet->data, packet->size, &header, &message) < 0)
        return;
    environment = find(link, header.object);
    if (environment == NULL)
        return;
    answered(environment);
    environment->ended = true;
    /* What it said before it left still counts. This packet's memory is the link's own, not the loop's. */
    channel_read(environment);
    if (environment->state == ENVIRONMENT_DEAD)
        return;
    environment_see_peak(environment, message.peak_kb);
    detail = (struct environment_detail){.status = message.status,
        .out_of_memory = message.oom != 0,
        .step = message.step,
        .errno_value = message.error};
    environment_handle(environment, EVENT_EXITED, &detail);
}

static void on_hello(struct launcher_link *link, struct packet *packet) {
    struct wire_header header;
    struct wire_hello hello;
    if (wire_hello_decode(packet->data, packet->size, &header, &hello) < 0)
        return;
    link->epoch = header.epoch;
    if (hello.features & 1)
        takeover_expect(link->dispatch);
    if (packet->n_fds == 1)
        inherit_from(link->dispatch, packet->fds[0], hello.features & 1);
    snprintf(link->build, sizeof(link->build), "%.*s", (int)hello.build.size, (const char *)hello.build.data);
}

static void on_peer(struct launcher_link *link, struct packet *packet) {
    struct wire_header header;
    struct wire_peer peer;
    if (wire_peer_decode(packet->data, packet->size, &header, &peer) < 0 || peer.role != WIRE_ROLE_CONTROL ||
        packet->n_fds != 1)
        return;
    control_adopt(&link->dispatch->control, steal_fd(&packet->fds[0]), peer.peer_epoch);
}

static void on_hand_over(struct launcher_link *link, const struct packet *packet) {
    struct wire_header header;
    struct wire_hand_over message;
    if (wire_hand_over_decode(packet->data, packet->size, &header, &message) >= 0)
        handover_begin(link->dispatch, message.version);
}

static void on_packet(struct launcher_link *link, struct packet *packet) {
    struct wire_header header;
    if (wire_peek(packet->data, packet->size, &header) < 0)
        return;
    switch (header.type) {
    case WIRE_HELLO:
        on_hello(link, packet);
        break;
    case WIRE_LAUNCHED:
        on_launched(link, packet);
        break;
    case WIRE_LAUNCH_FAILED:
        on_launch_failed(link, packet);
        break;
    case WIRE_ARENA:
        on_arena(link, packet);
        break;
    case WIRE_EXITED:
        on_exited(link, packet);
        break;
    case WIRE_PEER:
        on_peer(link, packet);
        break;
    case WIRE_BEAT:
        answer_beat(link, header.seq);
        break;
    case WIRE_DRAIN:
        dispatch_drain(link->dispatch, true);
        break;
    case WIRE_HAND_OVER:
        on_hand_over(link, packet);
        break;
    case WIRE_HANDED:
        takeover_message(link->dispatch, packet);
        break;
    default:
        break;
    }
}

static void on_ready(struct watch *watch, uint32_t events) {
    struct launcher_link *link = list_entry(watch, struct launcher_link, watch);
    struct packet packet = {.data = link->packet, .capacity = sizeof(link->packet)};

    if (events & EPOLLOUT)
        flush_and_watch(link);
    for (unsigned i = 0; i < BATCH && link->watch.fd >= 0; i++) {
        int n = packet_receive(link->watch.fd, &packet, MSG_DONTWAIT);
        if (n == -EAGAIN || (n == -EBADMSG && packet.size == 0))
            return;
        /* No room for its descriptors (none are left to us): what it says counts, and they are missing. */
        if (n == -EBADMSG)
            n = (int)packet.size;
        if (n <= 0) {
            launcher_close(link);
            link->dispatch->leave = true;
            return;
        }
        on_packet(link, &packet);
        packet_close_fds(&packet);
    }
}

int launcher_open(struct launcher_link *link, struct dispatch *dispatch, int fd) {
    int r;
    *link = (struct launcher_link){.watch = {.fd = fd, .ready = on_ready}, .dispatch = dispatch};
    list_init(&link->outbox);
    list_init(&link->unknown);
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
    cleanup_close(&link->watch.fd);
    while ((node = list_pop_front(&link->unknown)) != NULL)
        free(list_entry(node, struct unknown, node));
}
