/* The environment's channel against a dispatcher played here: what is sent decodes to what was meant, in packets within
 * their bounds; what arrives malformed is refused and leaves outputs untouched. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "protocol/wire.h"
#include "zygote/endpoint.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define ENVIRONMENT 77u

struct pair {
    struct endpoint endpoint;
    int dispatcher;
    uint8_t *packet;
};

static struct wire_slice slice(const char *text) {
    return (struct wire_slice){.data = (const uint8_t *)text, .size = (uint32_t)strlen(text)};
}

static struct pair pair_open(void) {
    struct pair pair = {.endpoint = ENDPOINT_INIT, .packet = malloc(WIRE_MESSAGE_MAX + 1)};
    int sockets[2];
    CHECK(pair.packet != NULL && socketpair_seqpacket(sockets, 0) == 0);
    CHECK(endpoint_open(&pair.endpoint) == 0);
    endpoint_attach(&pair.endpoint, sockets[0]);
    CHECK((fcntl(sockets[0], F_GETFD) & FD_CLOEXEC) != 0);
    pair.dispatcher = sockets[1];
    return pair;
}

static void pair_close(struct pair *pair) {
    endpoint_done(&pair->endpoint);
    CHECK(pair->endpoint.fd == -1);
    close(pair->dispatcher);
    free(pair->packet);
}

static void deliver(struct pair *pair, int size) {
    CHECK(size > 0 && send(pair->dispatcher, pair->packet, (size_t)size, 0) == size);
    CHECK(endpoint_wait(&pair->endpoint) == size);
}

static void start(struct pair *pair) {
    const struct wire_header header = {.object = ENVIRONMENT};
    const struct wire_start message = {
        .init_type = 1, .log_format = 1, .log_stream = slice("stream"), .configuration = slice("{}")};
    struct wire_start taken = {0};
    deliver(pair, wire_start_encode(&header, &message, pair->packet, WIRE_MESSAGE_MAX));
    CHECK(endpoint_take_start(&pair->endpoint, &taken) == 0);
    CHECK(taken.init_type == 1 && taken.log_format == 1);
    CHECK(taken.log_stream.size == 6 && memcmp(taken.log_stream.data, "stream", 6) == 0);
    CHECK(taken.configuration.size == 2 && pair->endpoint.object == ENVIRONMENT);
}

static void test_start(void) {
    struct pair pair = pair_open();
    struct wire_start taken;
    start(&pair);
    const struct wire_header header = {.object = 1};
    deliver(&pair, wire_ready_encode(&header, &(struct wire_ready){0}, pair.packet, WIRE_MESSAGE_MAX));
    memset(&taken, 0x5a, sizeof(taken));
    CHECK(endpoint_take_start(&pair.endpoint, &taken) == -EBADMSG);
    CHECK(taken.init_type == 0x5a && pair.endpoint.object == ENVIRONMENT);
    pair_close(&pair);
}

/* The status of an INVOKE with that total and that many bytes in its first part. */
static int invoke_status(struct pair *pair, uint32_t total, uint32_t part) {
    static uint8_t body[WIRE_INVOKE_BODY_MAX];
    const struct wire_header header = {.object = ENVIRONMENT};
    const struct wire_invoke message = {.total = total, .body = {.data = body, .size = part}};
    struct wire_invoke taken = {.deadline_ms = 5};
    deliver(pair, wire_invoke_encode(&header, &message, pair->packet, WIRE_MESSAGE_MAX));
    int r = endpoint_take_invoke(&pair->endpoint, &taken);
    CHECK(r == 0 ? taken.total == total && taken.body.size == part : taken.deadline_ms == 5);
    return r;
}

static void test_invoke_bounds(void) {
    struct pair pair = pair_open();
    CHECK(invoke_status(&pair, 0, 0) == 0);
    CHECK(invoke_status(&pair, 10, 10) == 0);
    CHECK(invoke_status(&pair, 11, 10) == 0);
    CHECK(invoke_status(&pair, 9, 10) == -EBADMSG);
    CHECK(invoke_status(&pair, ENDPOINT_BODY_MAX, WIRE_INVOKE_BODY_MAX) == 0);
    CHECK(invoke_status(&pair, ENDPOINT_BODY_MAX + 1, 10) == -EBADMSG);
    CHECK(invoke_status(&pair, UINT32_MAX, 10) == -EBADMSG);
    pair_close(&pair);
}

static int chunk_status(struct pair *pair, uint8_t *body, uint32_t total, uint32_t *filled, const char *data) {
    const struct wire_header header = {.object = ENVIRONMENT};
    const struct wire_chunk message = {.data = slice(data)};
    deliver(pair, wire_chunk_encode(&header, &message, pair->packet, WIRE_MESSAGE_MAX));
    return endpoint_take_chunk(&pair->endpoint, body, total, filled);
}

static void test_chunks(void) {
    struct pair pair = pair_open();
    uint8_t *body = malloc(6);
    uint32_t filled = 2;
    CHECK(body != NULL);
    memcpy(body, "ab", 2);
    CHECK(chunk_status(&pair, body, 6, &filled, "c") == 0 && filled == 3);
    CHECK(chunk_status(&pair, body, 6, &filled, "") == -EBADMSG && filled == 3);
    CHECK(chunk_status(&pair, body, 6, &filled, "defg") == -EBADMSG && filled == 3);
    CHECK(chunk_status(&pair, body, 6, &filled, "def") == 0 && filled == 6);
    CHECK(memcmp(body, "abcdef", 6) == 0);
    CHECK(chunk_status(&pair, body, 6, &filled, "g") == -EBADMSG);
    free(body);
    pair_close(&pair);
}

static void test_packets_that_are_none(void) {
    struct pair pair = pair_open();
    struct wire_invoke taken;
    CHECK(send(pair.dispatcher, "x", 1, 0) == 1);
    CHECK(endpoint_wait(&pair.endpoint) == 1);
    CHECK(endpoint_take_invoke(&pair.endpoint, &taken) == -EBADMSG);
    memset(pair.packet, 0, WIRE_MESSAGE_MAX + 1);
    CHECK(send(pair.dispatcher, pair.packet, WIRE_MESSAGE_MAX + 1, 0) == WIRE_MESSAGE_MAX + 1);
    CHECK(endpoint_wait(&pair.endpoint) == -EBADMSG);
    CHECK(shutdown(pair.dispatcher, SHUT_RDWR) == 0);
    CHECK(endpoint_wait(&pair.endpoint) == 0);
    CHECK(endpoint_send_init_done(&pair.endpoint) == -EPIPE);
    pair_close(&pair);
}

static struct wire_header received(struct pair *pair, uint16_t type, int *ret_size) {
    struct wire_header header;
    ssize_t n;
    do
        n = recv(pair->dispatcher, pair->packet, WIRE_MESSAGE_MAX, MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    CHECK(n >= WIRE_HEADER_SIZE && n <= WIRE_MESSAGE_MAX);
    CHECK(wire_peek(pair->packet, (size_t)n, &header) == 0);
    CHECK(header.type == type && header.object == ENVIRONMENT);
    *ret_size = (int)n;
    return header;
}

static void test_init(void) {
    struct pair pair = pair_open();
    struct wire_header header;
    struct wire_init_error error;
    static uint8_t large[WIRE_INIT_ERROR_BODY_MAX + 1];
    int size;

    start(&pair);
    CHECK(endpoint_send_init_done(&pair.endpoint) == 0);
    received(&pair, WIRE_INIT_DONE, &size);
    CHECK(endpoint_send_init_error(&pair.endpoint, slice("Runtime.ImportModuleError"), slice("{}")) == 0);
    received(&pair, WIRE_INIT_ERROR, &size);
    CHECK(wire_init_error_decode(pair.packet, (size_t)size, &header, &error) == 0);
    CHECK(error.error_type.size == 25 && error.body.size == 2 && memcmp(error.body.data, "{}", 2) == 0);
    struct wire_slice body = {.data = large, .size = WIRE_INIT_ERROR_BODY_MAX};
    CHECK(endpoint_send_init_error(&pair.endpoint, slice("E"), body) == 0);
    received(&pair, WIRE_INIT_ERROR, &size);
    CHECK(wire_init_error_decode(pair.packet, (size_t)size, &header, &error) == 0);
    body.size++;
    CHECK(endpoint_send_init_error(&pair.endpoint, slice("E"), body) == -EMSGSIZE);
    pair_close(&pair);
}

struct sending {
    struct endpoint *endpoint;
    const uint8_t *id, *body;
    size_t size;
    bool error;
    const char *type;
    int r;
};

static void *sender(void *argument) {
    struct sending *s = argument;
    s->r = endpoint_send_result(s->endpoint, s->id, s->error, slice(s->type), s->body, s->size);
    return NULL;
}

/* Sends a result of that size from another thread (it is larger than what the socket holds) and puts it together. */
static void check_result(struct pair *pair, size_t size, bool error, const char *type, const char *type_seen) {
    const uint8_t id[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    uint8_t *body = malloc(size + 1), *seen = malloc(size + 1);
    struct wire_header header;
    struct wire_result result;
    struct wire_chunk chunk;
    pthread_t thread;
    int n;

    CHECK(body != NULL && seen != NULL);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(i * 31 + i / 251);
    struct sending sending = {&pair->endpoint, id, body, size, error, type, 1};
    CHECK(pthread_create(&thread, NULL, sender, &sending) == 0);
    header = received(pair, WIRE_RESULT, &n);
    CHECK(header.flags == WIRE_HEADER_READY);
    CHECK(wire_result_decode(pair->packet, (size_t)n, &header, &result) == 0);
    CHECK(memcmp(result.id, id, sizeof(id)) == 0 && result.error == error && result.total == size);
    CHECK(result.error_type.size == strlen(type_seen));
    CHECK(memcmp(result.error_type.data, type_seen, result.error_type.size) == 0);
    memcpy(seen, result.body.data, result.body.size);
    for (size_t filled = result.body.size; filled < size; filled += chunk.data.size) {
        CHECK(received(pair, WIRE_CHUNK, &n).flags == 0);
        CHECK(wire_chunk_decode(pair->packet, (size_t)n, &header, &chunk) == 0);
        CHECK(chunk.data.size > 0 && chunk.data.size <= size - filled);
        memcpy(seen + filled, chunk.data.data, chunk.data.size);
    }
    CHECK(pthread_join(thread, NULL) == 0 && sending.r == 0);
    CHECK(memcmp(body, seen, size) == 0);
    free(body);
    free(seen);
}

static void test_results(void) {
    const size_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 131073, 1000000, ENDPOINT_BODY_MAX};
    struct pair pair = pair_open();
    char long_type[200], cut[200];

    start(&pair);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_result(&pair, sizes[i], false, "ignored", "");
    check_result(&pair, 10, true, "ValueError", "ValueError");
    /* Two bytes a character: cut before the 65th, never within one. */
    memset(long_type, 0, sizeof(long_type));
    for (size_t i = 1; i < 199; i += 2)
        memcpy(long_type + i, "\xc3\xa9", 2);
    long_type[0] = 'x';
    memcpy(cut, long_type, sizeof(cut));
    cut[127] = '\0';
    check_result(&pair, 0, true, long_type, cut);
    const uint8_t id[16] = {0};
    CHECK(endpoint_send_result(&pair.endpoint, id, false, slice(""), id, ENDPOINT_BODY_MAX + (size_t)1) == -EMSGSIZE);
    CHECK(recv(pair.dispatcher, pair.packet, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    pair_close(&pair);
}

/* A function may make its end nonblocking; that is no reason to lose bytes. */
static void test_nonblocking(void) {
    struct pair pair = pair_open();
    start(&pair);
    CHECK(fd_set_nonblocking(pair.endpoint.fd, 1) == 0);
    check_result(&pair, 3000000, false, "", "");
    pair_close(&pair);
}

/* ---- the arena --------------------------------------------------------------------------------------------------- */

#define ARENA_BYTES ((6u << 20) + (64u << 10))

static void send_attach(struct pair *pair, uint32_t size, uint32_t fill) {
    const struct wire_header header = {.object = ENVIRONMENT};
    const struct wire_attach attach = {.size = size, .fill = fill};
    int n = wire_attach_encode(&header, &attach, pair->packet, WIRE_MESSAGE_MAX);
    CHECK(n > 0 && send(pair->dispatcher, pair->packet, (size_t)n, 0) == n);
}

static void send_arena(struct pair *pair, int fd) {
    const struct wire_header header = {.object = ENVIRONMENT};
    const struct wire_arena arena = {.size = ARENA_BYTES};
    int n = wire_arena_encode(&header, &arena, pair->packet, WIRE_MESSAGE_MAX);
    CHECK(n > 0 && packet_send(pair->dispatcher, pair->packet, (size_t)n, &fd, fd >= 0 ? 1 : 0) == 0);
}

static uint8_t *make_arena(int *ret_fd) {
    uint8_t *memory;
    *ret_fd = memfd_create("arena", MFD_CLOEXEC);
    CHECK(*ret_fd >= 0 && ftruncate(*ret_fd, ARENA_BYTES) == 0);
    memory = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, *ret_fd, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

/* What the endpoint is told next is an INVOKE; whatever concerned the arena came before it. */
static int invoke_in_arena(struct pair *pair, uint32_t total, uint32_t part, struct wire_invoke *ret_invoke) {
    static uint8_t body[WIRE_INVOKE_BODY_MAX];
    const struct wire_header header = {.object = ENVIRONMENT, .flags = WIRE_HEADER_ARENA};
    const struct wire_invoke message = {.total = total, .body = {.data = body, .size = part}};
    deliver(pair, wire_invoke_encode(&header, &message, pair->packet, WIRE_MESSAGE_MAX));
    return endpoint_take_invoke(&pair->endpoint, ret_invoke);
}

static uint32_t attached_error(struct pair *pair) {
    struct wire_header header;
    struct wire_attached attached;
    int n;
    received(pair, WIRE_ATTACHED, &n);
    CHECK(wire_attached_decode(pair->packet, (size_t)n, &header, &attached) == 0);
    return attached.error;
}

/* True: it went through the arena, at whose beginning it is now. */
static bool answered_in_arena(struct pair *pair, const uint8_t *memory, size_t size) {
    const uint8_t id[16] = {7};
    uint8_t *body = malloc(size);
    struct wire_header header;
    struct wire_result result;
    int n;

    CHECK(body != NULL);
    memset(body, (int)(size % 251), size);
    CHECK(endpoint_send_result(&pair->endpoint, id, false, slice(""), body, size) == 0);
    header = received(pair, WIRE_RESULT, &n);
    CHECK(wire_result_decode(pair->packet, (size_t)n, &header, &result) == 0 && result.total == size);
    bool there = (header.flags & WIRE_HEADER_ARENA) != 0;
    if (there)
        CHECK(result.body.size == 0 && memcmp(memory, body, size) == 0);
    for (size_t filled = result.body.size; !there && filled < size; filled += (size_t)n - WIRE_HEADER_SIZE - 4)
        received(pair, WIRE_CHUNK, &n);
    free(body);
    return there;
}

static void test_arena(void) {
    struct pair pair = pair_open();
    struct wire_invoke invoke;
    uint8_t *memory;
    int fd;

    start(&pair);
    /* Told of an arena that it does not have. */
    CHECK(invoke_in_arena(&pair, 1000, 0, &invoke) == -EBADMSG);
    CHECK(invoke_in_arena(&pair, 10, 10, &invoke) == 0 && !pair.endpoint.arena_offered);

    memory = make_arena(&fd);
    send_attach(&pair, ARENA_BYTES, 512u << 10);
    send_arena(&pair, fd);
    memset(memory, 'e', 1000000);
    CHECK(invoke_in_arena(&pair, 1000000, 0, &invoke) == 0);
    CHECK(attached_error(&pair) == 0);
    CHECK(pair.endpoint.arena_filled == 512u << 10 && pair.endpoint.arena_offered);
    CHECK(invoke.body.size == 1000000 && memcmp(invoke.body.data, memory, 1000000) == 0);
    CHECK(!answered_in_arena(&pair, memory, ENDPOINT_ARENA_LEAST));
    CHECK(answered_in_arena(&pair, memory, ENDPOINT_ARENA_LEAST + 1));
    CHECK(answered_in_arena(&pair, memory, ENDPOINT_BODY_MAX));
    CHECK(lseek(fd, 0, SEEK_HOLE) >= (off_t)ENDPOINT_BODY_MAX);

    /* By the socket when it is not offered: whoever dispatches now does not share it. */
    CHECK(invoke_status(&pair, 10, 10) == 0 && !pair.endpoint.arena_offered);
    CHECK(!answered_in_arena(&pair, memory, ENDPOINT_ARENA_LEAST + 1));
    CHECK(invoke_in_arena(&pair, ENDPOINT_BODY_MAX + 1, 0, &invoke) == -EBADMSG);

    /* Another one takes its place; and is let go of. */
    CHECK(munmap(memory, ARENA_BYTES) == 0 && close(fd) == 0);
    memory = make_arena(&fd);
    send_attach(&pair, ARENA_BYTES, 0);
    send_arena(&pair, fd);
    CHECK(invoke_in_arena(&pair, 0, 0, &invoke) == 0 && attached_error(&pair) == 0);
    CHECK(answered_in_arena(&pair, memory, 1000000));
    send_attach(&pair, 0, 0);
    CHECK(invoke_in_arena(&pair, 0, 0, &invoke) == 0 && pair.endpoint.arena == NULL && !pair.endpoint.arena_offered);

    /* Its descriptor does not come: said, and nothing else changes. */
    send_attach(&pair, ARENA_BYTES, 1000);
    send_arena(&pair, -1);
    CHECK(invoke_in_arena(&pair, 0, 0, &invoke) == 0 && attached_error(&pair) == ENFILE);
    /* Not followed by an ARENA. */
    send_attach(&pair, ARENA_BYTES, 0);
    send_attach(&pair, ARENA_BYTES, 0);
    CHECK(endpoint_wait(&pair.endpoint) == -EBADMSG);
    CHECK(munmap(memory, ARENA_BYTES) == 0 && close(fd) == 0);
    pair_close(&pair);
}

static void caught(int number) {
    (void)number;
}

/* Waiting tells of signals, so that the interpreter can run its handlers; sending goes on. */
static void test_signals(void) {
    const struct sigaction action = {.sa_handler = caught};
    struct pair pair = pair_open();

    start(&pair);
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    ualarm(1000, 1000);
    CHECK(endpoint_wait(&pair.endpoint) == -EINTR);
    CHECK(fd_set_nonblocking(pair.endpoint.fd, 1) == 0);
    CHECK(endpoint_wait(&pair.endpoint) == -EINTR);
    CHECK(fd_set_nonblocking(pair.endpoint.fd, 0) == 0);
    for (int i = 0; i < 20; i++)
        check_result(&pair, 1000000, false, "", "");
    ualarm(0, 0);
    pair_close(&pair);
}

int main(void) {
    test_start();
    test_invoke_bounds();
    test_chunks();
    test_packets_that_are_none();
    test_init();
    test_results();
    test_nonblocking();
    test_arena();
    test_signals();
    return 0;
}
