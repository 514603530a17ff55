/* The link to the control plane: HELLO, acknowledgements, SNAPSHOT; see the header. */
#include "dispatch/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/control_snapshot.h"
#include "dispatch/dispatch.h"
#include "dispatch/events.h"
#include "dispatch/levels.h"

#define BATCH 128

/* ---- out ------------------------------------------------------------------------------------------------------- */

int control_send(struct control *control, int size, const int *fds, unsigned n_fds) {
    return size < 0 ? size : packet_send(control->watch.fd, control->dispatch->packet_out, (size_t)size, fds, n_fds);
}

static int send_hello(struct control *control) {
    struct dispatch *dispatch = control->dispatch;
    struct wire_header header = {.epoch = control->epoch};
    const char *build = dispatch->launcher.build;
    struct wire_hello hello = {.role = WIRE_ROLE_DISPATCH, .build = {(const uint8_t *)build, (uint32_t)strlen(build)}};
    return control_send(
        control, wire_hello_encode(&header, &hello, dispatch->packet_out, WIRE_MESSAGE_MAX), &dispatch->counters.fd, 1);
}

static int send_refusal(struct control *control, const struct refusal *refusal) {
    struct wire_header header = {.epoch = control->epoch};
    struct wire_nack nack = {
        .refused = refusal->seq,
        .error = refusal->error,
        .field = {(const uint8_t *)refusal->field, (uint32_t)strlen(refusal->field)},
        .reason = {(const uint8_t *)refusal->reason, (uint32_t)strlen(refusal->reason)},
    };
    return control_send(
        control, wire_nack_encode(&header, &nack, control->dispatch->packet_out, WIRE_MESSAGE_MAX), NULL, 0);
}

static int send_ack(struct control *control) {
    struct wire_header header = {.epoch = control->epoch};
    struct wire_ack ack = {.acknowledged = control->seen};
    return control_send(
        control, wire_ack_encode(&header, &ack, control->dispatch->packet_out, WIRE_MESSAGE_MAX), NULL, 0);
}

static int send_snapshot(struct control *control) {
    struct dispatch *dispatch = control->dispatch;
    struct wire_header header = {.epoch = control->epoch};
    struct wire_snapshot_end end = {0};
    int r = control->rows == NULL ? control_snapshot_take(control) : 0;

    if (r < 0)
        return r;
    for (; control->rows_sent < control->n_rows; control->rows_sent++) {
        const struct snapshot_row *row = &control->rows[control->rows_sent];
        struct wire_snapshot_environment message = {
            .target = row->target, .state = row->state, .invocations = row->invocations};
        header.object = row->id;
        r = control_send(control,
            wire_snapshot_environment_encode(&header, &message, dispatch->packet_out, WIRE_MESSAGE_MAX), NULL, 0);
        if (r < 0)
            return r;
    }
    header.object = 0;
    end.in_flight = control->rows_in_flight;
    r = control_send(control, wire_snapshot_end_encode(&header, &end, dispatch->packet_out, WIRE_MESSAGE_MAX), NULL, 0);
    if (r >= 0)
        control_snapshot_done(control, false);
    return r;
}

/* In the order that the other side needs: refusals before the acknowledgement that covers them. */
static int send_due(struct control *control) {
    int r;
    if (!control->hello_sent) {
        r = send_hello(control);
        if (r < 0)
            return r;
        control->hello_sent = true;
    }
    if (!control->greeted)
        return 0;
    if (control->snapshot) {
        r = send_snapshot(control);
        if (r < 0)
            return r;
    }
    while (control->n_refusals > 0) {
        r = send_refusal(control, &control->refusals[0]);
        if (r < 0)
            return r;
        control->n_refusals--;
        memmove(control->refusals, control->refusals + 1, control->n_refusals * sizeof(control->refusals[0]));
    }
    if (control->seen != control->acknowledged) {
        r = send_ack(control);
        if (r < 0)
            return r;
        control->acknowledged = control->seen;
    }
    r = events_send(control->dispatch);
    return r < 0 ? r : levels_send(control);
}

void control_flush(struct control *control) {
    bool writing;
    int r;

    if (control->watch.fd < 0)
        return;
    if (control->writing && !control->writable)
        return; /* it was full, and has not said otherwise */
    control->writable = false;
    r = send_due(control);
    if (r < 0 && r != -EAGAIN) {
        control_close(control);
        return;
    }
    writing = r == -EAGAIN;
    if (writing == control->writing)
        return;
    control->writing = writing;
    (void)loop_change(&control->dispatch->loop, &control->watch, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

static void refuse(struct control *control, const struct refusal *refusal) {
    count_one(&control->dispatch->counters.node->control_refused);
    if (control->n_refusals < CONTROL_WINDOW)
        control->refusals[control->n_refusals++] = *refusal;
}

/* Another build speaks another language, whatever the version says. */
static int on_hello(struct control *control, const uint8_t *packet, size_t size) {
    const char *build = control->dispatch->launcher.build;
    struct wire_header header;
    struct wire_hello hello;

    if (wire_hello_decode(packet, size, &header, &hello) < 0 || hello.role != WIRE_ROLE_CONTROL || control->greeted)
        return -EBADMSG;
    if (build[0] != '\0' && hello.build.size > 0 &&
        (hello.build.size != strlen(build) || memcmp(hello.build.data, build, hello.build.size) != 0)) {
        struct refusal refusal = {.error = EPROTO, .field = "build", .reason = "the control plane is another build"};
        fprintf(stderr, "runtimed-dispatch: the control plane is build %.*s, the launcher %s\n", (int)hello.build.size,
            (const char *)hello.build.data, build);
        (void)send_refusal(control, &refusal);
        return -EPROTO;
    }
    control->greeted = true;
    control_snapshot_done(control, true);
    events_tell_all(control->dispatch);
    return 0;
}

/* By every loop alike. Only the lack of memory can make them differ. */
static int apply(struct control *control, const uint8_t *packet, size_t size, const struct wire_header *header,
    struct refusal *refusal) {
    struct loops *loops = control->dispatch->loops;
    int r = 0;

    for (unsigned i = loops->n; i-- > 0;) {
        int one = control_apply(&loops->each[i]->control, packet, size, header, refusal);
        r = one < 0 ? one : r;
    }
    return r;
}

static int on_packet(struct control *control, const uint8_t *packet, size_t size) {
    struct refusal refusal = {.field = "", .reason = ""};
    struct wire_header header;
    int r;

    if (wire_peek(packet, size, &header) < 0)
        return -EBADMSG;
    count_one(&control->dispatch->counters.node->control_messages);
    if (header.type == WIRE_HELLO)
        return on_hello(control, packet, size);
    if (!control->greeted)
        return -EPROTO;
    r = apply(control, packet, size, &header, &refusal);
    if (header.seq != 0) {
        control->seen = header.seq;
        if (control->seen - control->acknowledged > CONTROL_WINDOW)
            return -EPROTO;
    }
    if (r < 0) {
        refusal.seq = header.seq;
        refusal.error = (uint32_t)-r;
        refuse(control, &refusal);
    }
    return 0;
}

static int read_batch(struct control *control) {
    uint8_t *buffer = control->dispatch->packet_in;

    for (unsigned i = 0; i < BATCH; i++) {
        ssize_t n = recv(control->watch.fd, buffer, WIRE_MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);
        int r;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        r = n <= 0 ? -ECONNRESET : (size_t)n > WIRE_MESSAGE_MAX ? -EBADMSG : on_packet(control, buffer, (size_t)n);
        if (r < 0) {
            if (n > 0)
                fprintf(stderr, "runtimed-dispatch: the control plane broke the protocol: %s\n", strerror(-r));
            return r;
        }
    }
    return 0;
}

/* All loops stand still meanwhile: what is acknowledged after it, all of them know. */
static void on_ready(struct watch *watch, uint32_t events) {
    struct control *control = list_entry(watch, struct control, watch);
    struct loops *loops = control->dispatch->loops;

    control->writable = (events & EPOLLOUT) != 0;
    loops_stop(loops);
    if (read_batch(control) < 0)
        control_close(control);
    loops_reap(loops);
    loops_go(loops);
}

/* ---- links ----------------------------------------------------------------------------------------------------- */

void control_init(struct control *control, struct dispatch *dispatch) {
    *control = (struct control){.watch = {.fd = -1, .ready = on_ready}, .dispatch = dispatch};
    levels_init(&control->levels);
}

void control_adopt(struct control *control, int fd, uint32_t epoch) {
    struct loops *loops = control->dispatch->loops;

    loops_stop(loops);
    control_close(control);
    control->watch.fd = fd;
    control->epoch = epoch;
    control->hello_sent = control->greeted = control->writing = control->synchronising = control->snapshot = false;
    control->seen = control->acknowledged = 0;
    control->n_refusals = 0;
    atomic_store(&loops->connected, true);
    if (fd_set_nonblocking(fd, 1) < 0 || loop_add(&control->dispatch->loop, &control->watch, EPOLLIN) < 0)
        cleanup_close(&control->watch.fd);
    loops_go(loops);
}

static void close_link(struct control *control) {
    struct loops *loops = control->dispatch->loops;

    loop_remove(&control->dispatch->loop, &control->watch);
    cleanup_close(&control->watch.fd);
    control_snapshot_done(control, false);
    if (control->dispatch->number != 0)
        return;
    atomic_store(&loops->connected, false);
    for (unsigned i = 0; i < loops->n; i++) {
        loops->each[i]->control.synchronising = false;
        levels_forget(&loops->each[i]->control);
    }
    forwards_forget(control->dispatch);
    levels_void(control->dispatch);
}

/* Other loops may be about to pass a request on by it. */
void control_close(struct control *control) {
    loops_stop(control->dispatch->loops);
    close_link(control);
    loops_go(control->dispatch->loops);
}
