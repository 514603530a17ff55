/* The way down, one way: DRAIN to the dispatcher and SIGTERM to the control plane; when both have ended, or the time
 * given is over, environments, tasks and zygotes are killed; when all are reaped, the side processes; then main returns and
 * removes what is left of us on the machine. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "launcher.h"
#include "notify.h"

#define POLL_US 5000
/* How long killed processes may take to be reaped before we leave without them. */
#define REAP_LIMIT_US 5000000
/* A dispatcher that drained needs no time; one that did not is given this to write its logs out. */
#define DISPATCH_LIMIT_US 500000
/* For removing control groups and files. */
#define LAST_US 10000000

static void poll_fire(void *owner) {
    supervise_stop_poll(owner);
}

static void deadline_fire(void *owner) {
    struct server *server = owner;

    if (server->phase == PHASE_STOPPING) {
        say("%u processes are left behind", server->reaper.children.count);
        server->loop.stop = true;
        return;
    }
    say("not drained in time");
    server->supervision.expired = true;
    supervise_stop_poll(server);
}

static void begin_stopping(struct server *server) {
    struct supervision *s = &server->supervision;

    server->phase = PHASE_STOPPING;
    beats_tell_status(server);
    loop_timer_off(&s->control.restart);
    loop_timer_off(&s->dispatchers[0].restart);
    loop_timer_off(&s->dispatchers[1].restart);
    tasks_end_all(server);
    launches_end_all(server, NULL);
    recycle_drop(server, NULL, NULL);
    zygotes_stop(server);
    if (s->control.child.pid != 0)
        (void)kill(s->control.child.pid, SIGKILL);
    link_close(&s->dispatchers[0].link); /* they leave when this is gone */
    link_close(&s->dispatchers[1].link);
    s->stopping_us = clock_monotonic_us();
    loop_timer(&server->loop, &s->poll, POLL_US, poll_fire, server);
    loop_timer(&server->loop, &s->deadline, REAP_LIMIT_US, deadline_fire, server);
}

void supervise_stop_poll(struct server *server) {
    struct supervision *s = &server->supervision;

    if (server->phase == PHASE_DRAINING) {
        if ((s->control.child.pid == 0 && s->dispatch->child.pid == 0 && s->other->child.pid == 0) || s->expired)
            begin_stopping(server);
        return;
    }
    if (server->phase != PHASE_STOPPING || loop_timer_on(&s->poll))
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(s->dispatchers); i++)
        if (s->dispatchers[i].child.pid != 0 && clock_monotonic_us() - s->stopping_us > DISPATCH_LIMIT_US)
            (void)kill(s->dispatchers[i].child.pid, SIGKILL);
    /* What remains are the side processes: they remove cgroups until now. */
    const unsigned sides = (server->seats.seater.side.child.pid != 0) + (server->pools.imager.side.child.pid != 0);
    if (server->reaper.children.count <= sides && server->launches.count == 0) {
        seats_stop(server);
        pools_stop(server);
    }
    if (server->reaper.children.count == 0)
        server->loop.stop = true;
    else
        loop_timer(&server->loop, &s->poll, POLL_US, poll_fire, server);
}

void supervise_stop(struct server *server) {
    struct supervision *s = &server->supervision;

    if (server->phase == PHASE_DRAINING)
        s->expired = true;
    if (server->phase != PHASE_RUNNING) {
        supervise_stop_poll(server);
        return;
    }
    notify("STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRIu64,
        (uint64_t)server->boot.drain_ms * 1000 + DISPATCH_LIMIT_US + REAP_LIMIT_US + LAST_US);
    mention(server, "stopping");
    server->phase = PHASE_DRAINING;
    beats_tell_status(server);
    struct wire_drain message = {0};
    LINK_SEND(&s->dispatch->link, HEADER(0), drain, message, NULL, 0);
    LINK_SEND(&s->other->link, HEADER(0), drain, message, NULL, 0);
    loop_timer_off(&s->patience);
    if (s->control.child.pid != 0)
        (void)kill(s->control.child.pid, SIGTERM);
    loop_timer(&server->loop, &s->deadline, (uint64_t)server->boot.drain_ms * 1000, deadline_fire, server);
    supervise_stop_poll(server);
}
