/* Mail between loops; see the header. */
#include "dispatch/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"

int mailbox_open(struct mailbox *mailbox) {
    memset(mailbox, 0, sizeof(*mailbox));
    mailbox->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return mailbox->watch.fd < 0 ? -errno : 0;
}

void mailbox_close(struct mailbox *mailbox) {
    cleanup_close(&mailbox->watch.fd);
}

bool mailbox_post(struct mailbox *mailbox, struct mail *mail) {
    return mailbox_post_all(mailbox, mail, mail);
}

bool mailbox_post_all(struct mailbox *mailbox, struct mail *newest, struct mail *oldest) {
    static const uint64_t one = 1;
    struct mail *before = atomic_load_explicit(&mailbox->posted, memory_order_relaxed);
    ssize_t n;

    do
        oldest->next = before;
    while (!atomic_compare_exchange_weak_explicit(
        &mailbox->posted, &before, newest, memory_order_release, memory_order_relaxed));
    if (before != NULL)
        return false;
    /* Cannot fail but for a count of 2^64 - 2, at which the loop is awake. */
    n = write(mailbox->watch.fd, &one, sizeof(one));
    (void)n;
    return true;
}

struct mail *mailbox_take(struct mailbox *mailbox) {
    struct mail *mail;

    if (mailbox->taken == NULL) {
        struct mail *newest = atomic_exchange_explicit(&mailbox->posted, NULL, memory_order_acquire);
        while (newest != NULL) {
            struct mail *next = newest->next;
            newest->next = mailbox->taken;
            mailbox->taken = newest;
            newest = next;
        }
    }
    mail = mailbox->taken;
    if (mail != NULL)
        mailbox->taken = mail->next;
    return mail;
}

void mailbox_look(struct mailbox *mailbox, void (*see)(struct mail *mail, void *argument), void *argument) {
    for (struct mail *mail = mailbox->taken; mail != NULL; mail = mail->next)
        see(mail, argument);
    for (struct mail *mail = atomic_load_explicit(&mailbox->posted, memory_order_acquire); mail != NULL;
         mail = mail->next)
        see(mail, argument);
}
