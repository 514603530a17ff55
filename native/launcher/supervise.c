/* Supervision; see the header. Draining and stopping: stop.c. */
#include "supervise.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control.h"
#include "jail/spawn.h"
#include "launcher.h"
#include "notify.h"

/* The pause before a service is started again, doubled with each failure in a row; who lived for long starts at once. */
#define RESTART_US 50000u
#define RESTART_MAX_US 5000000u
#define LIVED_LONG_US UINT64_C(10000000)
/* Who let go of us is ending, and may still say why. */
#define LEAVE_US 2000000u
#define DISPATCH_PROGRAM "runtimed-dispatch"

void supervise_kill(struct service *service, const char *why) {
    if (service->child.pid == 0)
        return;
    say("%s: %s: ending it", service->name, why);
    link_close(&service->link);
    (void)kill(service->child.pid, SIGKILL);
}

/* Each gets its end from us, so that neither ever waits for the other to be found. */
void supervise_introduce(struct server *server, struct service *dispatch) {
    struct supervision *s = &server->supervision;
    int pair[2];

    if (!link_is_open(&s->control.link) || !link_is_open(&dispatch->link))
        return;
    int r = socketpair_seqpacket(pair, 3);
    if (r < 0) {
        say("cannot connect control plane and dispatcher: %s", strerror(-r));
        return;
    }
    s->peer_epoch++;
    struct wire_peer to_control = {.role = WIRE_ROLE_DISPATCH, .peer_epoch = s->peer_epoch};
    struct wire_peer to_dispatch = {.role = WIRE_ROLE_CONTROL, .peer_epoch = s->peer_epoch};
    LINK_SEND(&s->control.link, HEADER(0), peer, to_control, &pair[0], 1);
    LINK_SEND(&dispatch->link, HEADER(0), peer, to_dispatch, &pair[1], 1);
    close(pair[0]);
    close(pair[1]);
}

static void restart_fire(void *owner) {
    service_start(owner);
}

void service_restart(struct service *service) {
    uint64_t pause = RESTART_US;

    if (service->started_us != 0 && clock_monotonic_us() - service->started_us > LIVED_LONG_US)
        service->failures = 0;
    for (unsigned i = 0; i < service->failures && pause < RESTART_MAX_US; i++)
        pause *= 2;
    pause = MIN(pause, (uint64_t)RESTART_MAX_US);
    service->failures++;
    say("%s starts again in %u ms", service->name, (unsigned)(pause / 1000));
    loop_timer(&service->server->loop, &service->restart, pause, restart_fire, service);
    beats_tell_status(service->server);
}

/* Before the node ever served: with the same settings and state it would end so again. The service manager does not
 * start us again on this status. */
static bool cannot_start(struct service *service, int status) {
    const struct supervision *s = &service->server->supervision;
    return service == &s->control && !s->ready && WIFEXITED(status) && WEXITSTATUS(status) == EX_CONFIG;
}

/* What callers were shown last: of two dispatchers that is the one whose place is `dispatch`. One that has not served has
 * not taken over what was kept. */
static void keep_counters(struct service *service) {
    struct supervision *s = &service->server->supervision;
    if (service == s->dispatch && service->counters >= 0 && (s->counters < 0 || service->serving)) {
        cleanup_close(&s->counters);
        s->counters = steal_fd(&service->counters);
    }
    cleanup_close(&service->counters);
}

static void exited(void *owner, int status) {
    struct service *service = owner;
    struct server *server = service->server;

    if (WIFSIGNALED(status))
        say("%s was killed by signal %d", service->name, WTERMSIG(status));
    else if (server->phase == PHASE_RUNNING || WEXITSTATUS(status) != 0)
        say("%s ended with status %d", service->name, WEXITSTATUS(status));
    if (service_is_dispatcher(service))
        link_drain(&service->link); /* what it handed over last */
    loop_timer_off(&service->restart);
    link_close(&service->link);
    if (service_is_dispatcher(service))
        keep_counters(service);
    service->greeted = service->serving = false;
    service->unacknowledged = 0;
    beats_reset(service);
    if (service_is_dispatcher(service))
        launches_end_all(server, service);
    else
        tasks_end_all(server);
    if (server->phase == PHASE_RUNNING && cannot_start(service, status)) {
        server->exit_status = EX_CONFIG;
        supervise_stop(server);
    } else if (server->phase == PHASE_RUNNING && service_is_dispatcher(service)) {
        upgrade_exited(service, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    } else if (server->phase == PHASE_RUNNING) {
        service_restart(service);
    } else {
        supervise_stop_poll(server);
    }
}

static void leave_fire(void *owner) {
    supervise_kill(owner, "let go of us and did not end");
}

static void closed(void *owner, int error) {
    struct service *service = owner;
    if (error != 0) {
        supervise_kill(service, strerror(-error));
        return;
    }
    link_close(&service->link);
    if (service->server->phase == PHASE_RUNNING)
        loop_timer(&service->server->loop, &service->restart, LEAVE_US, leave_fire, service);
}

/* Once: when both serve for the first time. */
static void tell_ready(struct server *server) {
    struct supervision *s = &server->supervision;
    if (!s->ready && s->control.serving && s->dispatch->greeted) {
        s->ready = true;
        notify("READY=1");
        mention(server, "ready");
    }
    beats_tell_status(server);
}

static int take_hello(struct service *service, struct packet *packet) {
    struct server *server = service->server;
    struct wire_header header;
    struct wire_hello hello;
    char build[WIRE_HELLO_BUILD_MAX + 1];

    if (wire_hello_decode(packet->data, packet->size, &header, &hello) < 0)
        return -EBADMSG;
    link_copy_text(hello.build, build, sizeof(build));
    /* The dispatcher takes over ours; anybody else must be of the same build: messages are not compatible otherwise. */
    if (build[0] != '\0' && strcmp(build, server->boot.build) != 0) {
        struct wire_nack message = {.refused = header.seq,
            .error = EPROTO,
            .field = link_text("build"),
            .reason = link_text("another build than the launcher's: restart the whole daemon")};
        LINK_SEND(&service->link, HEADER(0), nack, message, NULL, 0);
        return -EPROTO;
    }
    if (service->greeted)
        return 0;
    service->greeted = true;
    if (service == &server->supervision.control) {
        control_greet(server);
        return 0;
    }
    service->reads = (uint32_t)hello.features;
    service->counters = link_take(packet, 0);
    if (service == server->supervision.other)
        upgrade_greeted(service);
    else
        tell_ready(server);
    return 0;
}

static void message(void *owner, const struct wire_header *header, struct packet *packet) {
    struct service *service = owner;
    struct server *server = service->server;
    int r;

    if (header->type == WIRE_HELLO) {
        r = take_hello(service, packet);
    } else if (header->type == WIRE_BEAT) {
        service->answered = header->seq;
        r = 0;
    } else if (service == &server->supervision.control) {
        r = control_message(server, header, packet);
    } else if (header->type == WIRE_ACK) {
        r = 0;
    } else if (header->type == WIRE_SERVING) {
        upgrade_serving(service);
        r = 0;
    } else if (header->type == WIRE_HANDED) {
        r = upgrade_message(service, header, packet);
    } else {
        r = launches_message(service, header, packet);
    }
    if (r < 0) {
        char why[96];
        snprintf(why, sizeof(why), "%s: %s", wire_name(header->type), strerror(-r));
        supervise_kill(service, why);
    }
}

static int add_number(struct jail_plan *plan, const char *name, uint32_t value) {
    char text[16];
    snprintf(text, sizeof(text), "%" PRIu32, value);
    return jail_plan_add_environment(plan, name, text);
}

static int fill_dispatch(struct server *server, struct jail_plan *plan) {
    char path[4096], uids[16], group[16];
    int r;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", server->boot.libexec, DISPATCH_PROGRAM) >= sizeof(path))
        return -ENAMETOOLONG;
    snprintf(uids, sizeof(uids), "%u", server->boot.control.uid);
    snprintf(group, sizeof(group), "%u", server->boot.socket_gid);
    plan->kind = JAIL_SERVICE;
    plan->uid = server->boot.dispatch_uid;
    plan->gid = server->boot.dispatch_gid;
    plan->network_none = true;
    plan->memory_mb = plan->tmp_mb = 0;
    plan->descriptors = 1048576;
    r = jail_plan_add_argument(plan, path);
    if (r == 0) /* who may invoke, beside root */
        r = jail_plan_add_environment(plan, "RUNTIMED_ALLOW_UIDS", uids);
    if (r == 0) /* and over HTTP */
        r = jail_plan_add_environment(plan, "RUNTIMED_HTTP_GROUP", group);
    if (r == 0 && server->http_tcp >= 0)
        r = jail_plan_add_environment(plan, "RUNTIMED_HTTP_TCP", "1");
    if (r == 0)
        r = add_number(plan, "RUNTIMED_DISPATCH_LOOPS", server->boot.dispatch_loops);
    if (r == 0)
        r = add_number(plan, "RUNTIMED_DISPATCH_BUSY_PERCENT", server->boot.dispatch_busy_percent);
    if (r == 0)
        r = add_number(plan, "RUNTIMED_LOGS_FUNCTION_MB", server->boot.logs_function_mb);
    if (r == 0)
        r = add_number(plan, "RUNTIMED_LOGS_NODE_MB", server->boot.logs_node_mb);
    if (r == 0)
        r = add_number(plan, "RUNTIMED_LOGS_DAYS", server->boot.logs_days);
    if (r == 0)
        r = add_number(plan, "RUNTIMED_EVENTS_SEGMENT_MB", server->boot.events_segment_mb);
    if (r == 0)
        r = jail_plan_add_mount(plan, server->boot.libexec, server->boot.libexec, false);
    return r;
}

static int spawn(struct service *service, int *ret_socket, struct jail_child *ret_child, struct jail_error *error) {
    struct server *server = service->server;
    const bool is_control = service == &server->supervision.control;
    _cleanup_jail_plan_ struct jail_plan dispatch;
    struct jail_io io = JAIL_IO_INIT;
    int pair[2], r = 0;

    jail_plan_init(&dispatch);
    if (!is_control)
        r = fill_dispatch(server, &dispatch);
    if (r == 0)
        r = socketpair_seqpacket(pair, 1);
    if (r < 0)
        return jail_fail(error, "plan", -r);
    const bool has_port = server->http_tcp >= 0;
    const int fds[] = {pair[1], server->listener, server->logs, server->http,
        has_port ? server->http_tcp : server->queue, server->queue};
    io.output = io.error = STDERR_FILENO;
    io.descriptors = fds;
    io.n_descriptors = is_control ? 1 : has_port ? 6 : 5;
    if (!is_control) {
        io.cgroups = &server->cgroups;
        io.cgroup = &server->dispatch_cgroup;
    }
    r = jail_spawn(is_control ? &server->boot.control : &dispatch, &io, ret_child, error);
    close(pair[1]);
    if (r < 0) {
        close(pair[0]);
        return r;
    }
    *ret_socket = pair[0];
    return 0;
}

/* The one that is to take over hears it from HELLO. Each dispatcher gets the counters of the one before. */
static void send_hello(struct service *service) {
    struct server *server = service->server;
    const struct supervision *s = &server->supervision;
    const bool takes_over = s->upgrade == UPGRADE_STARTING && service == s->other;
    struct wire_hello hello = {
        .role = WIRE_ROLE_LAUNCHER, .build = link_text(server->boot.build), .features = takes_over};
    const int *before = takes_over ? &s->dispatch->counters : &s->counters;
    LINK_SEND(&service->link, HEADER(0), hello, hello, before, service_is_dispatcher(service) && *before >= 0);
}

void service_start(struct service *service) {
    struct server *server = service->server;
    struct jail_child child = JAIL_CHILD_INIT;
    struct jail_error error = {0};
    int socket;

    if (server->phase != PHASE_RUNNING || service->child.pid != 0)
        return;
    service->started_us = clock_monotonic_us();
    int r = spawn(service, &socket, &child, &error);
    if (r < 0) {
        say("cannot start %s: %s: %s", service->name, error.step, strerror(-r));
        if (service == server->supervision.other)
            upgrade_exited(service, false);
        else
            service_restart(service);
        return;
    }
    jail_child_close(&child);
    service->epoch += service_is_dispatcher(service) ? 2 : 1; /* of two dispatchers one is odd, one even */
    service->greeted = service->serving = false;
    service->unacknowledged = 0;
    beats_reset(service);
    reaper_add(&server->reaper, &service->child, child.pid, exited, service);
    r = link_open(&service->link, &server->loop, socket, service->epoch);
    if (r < 0) {
        supervise_kill(service, strerror(-r));
        return;
    }
    send_hello(service);
    if (service == &server->supervision.control)
        upgrade_introduce(server);
    else if (service == server->supervision.dispatch)
        supervise_introduce(server, service);
}

bool service_is_dispatcher(const struct service *service) {
    return service != &service->server->supervision.control;
}

static void service_init(struct server *server, struct service *service, const char *name) {
    service->server = server;
    service->name = name;
    service->counters = -1;
    service->link.name = name;
    service->link.message = message;
    service->link.closed = closed;
    service->link.owner = service;
}

int supervise_start(struct server *server) {
    struct supervision *s = &server->supervision;
    service_init(server, &s->control, "the control plane");
    s->dispatch = &s->dispatchers[0];
    s->other = &s->dispatchers[1];
    s->counters = -1;
    s->dispatch->epoch = UINT32_MAX; /* the first is 1 */
    service_init(server, s->dispatch, "the dispatcher");
    service_init(server, s->other, "the dispatcher");
    service_start(s->dispatch);
    service_start(&s->control);
    beats_start(server);
    return 0;
}

void supervise_serving(struct server *server) {
    server->supervision.control.serving = true;
    tell_ready(server);
}
