/* Callers that hand over events one at a time on each of several connections and wait until it is said that an event is
 * safe: of the dispatcher, of Redis and of PostgreSQL, by the same loop, so that only the servers differ. Writes the round
 * trips in microseconds to standard output as floats; the first fifth of the time warms up and is not written.
 *
 *   events http SOCKET REQUEST CONNECTIONS SECONDS        REQUEST: a file with an HTTP request; 202 is expected
 *   events redis SOCKET REQUEST CONNECTIONS SECONDS       a command; anything but an error is expected
 *   events postgres SOCKET REQUEST CONNECTIONS SECONDS    a row's content; INSERT by a prepared statement, a commit a row
 *
 * SOCKET is the path of a unix socket, for all three. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1024, SAMPLES_MAX = 1 << 24, ANSWER = 8192, REQUEST = 1 << 20 };

struct connection {
    int fd;
    uint64_t sent;
    size_t received;
    char answer[ANSWER];
};

struct protocol {
    const char *name;
    void (*begin)(struct connection *connection); /* NULL: nothing is said before */
    size_t (*frame)(char *request, size_t size);  /* the content becomes a request; NULL: it is one */
    int (*done)(struct connection *connection);   /* is the answer whole? */
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "events: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void refused(const struct connection *connection) {
    fputs("events: ", stderr);
    for (size_t i = 0; i < connection->received; i++)
        fputc(isprint((unsigned char)connection->answer[i]) ? connection->answer[i] : ' ', stderr);
    fputc('\n', stderr);
    exit(2);
}

static void send_all(int fd, const void *data, size_t size) {
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("send");
}

static void receive(struct connection *connection) {
    ssize_t n = recv(connection->fd, connection->answer + connection->received, ANSWER - connection->received, 0);
    if (n <= 0)
        die("the server closed the connection");
    connection->received += (size_t)n;
}

/* ---- HTTP and Redis ---------------------------------------------------------------------------------------------- */

static int http_done(struct connection *connection) {
    const char *end = memmem(connection->answer, connection->received, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    if (memcmp(connection->answer + 9, "202", 3) != 0)
        refused(connection);
    return 1;
}

static int redis_done(struct connection *connection) {
    const char *at = connection->answer, *end = at + connection->received;
    if (*at == '-')
        refused(connection);
    for (int lines = 0; lines < (*connection->answer == '$' ? 2 : 1); lines++) {
        at = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (at == NULL)
            return 0;
        at += 2;
    }
    return 1;
}

/* ---- PostgreSQL: messages of a letter and a length that counts itself --------------------------------------------- */

static size_t put_number(char *to, uint32_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        to[i] = (char)(value >> (8 * (size - 1 - i)));
    return size;
}

static size_t put_message(char *to, char letter, const void *body, size_t size) {
    to[0] = letter;
    put_number(to + 1, (uint32_t)size + 4, 4);
    memcpy(to + 5, body, size);
    return 5 + size;
}

/* Looks at the last message only: ReadyForQuery. An error stands somewhere before it. */
static int postgres_done(struct connection *connection) {
    const unsigned char *at = (const unsigned char *)connection->answer, *end = at + connection->received;
    while (end - at >= 5) {
        size_t size = 1 + ((size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4]);
        if ((size_t)(end - at) < size)
            return 0;
        if (*at == 'E')
            refused(connection);
        if (*at == 'Z')
            return 1;
        at += size;
    }
    return 0;
}

static void postgres_wait(struct connection *connection) {
    connection->received = 0;
    do
        receive(connection);
    while (!postgres_done(connection));
}

static void postgres_begin(struct connection *connection) {
    static const char parse[] = "row\0INSERT INTO events (payload) VALUES ($1)\0\0\0";
    static const char start[] = "\0\3\0\0user\0bench\0database\0postgres\0";
    char message[256];
    size_t size = put_number(message, sizeof(start) + 4, 4);
    memcpy(message + size, start, sizeof(start));
    send_all(connection->fd, message, size + sizeof(start));
    postgres_wait(connection);
    size = put_message(message, 'P', parse, sizeof(parse) - 1);
    size += put_message(message + size, 'S', "", 0);
    send_all(connection->fd, message, size);
    postgres_wait(connection);
}

/* Bind with one binary parameter, Execute, Sync. */
static size_t postgres_frame(char *request, size_t size) {
    static const char head[] = "\0row\0\0\1\0\1\0\1", execute[] = "\0\0\0\0\0";
    char *content = malloc(size), *body = malloc(size + 64);
    if (content == NULL || body == NULL)
        die("memory");
    memcpy(content, request, size);
    memcpy(body, head, sizeof(head) - 1);
    size_t at = sizeof(head) - 1;
    at += put_number(body + at, (uint32_t)size, 4);
    memcpy(body + at, content, size);
    at += size;
    at += put_number(body + at, 0, 2);
    size = put_message(request, 'B', body, at);
    size += put_message(request + size, 'E', execute, sizeof(execute) - 1);
    size += put_message(request + size, 'S', "", 0);
    free(content);
    free(body);
    return size;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static const struct protocol protocols[] = {
    {"http", NULL, NULL, http_done},
    {"redis", NULL, NULL, redis_done},
    {"postgres", postgres_begin, postgres_frame, postgres_done},
};

static struct connection connections[CONNECTIONS_MAX];
static char request[REQUEST + 4096];
static size_t request_size, n_samples;
static float *samples;

static void connect_to(struct connection *connection, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int size = 512 * 1024;
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die(path);
    setsockopt(connection->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void ask(struct connection *connection) {
    connection->received = 0;
    connection->sent = now();
    send_all(connection->fd, request, request_size);
}

static void run(const struct protocol *protocol, const char *path, unsigned n, double seconds) {
    struct epoll_event events[CONNECTIONS_MAX];
    int loop = epoll_create1(EPOLL_CLOEXEC);
    uint64_t start, end, count_from;

    for (unsigned i = 0; i < n; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        connect_to(&connections[i], path);
        if (protocol->begin != NULL)
            protocol->begin(&connections[i]);
        if (epoll_ctl(loop, EPOLL_CTL_ADD, connections[i].fd, &event) < 0)
            die("epoll");
    }
    start = now();
    end = start + (uint64_t)(seconds * 1e9);
    count_from = start + (end - start) / 5;
    for (unsigned i = 0; i < n; i++)
        ask(&connections[i]);
    for (uint64_t at = start; at < end;) {
        int ready = epoll_wait(loop, events, CONNECTIONS_MAX, 30000);
        if (ready == 0) {
            fprintf(stderr, "events: no answer within 30 s\n");
            exit(2);
        }
        for (int e = 0; e < ready; e++) {
            struct connection *connection = &connections[events[e].data.u32];
            receive(connection);
            if (!protocol->done(connection))
                continue;
            at = now();
            if (at > count_from && n_samples < SAMPLES_MAX)
                samples[n_samples++] = (float)(at - connection->sent) / 1000.0f;
            ask(connection);
        }
    }
    close(loop);
}

int main(int argc, char **argv) {
    const struct protocol *protocol = NULL;
    if (argc < 6)
        return 64;
    for (unsigned i = 0; i < sizeof(protocols) / sizeof(*protocols); i++)
        if (strcmp(argv[1], protocols[i].name) == 0)
            protocol = &protocols[i];
    unsigned n = (unsigned)atoi(argv[4]);
    samples = malloc(sizeof(float) * SAMPLES_MAX);
    if (protocol == NULL || n == 0 || n > CONNECTIONS_MAX || samples == NULL)
        return 64;
    int fd = open(argv[3], O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, request, REQUEST);
    if (size <= 0)
        die(argv[3]);
    request_size = protocol->frame != NULL ? protocol->frame(request, (size_t)size) : (size_t)size;
    run(protocol, argv[2], n, atof(argv[5]));
    if (fwrite(samples, sizeof(float), n_samples, stdout) != n_samples)
        die("write");
    return 0;
}
