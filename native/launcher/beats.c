/* Heartbeats; declared in supervise.h. Every few seconds each service is sent a BEAT, which it answers from its loop. Who
 * misses as many in a row as fit in hang_ms (stopped, in an endless loop, blocked) is killed, and started again as after
 * any other end. Counted are beats, not time: when we were stopped ourselves, with all others, nobody has missed more
 * than one.
 *
 * The service manager hears WATCHDOG=1 only from here: while our loop turns, and unless a service that hangs cannot be
 * ended either. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "launcher.h"
#include "notify.h"

/* Beats that must be missed at least: one comes late on a busy machine. */
#define MISSED_MIN 3
/* Until its HELLO a service loads its programs, on a machine that may be starting. */
#define GREET_LIMIT_US UINT64_C(60000000)
/* The time to start grows while the control plane answers: it may have much to migrate. */
#define STARTING_US 60000000

void beats_reset(struct service *service) {
    service->beat = service->answered = 0;
    service->missed = 0;
}

static void check(struct service *service) {
    const struct supervision *s = &service->server->supervision;

    if (service->child.pid == 0 || s->missed_max == 0)
        return;
    if (!service->greeted && link_is_open(&service->link)) {
        if (clock_monotonic_us() - service->started_us > GREET_LIMIT_US)
            supervise_kill(service, "did not say HELLO");
        return;
    }
    /* Without a link it was killed or is leaving, and should not be here for long either. */
    if (!link_is_open(&service->link) || service->answered != service->beat)
        service->missed++;
    else
        service->missed = 0;
    if (!link_is_open(&service->link))
        return;
    if (service->missed >= s->missed_max) {
        supervise_kill(service, "does not answer");
        return;
    }
    if (service->answered == service->beat) {
        struct wire_beat message = {0};
        LINK_SEND(&service->link, ((struct wire_header){.seq = ++service->beat}), beat, message, NULL, 0);
    }
}

static bool hangs(const struct service *service) {
    const unsigned most = service->server->supervision.missed_max;
    return service->child.pid != 0 && most != 0 && service->missed > most;
}

/* Somebody's: spares are nobody's yet. */
static unsigned environments(const struct server *server) {
    return server->launches.count - server->spares.n;
}

static const char *what_is_missing(const struct supervision *s) {
    if (!s->control.serving)
        return s->dispatch->greeted ? "the control plane" : "control plane and dispatcher";
    return s->dispatch->greeted ? NULL : "the dispatcher";
}

void beats_tell_status(struct server *server) {
    struct supervision *s = &server->supervision;
    const char *missing = what_is_missing(s);
    char text[sizeof(s->status)];

    if (server->phase != PHASE_RUNNING)
        snprintf(text, sizeof(text), "%s; environments: %u", server->phase == PHASE_DRAINING ? "Draining" : "Stopping",
            environments(server));
    else if (!s->ready)
        snprintf(text, sizeof(text), "Starting %s", missing != NULL ? missing : "");
    else if (missing != NULL)
        snprintf(text, sizeof(text), "Starting %s again; environments: %u", missing, environments(server));
    else
        snprintf(text, sizeof(text), "Serving; environments: %u", environments(server));
    if (strcmp(text, s->status) == 0)
        return;
    memcpy(s->status, text, sizeof(text));
    notify("STATUS=%s", text);
}

static void fire(void *owner) {
    struct server *server = owner;
    struct supervision *s = &server->supervision;

    check(&s->control);
    check(&s->dispatchers[0]);
    check(&s->dispatchers[1]);
    if (s->watchdog && !hangs(&s->control) && !hangs(&s->dispatchers[0]) && !hangs(&s->dispatchers[1]))
        notify("WATCHDOG=1");
    if (!s->ready && server->phase == PHASE_RUNNING && s->control.greeted && s->control.missed == 0)
        notify("EXTEND_TIMEOUT_USEC=%u", STARTING_US);
    beats_tell_status(server);
    loop_timer(&server->loop, &s->beats, s->beat_us, fire, server);
}

void beats_start(struct server *server) {
    struct supervision *s = &server->supervision;
    const uint64_t hang_us = (uint64_t)server->boot.hang_ms * 1000, watchdog_us = notify_watchdog_us();

    s->watchdog = watchdog_us != 0;
    s->beat_us = hang_us / 5;
    if (s->watchdog && (s->beat_us == 0 || s->beat_us > watchdog_us / 4))
        s->beat_us = watchdog_us / 4;
    if (s->beat_us == 0)
        return;
    s->missed_max = hang_us == 0 ? 0 : (unsigned)MAX((uint64_t)MISSED_MIN, hang_us / s->beat_us);
    loop_timer(&server->loop, &s->beats, s->beat_us, fire, server);
}
