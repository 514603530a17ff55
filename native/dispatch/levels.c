/* Levels; see the header. */
#include "dispatch/levels.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/control_snapshot.h"
#include "dispatch/dispatch.h"

/* control_flush runs after every turn. */
static void on_timer(struct timer *timer, uint64_t now) {
    (void)timer;
    (void)now;
}

void levels_init(struct levels *levels) {
    timer_init(&levels->timer, on_timer);
    list_init(&levels->environments);
    list_init(&levels->targets);
    list_init(&levels->dead);
    list_init(&levels->arrived);
}

/* ---- dirtying -------------------------------------------------------------------------------------------------- */

static void dirty(struct list *list, struct list *node) {
    if (list_empty(node))
        list_push_back(list, node);
}

void levels_environment(struct environment *environment) {
    struct levels *levels = &environment->dispatch->control.levels;
    dirty(&levels->environments, &environment->dirty);
}

void levels_target(struct target *target) {
    struct levels *levels = &target->dispatch->control.levels;
    dirty(&levels->targets, &target->dirty);
}

void levels_account(struct dispatch *dispatch) {
    dispatch->control.levels.account = true;
}

static void forget_one(struct levels *levels, struct dead *dead) {
    list_remove(&dead->node);
    levels->n_dead--;
    free(dead);
}

void levels_environment_gone(struct environment *environment) {
    struct control *control = &environment->dispatch->control;
    struct levels *levels = &control->levels;
    struct dead *dead;

    list_remove(&environment->dirty);
    if (!atomic_load_explicit(&environment->dispatch->loops->connected, memory_order_relaxed))
        return;
    dead = levels->n_dead < CONTROL_DEAD_MAX ? malloc(sizeof(*dead)) : NULL;
    if (dead == NULL) {
        /* Too many to remember: whoever listens gets the whole picture again. */
        while (!list_empty(&levels->dead))
            forget_one(levels, list_entry(levels->dead.next, struct dead, node));
        levels->overflow = true;
        return;
    }
    dead->id = environment->id;
    dead->target = environment->target->id;
    memcpy(dead->reason, environment->reason, sizeof(dead->reason));
    list_push_back(&levels->dead, &dead->node);
    levels->n_dead++;
}

void levels_forget(struct control *control) {
    struct levels *levels = &control->levels;
    while (!list_empty(&levels->dead))
        forget_one(levels, list_entry(levels->dead.next, struct dead, node));
    levels->overflow = false;
}

void levels_told(struct levels *levels, struct dead *dead) {
    forget_one(levels, dead);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

int levels_send_state(struct control *control, uint64_t id, uint64_t target, uint8_t state, const char *reason) {
    struct wire_header header = {.epoch = control->epoch, .object = id};
    struct wire_env_state message = {
        .target = target, .state = state, .reason = {(const uint8_t *)reason, (uint32_t)strlen(reason)}};
    return control_send(
        control, wire_env_state_encode(&header, &message, control->dispatch->packet_out, WIRE_MESSAGE_MAX), NULL, 0);
}

struct demand_elsewhere levels_demand(const struct target *target) {
    return (struct demand_elsewhere){
        .waiting = target->n_waiting,
        .busy = target_busy(target),
        .idle = target->in_state[ENVIRONMENT_IDLE],
        .starting = target_starting(target) + target->reserved_starting,
    };
}

static int send_demand(struct control *control, const struct target *target) {
    struct wire_header header = {.epoch = control->epoch, .object = target->id};
    const unsigned others = target->elsewhere != NULL ? control->dispatch->loops->n : 0;
    struct demand_elsewhere own = levels_demand(target);
    struct wire_demand message = {.waiting = own.waiting,
        .busy = own.busy,
        .idle = own.idle,
        .starting = own.starting,
        .provisioned = atomic_load_explicit(&target->common->provisioned_ready, memory_order_relaxed),
        .provision_failures = atomic_load_explicit(&target->common->ahead_failures, memory_order_relaxed)};
    for (unsigned i = 0; i < others; i++) {
        message.waiting += target->elsewhere[i].waiting;
        message.busy += target->elsewhere[i].busy;
        message.idle += target->elsewhere[i].idle;
        message.starting += target->elsewhere[i].starting;
    }
    return control_send(
        control, wire_demand_encode(&header, &message, control->dispatch->packet_out, WIRE_MESSAGE_MAX), NULL, 0);
}

static int send_account(struct control *control) {
    struct wire_header header = {.epoch = control->epoch};
    struct wire_limit_state message = {.in_use = (uint32_t)dispatch_in_use(control->dispatch->loops),
        .limit = control->dispatch->loops->account.limit};
    return control_send(
        control, wire_limit_state_encode(&header, &message, control->dispatch->packet_out, WIRE_MESSAGE_MAX), NULL, 0);
}

bool levels_anything(const struct levels *levels) {
    return levels->account || levels->overflow || !list_empty(&levels->environments) || !list_empty(&levels->targets) ||
        !list_empty(&levels->dead) || !list_empty(&levels->arrived);
}

static int send_batch(struct control *control) {
    struct levels *levels = &control->levels;
    int r = levels_send_arrived(control);

    /* What others said first: an environment of theirs may have come here since, and be dead. */
    if (r < 0)
        return r;
    for (unsigned i = 0; i < CONTROL_LEVELS_BATCH && levels_anything(levels); i++) {
        if (!list_empty(&levels->dead)) {
            struct dead *dead = list_entry(levels->dead.next, struct dead, node);
            r = levels_send_state(control, dead->id, dead->target, WIRE_ENVIRONMENT_STATE_DEAD, dead->reason);
            if (r < 0)
                return r;
            forget_one(levels, dead);
        } else if (!list_empty(&levels->environments)) {
            struct environment *environment = list_entry(levels->environments.next, struct environment, dirty);
            r = levels_send_state(control, environment->id, environment->target->id,
                environment_state_wire(environment->state), environment->reason);
            if (r < 0)
                return r;
            list_remove(&environment->dirty);
        } else if (!list_empty(&levels->targets)) {
            struct target *target = list_entry(levels->targets.next, struct target, dirty);
            r = send_demand(control, target);
            if (r < 0)
                return r;
            list_remove(&target->dirty);
        } else {
            r = send_account(control);
            if (r < 0)
                return r;
            levels->account = false;
        }
    }
    return 0;
}

int levels_send(struct control *control) {
    struct levels *levels = &control->levels;
    struct dispatch *dispatch = control->dispatch;
    uint64_t now = dispatch->loop.now_us;

    if (!levels_anything(levels) || control->synchronising)
        return 0;
    if (levels->overflow) {
        levels->overflow = false;
        control_snapshot_done(control, true);
        return -EAGAIN; /* to be begun when the socket takes it */
    }
    if (now >= levels->next_us) {
        int r = send_batch(control);
        if (r < 0)
            return r;
        levels->next_us = now + CONTROL_LEVELS_US;
    }
    /* A turn of the loop at that time sends the rest. */
    if (levels_anything(levels) && levels->timer.deadline_us == 0)
        timer_set(&dispatch->loop.timers, &levels->timer, levels->next_us);
    return 0;
}
