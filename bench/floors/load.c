/* The load of the benches: keeps one request in flight on each connection and writes every round trip to standard output
 * as a 32-bit float, in microseconds. One thread, epoll, no allocation while measuring.
 *
 *   load http PORT    REQUEST CONNECTIONS SECONDS [GAP]    over loopback TCP
 *   load http SOCKET  REQUEST CONNECTIONS SECONDS [GAP]    over a SOCK_STREAM socket, with its whole path
 *   load grpc PORT|SOCKET  the same                        one call at a time on each HTTP/2 connection
 *   load call SOCKET  REQUEST CONNECTIONS SECONDS [GAP]    over a SOCK_SEQPACKET socket of the dispatcher
 *
 * GAP: milliseconds of idleness before each request. REQUEST is a file with the bytes to send; of gRPC a HEADERS and a DATA
 * frame, whose streams are numbered here. A call's header has the call's number at byte 16, which is counted up; its answer
 * must be an ANSWER with outcome 0; HTTP's must be 200; gRPC's must have a message, which a call that failed has
 * not. The first fifth of the time warms up and is not written. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1024, ANSWER = 163, OBJECT_AT = 16, OUTCOME_AT = 34 };
enum { SAMPLES_MAX = 1 << 24 };

struct load {
    int call; /* a dispatcher's socket, not HTTP */
    int grpc;
    size_t data_at; /* gRPC: where the second frame of the request is */
    const char *address;
    char request[131072];
    size_t request_size;
    size_t answer_size; /* HTTP: every answer is as long as the first */
    uint64_t number;
    struct timespec gap;
    struct connection {
        int fd;
        uint64_t sent;
        size_t received; /* HTTP: of the answer; gRPC: bytes in the buffer */
        uint32_t stream;
        size_t message; /* bytes of DATA that came */
        uint8_t *buffer;
    } connections[CONNECTIONS_MAX];
    float *samples;
    size_t n_samples;
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int load_connect(const struct load *load) {
    int fd, one = 1, size = 512 * 1024;
    if (load->call || load->address[0] == '/') {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, load->address, sizeof(address.sun_path) - 1);
        fd = socket(AF_UNIX, (load->call ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
            die(load->address);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    } else {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(load->address))};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
            die(load->address);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    return fd;
}

/* ---- gRPC: as much of HTTP/2 as a server that behaves needs ------------------------------------------------------ */

enum { FRAME_HEAD = 9, DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7 };
enum { END_STREAM = 1, ACK = 1, BUFFER = 65536 };

static void put_stream(uint8_t *frame, uint32_t stream) {
    frame[5] = (uint8_t)(stream >> 24), frame[6] = (uint8_t)(stream >> 16);
    frame[7] = (uint8_t)(stream >> 8), frame[8] = (uint8_t)stream;
}

static size_t frame_size(const uint8_t *frame) {
    return FRAME_HEAD + ((size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2]);
}

/* Preface, no settings of ours, and a window that no run uses up. */
static void grpc_begin(struct connection *connection) {
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                "\0\0\0\4\0\0\0\0\0"
                                "\0\0\4\10\0\0\0\0\0\x7f\xff\0\0";
    connection->buffer = malloc(BUFFER);
    if (connection->buffer == NULL || send(connection->fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL) < 0)
        die("HTTP/2's preface");
    connection->stream = UINT32_MAX;
}

/* 1: the call is over. */
static int grpc_frame(struct connection *connection, uint8_t *frame, size_t size) {
    if (frame[3] == RST_STREAM || frame[3] == GOAWAY) {
        fprintf(stderr, "load: the server sent frame %d\n", frame[3]);
        exit(2);
    }
    if ((frame[3] == SETTINGS || frame[3] == PING) && !(frame[4] & ACK)) {
        frame[4] |= ACK;
        if (frame[3] == SETTINGS)
            frame[0] = frame[1] = frame[2] = 0;
        send(connection->fd, frame, frame[3] == SETTINGS ? FRAME_HEAD : size, MSG_NOSIGNAL);
    }
    if (frame[3] == DATA)
        connection->message += size - FRAME_HEAD;
    if (frame[3] > HEADERS || !(frame[4] & END_STREAM))
        return 0;
    if (connection->message == 0) {
        fprintf(stderr, "load: a call ended without a message: %.*s\n", (int)(size - FRAME_HEAD),
            (const char *)frame + FRAME_HEAD);
        exit(2);
    }
    return 1;
}

static int grpc_receive(struct connection *connection) {
    uint8_t *at = connection->buffer;
    ssize_t n = recv(connection->fd, at + connection->received, BUFFER - connection->received, 0);
    int done = 0;
    if (n <= 0)
        die("the server closed the connection");
    connection->received += (size_t)n;
    while (connection->received >= FRAME_HEAD && connection->received >= frame_size(at)) {
        size_t size = frame_size(at);
        done |= grpc_frame(connection, at, size);
        at += size;
        connection->received -= size;
    }
    memmove(connection->buffer, at, connection->received);
    return done;
}

static void grpc_number(struct load *load, struct connection *connection) {
    connection->stream += 2;
    connection->message = 0;
    put_stream((uint8_t *)load->request, connection->stream);
    put_stream((uint8_t *)load->request + load->data_at, connection->stream);
}

/* ---- all ---------------------------------------------------------------------------------------------------------- */

static void load_send(struct load *load, unsigned i) {
    if (load->call) {
        load->number++;
        memcpy(load->request + OBJECT_AT, &load->number, sizeof(load->number));
    }
    if (load->gap.tv_sec > 0 || load->gap.tv_nsec > 0)
        nanosleep(&load->gap, NULL);
    if (load->grpc)
        grpc_number(load, &load->connections[i]);
    else
        load->connections[i].received = 0;
    load->connections[i].sent = now();
    if (send(load->connections[i].fd, load->request, load->request_size, MSG_NOSIGNAL) != (ssize_t)load->request_size)
        die("send");
}

/* Is the answer complete? */
static int load_receive(struct load *load, unsigned i) {
    static char answer[131072];
    if (load->grpc)
        return grpc_receive(&load->connections[i]);
    ssize_t n = recv(load->connections[i].fd, answer, sizeof(answer), 0);
    if (n <= 0)
        die("the server closed the connection");
    if (!load->call) {
        if (load->connections[i].received == 0 && (n < 12 || memcmp(answer + 9, "200", 3) != 0)) {
            fprintf(stderr, "load: %.*s\n", (int)n, answer);
            exit(2);
        }
        if (load->answer_size == 0)
            load->answer_size = (size_t)n;
        load->connections[i].received += (size_t)n;
        return load->connections[i].received >= load->answer_size;
    }
    uint16_t type;
    memcpy(&type, answer, sizeof(type));
    if (type != ANSWER || n <= OUTCOME_AT || answer[OUTCOME_AT] != 0) {
        fprintf(stderr, "load: message %u, outcome %d: %.*s\n", type, answer[OUTCOME_AT], (int)n - OUTCOME_AT,
            answer + OUTCOME_AT);
        exit(2);
    }
    return 1;
}

static void load_run(struct load *load, unsigned n_connections, double seconds) {
    struct epoll_event events[CONNECTIONS_MAX];
    int loop = epoll_create1(EPOLL_CLOEXEC);
    uint64_t start = now();
    uint64_t end = start + (uint64_t)(seconds * 1e9);
    uint64_t count_from = start + (end - start) / 5;

    for (unsigned i = 0; i < n_connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        load->connections[i].fd = load_connect(load);
        if (load->grpc)
            grpc_begin(&load->connections[i]);
        if (epoll_ctl(loop, EPOLL_CTL_ADD, load->connections[i].fd, &event) < 0)
            die("epoll");
    }
    for (unsigned i = 0; i < n_connections; i++)
        load_send(load, i);
    for (uint64_t at = start; at < end;) {
        int n = epoll_wait(loop, events, CONNECTIONS_MAX, 10000);
        if (n == 0) {
            fprintf(stderr, "load: no answer within 10 s\n");
            exit(2);
        }
        for (int e = 0; e < n; e++) {
            unsigned i = events[e].data.u32;
            if (!load_receive(load, i))
                continue;
            at = now();
            if (at > count_from && load->n_samples < SAMPLES_MAX)
                load->samples[load->n_samples++] = (float)(at - load->connections[i].sent) / 1000.0f;
            load_send(load, i);
        }
    }
    close(loop);
}

int main(int argc, char **argv) {
    static struct load load;
    int fd;
    if (argc != 6 && argc != 7)
        return 64;
    if (argc == 7)
        load.gap = (struct timespec){.tv_sec = atoi(argv[6]) / 1000, .tv_nsec = atoi(argv[6]) % 1000 * 1000000L};
    load.call = strcmp(argv[1], "call") == 0;
    load.grpc = strcmp(argv[1], "grpc") == 0;
    load.address = argv[2];
    fd = open(argv[3], O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, load.request, sizeof(load.request));
    if (size <= 0)
        die(argv[3]);
    load.request_size = (size_t)size;
    if (load.grpc)
        load.data_at = frame_size((const uint8_t *)load.request);
    load.samples = malloc(sizeof(float) * SAMPLES_MAX);
    unsigned n_connections = (unsigned)atoi(argv[4]);
    if (load.samples == NULL || n_connections == 0 || n_connections > CONNECTIONS_MAX)
        return 64;
    load_run(&load, n_connections, atof(argv[5]));
    if (fwrite(load.samples, sizeof(float), load.n_samples, stdout) != load.n_samples)
        die("write");
    return 0;
}
