/* Who may call over the network: keys, as the control plane pushed them. For each a digest of its bearer token and the
 * signing keys derived for some days; the secrets themselves never come here. */
#pragma once

#include <stdint.h>

#include "dispatch/table.h"
#include "protocol/wire.h"

#define PRINCIPAL_DAYS 4u

struct signing_key {
    uint8_t date[8]; /* YYYYMMDD */
    uint8_t key[32];
};

struct principal {
    uint64_t id, generation;
    uint32_t mark; /* of the synchronisation that put it last */
    char key_id[WIRE_PUT_PRINCIPAL_KEY_ID_MAX + 1];
    uint8_t token[32];
    unsigned n_days;
    struct signing_key days[PRINCIPAL_DAYS];
};

/* Found by what a caller shows of it: 64 bits of a SHA-256, which nobody can aim at, name the place; all of it is
 * compared. */
struct principals {
    struct table by_id, by_token, by_key_id;
};

/* Newer generation wins. 0, -ENOMEM, or -EINVAL with *ret_field. */
int principals_put(struct principals *principals, const struct wire_header *header,
    const struct wire_put_principal *message, uint32_t mark, const char **ret_field);
void principals_del(struct principals *principals, uint64_t id);
/* Removes those without the mark. */
void principals_sweep(struct principals *principals, uint32_t mark);
void principals_done(struct principals *principals);
/* NULL: nobody. */
const struct principal *principals_by_token(const struct principals *principals, struct wire_slice token);
const struct principal *principals_by_key_id(const struct principals *principals, struct wire_slice key_id);
/* NULL: none for that day. */
const uint8_t *principal_signing_key(const struct principal *principal, struct wire_slice date);
