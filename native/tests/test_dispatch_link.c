/* The dispatcher's link to the launcher: what the kernel does not take now (no memory for a packet, too many descriptors on
 * their way) is sent later. sendmsg is replaced: it fails as often as it is told to. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/launcher.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static unsigned failures;
static int failure;

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (failures > 0) {
        failures--;
        errno = failure;
        return -1;
    }
    return syscall(SYS_sendmsg, fd, message, flags);
}

static struct dispatch dispatch;
static struct loops loops = {.n = 1, .each = {&dispatch}};
static struct environment environment = {.dispatch = &dispatch, .id = 7};
static uint8_t buffer[WIRE_MESSAGE_MAX], out[WIRE_MESSAGE_MAX];

static void expect(int peer, uint8_t type, uint64_t object) {
    struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
    struct wire_header header;

    for (unsigned i = 0; packet_receive(peer, &packet, MSG_DONTWAIT) <= 0; i++) {
        CHECK(i < 20);
        CHECK(loop_turn(&dispatch.loop, false, 1000) == 0);
    }
    CHECK(wire_peek(packet.data, packet.size, &header) == 0 && header.type == type && header.object == object);
    CHECK(packet.n_fds == (type == WIRE_HELLO));
    packet_close_fds(&packet);
}

static void test_nothing_is_lost(int error) {
    struct launcher_link *link = &dispatch.launcher;
    int ends[2];

    failure = error;
    CHECK(socketpair_seqpacket(ends, 3) == 0 && loop_open(&dispatch.loop) == 0);
    dispatch.loops = &loops;
    dispatch.packet_out = out;
    dispatch.counters.fd = ends[1];
    list_init(&environment.outbox);
    environment.ended = false;
    failures = 2;
    CHECK(launcher_open(link, &dispatch, ends[0]) == 0);
    expect(ends[1], WIRE_HELLO, 0);
    failures = 3;
    launcher_serving(link);
    launcher_end_unknown(link, 5);
    launcher_end(&environment, WIRE_END_REASON_SPINDOWN);
    expect(ends[1], WIRE_SERVING, 0);
    expect(ends[1], WIRE_END, 5);
    expect(ends[1], WIRE_END, 7);
    CHECK(list_empty(&link->outbox) && !link->writing);
    failures = 1;
    CHECK(launcher_hand(link, WIRE_HANDED_KIND_ALL, 0, NULL, 0, NULL, 0) == -EAGAIN && link->writing);
    launcher_close(link);
    loop_close(&dispatch.loop);
    close(ends[1]);
}

int main(void) {
    test_nothing_is_lost(ENOBUFS);
    test_nothing_is_lost(ENOMEM);
    test_nothing_is_lost(ETOOMANYREFS);
    return 0;
}
