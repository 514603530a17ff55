/* Principals; see the header. */
#include "dispatch/principal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/sigv4.h"

static uint64_t place(const uint8_t digest[32]) {
    uint64_t key;
    memcpy(&key, digest, sizeof(key));
    return key;
}

static uint64_t key_id_place(struct wire_slice key_id) {
    uint8_t digest[32];
    sha256(key_id.data, key_id.size, digest);
    return place(digest);
}

static struct wire_slice key_id_of(const struct principal *principal) {
    return (struct wire_slice){(const uint8_t *)principal->key_id, (uint32_t)strlen(principal->key_id)};
}

static void forget(struct table *table, uint64_t key, const struct principal *principal) {
    if (table_get(table, key) == principal)
        table_remove(table, key);
}

static void unlink_principal(struct principals *principals, struct principal *principal) {
    forget(&principals->by_token, place(principal->token), principal);
    forget(&principals->by_key_id, key_id_place(key_id_of(principal)), principal);
}

static void remove_principal(struct principals *principals, struct principal *principal) {
    unlink_principal(principals, principal);
    table_remove(&principals->by_id, principal->id);
    explicit_bzero(principal, sizeof(*principal));
    free(principal);
}

static const char *wrong_field(const struct wire_header *header, const struct wire_put_principal *message) {
    if (header->object == 0)
        return "object";
    if (message->key_id.size == 0 || memchr(message->key_id.data, 0, message->key_id.size) != NULL)
        return "key_id";
    if (message->token.size != 32)
        return "token";
    if (message->signing.size % sizeof(struct signing_key) != 0)
        return "signing";
    return NULL;
}

int principals_put(struct principals *principals, const struct wire_header *header,
    const struct wire_put_principal *message, uint32_t mark, const char **ret_field) {
    struct principal *principal = table_get(&principals->by_id, header->object);
    int r;

    *ret_field = wrong_field(header, message);
    if (*ret_field != NULL)
        return -EINVAL;
    if (principal != NULL) {
        principal->mark = mark;
        if (header->generation <= principal->generation)
            return 0;
        unlink_principal(principals, principal);
    } else {
        principal = calloc(1, sizeof(*principal));
        if (principal == NULL)
            return -ENOMEM;
        if (table_put(&principals->by_id, header->object, principal) < 0) {
            free(principal);
            return -ENOMEM;
        }
    }
    *principal = (struct principal){.id = header->object, .generation = header->generation, .mark = mark};
    memcpy(principal->key_id, message->key_id.data, message->key_id.size);
    memcpy(principal->token, message->token.data, 32);
    principal->n_days = message->signing.size / (uint32_t)sizeof(struct signing_key);
    if (principal->n_days > 0)
        memcpy(principal->days, message->signing.data, message->signing.size);
    r = table_put(&principals->by_token, place(principal->token), principal);
    if (r >= 0)
        r = table_put(&principals->by_key_id, key_id_place(key_id_of(principal)), principal);
    if (r < 0)
        remove_principal(principals, principal);
    return r;
}

void principals_del(struct principals *principals, uint64_t id) {
    struct principal *principal = table_get(&principals->by_id, id);
    if (principal != NULL)
        remove_principal(principals, principal);
}

void principals_sweep(struct principals *principals, uint32_t mark) {
    struct principal *principal;
    size_t at = 0;
    while ((principal = table_next(&principals->by_id, &at)) != NULL)
        if (principal->mark != mark) {
            remove_principal(principals, principal);
            at = 0; /* removal may have moved others in front of this place */
        }
}

void principals_done(struct principals *principals) {
    struct principal *principal;
    size_t at = 0;
    while ((principal = table_next(&principals->by_id, &at)) != NULL) {
        explicit_bzero(principal, sizeof(*principal));
        free(principal);
    }
    table_done(&principals->by_id);
    table_done(&principals->by_token);
    table_done(&principals->by_key_id);
}

const struct principal *principals_by_token(const struct principals *principals, struct wire_slice token) {
    const struct principal *principal;
    uint8_t digest[32];
    sha256(token.data, token.size, digest);
    principal = table_get(&principals->by_token, place(digest));
    return principal != NULL && digest_equal(principal->token, digest) ? principal : NULL;
}

const struct principal *principals_by_key_id(const struct principals *principals, struct wire_slice key_id) {
    const struct principal *principal = table_get(&principals->by_key_id, key_id_place(key_id));
    struct wire_slice found = principal != NULL ? key_id_of(principal) : key_id;
    return principal != NULL && found.size == key_id.size && memcmp(found.data, key_id.data, key_id.size) == 0
        ? principal
        : NULL;
}

const uint8_t *principal_signing_key(const struct principal *principal, struct wire_slice date) {
    for (unsigned i = 0; i < principal->n_days; i++)
        if (date.size == 8 && memcmp(principal->days[i].date, date.data, 8) == 0)
            return principal->days[i].key;
    return NULL;
}
