/* What the launcher says; see launcher.h. The first loop reads it, and passes on what is about an environment of another. */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/perform.h"

#define DESCRIPTOR_KINDS 5

static struct environment *find(struct launcher_link *link, uint64_t id) {
    return table_get(&link->dispatch->environments, id);
}

static void answered(struct environment *environment) {
    struct launcher_link *link = &environment->dispatch->launcher;
    if (environment->answered)
        return;
    environment->answered = true;
    link->launching--;
    atomic_fetch_sub_explicit(&environment->dispatch->loops->launching, 1, memory_order_relaxed);
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
        if (message.restored != 0 && environment->init_type == WIRE_INIT_TYPE_ON_DEMAND)
            environment->init_type = WIRE_INIT_TYPE_SNAP_START;
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
    if (channel_end(environment, 0) == EVENT_UNREAD)
        environment_handle(environment, EVENT_UNREAD, NULL);
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
    atomic_store_explicit(&link->dispatch->loops->launcher_epoch, header.epoch, memory_order_relaxed);
    if (hello.features & 1)
        takeover_expect(link->dispatch->loops);
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
        handover_begin(link->dispatch->loops, message.version);
}

/* About an environment: for the loop that it belongs to. */
static bool is_of_another(struct launcher_link *link, struct packet *packet, uint64_t environment) {
    struct loops *loops = link->dispatch->loops;
    unsigned owner;

    if (loops->n == 1 || find(link, environment) != NULL)
        return false;
    owner = loops_owner(loops, environment);
    if (owner == link->dispatch->number) {
        /* It may lie in the mail. What was passed on comes behind it there; what the socket says does not. */
        if (packet->data == link->packet)
            loops_read_mail(link->dispatch);
        return false;
    }
    loops_pass_on(loops, owner, packet);
    return true;
}

static void drain_all(struct loops *loops) {
    loops_stop(loops);
    for (unsigned i = 0; i < loops->n; i++)
        dispatch_drain(loops->each[i], true);
    loops_go(loops);
}

/* Once around: a loop that does not turn any more keeps it, and the launcher sees that. */
static void on_beat_mail(struct dispatch *dispatch, struct mail *mail) {
    struct loops *loops = dispatch->loops;
    if (dispatch->number != 0) {
        loops_post(loops, (dispatch->number + 1) % loops->n, mail);
        return;
    }
    dispatch->beat.away = false;
    launcher_answer_beat(&dispatch->launcher, dispatch->beat.seq);
}

static void on_beat(struct launcher_link *link, uint32_t seq) {
    struct beat *beat = &link->dispatch->beat;
    if (link->dispatch->loops->n == 1) {
        launcher_answer_beat(link, seq);
        return;
    }
    beat->seq = seq;
    if (beat->away)
        return;
    beat->away = true;
    beat->mail = (struct mail){.deliver = on_beat_mail};
    loops_post(link->dispatch->loops, 1, &beat->mail);
}

void launcher_packet(struct launcher_link *link, struct packet *packet) {
    struct wire_header header;
    if (wire_peek(packet->data, packet->size, &header) < 0)
        return;
    switch (header.type) {
    case WIRE_HELLO:
        on_hello(link, packet);
        break;
    case WIRE_LAUNCHED:
        if (!is_of_another(link, packet, header.object))
            on_launched(link, packet);
        break;
    case WIRE_LAUNCH_FAILED:
        if (!is_of_another(link, packet, header.object))
            on_launch_failed(link, packet);
        break;
    case WIRE_ARENA:
        if (!is_of_another(link, packet, header.object))
            on_arena(link, packet);
        break;
    case WIRE_EXITED:
        if (!is_of_another(link, packet, header.object))
            on_exited(link, packet);
        break;
    case WIRE_PEER:
        on_peer(link, packet);
        break;
    case WIRE_BEAT:
        on_beat(link, header.seq);
        break;
    case WIRE_DRAIN:
        drain_all(link->dispatch->loops);
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
