/* Floor of payloads: an HTTP server that sends each request's body back. One connection at a time, blocking, one buffer.
 * Prints its port. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST_MAX = 8 << 20, LONGEST_HEAD = 4096 };

static int send_all(int fd, const char *data, size_t size, int flags) {
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL | flags);
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static void serve(int fd, char *buffer) {
    char head[LONGEST_HEAD];
    for (;;) {
        size_t size = 0, body = 0, total = 0;
        do {
            ssize_t n = recv(fd, buffer + size, REQUEST_MAX - size, 0);
            if (n <= 0)
                return;
            size += (size_t)n;
            buffer[size] = 0;
            char *end = total == 0 ? strstr(buffer, "\r\n\r\n") : NULL;
            char *length = end != NULL ? strcasestr(buffer, "content-length:") : NULL;
            if (length != NULL) {
                body = (size_t)(end + 4 - buffer);
                total = body + strtoul(length + 15, NULL, 10);
            }
        } while (total == 0 || size < total);
        int n = snprintf(head, sizeof(head),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", total - body);
        if (send_all(fd, head, (size_t)n, MSG_MORE) < 0 || send_all(fd, buffer + body, total - body, 0) < 0)
            return;
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    char *buffer = malloc(REQUEST_MAX + 1);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (buffer == NULL || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 16) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return 1;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        serve(fd, buffer);
        close(fd);
    }
}
