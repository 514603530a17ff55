/* The stage of fuzz_handover.c: two dispatchers, and the launcher between them, which passes on what the old one hands over,
 * loses it, changes it, or makes it up. */
#pragma once

#include <netinet/in.h>

#include "dispatch_stage.h"

#define OURS 0x4000u /* ids of environments that were never launched */
#define INPUTS_MAX 4 /* connections that were made up */

struct pair {
    struct stage *old, *new;
    bool over;              /* the old one would have left */
    int inputs[INPUTS_MAX]; /* our ends of what was made up */
    unsigned n_inputs;
    unsigned made_up;
};

/* ---- between them --------------------------------------------------------------------------------------------------- */

struct passed {
    struct wire_header header;
    struct wire_handed handed;
    uint8_t state[WIRE_HANDED_STATE_MAX], known[WIRE_HANDED_KNOWN_MAX];
    int fds[DESCRIPTORS_MAX];
    unsigned n_fds;
};

static void drop(struct passed *passed) {
    for (unsigned i = 0; i < passed->n_fds; i++)
        close(passed->fds[i]);
    passed->n_fds = 0;
}

/* What the launcher knows of an environment of ours: as which each descriptor was given with it. */
static void know(struct passed *passed) {
    struct wire_header header;
    struct wire_environment_handed state;
    unsigned n = 0;

    passed->handed.plan = 0;
    passed->handed.uid = 1000;
    if (wire_environment_handed_decode(passed->handed.state.data, passed->handed.state.size, &header, &state) == 0)
        for (unsigned flag = 1; flag < 64 && n < passed->n_fds; flag <<= 1)
            if (state.descriptors & flag)
                passed->known[n++] = (uint8_t)(flag & 31);
    passed->handed.known = (struct wire_slice){passed->known, n};
}

static void deliver(struct stage *new, struct passed *passed) {
    int n = wire_handed_encode(&passed->header, &passed->handed, new->packet, WIRE_MESSAGE_MAX);
    CHECK(n > 0);
    (void)packet_send(new->launcher, new->packet, (size_t)n, passed->fds, passed->n_fds);
    drop(passed);
}

/* It is known by this id to the launcher. When the new one hears of another, or of no environment, it has no part in it. */
static void deliver_environment(struct pair *pair, struct passed *passed, uint64_t id) {
    bool meant = passed->header.object == id && passed->handed.kind == WIRE_HANDED_KIND_ENVIRONMENT;
    struct actor *actor = actor_of(pair->new, id);

    deliver(pair->new, passed);
    if (!meant && actor != NULL && actor->granted)
        exited(pair->new, actor, SIGKILL);
}

/* Its owner is the new one now, who has it ended where it does not take it. No room there: it is ended. */
static bool change_owner(struct pair *pair, uint64_t environment) {
    struct actor *from = actor_of(pair->old, environment), *to = actor_of(pair->new, 0);

    if (from == NULL || environment == 0)
        return false;
    if (to == NULL) {
        exited(pair->old, from, SIGKILL);
        return false;
    }
    *to = *from;
    *from = ABSENT;
    return true;
}

/* Something of it is another. */
static void spoil(struct pair *pair, struct passed *passed, struct tape *tape) {
    uint8_t how = take(tape), value = take(tape);

    switch (how % 8) {
    case 0 ... 2:
        if (passed->handed.state.size > 0)
            passed->state[(how / 8 * 256u + take(tape)) % passed->handed.state.size] ^= value | 1;
        break;
    case 3:
        if (passed->handed.known.size > 0)
            passed->known[value % passed->handed.known.size] ^= (uint8_t)(1u << value % 8);
        break;
    case 4: /* one is missing, or they are in another order */
        if (passed->n_fds > 0 && value & 1)
            close(passed->fds[--passed->n_fds]);
        else if (passed->n_fds > 1) {
            int first = passed->fds[0];
            passed->fds[0] = passed->fds[1];
            passed->fds[1] = first;
        }
        break;
    case 5:
        passed->handed.state.size = MIN(passed->handed.state.size, value);
        break;
    case 6:
        passed->handed.plan = value & 1;
        passed->handed.version = value >> 1 & 3;
        break;
    default:
        if (value & 8)
            passed->header.object = pair->new->actors[value % ACTORS].environment;
        else
            passed->handed.kind = value % 6;
    }
}

/* The next thing that the old one says, when it is HANDED; everything else is obeyed on the way. */
static bool hear_old(struct pair *pair, struct passed *passed) {
    struct stage *old = pair->old;
    struct packet packet = {.data = old->packet, .capacity = WIRE_MESSAGE_MAX};
    struct wire_header header;

    while (packet_receive(old->launcher, &packet, MSG_DONTWAIT) > 0) {
        CHECK(wire_peek(packet.data, packet.size, &header) == 0);
        if (header.type != WIRE_HANDED) {
            obey(old, &header);
            packet_close_fds(&packet);
            continue;
        }
        CHECK(wire_handed_decode(packet.data, packet.size, &passed->header, &passed->handed) == 0);
        memcpy(passed->state, passed->handed.state.data, passed->handed.state.size);
        passed->handed.state.data = passed->state;
        passed->n_fds = packet.n_fds;
        memcpy(passed->fds, packet.fds, sizeof(passed->fds));
        return true;
    }
    return false;
}

static void pass_on(struct pair *pair, struct tape *tape, uint8_t how) {
    struct passed passed = {.n_fds = 0};
    uint64_t id;
    bool known;

    if (!hear_old(pair, &passed))
        return;
    passed.header.epoch = 0;
    id = passed.header.object;
    known = passed.handed.kind != WIRE_HANDED_KIND_ENVIRONMENT || change_owner(pair, passed.header.object);
    know(&passed);
    if (how > 240 || !known) { /* lost: as when the new one just died */
        struct actor *actor = actor_of(pair->new, passed.header.object);
        drop(&passed);
        if (passed.header.object != 0 && actor != NULL && actor->granted)
            exited(pair->new, actor, SIGKILL);
        return;
    }
    if (how > 160)
        spoil(pair, &passed, tape);
    deliver_environment(pair, &passed, id);
}

/* ---- what is made up ------------------------------------------------------------------------------------------------ */

/* One that could be what is asked for, or not. Ours of a pair, or -1. */
static int make_descriptor(uint8_t kind, int *ret_ours) {
    int pair[2] = {-1, -1};

    *ret_ours = -1;
    switch (kind % 8) {
    case 0 ... 1:
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        break;
    case 2:
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        break;
    case 3 ... 4:
        CHECK(pipe2(pair, O_CLOEXEC | O_NONBLOCK) == 0);
        break;
    case 5:
        return memfd_create("handed", MFD_CLOEXEC);
    case 6: {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0 && listen(fd, 1) == 0);
        return fd;
    }
    default:
        return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    *ret_ours = pair[1];
    return pair[0];
}

/* An environment that nobody launched, with descriptors as the tape has them; the launcher vouches for them. */
static void make_environment(struct pair *pair, struct tape *tape) {
    struct actor *actor = actor_of(pair->new, 0);
    uint8_t flags = take(tape), how = take(tape);
    bool runtime_api = how % 4 == 3;
    struct wire_environment_handed state = {.descriptors = flags & 15 ? flags & 63
            : runtime_api                                             ? 16 | 32 | 2
                                                                      : 1 | 2,
        .target = 1 + runtime_api,
        .incarnation = how,
        .frozen = how % 32 == 0,
        .runtime_api = runtime_api != (how % 32 == 1),
        .served = how,
        .idle_us = how & 2 ? UINT64_MAX : how,
        .peak_kb = how};
    struct passed passed = {.header = {.object = OURS + pair->made_up++ % 256}};
    int ours;

    if (actor == NULL)
        return;
    *actor = ABSENT;
    actor->environment = passed.header.object;
    actor->granted = actor->initialised = true;
    for (unsigned i = 0; i < 6; i++) {
        static const uint8_t fitting[] = {0, 3, 5, 5, 6, 7};
        if ((state.descriptors & 1u << i) == 0)
            continue;
        passed.fds[passed.n_fds++] = make_descriptor(how & 4 ? take(tape) : fitting[i], &ours);
        if (i == 0)
            actor->channel = ours;
        else if (i == 1)
            actor->log = ours;
        else if (ours >= 0)
            close(ours);
    }
    passed.handed =
        (struct wire_handed){.version = 1, .kind = WIRE_HANDED_KIND_ENVIRONMENT, .state.data = passed.state};
    int n = wire_environment_handed_encode(&passed.header, &state, passed.state, sizeof(passed.state));
    CHECK(n > 0);
    passed.handed.state.size = (uint32_t)n;
    know(&passed);
    if (how > 200)
        spoil(pair, &passed, tape);
    deliver_environment(pair, &passed, OURS + (pair->made_up - 1) % 256);
}

/* A caller's connection with what was read of its next request: any bytes. */
static void make_connection(struct pair *pair, struct tape *tape) {
    static const char good[] =
        "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    uint8_t kind = take(tape), size = take(tape);
    struct passed passed = {
        .handed = {.version = 1, .kind = WIRE_HANDED_KIND_CONNECTION, .state.data = passed.state}, .n_fds = 1};
    struct wire_header header = {0};
    struct wire_connection_handed state = {.owed = kind >> 7};

    if (pair->n_inputs == INPUTS_MAX)
        return;
    if (size > 128)
        state.input = (struct wire_slice){(const uint8_t *)good, MIN(size - 128u, sizeof(good) - 1)};
    else
        state.input = (struct wire_slice){tape->at, (uint32_t)MIN(size, (size_t)(tape->end - tape->at))};
    if (size <= 128)
        tape->at += state.input.size;
    int n = wire_connection_handed_encode(&header, &state, passed.state, sizeof(passed.state));
    CHECK(n > 0);
    passed.handed.state.size = (uint32_t)n;
    passed.fds[0] = make_descriptor(kind & 7, &pair->inputs[pair->n_inputs]);
    if (pair->inputs[pair->n_inputs] >= 0)
        pair->n_inputs++;
    deliver(pair->new, &passed);
}

/* Bytes of the tape: as the state of one, or as the whole packet. */
static void make_noise(struct pair *pair, struct tape *tape) {
    uint8_t how = take(tape), length = take(tape);
    uint32_t size = (uint32_t)MIN(length, (size_t)(tape->end - tape->at));
    struct passed passed = {
        .header.object = OURS, .handed = {.version = how & 3, .kind = how >> 2 & 7, .state = {tape->at, size}}};

    if (how > 128)
        send_to(pair->new->launcher, tape->at, (int)size);
    else
        deliver(pair->new, &passed);
    tape->at += size;
}

static void tell(struct stage *new, uint8_t kind, uint32_t version) {
    struct passed passed = {.handed = {.kind = kind, .version = version}};
    deliver(new, &passed);
}
