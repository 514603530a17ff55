/* The dispatcher that replaces another; see handover.h. Nothing that comes here is believed. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/handover.h"
#include "dispatch/perform.h"
#include "dispatch/runtime_connection.h"
#include "dispatch/schedule.h"

/* Linux 5.14; the C library of older systems does not know it. */
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

enum kind { CHANNEL, LOG, FREEZE, PEAK, LISTENER, WAITING, KINDS };

void takeover_expect(struct loops *loops) {
    loops_stop(loops);
    for (unsigned i = 0; i < loops->n; i++)
        loops->each[i]->handover.expecting_us = UINT64_MAX;
    loops_go(loops);
}

void takeover_serve(struct dispatch *dispatch) {
    struct handover *handover = &dispatch->handover;
    const bool first = handover->expecting_us == UINT64_MAX || inherit_expected(dispatch);

    if (dispatch->number == 0)
        inherit_begin(dispatch);
    if (handover->expecting_us == UINT64_MAX)
        handover->expecting_us = dispatch->loop.now_us + HANDOVER_EXPECT_US;
    if (first && dispatch->number == 0) /* later ones are told nothing new */
        launcher_serving(&dispatch->launcher);
}

uint64_t takeover_expected_us(const struct dispatch *dispatch) {
    const struct handover *handover = &dispatch->handover;
    return dispatch->loop.now_us < handover->expecting_us ? handover->expecting_us : 0;
}

/* What was needed meanwhile is launched now. */
static void expect_no_more(struct dispatch *dispatch) {
    struct target *target;
    size_t at = 0;

    dispatch->handover.expecting_us = 0;
    while ((target = table_next(&dispatch->targets.by_id, &at)) != NULL)
        schedule_target(target);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------ */

static bool is_socket(int fd, int domain, int type, int accepts) {
    int value[3] = {-1, -1, -1};
    const int names[3] = {SO_DOMAIN, SO_TYPE, SO_ACCEPTCONN};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        socklen_t size = sizeof(value[i]);
        if (getsockopt(fd, SOL_SOCKET, names[i], &value[i], &size) < 0)
            return false;
    }
    return value[0] == domain && value[1] == type && value[2] == accepts;
}

static bool is_file(int fd, mode_t kind) {
    struct stat about;
    return fstat(fd, &about) == 0 && (about.st_mode & S_IFMT) == kind;
}

static bool is_of_kind(int fd, enum kind kind) {
    switch (kind) {
    case CHANNEL:
        return is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 0);
    case LOG:
        return is_file(fd, S_IFIFO);
    case FREEZE:
    case PEAK:
        return is_file(fd, S_IFREG);
    case LISTENER:
        return is_socket(fd, AF_INET, SOCK_STREAM, 1);
    default:
        return is_socket(fd, AF_INET, SOCK_STREAM, 0);
    }
}

/* Of the same network namespace, which only the one environment is in. */
static bool are_neighbours(int fd, int other) {
    uint64_t ours = 0, theirs = 0;
    socklen_t size = sizeof(ours);
    return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &ours, &size) == 0 &&
        getsockopt(other, SOL_SOCKET, SO_NETNS_COOKIE, &theirs, &size) == 0 && ours == theirs;
}

/* Out of the packet, each into its place. False: one is missing, too many, not what it should be, or not what the launcher
 * gave with this environment. The runtime's connection came to its listener, the launcher has never seen it. */
static bool take_descriptors(struct packet *packet, const struct wire_handed *handed, uint8_t flags, int fds[KINDS]) {
    unsigned n = 0;

    if (handed->known.size != packet->n_fds)
        return false;
    for (unsigned i = 0; i < KINDS; i++) {
        if ((flags & (1u << i)) == 0)
            continue;
        if (n == packet->n_fds || !is_of_kind(packet->fds[n], (enum kind)i))
            return false;
        if (handed->known.data[n] != (i == WAITING ? 0 : 1u << i))
            return false;
        fds[i] = steal_fd(&packet->fds[n++]);
    }
    return n == packet->n_fds && flags >> KINDS == 0 &&
        (fds[WAITING] < 0 || (fds[LISTENER] >= 0 && are_neighbours(fds[WAITING], fds[LISTENER])));
}

/* ---- environments ----------------------------------------------------------------------------------------------- */

static void attach(
    struct environment *environment, const struct wire_environment_handed *message, uint32_t uid, int fds[KINDS]) {
    environment->answered = true;
    environment->uid = uid;
    environment->incarnation = message->incarnation;
    environment->init_type = message->init_type;
    ahead_took(environment);
    environment->served = message->served;
    environment->init_us = message->init_us;
    environment->ready = environment->participants;
    environment->freeze_fd = steal_fd(&fds[FREEZE]);
    environment->peak_fd = steal_fd(&fds[PEAK]);
    environment->listener_fd = steal_fd(&fds[LISTENER]);
    environment_see_peak(environment, message->peak_kb);
    if (message->frozen)
        environment_was_frozen(environment);
    logs_attach(environment, steal_fd(&fds[LOG]));
}

/* Its channel, or its runtime's connection. */
static int connect_to(struct environment *environment, const struct wire_environment_handed *message, int fds[KINDS]) {
    int r = fds[CHANNEL] >= 0 ? channel_attach(environment, fds[CHANNEL]) : 0;
    fds[CHANNEL] = -1; /* its own by now, whatever came of it */
    if (r < 0 || !message->runtime_api)
        return r;
    r = runtime_open(environment);
    return r < 0 ? r : runtime_resume(environment->runtime, steal_fd(&fds[WAITING]), message->close != 0);
}

/* It is idle, for as long as it was; unless somebody waits for it. */
static void offer(struct environment *environment, uint64_t idle_us) {
    struct dispatch *dispatch = environment->dispatch;
    const struct target *target = environment->target;
    uint64_t now = dispatch->loop.now_us, due;

    schedule_environment(environment);
    schedule_target(environment->target);
    if (environment->state != ENVIRONMENT_IDLE)
        return;
    environment->idle_us = now - MIN(idle_us, now);
    due = environment->idle_us + ahead_keep_us(environment);
    if (environment->freezer == FREEZER_RUNNING && target->freeze_after_ms != 0 && environment->freeze_fd >= 0)
        due = MIN(due, environment->idle_us + (uint64_t)target->freeze_after_ms * 1000);
    timer_set(&dispatch->loop.timers, &environment->timer, due);
}

static bool take_environment(
    struct dispatch *dispatch, uint64_t id, const struct wire_handed *handed, struct packet *packet, int fds[KINDS]) {
    struct wire_header header;
    struct wire_environment_handed message;
    struct environment *environment;
    struct target *target;

    if (wire_environment_handed_decode(handed->state.data, handed->state.size, &header, &message) < 0 ||
        header.object != id || id == 0 || table_get(&dispatch->environments, id) != NULL ||
        !take_descriptors(packet, handed, message.descriptors, fds) || message.frozen > 1 || message.runtime_api > 1)
        return false;
    target = target_find(dispatch, message.target);
    if (target == NULL || target->plan != handed->plan || target->runtime_api != (message.runtime_api != 0))
        return false;
    if (message.runtime_api ? fds[LISTENER] < 0 : fds[CHANNEL] < 0)
        return false;
    environment = environment_take(target, id);
    if (environment == NULL)
        return false;
    attach(environment, &message, handed->uid, fds);
    if (connect_to(environment, &message, fds) < 0)
        environment_handle(environment, EVENT_RETIRE, NULL);
    else
        offer(environment, message.idle_us);
    return true;
}

static void on_environment(
    struct dispatch *dispatch, uint64_t id, const struct wire_handed *handed, struct packet *packet) {
    int fds[KINDS];

    for (unsigned i = 0; i < KINDS; i++)
        fds[i] = -1;
    if (!take_environment(dispatch, id, handed, packet, fds) && table_get(&dispatch->environments, id) == NULL)
        launcher_end_unknown(&dispatch->launcher, id);
    for (unsigned i = 0; i < KINDS; i++)
        cleanup_close(&fds[i]);
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static void on_connection(struct dispatch *dispatch, const struct wire_handed *handed, struct packet *packet) {
    struct wire_header header;
    struct wire_connection_handed message;
    int fd, r;

    if (dispatch->number != 0)
        spread_took(dispatch);
    if (wire_connection_handed_decode(handed->state.data, handed->state.size, &header, &message) < 0 ||
        packet->n_fds != 1)
        return;
    fd = packet->fds[0];
    if (fd_set_nonblocking(fd, 1) < 0)
        return;
    if (is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 0)) {
        r = transport_take(&dispatch->transport, fd);
        if (r >= 0)
            list_entry(dispatch->transport.connections.previous, struct connection, node)->owed = message.owed != 0;
    } else if (is_socket(fd, AF_UNIX, SOCK_STREAM, 0))
        r = http_take(&dispatch->http, fd, false, message.input);
    else if (is_socket(fd, AF_INET, SOCK_STREAM, 0) || is_socket(fd, AF_INET6, SOCK_STREAM, 0))
        r = http_take(&dispatch->http, fd, true, message.input);
    else
        r = -EBADF;
    if (r < 0)
        count_one(&dispatch->counters.node->connections_refused);
    else
        (void)steal_fd(&packet->fds[0]);
}

/* ---- several loops ------------------------------------------------------------------------------------------------ */

/* The first loop reads it all. True: it is another's. */
static bool is_of_another(struct dispatch *dispatch, uint8_t kind, uint64_t id, struct packet *packet) {
    struct loops *loops = dispatch->loops;
    unsigned to = 0;

    if (loops->n == 1 || dispatch->number != 0)
        return false;
    if (kind == WIRE_HANDED_KIND_CONNECTION)
        to = spread_choose(loops);
    else if (kind == WIRE_HANDED_KIND_ENVIRONMENT && table_get(&dispatch->environments, id) == NULL)
        to = loops_owner(loops, id);
    if (to == 0)
        return false;
    if (kind == WIRE_HANDED_KIND_CONNECTION)
        spread_sent(loops, to);
    loops_pass_on(loops, to, packet);
    return true;
}

/* Behind what was passed on to them. */
static void tell_others(struct dispatch *dispatch, struct packet *packet) {
    for (unsigned i = 1; dispatch->number == 0 && i < dispatch->loops->n; i++)
        loops_pass_on(dispatch->loops, i, packet);
}

/* The one before has ended; each loop sees to its own. Callers that it died without answering learn it from the end of
 * their connections. */
static void see_end(struct dispatch *dispatch, bool lost) {
    if (dispatch->number == 0)
        inherit_finish(dispatch);
    list_for_each_safe(node, &dispatch->transport.connections) {
        struct connection *connection = list_entry(node, struct connection, node);
        if (connection->owed && lost)
            connection_break(connection);
        connection->owed = false;
    }
}

void takeover_message(struct dispatch *dispatch, struct packet *packet) {
    struct wire_header header;
    struct wire_handed message;

    if (wire_handed_decode(packet->data, packet->size, &header, &message) < 0)
        return;
    if (is_of_another(dispatch, message.kind, header.object, packet))
        return;
    if (message.kind == WIRE_HANDED_KIND_ALL || message.kind == WIRE_HANDED_KIND_LOST) {
        if (message.version == 0) /* the launcher says so */
            see_end(dispatch, message.kind == WIRE_HANDED_KIND_LOST);
        tell_others(dispatch, packet);
        expect_no_more(dispatch);
    } else if (message.kind == WIRE_HANDED_KIND_ENVIRONMENT) {
        if (message.version == 0 || message.version > HANDOVER_VERSION)
            launcher_end_unknown(&dispatch->launcher, header.object);
        else
            on_environment(dispatch, header.object, &message, packet);
    } else if (message.kind == WIRE_HANDED_KIND_CONNECTION && message.version <= HANDOVER_VERSION) {
        on_connection(dispatch, &message, packet);
    }
}
