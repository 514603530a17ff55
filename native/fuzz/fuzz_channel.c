/* An environment's channel: the input is cut into packets (u16 length each), which arrive as a dispatcher would send them:
 * START, then INVOKEs with their CHUNKs. Every slice must lie within its packet, and no body may outgrow what was
 * announced. Packets too long for the input are taken as far as it goes.
 *
 * Then once more through a socket, as far as it holds them, with ATTACH and ARENA, which bring memory, and with answers: by
 * the socket, in the arena, in parts. What comes out of it must be packets that decode. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "zygote/configuration.h"
#include "zygote/endpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at, *end;
};

/* The next packet, in memory of exactly its size, so that the sanitizer sees each read beyond. */
static bool next_packet(struct input *input, struct endpoint *endpoint) {
    size_t size, left;
    free(endpoint->packet);
    endpoint->packet = NULL;
    if (input->end - input->at < 2)
        return false;
    size = (size_t)input->at[0] | (size_t)input->at[1] << 8;
    input->at += 2;
    left = (size_t)(input->end - input->at);
    endpoint->size = size < left ? size : left;
    endpoint->packet = malloc(endpoint->size > 0 ? endpoint->size : 1);
    if (endpoint->packet == NULL)
        abort();
    memcpy(endpoint->packet, input->at, endpoint->size);
    input->at += endpoint->size;
    return true;
}

static void check(const struct endpoint *endpoint, struct wire_slice slice) {
    if (slice.size > 0 &&
        (slice.data < endpoint->packet || slice.data + slice.size > endpoint->packet + endpoint->size))
        abort();
}

static void check_start(struct endpoint *endpoint) {
    struct configuration configuration;
    struct wire_start start;
    if (endpoint_take_start(endpoint, &start) < 0)
        return;
    check(endpoint, start.log_stream);
    check(endpoint, start.configuration);
    if (configuration_read(&start, &configuration) == 0) {
        if (configuration_variable(&configuration, "_HANDLER") != configuration.handler)
            abort();
        configuration_done(&configuration);
    }
}

/* False: the process would end here. */
static bool check_invocation(struct input *input, struct endpoint *endpoint) {
    struct wire_invoke invoke;
    uint32_t total, filled;
    uint8_t *body;
    bool good = true;

    if (endpoint_take_invoke(endpoint, &invoke) < 0)
        return false;
    check(endpoint, invoke.arn);
    check(endpoint, invoke.trace);
    check(endpoint, invoke.client_context);
    check(endpoint, invoke.cognito_identity);
    check(endpoint, invoke.tenant);
    check(endpoint, invoke.body);
    total = invoke.total;
    filled = invoke.body.size;
    body = malloc(total > 0 ? total : 1);
    if (body == NULL)
        abort();
    if (filled > 0)
        memcpy(body, invoke.body.data, filled);
    while (good && filled < total) {
        good = next_packet(input, endpoint) && endpoint_take_chunk(endpoint, body, total, &filled) == 0;
        if (filled > total)
            abort();
    }
    free(body);
    return good;
}

/* ---- through a socket ------------------------------------------------------------------------------------------- */

#define ARENA_MOST (1u << 20)

/* All of the packets that the socket takes. ARENA brings memory of the size that it speaks of, or less, or none. */
static void send_all(const uint8_t *data, size_t size, int fd) {
    const uint8_t *end = data + size;
    uint32_t announced = 0;

    while (end - data >= 2) {
        size_t length = (size_t)data[0] | (size_t)data[1] << 8, left = (size_t)(end - data - 2);
        _cleanup_close_ int arena = -1;
        struct wire_header header;
        struct wire_attach attach;
        data += 2;
        length = MIN(length, left);
        if (wire_attach_decode(data, length, &header, &attach) == 0)
            announced = attach.size;
        else if (announced > 0 && announced <= ARENA_MOST && wire_peek(data, length, &header) == 0 &&
            header.type == WIRE_ARENA && (length & 3) != 3) {
            arena = memfd_create("arena", MFD_CLOEXEC);
            if (arena < 0 || ftruncate(arena, announced) < 0)
                abort();
        }
        if (length > 0 && packet_send(fd, data, length, &arena, arena >= 0) < 0)
            return;
        data += length;
    }
}

static void hear_all(int fd) {
    static uint8_t packet[WIRE_MESSAGE_MAX];
    struct wire_header header;
    ssize_t n;
    while ((n = recv(fd, packet, sizeof(packet), MSG_DONTWAIT)) > 0)
        if (wire_peek(packet, (size_t)n, &header) < 0)
            abort();
}

/* Its answer, by what the event's id says. False: the process would end here. */
static bool answer(struct endpoint *endpoint, const struct wire_invoke *invoke, int theirs) {
    static uint8_t body[ENDPOINT_ARENA_LEAST + 4096];
    uint8_t how = invoke->id[0], id[16];
    struct wire_slice text = {body, how};
    int r;

    memcpy(id, invoke->id, sizeof(id));
    if (how < 32) {
        r = endpoint_send_head(endpoint, id, text, text);
        if (r == 0)
            r = endpoint_send_part(endpoint, body, how * 100u);
        if (r == 0)
            r = endpoint_send_end(endpoint, how & 1, text, text);
    } else {
        bool large = how < 128 && endpoint->arena_offered && endpoint->arena_size >= sizeof(body);
        r = endpoint_send_result(endpoint, id, how & 1, text, body, large ? sizeof(body) : how);
    }
    hear_all(theirs);
    return r == 0;
}

/* An event's body, of which the rest may follow. */
static bool take_body(struct endpoint *endpoint, const struct wire_invoke *invoke) {
    uint32_t filled = invoke->body.size, total = invoke->total;
    uint8_t *body = malloc(total > 0 ? total : 1);
    bool good = body != NULL;

    if (good && filled > 0)
        memcpy(body, invoke->body.data, filled); /* an arena's too: each byte is read */
    while (good && filled < total)
        good = endpoint_wait(endpoint) > 0 && endpoint_take_chunk(endpoint, body, total, &filled) == 0;
    free(body);
    return good;
}

static void talk(const uint8_t *data, size_t size) {
    struct endpoint endpoint = ENDPOINT_INIT;
    struct wire_start start;
    struct wire_invoke invoke;
    int pair[2];

    if (socketpair_seqpacket(pair, 3) < 0 || endpoint_open(&endpoint) < 0)
        abort();
    send_all(data, size, pair[0]);
    if (shutdown(pair[0], SHUT_WR) < 0)
        abort();
    endpoint_attach(&endpoint, pair[1]);
    if (endpoint_wait(&endpoint) > 0)
        (void)endpoint_take_start(&endpoint, &start);
    while (endpoint_wait(&endpoint) > 0 && endpoint_take_invoke(&endpoint, &invoke) == 0) {
        hear_all(pair[0]);
        if (endpoint.arena != NULL && invoke.body.data == endpoint.arena && invoke.body.size > endpoint.arena_size)
            abort(); /* behind it lies whatever was mapped there */
        if (!take_body(&endpoint, &invoke) || !answer(&endpoint, &invoke, pair[0]))
            break;
    }
    endpoint_done(&endpoint);
    close(pair[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {.at = data, .end = data + size};
    struct endpoint endpoint = ENDPOINT_INIT;

    if (size > 0)
        talk(data, size);

    if (next_packet(&input, &endpoint))
        check_start(&endpoint);
    while (next_packet(&input, &endpoint) && check_invocation(&input, &endpoint))
        ;
    free(endpoint.packet);
    return 0;
}
