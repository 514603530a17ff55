/* The control plane's requests; see the header. */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#include "launcher.h"
#include "node.h"

void control_acknowledge(struct server *server) {
    struct service *control = &server->supervision.control;
    if (control->unacknowledged == 0)
        return;
    struct wire_ack message = {.acknowledged = control->unacknowledged};
    control->unacknowledged = 0;
    LINK_SEND(&control->link, HEADER(0), ack, message, NULL, 0);
}

static void answer(struct server *server, const struct wire_header *header, int r, const struct refusal *refusal) {
    struct service *control = &server->supervision.control;

    if (r >= 0) {
        if (header->seq != 0)
            control->unacknowledged = header->seq;
        return;
    }
    control_acknowledge(server); /* what came before was good */
    struct wire_nack message = {.refused = header->seq,
        .error = (uint32_t)-r,
        .field = link_text(refusal->field != NULL ? refusal->field : ""),
        .reason = link_text(refusal->reason != NULL ? refusal->reason : strerror(-r))};
    LINK_SEND(&control->link, HEADER(header->object), nack, message, NULL, 0);
}

static int take_put_runtime(struct server *server, const struct packet *packet, struct refusal *refusal) {
    struct wire_header header;
    struct wire_put_runtime message;
    if (wire_put_runtime_decode(packet->data, packet->size, &header, &message) < 0)
        return -EBADMSG;
    refusal->field = "runtime";
    return zygotes_put(server, &header, &message, &refusal->reason);
}

static int take_put_plan(struct server *server, const struct packet *packet, struct refusal *refusal) {
    struct wire_header header;
    struct wire_put_plan message;
    if (wire_put_plan_decode(packet->data, packet->size, &header, &message) < 0)
        return -EBADMSG;
    return plans_put(server, &header, &message, refusal);
}

static int take_task(struct server *server, const struct packet *packet, struct refusal *refusal) {
    struct wire_header header;
    struct wire_task message;
    if (wire_task_decode(packet->data, packet->size, &header, &message) < 0)
        return -EBADMSG;
    return tasks_put(server, &header, &message, refusal);
}

int control_message(struct server *server, const struct wire_header *header, const struct packet *packet) {
    struct refusal refusal = {0};
    int r = 0;

    switch (header->type) {
    case WIRE_ACK: /* nothing of the launcher's is counted */
        return 0;
    case WIRE_SYNC_BEGIN:
        zygotes_mark(server);
        plans_mark(server);
        break;
    case WIRE_SYNC_END:
        plans_sweep(server);
        zygotes_sweep(server);
        break;
    case WIRE_SERVING:
        supervise_serving(server);
        break;
    case WIRE_PUT_RUNTIME:
        r = take_put_runtime(server, packet, &refusal);
        break;
    case WIRE_PUT_PLAN:
        r = take_put_plan(server, packet, &refusal);
        break;
    case WIRE_DEL_PLAN:
        plans_delete(server, header->object, header->generation);
        break;
    case WIRE_TASK:
        r = take_task(server, packet, &refusal);
        break;
    default:
        return -EBADMSG;
    }
    answer(server, header, r, &refusal);
    return 0;
}

void control_greet(struct server *server) {
    struct utsname names;
    char kernel[WIRE_NODE_KERNEL_MAX + 1] = "";

    if (uname(&names) == 0)
        strncat(kernel, names.release, sizeof(kernel) - 1);
    struct wire_node message = {
        .cgroup_version = (uint8_t)server->cgroups.version,
        .features = node_features(server),
        .landlock_abi = node_landlock_abi(),
        .kernel = link_text(kernel),
    };
    LINK_SEND(&server->supervision.control.link, HEADER(0), node, message, NULL, 0);
    zygotes_tell(server);
    plans_tell(server, NULL);
    spares_tell(server);
}
