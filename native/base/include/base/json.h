/* A small strict JSON reader: one document, parsed whole, read through typed accessors. Used by the launcher for its
 * boot configuration and by runtimed-jail for its plan; never for what a function wrote.
 *
 * Refused: duplicate members, NUL in strings, invalid UTF-8, lone surrogates, leading zeros, trailing data, depth over
 * 32. Numbers with a fraction or an exponent are valid documents, but no accessor returns them: everything of ours counts
 * in integers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_type { JSON_NULL, JSON_BOOL, JSON_INTEGER, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

#define JSON_DEPTH_MAX 32
#define JSON_VALUES_MAX 65536

struct json; /* a parsed document */

struct json_value {
    enum json_type type;
    const char *key;    /* as a member of an object; otherwise NULL */
    const char *string; /* decoded, NUL-terminated */
    size_t length;      /* of the string; of an array or object: how many it holds */
    int64_t integer;    /* also of a bool */
    const struct json_value *first, *next;
};

/* The text need not be terminated and is not kept. -EBADMSG for what is not JSON, -E2BIG over a maximum; ret_offset (may
 * be NULL) says where. */
int json_parse(const char *text, size_t size, struct json **ret, size_t *ret_offset);
void json_free(struct json *document);
const struct json_value *json_root(const struct json *document);

/* NULL when the value is not an object or has no such member. */
const struct json_value *json_member(const struct json_value *object, const char *key);
/* -EINVAL when the value is NULL, of another type or out of range. Borrowed strings live as long as the document. */
int json_string(const struct json_value *value, const char **ret);
int json_unsigned(const struct json_value *value, uint64_t max, uint64_t *ret);
int json_bool(const struct json_value *value, bool *ret);

#define json_for_each(item, container)                                                                                 \
    for (const struct json_value *item = (container) != NULL ? (container)->first : NULL; item != NULL;                \
         item = item->next)

static inline void json_freep(struct json **document) {
    json_free(*document);
}
#define _cleanup_json_ __attribute__((cleanup(json_freep)))
