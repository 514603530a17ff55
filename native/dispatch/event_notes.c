/* Notes between the loops and the thread that has the event log: see events.h. */
#include "event_parts.h"

void events_post(struct events *events, struct note *note, void (*handle)(struct events *, struct note *)) {
    note->handle = handle;
    mailbox_post(&events->box, &note->mail);
}

void events_reply(struct dispatch *dispatch, struct mail *mail, void (*deliver)(struct dispatch *, struct mail *)) {
    mail->deliver = deliver;
    mailbox_post(&dispatch->events.box, mail);
}

void events_bundle(struct events_bundle *bundle, struct mail *mail) {
    mail->next = bundle->newest;
    bundle->newest = mail;
    if (bundle->oldest == NULL)
        bundle->oldest = mail;
}

void events_post_bundle(struct events_bundle *bundle, struct mailbox *box) {
    const struct events_bundle all = *bundle;
    *bundle = (struct events_bundle){0};
    if (all.newest != NULL)
        mailbox_post_all(box, all.newest, all.oldest);
}

void events_depart(struct dispatch *dispatch) {
    if (dispatch->events.accepts.newest != NULL)
        events_post_bundle(&dispatch->events.accepts, &dispatch->loops->events->box);
}

/* What the thread found out in this turn. */
void events_answer(struct events *events) {
    for (unsigned i = 0; i < events->loops->n; i++) {
        struct events_port *port = &events->loops->each[i]->events;
        events_post_bundle(&port->answers, &port->box);
    }
}

static void on_notes(struct watch *watch, uint32_t happened) {
    struct events_port *port = list_entry(watch, struct events_port, box.watch);
    struct mail *mail;
    (void)happened;
    while ((mail = mailbox_take(&port->box)) != NULL)
        mail->deliver(port->dispatch, mail);
}

int events_port_open(struct dispatch *dispatch) {
    struct events_port *port = &dispatch->events;
    int r = mailbox_open(&port->box);
    port->dispatch = dispatch;
    if (r < 0)
        return r;
    port->box.watch.ready = on_notes;
    return loop_add(&dispatch->loop, &port->box.watch, EPOLLIN | EPOLLET);
}

void events_port_close(struct dispatch *dispatch) {
    if (dispatch->events.dispatch == NULL)
        return;
    on_notes(&dispatch->events.box.watch, 0);
    loop_remove(&dispatch->loop, &dispatch->events.box.watch);
    mailbox_close(&dispatch->events.box);
    dispatch->events.dispatch = NULL;
}
