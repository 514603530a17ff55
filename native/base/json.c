/* The JSON reader; see the header. Values lie in one array that is sized by counting beforehand, so that pointers to
 * them stay; decoded strings lie in one buffer, which cannot be longer than the text plus a terminator for each. */
#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct json {
    struct json_value *values;
    size_t n, capacity;
    char *strings;
    size_t used;
};

struct reader {
    const char *text;
    size_t size, at;
    struct json *document;
    int error;
};

void json_free(struct json *document) {
    if (document == NULL)
        return;
    free(document->values);
    free(document->strings);
    free(document);
}

const struct json_value *json_root(const struct json *document) {
    return &document->values[0];
}

static int fail(struct reader *r, int error) {
    if (r->error == 0)
        r->error = error;
    return r->error;
}

static int peek(struct reader *r) {
    while (r->at < r->size) {
        char c = r->text[r->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
            return (unsigned char)c;
        r->at++;
    }
    return -1;
}

static int take(struct reader *r, char expected) {
    if (peek(r) != (unsigned char)expected)
        return fail(r, -EBADMSG);
    r->at++;
    return 0;
}

static int take_word(struct reader *r, const char *word) {
    size_t length = strlen(word);
    if (r->size - r->at < length || memcmp(r->text + r->at, word, length) != 0)
        return fail(r, -EBADMSG);
    r->at += length;
    return 0;
}

static int take_hex(struct reader *r, uint32_t *ret) {
    uint32_t value = 0;
    if (r->size - r->at < 4)
        return fail(r, -EBADMSG);
    for (unsigned i = 0; i < 4; i++) {
        char c = r->text[r->at++];
        value <<= 4;
        if (c >= '0' && c <= '9')
            value |= (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value |= (uint32_t)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            value |= (uint32_t)(c - 'A' + 10);
        else
            return fail(r, -EBADMSG);
    }
    *ret = value;
    return 0;
}

static void put(struct reader *r, uint32_t byte) {
    r->document->strings[r->document->used++] = (char)byte;
}

static void put_utf8(struct reader *r, uint32_t point) {
    if (point < 0x80) {
        put(r, point);
    } else if (point < 0x800) {
        put(r, 0xc0 | point >> 6);
        put(r, 0x80 | (point & 0x3f));
    } else if (point < 0x10000) {
        put(r, 0xe0 | point >> 12);
        put(r, 0x80 | (point >> 6 & 0x3f));
        put(r, 0x80 | (point & 0x3f));
    } else {
        put(r, 0xf0 | point >> 18);
        put(r, 0x80 | (point >> 12 & 0x3f));
        put(r, 0x80 | (point >> 6 & 0x3f));
        put(r, 0x80 | (point & 0x3f));
    }
}

static int take_escape(struct reader *r) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t point, low;

    if (r->at >= r->size)
        return fail(r, -EBADMSG);
    char c = r->text[r->at++];
    const char *found = c != '\0' ? strchr(from, c) : NULL;
    if (found != NULL) {
        put(r, (unsigned char)to[found - from]);
        return 0;
    }
    if (c != 'u' || take_hex(r, &point) < 0)
        return fail(r, -EBADMSG);
    if (point >= 0xd800 && point < 0xdc00) {
        if (take_word(r, "\\u") < 0 || take_hex(r, &low) < 0 || low < 0xdc00 || low > 0xdfff)
            return fail(r, -EBADMSG);
        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    } else if (point == 0 || (point >= 0xdc00 && point < 0xe000)) {
        return fail(r, -EBADMSG);
    }
    put_utf8(r, point);
    return 0;
}

/* One character beyond ASCII, in its shortest form. */
static int take_utf8(struct reader *r, unsigned char lead) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    unsigned more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    uint32_t point = lead & (0x3fu >> more);

    if (lead < 0xc2 || lead > 0xf4 || r->size - r->at < more)
        return fail(r, -EBADMSG);
    for (unsigned i = 0; i < more; i++) {
        unsigned char c = (unsigned char)r->text[r->at++];
        if ((c & 0xc0) != 0x80)
            return fail(r, -EBADMSG);
        point = point << 6 | (c & 0x3f);
    }
    if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return fail(r, -EBADMSG);
    put_utf8(r, point);
    return 0;
}

static int take_string(struct reader *r, const char **ret, size_t *ret_length) {
    const char *start = r->document->strings + r->document->used;

    if (take(r, '"') < 0)
        return r->error;
    for (;;) {
        if (r->at >= r->size)
            return fail(r, -EBADMSG);
        unsigned char c = (unsigned char)r->text[r->at++];
        if (c == '"')
            break;
        if (c < 0x20)
            return fail(r, -EBADMSG);
        if (c == '\\' ? take_escape(r) < 0 : c >= 0x80 && take_utf8(r, c) < 0)
            return r->error;
        if (c != '\\' && c < 0x80)
            put(r, c);
    }
    *ret_length = (size_t)(r->document->strings + r->document->used - start);
    put(r, 0);
    *ret = start;
    return 0;
}

static bool is_digit(const struct reader *r) {
    return r->at < r->size && r->text[r->at] >= '0' && r->text[r->at] <= '9';
}

static int skip_digits(struct reader *r) {
    if (!is_digit(r))
        return fail(r, -EBADMSG);
    while (is_digit(r))
        r->at++;
    return 0;
}

static int take_number(struct reader *r, struct json_value *value) {
    bool negative = r->text[r->at] == '-', exact = true;
    uint64_t magnitude = 0;

    if (negative)
        r->at++;
    size_t start = r->at;
    if (skip_digits(r) < 0 || (r->text[start] == '0' && r->at - start > 1))
        return fail(r, -EBADMSG);
    for (size_t i = start; i < r->at; i++) {
        exact = exact && magnitude <= ((uint64_t)INT64_MAX - 9) / 10;
        magnitude = exact ? magnitude * 10 + (uint64_t)(r->text[i] - '0') : magnitude;
    }
    if (r->at < r->size && r->text[r->at] == '.') {
        r->at++;
        exact = false;
        if (skip_digits(r) < 0)
            return r->error;
    }
    if (r->at < r->size && (r->text[r->at] == 'e' || r->text[r->at] == 'E')) {
        r->at++;
        exact = false;
        if (r->at < r->size && (r->text[r->at] == '+' || r->text[r->at] == '-'))
            r->at++;
        if (skip_digits(r) < 0)
            return r->error;
    }
    value->type = exact ? JSON_INTEGER : JSON_NUMBER;
    value->integer = !exact ? 0 : negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return 0;
}

static struct json_value *take_value(struct reader *r, unsigned depth);

static int take_members(struct reader *r, struct json_value *value, unsigned depth) {
    bool object = value->type == JSON_OBJECT;
    char end = object ? '}' : ']';
    struct json_value *last = NULL;

    r->at++;
    if (peek(r) == end) {
        r->at++;
        return 0;
    }
    for (;;) {
        const char *key = NULL;
        size_t length;
        if (object && (take_string(r, &key, &length) < 0 || take(r, ':') < 0))
            return r->error;
        if (object && json_member(value, key) != NULL)
            return fail(r, -EBADMSG);
        struct json_value *item = take_value(r, depth + 1);
        if (item == NULL)
            return r->error;
        item->key = key;
        if (last != NULL)
            last->next = item;
        else
            value->first = item;
        last = item;
        value->length++;
        int c = peek(r);
        if (c != ',' && c != end)
            return fail(r, -EBADMSG);
        r->at++;
        if (c == end)
            return 0;
    }
}

static struct json_value *take_value(struct reader *r, unsigned depth) {
    int c = peek(r), error;

    if (depth > JSON_DEPTH_MAX || r->document->n == r->document->capacity) {
        fail(r, -E2BIG);
        return NULL;
    }
    struct json_value *value = &r->document->values[r->document->n++];
    *value = (struct json_value){.type = JSON_NULL};
    if (c == '{' || c == '[') {
        value->type = c == '{' ? JSON_OBJECT : JSON_ARRAY;
        error = take_members(r, value, depth);
    } else if (c == '"') {
        value->type = JSON_STRING;
        error = take_string(r, &value->string, &value->length);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        error = take_number(r, value);
    } else if (c == 't' || c == 'f') {
        value->type = JSON_BOOL;
        value->integer = c == 't';
        error = take_word(r, c == 't' ? "true" : "false");
    } else {
        error = take_word(r, "null");
    }
    return error < 0 ? NULL : value;
}

/* No document has more values than characters that may begin one. */
static size_t count_values(const char *text, size_t size) {
    size_t n = 1;
    for (size_t i = 0; i < size; i++)
        n += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return n;
}

int json_parse(const char *text, size_t size, struct json **ret, size_t *ret_offset) {
    _cleanup_json_ struct json *document = calloc(1, sizeof(*document));
    struct reader reader = {.text = text, .size = size, .document = document};

    if (document == NULL)
        return -ENOMEM;
    document->capacity = MIN(count_values(text, size), (size_t)JSON_VALUES_MAX);
    document->values = calloc(document->capacity, sizeof(*document->values));
    document->strings = malloc(size + 1);
    if (document->values == NULL || document->strings == NULL)
        return -ENOMEM;
    if (take_value(&reader, 0) != NULL && peek(&reader) >= 0)
        fail(&reader, -EBADMSG);
    if (reader.error < 0) {
        if (ret_offset != NULL)
            *ret_offset = reader.at;
        return reader.error;
    }
    *ret = steal_pointer(document);
    return 0;
}

const struct json_value *json_member(const struct json_value *object, const char *key) {
    if (object == NULL || object->type != JSON_OBJECT)
        return NULL;
    json_for_each(item, object) {
        if (strcmp(item->key, key) == 0)
            return item;
    }
    return NULL;
}

int json_string(const struct json_value *value, const char **ret) {
    if (value == NULL || value->type != JSON_STRING)
        return -EINVAL;
    *ret = value->string;
    return 0;
}

int json_unsigned(const struct json_value *value, uint64_t max, uint64_t *ret) {
    if (value == NULL || value->type != JSON_INTEGER || value->integer < 0 || (uint64_t)value->integer > max)
        return -EINVAL;
    *ret = (uint64_t)value->integer;
    return 0;
}

int json_bool(const struct json_value *value, bool *ret) {
    if (value == NULL || value->type != JSON_BOOL)
        return -EINVAL;
    *ret = value->integer != 0;
    return 0;
}
