/* The launcher's tables, loop, links and reaper, each by itself. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "launcher.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static void nothing(void *owner) {
    (void)owner;
}

/* In the C library's place: one in so many times the kernel has no memory. */
static unsigned short_every, sent;

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (short_every != 0 && ++sent % short_every == 0) {
        errno = ENOBUFS;
        return -1;
    }
    return syscall(SYS_sendmsg, fd, message, flags);
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

static void test_table(void) {
    enum { N = 1000 };
    static struct table_node nodes[N];
    struct table table;
    unsigned seen = 0;

    CHECK(table_init(&table, 64) == 0);
    for (unsigned i = 0; i < N; i++)
        table_add(&table, &nodes[i], (uint64_t)i * i);
    CHECK(table.count == N);
    for (unsigned i = 0; i < N; i++)
        CHECK(table_get(&table, (uint64_t)i * i) == &nodes[i]);
    CHECK(table_get(&table, 2) == NULL);
    table_for_each(node, &table) {
        seen++;
        if (node->key % 2 == 0)
            table_remove(&table, node);
    }
    CHECK(seen == N && table.count == N / 2);
    for (unsigned i = 0; i < N; i++)
        CHECK((table_get(&table, (uint64_t)i * i) != NULL) == (i % 2 == 1));
    table_remove(&table, &nodes[0]); /* not in it: nothing happens */
    CHECK(table.count == N / 2);
    table_free(&table);
}

/* ---- loop -------------------------------------------------------------------------------------------------------- */

struct timed {
    struct loop *loop;
    struct timer timer;
    struct timed *cancels;
    int *order, number;
};

static void timed_fire(void *owner) {
    struct timed *timed = owner;
    *timed->order = *timed->order * 10 + timed->number;
    if (timed->cancels != NULL)
        loop_timer_off(&timed->cancels->timer);
    if (timed->number == 9)
        timed->loop->stop = true;
}

static void test_timers(void) {
    struct loop loop;
    int order = 0;
    struct timed timers[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 9}};

    CHECK(loop_init(&loop) == 0);
    for (unsigned i = 0; i < 4; i++) {
        timers[i].loop = &loop;
        timers[i].order = &order;
    }
    loop_timer(&loop, &timers[3].timer, 9000, timed_fire, &timers[3]);
    loop_timer(&loop, &timers[1].timer, 3000, timed_fire, &timers[1]);
    loop_timer(&loop, &timers[0].timer, 1000, timed_fire, &timers[0]);
    loop_timer(&loop, &timers[2].timer, 3000, timed_fire, &timers[2]);
    loop_timer(&loop, &timers[1].timer, 2000, timed_fire, &timers[1]); /* set anew */
    timers[1].cancels = &timers[2];
    CHECK(loop_timer_on(&timers[0].timer));
    CHECK(loop_run(&loop, nothing, NULL) == 0);
    CHECK(order == 129);
    CHECK(!loop_timer_on(&timers[0].timer));
    loop_free(&loop);
}

struct reader {
    struct loop *loop;
    struct watch watch;
    struct reader *other;
    int calls;
};

static void reader_ready(void *owner, uint32_t events) {
    struct reader *reader = owner;
    (void)events;
    reader->calls++;
    loop_unwatch(reader->loop, &reader->other->watch); /* its event may lie in the same batch */
    reader->loop->stop = true;
}

static void test_a_removed_watch_is_not_called(void) {
    struct loop loop;
    struct reader readers[2] = {0};
    int pipes[2][2];

    CHECK(loop_init(&loop) == 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(pipe(pipes[i]) == 0 && write(pipes[i][1], "x", 1) == 1);
        readers[i].loop = &loop;
        readers[i].other = &readers[1 - i];
        CHECK(loop_watch(&loop, &readers[i].watch, pipes[i][0], EPOLLIN, reader_ready, &readers[i]) == 0);
    }
    CHECK(loop_run(&loop, nothing, NULL) == 0);
    CHECK(readers[0].calls + readers[1].calls == 1);
    loop_free(&loop);
}

/* ---- links ------------------------------------------------------------------------------------------------------- */

struct peer {
    struct loop loop;
    struct link link;
    int messages, closed, error;
    uint64_t last;
};

static void peer_message(void *owner, const struct wire_header *header, struct packet *packet) {
    struct peer *peer = owner;
    (void)packet;
    peer->messages++;
    peer->last = header->object;
}

static void peer_closed(void *owner, int error) {
    struct peer *peer = owner;
    peer->closed++;
    peer->error = error;
    peer->loop.stop = true;
}

static int peer_open(struct peer *peer) {
    int pair[2];

    memset(peer, 0, sizeof(*peer));
    CHECK(loop_init(&peer->loop) == 0);
    peer->link.message = peer_message;
    peer->link.closed = peer_closed;
    peer->link.owner = peer;
    CHECK(socketpair_seqpacket(pair, 3) == 0);
    CHECK(!link_is_open(&peer->link));
    CHECK(link_open(&peer->link, &peer->loop, pair[0], 7) == 0);
    CHECK(link_is_open(&peer->link));
    return pair[1];
}

static void peer_done(struct peer *peer, int other) {
    link_close(&peer->link);
    CHECK(!link_is_open(&peer->link));
    free(peer->link.buffer);
    loop_free(&peer->loop);
    close(other);
}

static void send_launch(struct link *link, uint64_t object) {
    struct wire_launch message = {.plan = 1};
    LINK_SEND(link, HEADER(object), launch, message, NULL, 0);
}

/* More than the socket or the kernel takes is kept and arrives whole and in order; the epoch is on each. */
static void test_what_the_socket_does_not_take_is_kept(unsigned every) {
    enum { N = 5000 };
    static uint8_t buffer[WIRE_MESSAGE_MAX];
    static struct peer peer;
    int other = peer_open(&peer);
    uint64_t next = 1;

    short_every = every;
    for (uint64_t i = 1; i <= N; i++)
        send_launch(&peer.link, i);
    CHECK(peer.link.queued > 0);
    while (next <= N) {
        struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
        struct wire_header header;
        int n = packet_receive(other, &packet, MSG_DONTWAIT);
        if (n == -EAGAIN) { /* let the loop send on */
            struct timed stop = {.loop = &peer.loop, .order = &(int){0}, .number = 9};
            peer.loop.stop = false;
            loop_timer(&peer.loop, &stop.timer, 0, timed_fire, &stop);
            CHECK(loop_run(&peer.loop, nothing, NULL) == 0);
            continue;
        }
        CHECK(n > 0 && wire_peek(packet.data, packet.size, &header) == 0);
        CHECK(header.object == next++ && header.epoch == 7);
    }
    CHECK(peer.link.queued == 0 && peer.closed == 0 && peer.link.error == 0);
    short_every = 0;
    peer_done(&peer, other);
}

static void test_a_peer_that_never_reads_is_given_up(void) {
    static struct peer peer;
    int other = peer_open(&peer);

    for (uint64_t i = 0; i < LINK_QUEUE + 20000u && peer.link.error == 0; i++)
        send_launch(&peer.link, i);
    CHECK(peer.link.error == -ENOBUFS && peer.closed == 0); /* told from the loop, not from within a send */
    CHECK(loop_run(&peer.loop, nothing, NULL) == 0);
    CHECK(peer.closed == 1 && peer.error == -ENOBUFS);
    peer_done(&peer, other);
}

static void test_what_is_no_packet_of_ours_closes(void) {
    static const uint8_t bad[WIRE_HEADER_SIZE] = {[2] = 99};
    static struct peer peer;
    int other = peer_open(&peer);

    CHECK(packet_send(other, bad, sizeof(bad), NULL, 0) == 0);
    CHECK(loop_run(&peer.loop, nothing, NULL) == 0);
    CHECK(peer.closed == 1 && peer.error == -EBADMSG && peer.messages == 0);
    peer_done(&peer, other);

    other = peer_open(&peer);
    CHECK(shutdown(other, SHUT_WR) == 0);
    CHECK(loop_run(&peer.loop, nothing, NULL) == 0);
    CHECK(peer.closed == 1 && peer.error == 0);
    peer_done(&peer, other);
}

/* ---- reaper ------------------------------------------------------------------------------------------------------ */

struct waiting {
    struct loop *loop;
    struct child child;
    int status, left;
};

static void waiting_exited(void *owner, int status) {
    struct waiting *waiting = owner;
    waiting->status = status;
    waiting->loop->stop = --waiting->left == 0;
}

static pid_t child_that_leaves(int status) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(status);
    CHECK(pid > 0);
    return pid;
}

static void test_reaper(void) {
    static struct reaper reaper;
    struct loop loop;
    int status;

    CHECK(loop_init(&loop) == 0);
    reaper.before = reaper.stop = nothing;
    CHECK(reaper_start(&reaper, &loop) == 0);
    pid_t unclaimed = child_that_leaves(3);
    struct waiting waiting = {.loop = &loop, .left = 1};
    reaper_add(&reaper, &waiting.child, child_that_leaves(5), waiting_exited, &waiting);
    CHECK(reaper_knows(&reaper, waiting.child.pid) && !reaper_knows(&reaper, unclaimed));
    CHECK(loop_run(&loop, nothing, NULL) == 0);
    CHECK(WEXITSTATUS(waiting.status) == 5 && waiting.child.pid == 0);
    bool claimed = false;
    for (int tries = 0; tries < 5000 && !claimed; tries++) {
        reaper_collect(&reaper);
        claimed = reaper_claim_early(&reaper, unclaimed, &status);
        if (!claimed)
            usleep(1000);
    }
    CHECK(claimed && WEXITSTATUS(status) == 3);
    CHECK(!reaper_claim_early(&reaper, unclaimed, &status)); /* once */
    reaper_free(&reaper);
    loop_free(&loop);
}

int main(void) {
    (void)signal(SIGPIPE, SIG_IGN);
    test_table();
    test_timers();
    test_a_removed_watch_is_not_called();
    test_what_the_socket_does_not_take_is_kept(0);
    test_what_the_socket_does_not_take_is_kept(7);
    test_a_peer_that_never_reads_is_given_up();
    test_what_is_no_packet_of_ours_closes();
    test_reaper();
    return 0;
}
