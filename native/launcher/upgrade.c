/* Another dispatcher in the place of the one that runs, without a call that fails; declared in supervise.h, where the
 * steps stand. The new one is started from the same path, so from whatever program lies there now.
 *
 * An environment belongs to one dispatcher at any time, and that is decided here: with HANDED it changes owner, and what
 * happens to it from then on is told to the new one. What HANDED says otherwise, and its descriptors, are between the two;
 * here they are passed on unread, and beside them what is known here of that environment: its plan, its user, and which of
 * the descriptors are those that LAUNCHED carried with it. So the old one can give neither an environment to another
 * function nor one function's channel as another's.
 *
 * Who is killed when: the new one before SERVING: the old one serves on, nothing was taken from it. The new one after it:
 * the environments that it had end, and it is started again like any other; the old one finishes what it runs. The old one:
 * what it had not handed over ends. */
#include <errno.h>
#include <string.h>

#include <sys/stat.h>

#include "base/cleanup.h"
#include "launcher.h"

/* For the new one to start and to be told everything by the control plane, which may be starting too. */
#define START_LIMIT_US UINT64_C(60000000)

static void begin_step(struct server *server, enum upgrade upgrade) {
    struct supervision *s = &server->supervision;
    s->upgrade = upgrade;
    loop_timer_off(&s->patience);
}

static void start_fire(void *owner) {
    struct server *server = owner;
    supervise_kill(server->supervision.other, "does not serve in time");
}

static void drain_fire(void *owner) {
    struct server *server = owner;
    supervise_kill(server->supervision.other, "was replaced, and its time to finish is over");
}

void supervise_upgrade(struct server *server) {
    struct supervision *s = &server->supervision;

    if (server->phase != PHASE_RUNNING || s->upgrade != UPGRADE_NONE || s->other->child.pid != 0 ||
        !s->dispatch->greeted || s->counters >= 0) {
        say("the dispatcher is not replaced: it is starting, being replaced, or ending");
        return;
    }
    mention(server, "replacing the dispatcher");
    begin_step(server, UPGRADE_STARTING);
    s->lost = false;
    loop_timer(&server->loop, &s->patience, START_LIMIT_US, start_fire, server);
    service_start(s->other);
}

void upgrade_introduce(struct server *server) {
    struct supervision *s = &server->supervision;
    supervise_introduce(server, s->upgrade == UPGRADE_STARTING && s->other->greeted ? s->other : s->dispatch);
}

/* It runs: the control plane leaves the old one, which serves on with the tables it has. */
void upgrade_greeted(struct service *service) {
    if (service->server->supervision.upgrade == UPGRADE_STARTING)
        supervise_introduce(service->server, service);
}

static void tell_hand_over(struct service *service, uint32_t version) {
    struct wire_hand_over message = {.version = version};
    LINK_SEND(&service->link, HEADER(0), hand_over, message, NULL, 0);
}

/* To the new one: nothing more will come. Callers of the old one who are the new one's by now would wait for ever for what
 * died with it: their connections are the only way to tell them. */
static void tell_all_handed(struct service *service, bool clean) {
    struct wire_handed message = {.kind = clean ? WIRE_HANDED_KIND_ALL : WIRE_HANDED_KIND_LOST};
    LINK_SEND(&service->link, HEADER(0), handed, message, NULL, 0);
}

static void change_places(struct supervision *s) {
    struct service *other = s->other;
    s->other = s->dispatch;
    s->dispatch = other;
}

void upgrade_serving(struct service *service) {
    struct server *server = service->server;
    struct supervision *s = &server->supervision;

    service->serving = true;
    if (service == s->dispatch || s->upgrade == UPGRADE_STARTING)
        cleanup_close(&s->counters);
    if (s->upgrade != UPGRADE_STARTING || service != s->other)
        return;
    change_places(s);
    begin_step(server, UPGRADE_HANDING);
    mention(server, "the new dispatcher takes calls");
    loop_timer(&server->loop, &s->patience, (uint64_t)server->boot.drain_ms * 1000, drain_fire, server);
    tell_hand_over(s->other, service->reads);
}

static struct passed file_of(int fd) {
    struct stat about;
    return fstat(fd, &about) < 0 ? (struct passed){0} : (struct passed){about.st_dev, about.st_ino};
}

void environment_remember(struct environment *environment, uint8_t flags, const int *fds) {
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(environment->passed); i++)
        environment->passed[i] = (flags & (1u << i)) != 0 ? file_of(fds[n++]) : (struct passed){0};
}

/* One byte for each of the packet's descriptors: its flag in LAUNCHED, or 0. */
static void recognise(const struct environment *environment, const struct packet *packet, uint8_t known[8]) {
    memset(known, 0, 8);
    for (unsigned k = 0; k < packet->n_fds && k < 8; k++) {
        const struct passed file = file_of(packet->fds[k]);
        for (unsigned i = 0; i < ARRAY_SIZE(environment->passed); i++)
            if (file.inode != 0 && file.inode == environment->passed[i].inode &&
                file.device == environment->passed[i].device)
                known[k] = (uint8_t)(1u << i);
    }
}

int upgrade_message(struct service *service, const struct wire_header *header, struct packet *packet) {
    struct supervision *s = &service->server->supervision;
    const bool passes = s->upgrade == UPGRADE_HANDING && service == s->other && !s->lost && s->dispatch->greeted;
    struct environment *environment = NULL;
    struct wire_header h;
    struct wire_handed message;
    uint8_t again[WIRE_HEADER_SIZE + WIRE_HANDED_STATE_MAX + 64], known[8];

    (void)header;
    if (wire_handed_decode(packet->data, packet->size, &h, &message) < 0)
        return -EBADMSG;
    if (message.version == 0 || message.kind == WIRE_HANDED_KIND_LOST) /* our own words */
        return -EBADMSG;
    if (message.kind == WIRE_HANDED_KIND_ALL && service == s->other)
        mention(service->server, "the old dispatcher has handed over what was idle");
    message.plan = message.uid = 0;
    message.known = (struct wire_slice){0};
    if (message.kind == WIRE_HANDED_KIND_ENVIRONMENT) {
        environment = launches_find(service, h.object);
        if (environment == NULL || environment->phase == ENVIRONMENT_WAITING)
            return 0; /* it has ended, and the one who handed it over was told or is past caring */
        if (!passes) {
            environment_abandon(environment);
            return 0;
        }
        environment->owner = s->dispatch;
        message.plan = environment->plan->node.key;
        message.uid = environment->zygote->uid_base + environment->uid;
        recognise(environment, packet, known);
        message.known = (struct wire_slice){known, MIN(packet->n_fds, 8u)};
    }
    if (!passes)
        return 0;
    h.epoch = s->dispatch->link.epoch;
    h.seq = 0;
    link_send(
        &s->dispatch->link, again, wire_handed_encode(&h, &message, again, sizeof(again)), packet->fds, packet->n_fds);
    return 0;
}

/* The new one has ended. */
static void new_one_exited(struct server *server) {
    struct supervision *s = &server->supervision;

    if (s->upgrade == UPGRADE_STARTING) {
        begin_step(server, UPGRADE_NONE);
        say("the dispatcher was not replaced: the new one does not serve; the old one goes on");
        supervise_introduce(server, s->dispatch);
        return;
    }
    s->lost = true;
    tell_hand_over(s->other, 0);
    service_restart(s->dispatch);
}

/* The old one has ended. */
static void old_one_exited(struct server *server, bool clean) {
    struct supervision *s = &server->supervision;

    if (s->upgrade == UPGRADE_STARTING) {
        change_places(s);
        supervise_introduce(server, s->dispatch);
    } else {
        mention(server, "the dispatcher was replaced");
    }
    begin_step(server, UPGRADE_NONE);
    tell_all_handed(s->dispatch, clean);
}

void upgrade_exited(struct service *service, bool clean) {
    struct server *server = service->server;
    struct supervision *s = &server->supervision;
    const bool is_new = (s->upgrade == UPGRADE_STARTING) == (service == s->other);

    if (s->upgrade == UPGRADE_NONE)
        service_restart(service);
    else if (is_new)
        new_one_exited(server);
    else
        old_one_exited(server, clean);
}
