/* Environments that change loops; see the header. */
#include "dispatch/travel.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/channel.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"
#include "dispatch/runtime_connection.h"
#include "dispatch/schedule.h"

struct wish {
    struct mail mail;
    uint64_t target;
    unsigned from;
};

static void arrive(struct dispatch *dispatch, struct mail *mail);
static void refused(struct dispatch *dispatch, struct mail *mail);

/* ---- leaving --------------------------------------------------------------------------------------------------- */

/* Out of the idle stack, towards the door. */
static void get_ready(struct environment *environment, unsigned to, struct wish *wish) {
    struct target *target = environment->target;
    list_remove(&environment->idle);
    room_withdraw(environment);
    list_push_back(&environment->dispatch->departing, &environment->idle);
    timer_clear(&environment->timer);
    environment->departing = true;
    environment->destination = (uint8_t)to;
    environment->wish = wish;
    target->departing++;
    target_show(target);
}

static void refuse(struct loops *loops, struct wish *wish) {
    wish->mail.deliver = refused;
    loops_post(loops, wish->from, &wish->mail);
}

void travel_missed(struct environment *environment) {
    environment->departing = false;
    environment->target->departing--;
    if (environment->wish != NULL)
        refuse(environment->dispatch->loops, steal_pointer(environment->wish));
}

static void leave(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    struct target *target = environment->target;

    environment->departing = false;
    environment->destined = target->id;
    target->departing--;
    target->in_state[ENVIRONMENT_IDLE]--;
    ahead_left(environment);
    target_show(target);
    levels_target(target);
    if (environment->freezer == FREEZER_FROZEN)
        environment_not_frozen(environment);
    count_less(&dispatch->counters.node->environments, 1);
    count_less(&dispatch->counters.node->environments_idle, 1);
    if (arena_is_shared(environment))
        count_less(&dispatch->counters.node->arenas, 1);
    table_remove(&dispatch->environments, environment->id);
    list_remove(&environment->idle);
    list_remove(&environment->node);
    list_remove(&environment->in_order);
    list_remove(&environment->dirty);
    list_remove(&environment->outbox);
    timer_drop(&dispatch->loop.timers, &environment->timer);
    ration_leave(environment);
    channel_leave(environment);
    logs_leave(environment);
    environment->target = NULL;
    environment->dispatch = NULL;
}

void travel_depart(struct dispatch *dispatch) {
    struct list *node;
    while ((node = list_pop_front(&dispatch->departing)) != NULL) {
        struct environment *environment = list_entry(node, struct environment, idle);
        leave(environment);
        environment->mail.deliver = arrive;
        if (loops_move(dispatch->loops, environment->id, environment->destination, &environment->mail) < 0)
            abort(); /* nobody would hear of it again */
    }
}

/* ---- arriving -------------------------------------------------------------------------------------------------- */

static void settle_in(struct environment *environment, struct dispatch *dispatch, struct target *target) {
    environment->dispatch = dispatch;
    environment->target = target;
    list_push_back(&target->environments, &environment->node);
    list_push_back(&dispatch->in_order, &environment->in_order);
    target->in_state[ENVIRONMENT_IDLE]++;
    ahead_came(environment);
    count_one(&dispatch->counters.node->environments);
    count_one(&dispatch->counters.node->environments_idle);
    if (arena_is_shared(environment))
        count_one(&dispatch->counters.node->arenas);
    if (environment->freezer == FREEZER_FROZEN)
        environment_is_frozen(environment);
    levels_environment(environment);
    levels_target(target);
    ration_settle_in(environment);
    runtime_come(environment);
    if (environment->arena_unsent)
        launcher_ask_arena(environment);
}

/* It cannot be that its target is gone: none is freed while an environment of it is on its way. */
static struct target *receive(struct dispatch *dispatch, struct environment *environment) {
    struct target *target = table_get(&dispatch->targets.by_id, environment->destined);
    if (table_put(&dispatch->environments, environment->id, environment) < 0)
        abort(); /* it would never be heard of again */
    settle_in(environment, dispatch, target);
    if (environment->wish != NULL)
        target->wished--;
    free(steal_pointer(environment->wish));
    return target;
}

static void arrive(struct dispatch *dispatch, struct mail *mail) {
    struct environment *environment = list_entry(mail, struct environment, mail);
    struct target *target = receive(dispatch, environment);

    if (logs_settle_in(environment) < 0 || channel_settle_in(environment) < 0)
        environment_handle(environment, EVENT_HANGUP, NULL);
    else
        schedule_environment(environment);
    schedule_target(target);
}

/* ---- wishes ---------------------------------------------------------------------------------------------------- */

static void wish_came(struct dispatch *dispatch, struct mail *mail) {
    struct wish *wish = list_entry(mail, struct wish, mail);
    struct target *target = table_get(&dispatch->targets.by_id, wish->target);

    if (target != NULL && schedule_idle(target) != NULL) {
        const struct list *idle = list_empty(&target->ahead.idle) ? &target->idle : &target->ahead.idle;
        /* The one used longest ago: the others are warmer, and this loop's own. */
        get_ready(list_entry(idle->previous, struct environment, idle), wish->from, wish);
        return;
    }
    refuse(dispatch->loops, wish);
}

static void refused(struct dispatch *dispatch, struct mail *mail) {
    struct wish *wish = list_entry(mail, struct wish, mail);
    struct target *target = table_get(&dispatch->targets.by_id, wish->target);

    if (target != NULL) {
        target->wished--;
        schedule_target(target);
    }
    free(wish);
}

uint32_t travel_wish(struct target *target, uint32_t n) {
    struct dispatch *dispatch = target->dispatch;
    struct loops *loops = dispatch->loops;
    uint32_t sent = 0;

    for (unsigned i = 1; i < loops->n; i++) {
        unsigned other = (dispatch->number + i) % loops->n;
        uint32_t idle = atomic_load(&target->common->views[other].idle);
        for (; idle > 0 && sent < n; idle--, sent++) {
            struct wish *wish = malloc(sizeof(*wish));
            if (wish == NULL)
                return sent;
            *wish = (struct wish){.mail.deliver = wish_came, .target = target->id, .from = dispatch->number};
            target->wished++;
            loops_post(loops, other, &wish->mail);
        }
    }
    return sent;
}

/* ---- gifts ----------------------------------------------------------------------------------------------------- */

void travel_show_hungry(struct target *target, uint32_t n, uint64_t since_us) {
    struct common_view *view = &target->common->views[target->dispatch->number];
    atomic_store_explicit(&view->since_us, since_us, memory_order_relaxed);
    if (n != 0 || atomic_load_explicit(&view->hungry, memory_order_relaxed) != 0)
        atomic_store(&view->hungry, n);
}

/* One invocation of that loop is provided for. */
static bool claim(struct common_view *view) {
    uint32_t hungry = atomic_load(&view->hungry);
    while (hungry > 0)
        if (atomic_compare_exchange_weak(&view->hungry, &hungry, hungry - 1))
            return true;
    return false;
}

bool travel_give(struct environment *environment, const struct invocation *own) {
    struct dispatch *dispatch = environment->dispatch;
    struct target *target = environment->target;
    const struct loops *loops = dispatch->loops;

    for (unsigned i = 1; i < loops->n; i++) {
        unsigned other = (dispatch->number + i) % loops->n;
        struct common_view *view = &target->common->views[other];
        if (atomic_load(&view->hungry) == 0)
            continue;
        if (own != NULL &&
            atomic_load_explicit(&view->since_us, memory_order_relaxed) + TRAVEL_PATIENCE_US >= own->arrived_us)
            continue;
        if (claim(view)) {
            get_ready(environment, other, NULL);
            return true;
        }
    }
    return false;
}

bool travel_offer(struct environment *environment) {
    target_show(environment->target);
    return travel_give(environment, NULL);
}

/* ---- what is in the mail ---------------------------------------------------------------------------------------- */

struct look {
    void (*see)(struct environment *environment, void *argument);
    void *argument;
};

static void look_at(struct mail *mail, void *argument) {
    const struct look *look = argument;
    if (mail->deliver == arrive)
        look->see(list_entry(mail, struct environment, mail), look->argument);
}

void travel_look(
    struct dispatch *dispatch, void (*see)(struct environment *environment, void *argument), void *argument) {
    struct look look = {see, argument};
    mailbox_look(&dispatch->mailbox, look_at, &look);
}

struct search {
    uint64_t target;
    bool found;
};

static void compare(struct environment *environment, void *argument) {
    struct search *search = argument;
    search->found = search->found || environment->destined == search->target;
}

bool travel_is_expected(struct dispatch *dispatch, uint64_t target) {
    struct search search = {.target = target};
    if (dispatch->loops->n > 1)
        travel_look(dispatch, compare, &search);
    return search.found;
}

void travel_discard(struct dispatch *dispatch) {
    struct mail *mail;
    while ((mail = mailbox_take(&dispatch->mailbox)) != NULL) {
        if (mail->deliver == arrive)
            (void)receive(dispatch, list_entry(mail, struct environment, mail)); /* to be freed with the others */
        else if (mail->deliver == wish_came || mail->deliver == refused)
            free(list_entry(mail, struct wish, mail));
        else if (mail->discard != NULL)
            mail->discard(mail);
    }
}
