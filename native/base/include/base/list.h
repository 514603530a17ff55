/* Intrusive circular doubly linked list. A node is in at most one list; list_remove leaves it linked to itself, so
 * that removing twice is harmless. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *previous;
};

#define list_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))
#define list_for_each(node, head) for (struct list *node = (head)->next; node != (head); node = node->next)
#define list_for_each_safe(node, head)                                                                                 \
    for (struct list *node = (head)->next, *_next = node->next; node != (head); node = _next, _next = node->next)

static inline void list_init(struct list *head) {
    head->next = head->previous = head;
}

static inline bool list_empty(const struct list *head) {
    return head->next == head;
}

static inline void list_insert_between(struct list *node, struct list *before, struct list *after) {
    node->previous = before;
    node->next = after;
    before->next = node;
    after->previous = node;
}

static inline void list_push_front(struct list *head, struct list *node) {
    list_insert_between(node, head, head->next);
}

static inline void list_push_back(struct list *head, struct list *node) {
    list_insert_between(node, head->previous, head);
}

static inline void list_remove(struct list *node) {
    node->previous->next = node->next;
    node->next->previous = node->previous;
    list_init(node);
}

static inline struct list *list_pop_front(struct list *head) {
    struct list *node = head->next;
    if (node == head)
        return NULL;
    list_remove(node);
    return node;
}
