/* The map; see the header. */
#include "dispatch/table.h"

#include <errno.h>
#include <stdlib.h>

#define CAPACITY_MIN 16u

static size_t place(const struct table *table, uint64_t key) {
    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (table->capacity - 1);
}

static size_t find(const struct table *table, uint64_t key) {
    size_t at = place(table, key);
    while (table->entries[at].value != NULL && table->entries[at].key != key)
        at = (at + 1) & (table->capacity - 1);
    return at;
}

void *table_get(const struct table *table, uint64_t key) {
    if (table->size == 0)
        return NULL;
    return table->entries[find(table, key)].value;
}

static int grow(struct table *table) {
    struct table bigger = {.capacity = table->capacity != 0 ? table->capacity * 2 : CAPACITY_MIN, .size = table->size};
    bigger.entries = calloc(bigger.capacity, sizeof(*bigger.entries));
    if (bigger.entries == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->entries[i].value != NULL)
            bigger.entries[find(&bigger, table->entries[i].key)] = table->entries[i];
    free(table->entries);
    *table = bigger;
    return 0;
}

int table_put(struct table *table, uint64_t key, void *value) {
    size_t at;
    int r;

    if ((table->size + 1) * 4 > table->capacity * 3) {
        r = grow(table);
        if (r < 0)
            return r;
    }
    at = find(table, key);
    if (table->entries[at].value == NULL)
        table->size++;
    table->entries[at] = (struct table_entry){.key = key, .value = value};
    return 0;
}

void *table_remove(struct table *table, uint64_t key) {
    size_t hole, at;
    void *value;

    if (table->size == 0)
        return NULL;
    hole = find(table, key);
    value = table->entries[hole].value;
    if (value == NULL)
        return NULL;
    table->size--;
    for (at = (hole + 1) & (table->capacity - 1); table->entries[at].value != NULL;
         at = (at + 1) & (table->capacity - 1)) {
        size_t home = place(table, table->entries[at].key);
        /* May move into the hole unless its home lies cyclically between the hole and where it is. */
        if (((at - home) & (table->capacity - 1)) >= ((at - hole) & (table->capacity - 1))) {
            table->entries[hole] = table->entries[at];
            hole = at;
        }
    }
    table->entries[hole] = (struct table_entry){0};
    return value;
}

void table_done(struct table *table) {
    free(table->entries);
    *table = (struct table){0};
}

void *table_next(const struct table *table, size_t *at) {
    while (*at < table->capacity) {
        void *value = table->entries[(*at)++].value;
        if (value != NULL)
            return value;
    }
    return NULL;
}
