/* What the control plane asks of the launcher: runtimes, plans, tasks; each message is checked field by field, and
 * acknowledged (cumulatively) or refused with the field and a reason. */
#pragma once

#include "base/descriptor.h"
#include "protocol/wire.h"

struct server;

/* 0, or -EBADMSG: not a message of the control plane's. */
int control_message(struct server *server, const struct wire_header *header, const struct packet *packet);
/* A new incarnation said HELLO: NODE and all states. */
void control_greet(struct server *server);
/* ACK for what was taken since the last. */
void control_acknowledge(struct server *server);
