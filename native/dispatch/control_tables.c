/* What the control plane puts: targets, routes, limits. Each message is applied whole or refused whole. */
#include <errno.h>

#include "base/cleanup.h"
#include "dispatch/control.h"
#include "dispatch/dispatch.h"
#include "dispatch/events.h"
#include "dispatch/perform.h"
#include "dispatch/travel.h"

static int refuse(struct refusal *refusal, int error, const char *field, const char *reason) {
    refusal->field = field;
    refusal->reason = reason;
    return error;
}

static int put_target(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct wire_header header;
    struct wire_put_target message;
    const char *field = "";
    int r;

    if (wire_put_target_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    r = target_put(control->dispatch, &header, &message, &field);
    return r < 0 ? refuse(refusal, r, field, r == -ENOMEM ? "out of memory" : "out of range") : 0;
}

static int put_pool(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct wire_header header;
    struct wire_put_pool message;
    const char *field;
    int r;

    if (wire_put_pool_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    r = ahead_put(control->dispatch, &header, &message, &field);
    if (r == -ENOENT)
        return refuse(refusal, r, "object", "no such target");
    return r < 0 ? refuse(refusal, r, field, "out of range") : 0;
}

static int put_route(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct dispatch *dispatch = control->dispatch;
    struct wire_header header;
    struct wire_put_route message;

    if (wire_put_route_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    if (header.object == 0)
        return refuse(refusal, -EINVAL, "object", "out of range");
    if (message.name.size == 0)
        return refuse(refusal, -EINVAL, "name", "empty");
    if (message.alternate_weight > ROUTE_WEIGHT_ONE)
        return refuse(refusal, -EINVAL, "alternate_weight", "above 65536");
    if (target_find(dispatch, message.target) == NULL)
        return refuse(refusal, -ENOENT, "target", "no such target");
    if (message.alternate != 0 && target_find(dispatch, message.alternate) == NULL)
        return refuse(refusal, -ENOENT, "alternate", "no such target");
    if (routes_put(&dispatch->routes, &header, &message, control->mark) < 0)
        return refuse(refusal, -ENOMEM, "", "out of memory");
    return 0;
}

static int put_limit(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct dispatch *dispatch = control->dispatch;
    struct wire_header header;
    struct wire_put_limit message;

    if (wire_put_limit_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    if (header.object != 0)
        return refuse(refusal, -ENOENT, "object", "only the account has a limit");
    if (header.generation < dispatch->account_generation)
        return 0;
    dispatch->account_generation = header.generation;
    account_limit(&dispatch->loops->account, message.concurrency);
    dispatch->loops->room.limit = message.environments;
    dispatch->loops->burst = message.burst;
    dispatch->loops->stream_limits = stream_limits(message.stream_bytes, message.stream_burst, message.stream_rate);
    dispatch->loops->stall_us = message.stall_ms != 0 ? (uint64_t)message.stall_ms * 1000 : HTTP_STALL_US;
    dispatch->loops->ration = message.ration != 0 ? MIN(message.ration, RATION_RATE_MAX) : RATION_RATE;
    room_changed(dispatch);
    levels_account(dispatch);
    return 0;
}

static int put_pressure(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct wire_header header;
    struct wire_put_pressure message;

    if (wire_put_pressure_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    if (header.object != 0)
        return refuse(refusal, -ENOENT, "object", "only the node has memory");
    if (message.level >= ROOM_PRESSURES_N)
        return refuse(refusal, -EINVAL, "level", "out of range");
    control->pressed = true;
    room_press(control->dispatch, message.level, message.idle);
    return 0;
}

static int put_principal(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct wire_header header;
    struct wire_put_principal message;
    const char *field;
    int r;

    if (wire_put_principal_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    r = principals_put(&control->dispatch->principals, &header, &message, control->mark, &field);
    return r < 0 ? refuse(refusal, r, field != NULL ? field : "", r == -ENOMEM ? "out of memory" : "out of range") : 0;
}

static int credit(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct wire_header header;
    struct wire_credit message;

    if (wire_credit_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    if (control->dispatch->number == 0)
        forwards_credit(control->dispatch, header.object, message.n);
    return 0;
}

static int put_async(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct wire_header header;
    struct wire_put_async message;

    if (wire_put_async_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    if (control->dispatch->number != 0)
        return 0;
    int r = events_put_rule(control->dispatch, header.object, &message, control->mark);
    return r < 0 ? refuse(refusal, r, "", "out of memory") : 0;
}

static int operate(struct control *control, const uint8_t *packet, size_t size, struct refusal *refusal) {
    struct wire_header header;
    struct wire_queue_op message;

    if (wire_queue_op_decode(packet, size, &header, &message) < 0)
        return refuse(refusal, -EBADMSG, "", "malformed");
    if (control->dispatch->number != 0)
        return 0;
    int r = events_operate(control->dispatch, header.object, &message);
    return r < 0 ? refuse(refusal, r, "", r == -ENOMEM ? "out of memory" : "there is no event log") : 0;
}

static void retire_traveller(struct environment *environment, void *id) {
    environment->retire = environment->retire || environment->id == *(const uint64_t *)id;
}

/* By the loop that has it, or will have. */
static void retire_environment(struct dispatch *dispatch, uint64_t id) {
    struct environment *environment = table_get(&dispatch->environments, id);
    if (environment != NULL)
        environment_handle(environment, EVENT_RETIRE, NULL);
    else if (dispatch->loops->n > 1)
        travel_look(dispatch, retire_traveller, &id);
}

static void sync_begin(struct control *control) {
    control->mark++;
    control->synchronising = true;
    control->pressed = false;
    /* The tables come whole from here on, with generations of their own: none is too old. */
    control->dispatch->account_generation = 0;
}

static int sync_end(struct control *control, struct refusal *refusal) {
    struct dispatch *dispatch = control->dispatch;
    int r;

    if (!control->synchronising)
        return refuse(refusal, -EPROTO, "", "SYNC_END without SYNC_BEGIN");
    control->synchronising = false;
    routes_sweep(&dispatch->routes, control->mark);
    targets_sweep(dispatch);
    principals_sweep(&dispatch->principals, control->mark);
    if (!control->pressed)
        room_press(dispatch, ROOM_PRESSURE_NONE, UINT32_MAX);
    if (dispatch->number == 0) /* the event log is told once */
        events_sweep_rules(dispatch, control->mark);
    dispatch->synced = true;
    /* A control plane that tells all anew wants it served; only the launcher's DRAIN is for good. */
    dispatch->draining = dispatch->leave_drained;
    if (dispatch->handover.giving)
        return 0; /* another one listens */
    if (!dispatch->draining && dispatch->number == 0)
        events_serve(dispatch);
    r = transport_listen(&dispatch->transport);
    if (r >= 0)
        r = http_listen(&dispatch->http);
    if (r < 0)
        return r;
    takeover_serve(dispatch);
    ahead_begin(dispatch);
    return 0;
}

int control_apply(struct control *control, const uint8_t *packet, size_t size, const struct wire_header *header,
    struct refusal *refusal) {
    struct dispatch *dispatch = control->dispatch;

    switch (header->type) {
    case WIRE_PUT_TARGET:
        return put_target(control, packet, size, refusal);
    case WIRE_PUT_POOL:
        return put_pool(control, packet, size, refusal);
    case WIRE_PUT_ROUTE:
        return put_route(control, packet, size, refusal);
    case WIRE_PUT_LIMIT:
        return put_limit(control, packet, size, refusal);
    case WIRE_PUT_PRESSURE:
        return put_pressure(control, packet, size, refusal);
    case WIRE_PUT_PRINCIPAL:
        return put_principal(control, packet, size, refusal);
    case WIRE_PUT_ASYNC:
        return put_async(control, packet, size, refusal);
    case WIRE_QUEUE_OP:
        return operate(control, packet, size, refusal);
    case WIRE_CREDIT:
        return credit(control, packet, size, refusal);
    default:
        break;
    }
    /* The others consist of a header. */
    if (size != WIRE_HEADER_SIZE)
        return refuse(refusal, -EBADMSG, "", "malformed, or not known");
    switch (header->type) {
    case WIRE_DEL_TARGET:
        target_del(dispatch, header->object);
        return 0;
    case WIRE_DEL_ROUTE:
        routes_del(&dispatch->routes, header->object);
        return 0;
    case WIRE_DEL_PRINCIPAL:
        principals_del(&dispatch->principals, header->object);
        return 0;
    case WIRE_DEL_ASYNC:
        if (dispatch->number == 0)
            events_del_rule(dispatch, header->object);
        return 0;
    case WIRE_ENV_RETIRE:
        retire_environment(dispatch, header->object);
        return 0;
    case WIRE_DRAIN:
        dispatch_drain(dispatch, false);
        return 0;
    case WIRE_SYNC_BEGIN:
        sync_begin(control);
        return 0;
    case WIRE_SYNC_END:
        return sync_end(control, refusal);
    default:
        return refuse(refusal, -EOPNOTSUPP, "", "not known");
    }
}
