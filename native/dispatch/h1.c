/* Request heads; see the header. */
#include "dispatch/h1.h"

#include <string.h>

static enum h1_result wrong(struct h1_head *head, uint16_t status, const char *reason) {
    head->status = status;
    head->reason = reason;
    return H1_WRONG;
}

void h1_begin(struct h1_head *head) {
    /* The fields need no clearing: n_fields says which there are. */
    memset(head, 0, offsetof(struct h1_head, fields));
    memset(&head->has_length, 0, sizeof(*head) - offsetof(struct h1_head, has_length));
}

struct wire_slice h1_slice(const uint8_t *data, struct h1_range range) {
    return (struct wire_slice){data + range.at, range.size};
}

static uint8_t lower(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool h1_is(struct wire_slice text, const char *token) {
    for (uint32_t i = 0; i < text.size; i++)
        if (lower(text.data[i]) != (uint8_t)token[i])
            return false; /* also at the token's end: no text holds NUL */
    return token[text.size] == '\0';
}

struct wire_slice h1_find(const struct h1_head *head, const uint8_t *data, const char *name) {
    for (unsigned i = 0; i < head->n_fields; i++)
        if (h1_is(h1_slice(data, head->fields[i].name), name))
            return h1_slice(data, head->fields[i].value);
    return (struct wire_slice){data, 0};
}

/* ---- characters (RFC 9110, 5.6.2) ------------------------------------------------------------------------------- */

#define DIGITS "0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool is_token(uint8_t c) {
    /* One bit for each of the characters 0x20 to 0x7f. */
    static const uint32_t bits[3] = {
        /* !#$%&'*+-. and digits */ 0x03ff6cfa,
        /* letters, ^ and _ */ 0xc7fffffe,
        /* `, letters, | and ~ */ 0x57ffffff,
    };
    return c >= 0x20 && c < 0x80 && (bits[(c >> 5) - 1] >> (c & 31) & 1);
}

static bool is_blank(uint8_t c) {
    return c == ' ' || c == '\t';
}

static bool is_value(uint8_t c) {
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

/* ---- the request line ------------------------------------------------------------------------------------------ */

/* http://authority/path: RFC 9112, 3.2.2 wants it understood. Leaves path and query. */
static bool strip_authority(const uint8_t *data, struct h1_range *target) {
    static const char *const schemes[] = {"http://", "https://"};
    for (unsigned i = 0; i < 2; i++) {
        uint32_t n = (uint32_t)strlen(schemes[i]), at = n;
        if (target->size <= n || !h1_is((struct wire_slice){data + target->at, n}, schemes[i]))
            continue;
        while (at < target->size && data[target->at + at] != '/' && data[target->at + at] != '?')
            at++;
        if (at == n || at == target->size || data[target->at + at] != '/')
            return false;
        target->at += at;
        target->size -= at;
        return true;
    }
    return false;
}

static enum h1_result read_target(struct h1_head *head, const uint8_t *data) {
    struct h1_range *target = &head->target;
    for (uint32_t i = 0; i < target->size; i++)
        if (data[target->at + i] <= 0x20 || data[target->at + i] >= 0x7f || data[target->at + i] == '#')
            return wrong(head, 400, "The request target has a character that it may not have.");
    if (data[target->at] == '/')
        return H1_DONE;
    if (target->size == 1 && data[target->at] == '*' && h1_is(h1_slice(data, head->method), "options"))
        return H1_DONE;
    if (!strip_authority(data, target))
        return wrong(head, 400, "The request target must be a path.");
    return H1_DONE;
}

static enum h1_result read_request_line(struct h1_head *head, const uint8_t *data, uint32_t at, uint32_t size) {
    static const char version[] = "HTTP/1.";
    uint32_t i = 0, end;

    while (i < size && is_token(data[at + i]))
        i++;
    if (i == 0 || i == size || data[at + i] != ' ')
        return wrong(head, 400, "The request line does not begin with a method and one space.");
    head->method = (struct h1_range){at, i};
    end = ++i;
    while (end < size && data[at + end] != ' ')
        end++;
    if (end == i || end == size)
        return wrong(head, 400, "The request line has no target, or no version after it.");
    head->target = (struct h1_range){at + i, end - i};
    if (head->target.size > H1_TARGET_MAX)
        return wrong(head, 414, "The request target is too long.");
    i = end + 1;
    if (size - i < 5 || memcmp(data + at + i, version, 5) != 0)
        return wrong(head, 400, "The request line does not end in a version of HTTP.");
    if (size - i != sizeof(version) || memcmp(data + at + i, version, sizeof(version) - 1) != 0 ||
        (data[at + size - 1] != '0' && data[at + size - 1] != '1'))
        return wrong(head, 505, "HTTP/1.1 is spoken here.");
    head->minor = (uint8_t)(data[at + size - 1] - '0');
    head->close = head->minor == 0;
    head->begun = true;
    return read_target(head, data);
}

/* ---- fields ----------------------------------------------------------------------------------------------------- */

static enum h1_result read_length(struct h1_head *head, struct wire_slice value) {
    uint64_t length = 0;
    if (head->has_length)
        return wrong(head, 400, "Content-Length is there twice.");
    if (value.size == 0 || value.size > 18)
        return wrong(head, value.size == 0 ? 400 : 413, "Content-Length is no length that can be.");
    for (uint32_t i = 0; i < value.size; i++) {
        if (!is_digit(value.data[i]))
            return wrong(head, 400, "Content-Length is not a number.");
        length = length * 10 + (uint64_t)(value.data[i] - '0');
    }
    head->has_length = true;
    head->length = length;
    return H1_DONE;
}

static enum h1_result read_encoding(struct h1_head *head, struct wire_slice value) {
    if (head->encoded)
        return wrong(head, 400, "Transfer-Encoding is there twice.");
    head->encoded = true;
    if (!h1_is(value, "chunked"))
        return wrong(head, 501, "No transfer encoding but chunked is understood.");
    head->chunked = true;
    return H1_DONE;
}

/* A list of tokens; the last word about closing counts, but "close" more than anything. */
static enum h1_result read_connection(struct h1_head *head, struct wire_slice value) {
    uint32_t i = 0;
    bool close = false, keep = false;
    while (i < value.size) {
        uint32_t begin, end;
        while (i < value.size && (is_blank(value.data[i]) || value.data[i] == ','))
            i++;
        begin = i;
        while (i < value.size && value.data[i] != ',')
            i++;
        end = i;
        while (end > begin && is_blank(value.data[end - 1]))
            end--;
        close = close || h1_is((struct wire_slice){value.data + begin, end - begin}, "close");
        keep = keep || h1_is((struct wire_slice){value.data + begin, end - begin}, "keep-alive");
    }
    if (close)
        head->close = true;
    else if (keep && head->minor == 0)
        head->close = false;
    return H1_DONE;
}

static enum h1_result read_known(struct h1_head *head, const uint8_t *data, const struct h1_field *field) {
    struct wire_slice name = h1_slice(data, field->name), value = h1_slice(data, field->value);
    switch (name.size) {
    case 4:
        if (!h1_is(name, "host"))
            break;
        if (head->hosted)
            return wrong(head, 400, "Host is there twice.");
        head->hosted = true;
        head->host = field->value;
        break;
    case 6:
        if (!h1_is(name, "expect") || head->minor == 0)
            break;
        if (!h1_is(value, "100-continue"))
            return wrong(head, 417, "No expectation but 100-continue can be met.");
        head->expect_continue = true;
        break;
    case 10:
        if (h1_is(name, "connection"))
            return read_connection(head, value);
        break;
    case 14:
        if (h1_is(name, "content-length"))
            return read_length(head, value);
        break;
    case 17:
        if (h1_is(name, "transfer-encoding"))
            return read_encoding(head, value);
        break;
    default:
        break;
    }
    return H1_DONE;
}

static enum h1_result read_field(struct h1_head *head, const uint8_t *data, uint32_t at, uint32_t size) {
    struct h1_field *field;
    uint32_t colon = 0, begin, end = size;

    if (head->n_fields == H1_FIELDS_MAX)
        return wrong(head, 431, "The request has too many header fields.");
    while (colon < size && is_token(data[at + colon]))
        colon++;
    if (colon == 0 || colon == size || data[at + colon] != ':')
        return wrong(head, 400, "A header field is not a name, a colon, and a value.");
    begin = colon + 1;
    while (begin < size && is_blank(data[at + begin]))
        begin++;
    while (end > begin && is_blank(data[at + end - 1]))
        end--;
    for (uint32_t i = begin; i < end; i++)
        if (!is_value(data[at + i]))
            return wrong(head, 400, "A header field's value has a character that it may not have.");
    field = &head->fields[head->n_fields++];
    field->name = (struct h1_range){at, colon};
    field->value = (struct h1_range){at + begin, end - begin};
    return read_known(head, data, field);
}

/* What the whole must fulfil. */
static enum h1_result finish(struct h1_head *head) {
    if (!head->hosted && head->minor == 1)
        return wrong(head, 400, "A request of HTTP/1.1 must have a Host.");
    if (head->encoded && head->minor == 0)
        return wrong(head, 400, "HTTP/1.0 has no Transfer-Encoding.");
    if (head->encoded && head->has_length)
        return wrong(head, 400, "Content-Length and Transfer-Encoding contradict each other.");
    return H1_DONE;
}

enum h1_result h1_read(struct h1_head *head, const uint8_t *data, size_t size) {
    for (;;) {
        uint32_t at = head->line, length;
        const uint8_t *end = size > head->scanned ? memchr(data + head->scanned, '\n', size - head->scanned) : NULL;
        enum h1_result result = H1_DONE;

        if ((end != NULL ? (size_t)(end - data) : size) - at > H1_LINE_MAX)
            return head->begun ? wrong(head, 431, "A header field is too long.")
                               : wrong(head, 414, "The request line is too long.");
        if ((end != NULL ? (size_t)(end - data) : size) > H1_HEAD_MAX)
            return wrong(head, 431, "The request's head is too long.");
        if (end == NULL) {
            head->scanned = (uint32_t)size;
            return H1_MORE;
        }
        length = (uint32_t)(end - data) - at;
        if (length == 0 || data[at + length - 1] != '\r')
            return wrong(head, 400, "A line of the head does not end in CR LF.");
        length--;
        head->line = head->scanned = (uint32_t)(end - data) + 1;
        if (length == 0 && head->begun) {
            head->size = head->line;
            return finish(head);
        }
        if (length == 0) {
            if (at > 0)
                return wrong(head, 400, "There is no request between empty lines.");
            continue;
        }
        result = head->begun ? read_field(head, data, at, length) : read_request_line(head, data, at, length);
        if (result != H1_DONE)
            return result;
    }
}
