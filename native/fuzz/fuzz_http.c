/* HTTP connections of the dispatcher's library: the first byte says who calls (trusted, keyed, refused), the rest are the
 * bytes of one connection, in pieces whose sizes the input decides. What comes back must be well-formed answers and
 * nothing else, and at the end nothing may be left: no call, no byte of payload, no connection. The launcher refuses
 * every launch, so that every invocation that gets so far is answered with that. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dispatch/sigv4.h"
#include "dispatcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ANSWERS_MAX (1u << 20)
struct stage {
    struct dispatch dispatch;
    int launcher, control;
    uint8_t packet[WIRE_MESSAGE_MAX];
    uint8_t answers[ANSWERS_MAX];
    size_t n_answers;
};

static void send_to(int fd, const uint8_t *data, int size) {
    CHECK(size > 0 && send(fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL) == size);
}

/* Signatures are of now: this day, as the corpus has it, becomes today, and its midnight this second. */
#define DAY "20260102"
#define MOMENT DAY "T000000Z"

static void today(char ret_moment[17]) {
    const time_t now = time(NULL);
    struct tm tm;
    (void)strftime(ret_moment, 17, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
}

static void make_present(uint8_t *data, size_t size) {
    char moment[17];
    uint8_t *at = data;
    today(moment);
    while ((at = memmem(at, size - (size_t)(at - data), DAY, 8)) != NULL) {
        bool whole = size - (size_t)(at - data) >= 16 && memcmp(at, MOMENT, 16) == 0;
        memcpy(at, moment, whole ? 16 : 8);
    }
}

static void put_tables(struct stage *stage) {
    uint8_t signing[40] = DAY;
    uint8_t token[32];
    struct wire_header header = {.generation = 1};
    struct wire_hello hello = {.role = WIRE_ROLE_CONTROL};
    struct wire_sync_begin begin = {0};
    struct wire_sync_end end = {0};
    struct wire_put_target target = dispatcher_target();
    struct wire_put_route route = dispatcher_route();
    struct wire_put_principal principal = {
        .key_id = {(const uint8_t *)"K", 1}, .token = {token, 32}, .signing = {signing, sizeof(signing)}};
    struct wire_credit credit = {.n = 2};
    uint8_t *packet = stage->packet;

    make_present(signing, 8);
    sha256((const uint8_t *)"t", 1, token);
    send_to(stage->control, packet, wire_hello_encode(&header, &hello, packet, WIRE_MESSAGE_MAX));
    send_to(stage->control, packet, wire_credit_encode(&header, &credit, packet, WIRE_MESSAGE_MAX));
    header.seq = 1;
    send_to(stage->control, packet, wire_sync_begin_encode(&header, &begin, packet, WIRE_MESSAGE_MAX));
    header.seq = 2;
    header.object = 1;
    send_to(stage->control, packet, wire_put_target_encode(&header, &target, packet, WIRE_MESSAGE_MAX));
    header.seq = 3;
    send_to(stage->control, packet, wire_put_route_encode(&header, &route, packet, WIRE_MESSAGE_MAX));
    header.seq = 4;
    send_to(stage->control, packet, wire_put_principal_encode(&header, &principal, packet, WIRE_MESSAGE_MAX));
    header.seq = 5;
    send_to(stage->control, packet, wire_sync_end_encode(&header, &end, packet, WIRE_MESSAGE_MAX));
}

static struct stage *stage_open(void) {
    struct stage *stage = calloc(1, sizeof(*stage));

    CHECK(stage != NULL);
    dispatcher_open(&stage->dispatch, &stage->launcher, &stage->control);
    put_tables(stage);
    dispatcher_synced(&stage->dispatch);
    return stage;
}

static void refuse_launches(struct stage *stage) {
    struct wire_header header;
    struct wire_launch_failed message = {.error = 11};
    ssize_t n;
    while ((n = recv(stage->launcher, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT)) > 0) {
        CHECK(wire_peek(stage->packet, (size_t)n, &header) == 0);
        if (header.type != WIRE_LAUNCH)
            continue;
        header = (struct wire_header){.object = header.object};
        send_to(stage->launcher, stage->packet,
            wire_launch_failed_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
    }
}

static void turn(struct stage *stage, int caller) {
    ssize_t n;
    CHECK(dispatch_turn(&stage->dispatch, 0) == 0);
    refuse_launches(stage);
    while (caller >= 0 && stage->n_answers < ANSWERS_MAX &&
        (n = recv(caller, stage->answers + stage->n_answers, ANSWERS_MAX - stage->n_answers, MSG_DONTWAIT)) > 0)
        stage->n_answers += (size_t)n;
}

/* One answer after the other; the last one may be cut. */
static void check_answers(const struct stage *stage) {
    static const char length[] = "\r\nContent-Length: ";
    const char *at = (const char *)stage->answers, *end = at + stage->n_answers;
    if (stage->n_answers == 0 || at[0] != 'H')
        return; /* frames of HTTP/2 begin with a length */
    while (at < end) {
        const char *head = memmem(at, (size_t)(end - at), "\r\n\r\n", 4), *field;
        int status;
        if (head == NULL)
            return;
        CHECK(sscanf(at, "HTTP/1.1 %3d ", &status) == 1 && status >= 100 && status < 600);
        field = memmem(at, (size_t)(head - at), length, sizeof(length) - 1);
        CHECK((field != NULL) == (status != 100 && status != 204));
        at = head + 4;
        if (field != NULL)
            at += strtoul(field + sizeof(length) - 1, NULL, 10);
    }
}

/* As the control plane: what it is given is closed with the packet, and room is made for the next. What is reported
 * besides must not fill the socket. */
static void take_forwards(struct stage *stage) {
    struct wire_credit credit = {.n = 1};
    struct wire_header header;
    ssize_t n;
    while ((n = recv(stage->control, stage->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT)) > 0) {
        CHECK(wire_peek(stage->packet, (size_t)n, &header) == 0);
        if (header.type != WIRE_FORWARD)
            continue;
        header = (struct wire_header){.object = header.object};
        send_to(stage->control, stage->packet, wire_credit_encode(&header, &credit, stage->packet, WIRE_MESSAGE_MAX));
    }
    CHECK(dispatch_turn(&stage->dispatch, 0) == 0);
}

static void run(struct stage *stage, const uint8_t *data, size_t size) {
    struct counters_node *node = stage->dispatch.counters.node;
    size_t at = 1;
    int pair[2];

    stage->n_answers = 0;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(http_adopt(&stage->dispatch.http, pair[1], (enum http_trust)(data[0] % 3)) == 0);
    while (at < size) {
        size_t piece = data[0] & 64 ? size - at : MIN(1u + data[(at * 31 + 7) % size], size - at);
        ssize_t n = send(pair[0], data + at, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            break;
        at += (size_t)n;
        turn(stage, pair[0]);
    }
    if (data[0] & 128)
        (void)shutdown(pair[0], SHUT_WR);
    for (unsigned i = 0; i < 4; i++)
        turn(stage, pair[0]);
    check_answers(stage);
    close(pair[0]);
    for (unsigned round = 0; node->connections > 0 || node->environments > 0 || node->calls_open > 0; round++) {
        CHECK(round < 100);
        turn(stage, -1);
    }
    CHECK(node->logic_errors == 0 && node->waiting == 0 && stage->dispatch.in_use == 0);
    take_forwards(stage);
    CHECK(stage->dispatch.budget.used == 0 && stage->dispatch.http.unproven == 0);
    CHECK(
        node->calls == node->answers_success + node->answers_function_error + node->answers_refused + node->abandoned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct stage *stage;
    uint8_t *copy;

    if (size < 2)
        return 0;
    if (stage == NULL)
        stage = stage_open();
    copy = malloc(size);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    make_present(copy, size);
    run(stage, copy, size);
    free(copy);
    return 0;
}
