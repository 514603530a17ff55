/* JSON; see the header. Iterative: nesting is a bit each. */
#include "dispatch/json.h"

#include <string.h>

struct scan {
    const uint8_t *at, *end;
    unsigned depth;
    uint8_t objects[JSON_DEPTH_MAX / 8]; /* bit set: an object, clear: an array */
};

static void skip_space(struct scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static bool take(struct scan *s, uint8_t c) {
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool is_digit(const struct scan *s) {
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

static bool is_hex(uint8_t c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

/* What follows a first byte above 0x7f (RFC 3629, 4: no overlong forms, no surrogates, nothing above U+10FFFF). */
static bool scan_utf8(struct scan *s, uint8_t first) {
    uint8_t low = 0x80, high = 0xbf;
    unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;

    if (first < 0xc2 || first > 0xf4)
        return false;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    for (; more > 0; more--) {
        if (s->at == s->end || *s->at < low || *s->at > high)
            return false;
        s->at++;
        low = 0x80;
        high = 0xbf;
    }
    return true;
}

static bool scan_string(struct scan *s) {
    if (!take(s, '"'))
        return false;
    while (s->at < s->end) {
        uint8_t c = *s->at++;
        if (c == '"')
            return true;
        if (c < 0x20 || (c > 0x7f && !scan_utf8(s, c)))
            return false;
        if (c != '\\')
            continue;
        if (s->at == s->end)
            return false;
        c = *s->at++;
        if (c == 'u') {
            if (s->end - s->at < 4 || !is_hex(s->at[0]) || !is_hex(s->at[1]) || !is_hex(s->at[2]) || !is_hex(s->at[3]))
                return false;
            s->at += 4;
        } else if (c == 0 || strchr("\"\\/bfnrt", c) == NULL) {
            return false;
        }
    }
    return false;
}

static bool scan_digits(struct scan *s) {
    if (!is_digit(s))
        return false;
    while (is_digit(s))
        s->at++;
    return true;
}

static bool scan_number(struct scan *s) {
    take(s, '-');
    if (!take(s, '0') && !scan_digits(s))
        return false;
    if (take(s, '.') && !scan_digits(s))
        return false;
    if (s->at < s->end && (*s->at | 32) == 'e') {
        s->at++;
        if (!take(s, '+'))
            take(s, '-');
        return scan_digits(s);
    }
    return true;
}

static bool scan_word(struct scan *s, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(s->end - s->at) < size || memcmp(s->at, word, size) != 0)
        return false;
    s->at += size;
    return true;
}

static bool scan_scalar(struct scan *s) {
    if (s->at == s->end)
        return false;
    switch (*s->at) {
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

static bool in_object(const struct scan *s) {
    return (s->objects[(s->depth - 1) / 8] >> ((s->depth - 1) % 8)) & 1;
}

static bool push(struct scan *s, bool object) {
    if (s->depth == JSON_DEPTH_MAX)
        return false;
    if (object)
        s->objects[s->depth / 8] |= (uint8_t)(1u << (s->depth % 8));
    else
        s->objects[s->depth / 8] &= (uint8_t) ~(1u << (s->depth % 8));
    s->depth++;
    return true;
}

static bool scan_key(struct scan *s) {
    skip_space(s);
    if (!scan_string(s))
        return false;
    skip_space(s);
    return take(s, ':');
}

/* After a value: closes what ends here and steps to the next value, or to the end. -1: wrong, 0: all done, 1: a value
 * follows. */
static int after_value(struct scan *s) {
    for (;;) {
        skip_space(s);
        if (s->depth == 0)
            return s->at == s->end ? 0 : -1;
        if (take(s, ','))
            return !in_object(s) || scan_key(s) ? 1 : -1;
        if (!take(s, in_object(s) ? '}' : ']'))
            return -1;
        s->depth--;
    }
}

bool json_valid(const uint8_t *text, size_t size) {
    struct scan s = {.at = text, .end = text + size};
    int more;

    do {
        bool opened = false;
        skip_space(&s);
        if (take(&s, '{')) {
            opened = true;
            if (!push(&s, true))
                return false;
            skip_space(&s);
            if (s.at < s.end && *s.at == '}') {
                opened = false;
            } else if (!scan_key(&s)) {
                return false;
            }
        } else if (take(&s, '[')) {
            opened = true;
            if (!push(&s, false))
                return false;
            skip_space(&s);
            if (s.at < s.end && *s.at == ']')
                opened = false;
        } else if (!scan_scalar(&s)) {
            return false;
        }
        /* An opened container goes on with its first value; an empty one, like a scalar, is followed by what closes. */
        more = opened ? 1 : after_value(&s);
    } while (more > 0);
    return more == 0;
}

size_t json_escape(char *ret_text, size_t size, const char *text, size_t length) {
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < length; i++) {
        uint8_t c = (uint8_t)text[i];
        size_t width = c == '"' || c == '\\' ? 2 : c < 0x20 || c >= 0x7f ? 6 : 1;
        if (at + width >= size)
            break;
        if (width == 6) {
            memcpy(ret_text + at, "\\u00", 4);
            ret_text[at + 4] = digits[c >> 4];
            ret_text[at + 5] = digits[c & 15];
        } else {
            if (width == 2)
                ret_text[at] = '\\';
            ret_text[at + width - 1] = (char)c;
        }
        at += width;
    }
    ret_text[at] = '\0';
    return at;
}
