/* Floor: the least that a gRPC server can do. One thread, epoll; every call, of whatever size in one read, gets the same
 * answer, in frames that were made beforehand. Prints its port. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAME_HEAD = 9, DATA = 0, SETTINGS = 4, END_STREAM = 1, ACK = 1, PREFACE = 24 };

/* HEADERS: ":status: 200" by its number, "content-type: application/grpc" as text; DATA: a message of 17 bytes; HEADERS:
 * "grpc-status: 0" as text, the end. */
static uint8_t answer[] = "\0\0\x20\1\4\0\0\0\0"
                          "\x88\0\x0c"
                          "content-type\x10"
                          "application/grpc"
                          "\0\0\x16\0\0\0\0\0\0"
                          "\0\0\0\0\x11"
                          "\x42\x0f{\"hello\":\"you\"}"
                          "\0\0\x0f\1\5\0\0\0\0"
                          "\0\x0b"
                          "grpc-status\x01"
                          "0";

static size_t frame_size(const uint8_t *frame) {
    return FRAME_HEAD + ((size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2]);
}

static void reply(int fd, const uint8_t *call) {
    for (size_t at = 0; at + FRAME_HEAD < sizeof(answer); at += frame_size(answer + at))
        memcpy(answer + at + 5, call + 5, 4); /* the stream */
    send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
}

static void serve(int fd, const uint8_t *at, size_t size) {
    static const uint8_t settings[] = "\0\0\0\4\0\0\0\0\0"
                                      "\0\0\4\10\0\0\0\0\0\x7f\xff\0\0";
    if (size >= PREFACE && memcmp(at, "PRI", 3) == 0) {
        send(fd, settings, sizeof(settings) - 1, MSG_NOSIGNAL);
        at += PREFACE, size -= PREFACE;
    }
    while (size >= FRAME_HEAD && size >= frame_size(at)) {
        if (at[3] == SETTINGS && !(at[4] & ACK))
            send(fd, "\0\0\0\4\1\0\0\0\0", FRAME_HEAD, MSG_NOSIGNAL);
        if (at[3] == DATA && at[4] & END_STREAM)
            reply(fd, at);
        size -= frame_size(at);
        at += frame_size(at);
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof(address);
    struct epoll_event events[1024];
    static uint8_t buffer[65536];
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int loop = epoll_create1(EPOLL_CLOEXEC);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1024) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(loop, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                event.data.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                epoll_ctl(loop, EPOLL_CTL_ADD, event.data.fd, &event);
                continue;
            }
            ssize_t size = recv(fd, buffer, sizeof(buffer), 0);
            if (size <= 0)
                close(fd);
            else
                serve(fd, buffer, (size_t)size);
        }
    }
}
