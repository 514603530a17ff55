/* A map from 64-bit keys to pointers: open addressing, linear probing, deletion by shifting back. Keys are spread by
 * a multiplication; NULL is not a value. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct table_entry {
    uint64_t key;
    void *value; /* NULL: empty */
};

struct table {
    struct table_entry *entries;
    size_t capacity; /* 0, or a power of two */
    size_t size;
};

void *table_get(const struct table *table, uint64_t key);
/* Replaces. 0 or -ENOMEM. */
int table_put(struct table *table, uint64_t key, void *value);
/* Returns what was there, or NULL. */
void *table_remove(struct table *table, uint64_t key);
void table_done(struct table *table);
/* Walks all values: `size_t at = 0; while ((value = table_next(table, &at)))`. The table must not change meanwhile. */
void *table_next(const struct table *table, size_t *at);
