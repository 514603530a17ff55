/* Mail between loops: whoever posts loses the mail's memory to the loop that it is for, which delivers in the order of
 * posting. Nothing on the way of a warm invocation is sent by it.
 *
 * A stack that is pushed with one compare-and-swap and taken whole with one exchange; an eventfd, watched edge-triggered,
 * wakes the loop: written only by the post that found the box empty, and never read. Bounded by what is posted: one mail
 * is embedded in what it tells of (an environment on its way, a stop), or answers one that was (a wish), or stands for a
 * descriptor from the launcher; nobody posts a second before the first was answered. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dispatch/loop.h"

struct dispatch;
struct mail;

struct mail {
    struct mail *next;
    void (*deliver)(struct dispatch *dispatch, struct mail *mail); /* the mail is the receiver's from then on */
    void (*discard)(struct mail *mail); /* frees it undelivered; NULL: it is part of something */
};

struct mailbox {
    char apart[64];              /* from what only the loop touches */
    struct mail *_Atomic posted; /* newest first */
    char apart_too[64];
    struct watch watch; /* the eventfd; -1: closed */
    struct mail *taken; /* oldest first: the loop's own */
};

/* Makes the eventfd. 0 or a negative errno. */
int mailbox_open(struct mailbox *mailbox);
void mailbox_close(struct mailbox *mailbox);
/* From any thread. True: the box was empty, the loop has been woken. */
bool mailbox_post(struct mailbox *mailbox, struct mail *mail);
/* The same of several, linked from the newest to the oldest: they are delivered from the oldest on. */
bool mailbox_post_all(struct mailbox *mailbox, struct mail *newest, struct mail *oldest);
/* The loop's: the oldest, or NULL. */
struct mail *mailbox_take(struct mailbox *mailbox);
/* While the loop stands still: looks at what is in the box, oldest last among what was not taken yet. */
void mailbox_look(struct mailbox *mailbox, void (*see)(struct mail *mail, void *argument), void *argument);
