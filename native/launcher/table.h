/* Hash tables keyed by 64-bit numbers, intrusive, with a fixed number of buckets (a power of two) made once: no
 * rehashing on the hot path. A node is in at most one table. */
#pragma once

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

struct table_node {
    struct table_node *next;
    uint64_t key;
};

struct table {
    struct table_node **buckets;
    unsigned mask;
    unsigned count;
};

#define table_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))
/* The body may remove the node at hand, nothing else. */
#define table_for_each(node, table)                                                                                    \
    for (unsigned _bucket = 0; _bucket <= (table)->mask; _bucket++)                                                    \
        for (struct table_node *node = (table)->buckets[_bucket], *_after = node != NULL ? node->next : NULL;          \
             node != NULL; node = _after, _after = node != NULL ? node->next : NULL)

static inline int table_init(struct table *table, unsigned buckets) {
    table->buckets = calloc(buckets, sizeof(*table->buckets));
    if (table->buckets == NULL)
        return -ENOMEM;
    table->mask = buckets - 1;
    table->count = 0;
    return 0;
}

static inline void table_free(struct table *table) {
    free(table->buckets);
    table->buckets = NULL;
}

/* Fibonacci hashing: keys count up from small numbers, or are pids. */
static inline unsigned table_slot(const struct table *table, uint64_t key) {
    return (unsigned)((key * UINT64_C(11400714819323198485)) >> 40) & table->mask;
}

static inline struct table_node *table_get(const struct table *table, uint64_t key) {
    struct table_node *node = table->buckets[table_slot(table, key)];
    while (node != NULL && node->key != key)
        node = node->next;
    return node;
}

/* The key must not be in the table. */
static inline void table_add(struct table *table, struct table_node *node, uint64_t key) {
    struct table_node **slot = &table->buckets[table_slot(table, key)];
    node->key = key;
    node->next = *slot;
    *slot = node;
    table->count++;
}

static inline void table_remove(struct table *table, struct table_node *node) {
    struct table_node **at = &table->buckets[table_slot(table, node->key)];
    while (*at != NULL && *at != node)
        at = &(*at)->next;
    if (*at == node) {
        *at = node->next;
        node->next = NULL;
        table->count--;
    }
}
