/* What comes for an environment that lies in a loop's mail. The test is the first of two loops: it turns when it says so. */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/travel.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define PATIENCE_US UINT64_C(60000000)

struct stage {
    struct dispatch dispatch;
    int launcher, control, callers[2]; /* one on each loop */
    int channel, log;
    int listener, runtime; /* of the Runtime API: where the runtime listens, and its connection */
    struct sockaddr_in at;
    uint64_t id;
    uint8_t packet[WIRE_MESSAGE_MAX];
};

static struct wire_slice text(const char *what) {
    return (struct wire_slice){(const uint8_t *)what, (uint32_t)strlen(what)};
}

static void say(struct stage *stage, int fd, int size) {
    CHECK(size > 0 && send(fd, stage->packet, (size_t)size, MSG_NOSIGNAL) == size);
}

#define SAY(fd, name, header, ...)                                                                                     \
    say(stage, fd,                                                                                                     \
        wire_##name##_encode(                                                                                          \
            &(struct wire_header)header, &(struct wire_##name)__VA_ARGS__, stage->packet, sizeof(stage->packet)))
#define H(...)                                                                                                         \
    { __VA_ARGS__ }

/* The first loop turns until something is there to read. */
static void await(struct stage *stage, int fd) {
    const uint64_t until = clock_monotonic_us() + PATIENCE_US;
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    while (poll(&wanted, 1, 0) == 0) {
        CHECK(clock_monotonic_us() < until);
        CHECK(dispatch_turn(&stage->dispatch, 1000) == 0);
    }
}

/* The next packet of that kind; others are passed over. */
static struct wire_header hear(struct stage *stage, int fd, uint16_t type, ssize_t *ret_size) {
    struct wire_header header;
    do {
        await(stage, fd);
        *ret_size = recv(fd, stage->packet, sizeof(stage->packet), 0);
        CHECK(*ret_size > 0 && wire_peek(stage->packet, (size_t)*ret_size, &header) == 0);
    } while (header.type != type);
    return header;
}

/* ---- the stage ------------------------------------------------------------------------------------------------- */

static void put_tables(struct stage *stage, bool runtime_api) {
    const struct wire_put_target target = {.function_name = text("f"),
        .function_version = text("1"),
        .memory_mb = 128,
        .timeout_ms = 600000,
        .init_timeout_ms = 600000,
        .max_environments = 1,
        .max_concurrency = 4,
        .max_waiting = 2,
        .keep_alive_ms = 600000,
        .runtime_api = runtime_api};
    const struct wire_put_route route = {.name = text("f"), .qualifier = text("$LATEST"), .target = 1};

    SAY(stage->control, hello, H(.generation = 1), {.role = WIRE_ROLE_CONTROL});
    SAY(stage->control, sync_begin, H(.generation = 1, .seq = 1), {0});
    say(stage, stage->control,
        wire_put_target_encode(&(struct wire_header){.generation = 1, .seq = 2, .object = 1}, &target, stage->packet,
            sizeof(stage->packet)));
    say(stage, stage->control,
        wire_put_route_encode(&(struct wire_header){.generation = 1, .seq = 3, .object = 1}, &route, stage->packet,
            sizeof(stage->packet)));
    SAY(stage->control, sync_end, H(.generation = 1, .seq = 4), {0});
}

static void open_stage(struct stage *stage, bool runtime_api) {
    char directory[] = "/tmp/test-travel-XXXXXX";
    int launcher[2], control[2];

    memset(stage, 0, sizeof(*stage));
    stage->channel = stage->log = stage->listener = stage->runtime = -1;
    CHECK(mkdtemp(directory) != NULL);
    CHECK(socketpair_seqpacket(launcher, 2) == 0 && socketpair_seqpacket(control, 2) == 0);
    const struct dispatch_options options = {.loops = 2,
        .launcher = launcher[1],
        .listener = -1,
        .http = -1,
        .http_tcp = -1,
        .logs = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    CHECK(dispatch_open(&stage->dispatch, &options) == 0);
    CHECK(rmdir(directory) == 0);
    stage->launcher = launcher[0];
    stage->control = control[0];
    control_adopt(&stage->dispatch.control, control[1], 1);
    put_tables(stage, runtime_api);
    while (!stage->dispatch.synced)
        CHECK(dispatch_turn(&stage->dispatch, 1000) == 0);
    loops_stop(stage->dispatch.loops);
    for (unsigned i = 0; i < 2; i++) {
        int pair[2];
        CHECK(socketpair_seqpacket(pair, 2) == 0);
        CHECK(transport_adopt(&stage->dispatch.loops->each[i]->transport, pair[1], 0) == 0);
        stage->callers[i] = pair[0];
    }
    loops_go(stage->dispatch.loops);
}

static void close_stage(struct stage *stage) {
    const int ours[] = {stage->launcher, stage->control, stage->callers[0], stage->callers[1], stage->channel,
        stage->log, stage->listener, stage->runtime};
    dispatch_close(&stage->dispatch);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (ours[i] >= 0)
            close(ours[i]);
}

static void call(struct stage *stage, unsigned loop) {
    SAY(stage->callers[loop], call, H(.object = 1), {.name = text("f"), .total = 2, .body = text("{}")});
}

/* ---- an environment -------------------------------------------------------------------------------------------- */

/* LAUNCH of the second loop, granted. */
static void grant(struct stage *stage) {
    struct wire_launched message = {.descriptors = WIRE_LAUNCHED_CHANNEL | WIRE_LAUNCHED_LOG};
    int channel[2], log[2], fds[3];
    ssize_t n;

    stage->id = hear(stage, stage->launcher, WIRE_LAUNCH, &n).object;
    CHECK(socketpair_seqpacket(channel, 2) == 0 && pipe2(log, O_CLOEXEC | O_NONBLOCK) == 0);
    fds[0] = channel[1];
    fds[1] = log[0];
    fds[2] = stage->listener;
    if (stage->listener >= 0)
        message.descriptors |= WIRE_LAUNCHED_LISTENER;
    int size = wire_launched_encode(
        &(struct wire_header){.object = stage->id}, &message, stage->packet, sizeof(stage->packet));
    CHECK(packet_send(stage->launcher, stage->packet, (size_t)size, fds, stage->listener >= 0 ? 3 : 2) == 0);
    close(channel[1]);
    close(log[0]);
    stage->channel = channel[0];
    stage->log = log[1];
    (void)hear(stage, stage->channel, WIRE_START, &n);
}

/* The first loop's caller waits, and the second loop is to know: what becomes free there is given away. */
static void go_hungry(struct stage *stage) {
    const uint64_t until = clock_monotonic_us() + PATIENCE_US;
    const struct target *target = table_get(&stage->dispatch.targets.by_id, 1);

    call(stage, 0);
    while (atomic_load(&target->common->views[0].hungry) == 0) {
        CHECK(clock_monotonic_us() < until);
        CHECK(dispatch_turn(&stage->dispatch, 1000) == 0);
    }
}

static void see(struct environment *environment, void *argument) {
    *(struct environment **)argument = environment;
}

/* The first loop does not turn meanwhile. */
static struct environment *await_mail(struct stage *stage) {
    const uint64_t until = clock_monotonic_us() + PATIENCE_US;
    struct environment *found = NULL;
    while (travel_look(&stage->dispatch, see, &found), found == NULL) {
        CHECK(clock_monotonic_us() < until);
        usleep(1000);
    }
    return found;
}

/* One that has served the second loop's caller lies in the first loop's mail. */
static struct environment *send_environment(struct stage *stage) {
    struct wire_result result = {.total = 2, .body = text("{}")};
    struct wire_header header;
    struct wire_invoke invoke;
    ssize_t n;

    call(stage, 1);
    grant(stage);
    SAY(stage->channel, init_done, H(0), {0});
    (void)hear(stage, stage->channel, WIRE_INVOKE, &n);
    CHECK(wire_invoke_decode(stage->packet, (size_t)n, &header, &invoke) == 0);
    memcpy(result.id, invoke.id, sizeof(result.id));
    go_hungry(stage);
    say(stage, stage->channel,
        wire_result_encode(
            &(struct wire_header){.flags = WIRE_HEADER_READY}, &result, stage->packet, sizeof(stage->packet)));
    return await_mail(stage);
}

static void runtime_says(struct stage *stage, const char *what) {
    CHECK(send(stage->runtime, what, strlen(what), MSG_NOSIGNAL) == (ssize_t)strlen(what));
}

/* A whole answer: the dispatcher sends it at once. */
static void runtime_hears(struct stage *stage, char *answer, size_t size) {
    size_t n = 0;
    const char *body;
    do {
        await(stage, stage->runtime);
        ssize_t part = recv(stage->runtime, answer + n, size - 1 - n, 0);
        CHECK(part > 0);
        n += (size_t)part;
        answer[n] = '\0';
        body = strstr(answer, "\r\n\r\n");
    } while (body == NULL || strlen(body) <= 4);
}

#define NEXT "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: h\r\n\r\n"

/* The same of one that speaks the Runtime API. */
static struct environment *send_runtime(struct stage *stage) {
    char answer[4096], report[256], *id;
    socklen_t size = sizeof(stage->at);

    stage->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    stage->at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(bind(stage->listener, (struct sockaddr *)&stage->at, size) == 0 && listen(stage->listener, 4) == 0);
    CHECK(getsockname(stage->listener, (struct sockaddr *)&stage->at, &size) == 0);
    call(stage, 1);
    grant(stage);
    stage->runtime = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(stage->runtime, (struct sockaddr *)&stage->at, size) == 0);
    runtime_says(stage, NEXT);
    runtime_hears(stage, answer, sizeof(answer));
    id = strcasestr(answer, "Lambda-Runtime-Aws-Request-Id: ");
    CHECK(id != NULL);
    go_hungry(stage);
    snprintf(report, sizeof(report),
        "POST /2018-06-01/runtime/invocation/%.36s/response HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
        id + strlen("Lambda-Runtime-Aws-Request-Id: "));
    runtime_says(stage, report);
    runtime_hears(stage, answer, sizeof(answer));
    runtime_says(stage, NEXT);
    return await_mail(stage);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

/* The launcher's socket is read before the mail is: what it says of the environment counts. */
static void test_its_end_is_heard(void) {
    static struct stage stage_, *stage = &stage_;
    struct watch *watch = &stage->dispatch.launcher.watch;
    struct wire_header header;
    struct wire_answer answer;
    ssize_t n;

    open_stage(stage, false);
    (void)send_environment(stage);
    SAY(stage->launcher, exited, H(.object = stage->id), {.status = 9});
    watch->ready(watch, EPOLLIN);
    (void)hear(stage, stage->callers[0], WIRE_ANSWER, &n);
    CHECK(wire_answer_decode(stage->packet, (size_t)n, &header, &answer) == 0);
    CHECK(answer.outcome == WIRE_OUTCOME_FUNCTION_ERROR);
    CHECK(table_get(&stage->dispatch.environments, stage->id) == NULL);
    CHECK(atomic_load(&stage->dispatch.loops->room.environments) == 0);
    close_stage(stage);
}

static void test_a_runtime_is_freed_unread(void) {
    static struct stage stage;
    open_stage(&stage, true);
    (void)send_runtime(&stage);
    close_stage(&stage);
}

/* Its log cannot be watched here: it ends, and another is launched. */
static void test_a_runtime_that_cannot_be_watched_ends(void) {
    static struct stage stage;
    struct epoll_event event = {.events = EPOLLONESHOT};
    ssize_t n;

    open_stage(&stage, true);
    const struct environment *environment = send_runtime(&stage);
    event.data.ptr = NULL;
    CHECK(epoll_ctl(stage.dispatch.loop.epoll, EPOLL_CTL_ADD, environment->log.watch.fd, &event) == 0);
    CHECK(hear(&stage, stage.launcher, WIRE_END, &n).object == stage.id);
    CHECK(hear(&stage, stage.launcher, WIRE_LAUNCH, &n).object != stage.id);
    close_stage(&stage);
}

int main(void) {
    test_its_end_is_heard();
    test_a_runtime_is_freed_unread();
    test_a_runtime_that_cannot_be_watched_ends();
    return 0;
}
