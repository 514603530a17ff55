/* Names of functions and paths of invokes; see the header. */
#include "dispatch/reference.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define TEXT(literal) ((struct wire_slice){(const uint8_t *)(literal), sizeof(literal) - 1})
#define PARTS_MAX 9u

static bool equals(struct wire_slice a, struct wire_slice b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static bool is_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

/* [a-zA-Z0-9_-]+ */
static bool is_name(struct wire_slice text) {
    for (uint32_t i = 0; i < text.size; i++)
        if (!is_letter(text.data[i]) && !is_digit(text.data[i]) && text.data[i] != '_' && text.data[i] != '-')
            return false;
    return text.size > 0;
}

static bool is_qualifier(struct wire_slice text) {
    return is_name(text) || equals(text, TEXT("$LATEST")) || equals(text, TEXT("$LATEST.PUBLISHED"));
}

/* aws, aws-cn and their like */
static bool is_partition(struct wire_slice text) {
    if (text.size < 3 || memcmp(text.data, "aws", 3) != 0)
        return false;
    for (uint32_t i = 3; i < text.size; i++)
        if (!is_letter(text.data[i]) && text.data[i] != '-')
            return false;
    return true;
}

/* [a-z]{2}(-gov)?-[a-z]+-[0-9] */
static bool is_region(struct wire_slice text) {
    const uint8_t *at = text.data, *end = text.data + text.size;
    const uint8_t *word;
    if (text.size < 6 || at[0] < 'a' || at[0] > 'z' || at[1] < 'a' || at[1] > 'z')
        return false;
    if (!is_digit(end[-1]) || end[-2] != '-')
        return false;
    at += 2;
    end -= 2;
    if (end - at > 5 && memcmp(at, "-gov-", 5) == 0)
        at += 4;
    if (*at++ != '-')
        return false;
    for (word = at; at < end; at++)
        if (*at < 'a' || *at > 'z')
            return false;
    return end > word;
}

static bool is_account(struct wire_slice text) {
    for (uint32_t i = 0; i < text.size; i++)
        if (!is_digit(text.data[i]))
            return false;
    return text.size == 12;
}

static unsigned split(struct wire_slice text, struct wire_slice *ret_parts) {
    unsigned n = 0;
    uint32_t begin = 0;
    for (uint32_t i = 0; i <= text.size; i++) {
        if (i < text.size && text.data[i] != ':')
            continue;
        if (n == PARTS_MAX)
            return PARTS_MAX + 1;
        ret_parts[n++] = (struct wire_slice){text.data + begin, i - begin};
        begin = i + 1;
    }
    return n;
}

/* name[:qualifier] */
static bool read_rest(const struct wire_slice *parts, unsigned n, struct reference *ret) {
    if (n < 1 || n > 2 || !is_name(parts[0]) || (n == 2 && !is_qualifier(parts[1])))
        return false;
    ret->name = parts[0];
    ret->qualifier = n == 2 ? parts[1] : (struct wire_slice){parts[0].data, 0};
    return true;
}

/* [account:][function:]name[:qualifier]; what could be both is taken for the first. */
static bool read_tail(const struct wire_slice *parts, unsigned n, struct reference *ret) {
    bool account = n > 0 && is_account(parts[0]);
    for (unsigned i = account;; i--) {
        bool named = n > i && equals(parts[i], TEXT("function"));
        ret->account = i == 1 ? parts[0] : (struct wire_slice){NULL, 0};
        if ((named && read_rest(parts + i + 1, n - i - 1, ret)) || (n > i && read_rest(parts + i, n - i, ret)))
            return true;
        if (i == 0)
            return false;
    }
}

enum reference_error reference_read(struct wire_slice text, struct wire_slice qualifier, struct reference *ret) {
    struct wire_slice parts[PARTS_MAX];
    struct reference found = {.qualifier = {NULL, 0}};
    unsigned n = text.size <= REFERENCE_MAX ? split(text, parts) : PARTS_MAX + 1, skip = 0;

    if (n > PARTS_MAX)
        return REFERENCE_NO_NAME;
    if (n > 4 && equals(parts[0], TEXT("arn")) && is_partition(parts[1]) && equals(parts[2], TEXT("lambda")) &&
        is_region(parts[3])) {
        found.region = parts[3];
        skip = 4;
    }
    if (!read_tail(parts + skip, n - skip, &found))
        return REFERENCE_NO_NAME;
    if (found.name.size > REFERENCE_NAME_MAX)
        return REFERENCE_NAME_TOO_LONG;
    if (qualifier.size > 0 && (qualifier.size > REFERENCE_QUALIFIER_MAX || !is_qualifier(qualifier)))
        return REFERENCE_NO_QUALIFIER;
    if (qualifier.size > 0 && found.qualifier.size > 0 && !equals(qualifier, found.qualifier))
        return REFERENCE_CONTRADICTION;
    if (qualifier.size > 0)
        found.qualifier = qualifier;
    *ret = found;
    return REFERENCE_GOOD;
}

/* ---- paths ------------------------------------------------------------------------------------------------------ */

static int hex(uint8_t c) {
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int percent_decode(struct wire_slice text, uint8_t *into) {
    int n = 0;
    for (uint32_t i = 0; i < text.size; i++) {
        if (text.data[i] != '%') {
            into[n++] = text.data[i];
            continue;
        }
        if (text.size - i < 3 || hex(text.data[i + 1]) < 0 || hex(text.data[i + 2]) < 0)
            return -EINVAL;
        into[n++] = (uint8_t)(hex(text.data[i + 1]) << 4 | hex(text.data[i + 2]));
        i += 2;
    }
    return n;
}

static bool begins(struct wire_slice text, struct wire_slice with) {
    return text.size >= with.size && memcmp(text.data, with.data, with.size) == 0;
}

static bool ends(struct wire_slice text, struct wire_slice with) {
    return text.size >= with.size && memcmp(text.data + text.size - with.size, with.data, with.size) == 0;
}

/* /DATE/functions/{one segment}/WHAT */
static bool read_path(struct wire_slice path, struct wire_slice head, struct wire_slice tail, struct wire_slice *ret) {
    if (path.size <= head.size + tail.size || !begins(path, head) || !ends(path, tail))
        return false;
    *ret = (struct wire_slice){path.data + head.size, path.size - head.size - tail.size};
    return memchr(ret->data, '/', ret->size) == NULL;
}

static int read_query(struct wire_slice query, struct wire_slice *ret_qualifier) {
    static const struct wire_slice key = {(const uint8_t *)"Qualifier=", 10};
    bool found = false;
    uint32_t begin = 0;
    for (uint32_t i = 0; i <= query.size; i++) {
        struct wire_slice item = {query.data + begin, i - begin};
        if (i < query.size && query.data[i] != '&')
            continue;
        begin = i + 1;
        if (!begins(item, key))
            continue;
        if (found)
            return -EINVAL;
        found = true;
        *ret_qualifier = (struct wire_slice){item.data + key.size, item.size - key.size};
    }
    return 0;
}

int operation_read(struct wire_slice method, struct wire_slice target, enum operation *ret_operation,
    struct wire_slice *ret_function, struct wire_slice *ret_qualifier) {
    const uint8_t *mark = target.size > 0 ? memchr(target.data, '?', target.size) : NULL;
    struct wire_slice path = {target.data, mark != NULL ? (uint32_t)(mark - target.data) : target.size};
    struct wire_slice query = {path.data + path.size, 0};

    *ret_operation = OPERATION_OTHER;
    *ret_qualifier = (struct wire_slice){target.data, 0};
    if (mark != NULL)
        query = (struct wire_slice){mark + 1, target.size - path.size - 1};
    if (!equals(method, TEXT("POST")))
        return 0;
    if (read_path(path, TEXT("/2015-03-31/functions/"), TEXT("/invocations"), ret_function))
        *ret_operation = OPERATION_INVOKE;
    else if (read_path(path, TEXT("/2021-11-15/functions/"), TEXT("/response-streaming-invocations"), ret_function))
        *ret_operation = OPERATION_INVOKE_STREAM;
    else
        return 0;
    return read_query(query, ret_qualifier);
}

const char *reference_explain(enum reference_error error) {
    switch (error) {
    case REFERENCE_NAME_TOO_LONG:
        return "FunctionName: a name has at most 64 characters.";
    case REFERENCE_NO_QUALIFIER:
        return "Qualifier: is not a version's number, an alias's name, or $LATEST.";
    case REFERENCE_CONTRADICTION:
        return "Qualifier: contradicts the one in FunctionName. Give one of them.";
    default:
        return "FunctionName: is not a function's name. Use letters, digits, hyphens and underscores, or an ARN.";
    }
}
