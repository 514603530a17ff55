/* Floor: the path of an invocation without any policy. Callers come over a SOCK_SEQPACKET socket or over HTTP, each request is handed
 * to an idle interpreter (the one used last first) over a socketpair, its answer goes back to the caller. No routes, no
 * limits, no time-outs, no logs, no sandbox.
 *
 *   relay SOCKET INTERPRETERS PROGRAM [ARGUMENT...]    each PROGRAM finds its end of the pair at descriptor 3
 *   relay http   INTERPRETERS PROGRAM [ARGUMENT...]    over loopback TCP; prints its port. A request is one segment */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ENDS_MAX = 2048, QUEUE_MAX = 2048, PACKET_MAX = 65536 };

struct end {
    int fd, caller; /* caller: -1 idle, -2 not an interpreter */
};

struct relay {
    struct end ends[ENDS_MAX];
    unsigned idle[ENDS_MAX], n_idle;
    struct {
        int caller;
        size_t size;
        char *data;
    } queue[QUEUE_MAX]; /* a ring; every slot keeps its buffer */
    unsigned head, n_waiting;
};

static void relay_give(struct relay *relay, unsigned interpreter, int caller, const char *data, size_t size) {
    relay->ends[interpreter].caller = caller;
    send(relay->ends[interpreter].fd, data, size, MSG_NOSIGNAL);
}

static void relay_call(struct relay *relay, int caller, const char *data, size_t size) {
    if (relay->n_idle > 0) {
        relay_give(relay, relay->idle[--relay->n_idle], caller, data, size);
        return;
    }
    unsigned slot = (relay->head + relay->n_waiting++) % QUEUE_MAX;
    if (relay->n_waiting > QUEUE_MAX)
        abort();
    if (relay->queue[slot].data == NULL)
        relay->queue[slot].data = malloc(PACKET_MAX);
    memcpy(relay->queue[slot].data, data, size);
    relay->queue[slot].size = size;
    relay->queue[slot].caller = caller;
}

static void relay_answer(struct relay *relay, unsigned interpreter, const char *data, size_t size) {
    send(relay->ends[interpreter].caller, data, size, MSG_NOSIGNAL);
    relay->ends[interpreter].caller = -1;
    if (relay->n_waiting == 0) {
        relay->idle[relay->n_idle++] = interpreter;
        return;
    }
    unsigned slot = relay->head;
    relay->head = (relay->head + 1) % QUEUE_MAX;
    relay->n_waiting--;
    relay_give(relay, interpreter, relay->queue[slot].caller, relay->queue[slot].data, relay->queue[slot].size);
}

static int spawn(char **command) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        exit(1);
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pair[1], 3);
        execvp(command[0], command);
        _exit(127);
    }
    close(pair[1]);
    return pair[0];
}

static void watch(int loop, int fd, unsigned index) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

static int listen_at(const char *where) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    strncpy(address.sun_path, where, sizeof(address.sun_path) - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1024) < 0)
        exit(1);
    puts("ready");
    return listener;
}

static int listen_http(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1024) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        exit(1);
    printf("%d\n", ntohs(address.sin_port));
    return listener;
}

int main(int argc, char **argv) {
    static struct relay relay;
    static char buffer[PACKET_MAX];
    struct epoll_event events[1024];
    int loop = epoll_create1(EPOLL_CLOEXEC);
    int listener, one = 1;
    unsigned n_ends = 1;

    if (argc < 4)
        return 64;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    listener = strcmp(argv[1], "http") == 0 ? listen_http() : listen_at(argv[1]);
    watch(loop, listener, 0);
    for (int i = 0; i < atoi(argv[2]); i++) {
        relay.ends[n_ends] = (struct end){.fd = spawn(argv + 3), .caller = -1};
        relay.idle[relay.n_idle++] = n_ends;
        watch(loop, relay.ends[n_ends].fd, n_ends);
        n_ends++;
    }
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(loop, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            unsigned at = events[i].data.u32;
            if (at == 0) {
                if (n_ends == ENDS_MAX)
                    return 2;
                relay.ends[n_ends] = (struct end){.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), .caller = -2};
                setsockopt(relay.ends[n_ends].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                watch(loop, relay.ends[n_ends].fd, n_ends);
                n_ends++;
                continue;
            }
            ssize_t size = recv(relay.ends[at].fd, buffer, sizeof(buffer), 0);
            if (size <= 0)
                close(relay.ends[at].fd);
            else if (relay.ends[at].caller == -2)
                relay_call(&relay, relay.ends[at].fd, buffer, (size_t)size);
            else
                relay_answer(&relay, at, buffer, (size_t)size);
        }
    }
}
