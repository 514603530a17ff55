/* Levels of the loops besides the first, which alone speaks to the control plane: each sends it notes of what is dirty, one
 * batch at a time and CONTROL_LEVELS_US apart; the batch comes back when it was passed on. Notes are passed on in the
 * order in which they came, before what the first loop has to say itself: an environment that changed loops is told of
 * in the order of its life. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/dispatch.h"
#include "dispatch/levels.h"

enum note_kind {
    NOTE_ENVIRONMENT,
    NOTE_DEMAND,
    NOTE_VOID,
};

struct note {
    enum note_kind kind;
    uint8_t state;
    uint64_t id, target;
    struct demand_elsewhere demand;
    char reason[sizeof(((struct dead *)NULL)->reason)];
};

struct notes {
    struct mail mail;
    struct list node; /* in levels.arrived of the first loop */
    unsigned loop;
    bool account, overflow;
    unsigned n, passed_on;
    struct note each[CONTROL_LEVELS_BATCH];
};

/* ---- the other loops' side -------------------------------------------------------------------------------------- */

static void came_back(struct dispatch *dispatch, struct mail *mail) {
    (void)mail;
    dispatch->control.levels.notes_away = false;
}

static void arrived(struct dispatch *dispatch, struct mail *mail) {
    list_push_back(&dispatch->control.levels.arrived, &list_entry(mail, struct notes, mail)->node);
}

static void write_dead(struct levels *levels, struct note *note) {
    struct dead *dead = list_entry(levels->dead.next, struct dead, node);
    *note = (struct note){.id = dead->id, .target = dead->target, .state = WIRE_ENVIRONMENT_STATE_DEAD};
    memcpy(note->reason, dead->reason, sizeof(note->reason));
    levels_told(levels, dead);
}

static void write_environment(struct levels *levels, struct note *note) {
    struct environment *environment = list_entry(levels->environments.next, struct environment, dirty);
    *note = (struct note){
        .id = environment->id, .target = environment->target->id, .state = environment_state_wire(environment->state)};
    memcpy(note->reason, environment->reason, sizeof(note->reason));
    list_remove(&environment->dirty);
}

static void write_demand(struct levels *levels, struct note *note) {
    struct target *target = list_entry(levels->targets.next, struct target, dirty);
    *note = (struct note){.kind = NOTE_DEMAND, .target = target->id, .demand = levels_demand(target)};
    list_remove(&target->dirty);
}

static void write_notes(struct levels *levels, struct notes *notes) {
    notes->account = levels->account;
    notes->overflow = levels->overflow;
    levels->account = levels->overflow = false;
    notes->passed_on = 0;
    for (notes->n = 0; notes->n < CONTROL_LEVELS_BATCH; notes->n++) {
        struct note *note = &notes->each[notes->n];
        if (!list_empty(&levels->dead))
            write_dead(levels, note);
        else if (!list_empty(&levels->environments))
            write_environment(levels, note);
        else if (!list_empty(&levels->targets))
            write_demand(levels, note);
        else
            break;
    }
}

void levels_post(struct dispatch *dispatch) {
    struct control *control = &dispatch->control;
    struct levels *levels = &control->levels;
    uint64_t now = dispatch->loop.now_us;

    if (!levels_anything(levels) || control->synchronising)
        return;
    if (now < levels->next_us || levels->notes_away) {
        if (levels->timer.deadline_us == 0 && !levels->notes_away)
            timer_set(&dispatch->loop.timers, &levels->timer, levels->next_us);
        return;
    }
    if (levels->notes == NULL) {
        levels->notes = calloc(1, sizeof(*levels->notes));
        if (levels->notes == NULL)
            return;
    }
    write_notes(levels, levels->notes);
    levels->notes->loop = dispatch->number;
    levels->notes->mail = (struct mail){.deliver = arrived};
    levels->notes_away = true;
    levels->next_us = now + CONTROL_LEVELS_US;
    loops_post(dispatch->loops, 0, &levels->notes->mail);
}

/* ---- the first loop's side -------------------------------------------------------------------------------------- */

static void note_demand(struct dispatch *dispatch, unsigned loop, const struct note *note) {
    struct target *target = table_get(&dispatch->targets.by_id, note->target);
    if (target == NULL)
        return;
    if (target->elsewhere == NULL)
        target->elsewhere = calloc(dispatch->loops->n, sizeof(*target->elsewhere));
    if (target->elsewhere == NULL)
        return;
    target->elsewhere[loop] = note->demand;
    levels_target(target);
}

static int pass_on(struct control *control, struct notes *notes) {
    struct dispatch *dispatch = control->dispatch;

    for (; notes->passed_on < notes->n; notes->passed_on++) {
        const struct note *note = &notes->each[notes->passed_on];
        int r = 0;
        if (note->kind == NOTE_DEMAND)
            note_demand(dispatch, notes->loop, note);
        else if (note->kind == NOTE_ENVIRONMENT)
            r = levels_send_state(control, note->id, note->target, note->state, note->reason);
        if (r < 0)
            return r;
    }
    control->levels.account = control->levels.account || notes->account;
    control->levels.overflow = control->levels.overflow || notes->overflow;
    return 0;
}

static void make_void(struct notes *notes) {
    for (unsigned i = 0; i < notes->n; i++)
        if (notes->each[i].kind == NOTE_ENVIRONMENT)
            notes->each[i].kind = NOTE_VOID;
}

static void look_at(struct mail *mail, void *argument) {
    (void)argument;
    if (mail->deliver == arrived)
        make_void(list_entry(mail, struct notes, mail));
}

void levels_void(struct dispatch *first) {
    if (first->loops->n == 1)
        return;
    list_for_each(node, &first->control.levels.arrived) {
        make_void(list_entry(node, struct notes, node));
    }
    mailbox_look(&first->mailbox, look_at, NULL);
}

int levels_send_arrived(struct control *control) {
    struct list *arrived_notes = &control->levels.arrived;

    while (!list_empty(arrived_notes)) {
        struct notes *notes = list_entry(arrived_notes->next, struct notes, node);
        int r = pass_on(control, notes);
        if (r < 0)
            return r;
        list_remove(&notes->node);
        notes->mail = (struct mail){.deliver = came_back};
        loops_post(control->dispatch->loops, notes->loop, &notes->mail);
    }
    return 0;
}

static void woken(struct dispatch *dispatch, struct mail *mail) {
    (void)dispatch;
    free(mail);
}

static void burn(struct mail *mail) {
    free(mail);
}

void levels_wake(struct dispatch *dispatch) {
    struct mail *mail = malloc(sizeof(*mail));
    if (mail == NULL)
        return; /* it turns once a second all the same */
    *mail = (struct mail){.deliver = woken, .discard = burn};
    loops_post(dispatch->loops, dispatch->number, mail);
}

void levels_done(struct levels *levels) {
    free(levels->notes);
    levels->notes = NULL;
}
