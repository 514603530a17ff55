/* Timers; see the header. A pairing heap in its two-pass form. */
#include "dispatch/timers.h"

#include <stddef.h>

void timer_init(struct timer *timer, void (*fire)(struct timer *timer, uint64_t now_us)) {
    *timer = (struct timer){.fire = fire};
}

static struct timer *meld(struct timer *a, struct timer *b) {
    if (a == NULL)
        return b;
    if (b == NULL)
        return a;
    if (b->key_us < a->key_us) {
        struct timer *swap = a;
        a = b;
        b = swap;
    }
    b->previous = a;
    b->next = a->child;
    if (b->next != NULL)
        b->next->previous = b;
    a->child = b;
    a->next = NULL;
    a->previous = NULL;
    return a;
}

/* Melds a list of siblings: pairs from the left, then all from the right. */
static struct timer *meld_siblings(struct timer *first) {
    struct timer *pairs = NULL, *root = NULL;
    while (first != NULL) {
        struct timer *a = first, *b = first->next;
        first = b != NULL ? b->next : NULL;
        a->next = a->previous = NULL;
        if (b != NULL)
            b->next = b->previous = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs != NULL) {
        struct timer *next = pairs->next;
        pairs->next = NULL;
        root = meld(root, pairs);
        pairs = next;
    }
    return root;
}

static void heap_insert(struct timers *timers, struct timer *timer) {
    timer->child = timer->next = timer->previous = NULL;
    timer->queued = true;
    timer->key_us = timer->deadline_us;
    timers->root = meld(timers->root, timer);
}

static void heap_remove(struct timers *timers, struct timer *timer) {
    struct timer *children = meld_siblings(timer->child);
    if (timer == timers->root) {
        timers->root = children;
    } else {
        if (timer->previous->child == timer)
            timer->previous->child = timer->next;
        else
            timer->previous->next = timer->next;
        if (timer->next != NULL)
            timer->next->previous = timer->previous;
        timers->root = meld(timers->root, children);
    }
    timer->child = timer->next = timer->previous = NULL;
    timer->queued = false;
}

void timer_set(struct timers *timers, struct timer *timer, uint64_t deadline_us) {
    timer->deadline_us = deadline_us != 0 ? deadline_us : 1;
    if (timer->queued) {
        if (timer->deadline_us >= timer->key_us)
            return;
        heap_remove(timers, timer);
    }
    heap_insert(timers, timer);
}

void timer_clear(struct timer *timer) {
    timer->deadline_us = 0;
}

void timer_drop(struct timers *timers, struct timer *timer) {
    timer->deadline_us = 0;
    if (timer->queued)
        heap_remove(timers, timer);
}

/* Brings a root to the top that means what it says. */
static struct timer *settle(struct timers *timers, uint64_t until_us) {
    struct timer *root;
    while ((root = timers->root) != NULL && root->deadline_us != root->key_us && root->key_us <= until_us) {
        heap_remove(timers, root);
        if (root->deadline_us != 0)
            heap_insert(timers, root);
    }
    return root;
}

uint64_t timers_next(struct timers *timers) {
    struct timer *root = settle(timers, UINT64_MAX);
    return root != NULL ? root->key_us : UINT64_MAX;
}

void timers_run(struct timers *timers, uint64_t now_us) {
    struct timer *root;
    while ((root = settle(timers, now_us)) != NULL && root->key_us <= now_us) {
        heap_remove(timers, root);
        root->deadline_us = 0;
        root->fire(root, now_us);
    }
}
