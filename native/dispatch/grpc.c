/* gRPC's messages; see the header. */
#include "dispatch/grpc.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/render.h"

#define GROUPS_MAX 100u
#define TAG_BYTES 5

enum proto_type { VARINT = 0, FIXED64 = 1, BYTES = 2, GROUP = 3, GROUP_END = 4, FIXED32 = 5 };

struct reader {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number;
    enum proto_type type;
    uint64_t value;          /* VARINT */
    struct wire_slice bytes; /* BYTES */
};

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int read_varint(struct reader *reader, unsigned bytes, uint64_t *ret_value) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && reader->at < reader->end; i++) {
        uint8_t byte = *reader->at++;
        value |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (byte < 0x80) {
            /* The tenth byte has room for one bit. */
            if (i == 9 && byte > 1)
                return -EBADMSG;
            *ret_value = value;
            return 0;
        }
    }
    return -EBADMSG;
}

static int skip(struct reader *reader, uint64_t size) {
    if (size > (uint64_t)(reader->end - reader->at))
        return -EBADMSG;
    reader->at += size;
    return 0;
}

static int read_field(struct reader *reader, struct field *field) {
    uint64_t tag, size;

    if (read_varint(reader, TAG_BYTES, &tag) < 0 || tag > UINT32_MAX || tag >> 3 == 0)
        return -EBADMSG;
    *field = (struct field){.number = (uint32_t)(tag >> 3), .type = (enum proto_type)(tag & 7)};
    switch (field->type) {
    case VARINT:
        return read_varint(reader, 10, &field->value);
    case FIXED64:
        return skip(reader, 8);
    case FIXED32:
        return skip(reader, 4);
    case BYTES:
        if (read_varint(reader, 10, &size) < 0 || size > (uint64_t)(reader->end - reader->at))
            return -EBADMSG;
        field->bytes = (struct wire_slice){reader->at, (uint32_t)size};
        return skip(reader, size);
    case GROUP:
    case GROUP_END:
        return 0;
    default:
        return -EBADMSG;
    }
}

/* A group's fields up to its end; it may hold others. */
static int skip_group(struct reader *reader, uint32_t number) {
    uint32_t open[GROUPS_MAX];
    unsigned depth = 0;

    open[depth++] = number;
    while (depth > 0) {
        struct field field;
        if (read_field(reader, &field) < 0)
            return -EBADMSG;
        if (field.type == GROUP) {
            if (depth == GROUPS_MAX)
                return -EBADMSG;
            open[depth++] = field.number;
        } else if (field.type == GROUP_END && open[--depth] != field.number) {
            return -EBADMSG;
        }
    }
    return 0;
}

/* No overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(struct wire_slice text) {
    const uint8_t *at = text.data, *end = text.data + text.size;
    while (at < end) {
        uint8_t first = *at++, low = 0x80, high = 0xbf;
        unsigned more = first < 0x80 ? 0
            : first < 0xc2           ? 4
            : first < 0xe0           ? 1
            : first < 0xf0           ? 2
            : first < 0xf5           ? 3
                                     : 4;
        if (more > end - at)
            return false;
        if (first == 0xe0)
            low = 0xa0;
        else if (first == 0xed)
            high = 0x9f;
        else if (first == 0xf0)
            low = 0x90;
        else if (first == 0xf4)
            high = 0x8f;
        if (more == 4)
            return false;
        for (; more > 0; more--, at++, low = 0x80, high = 0xbf)
            if (*at < low || *at > high)
                return false;
    }
    return true;
}

int grpc_read_invoke(const uint8_t *data, size_t size, struct grpc_invoke *ret) {
    struct reader reader = {data, data + size};
    struct grpc_invoke invoke = {0};
    struct wire_slice *texts[] = {
        [1] = &invoke.function,
        [2] = &invoke.qualifier,
        [5] = &invoke.client_context,
        [6] = &invoke.trace,
        [7] = &invoke.tenant,
        [9] = &invoke.event_id,
    };

    while (reader.at < reader.end) {
        struct field field;
        if (read_field(&reader, &field) < 0 || field.type == GROUP_END)
            return -EBADMSG;
        if (field.type == GROUP) {
            if (skip_group(&reader, field.number) < 0)
                return -EBADMSG;
        } else if (field.type == VARINT && field.number == 3) {
            invoke.type = (int32_t)(uint32_t)field.value;
        } else if (field.type == VARINT && field.number == 4) {
            invoke.log = (int32_t)(uint32_t)field.value;
        } else if (field.type == BYTES && field.number == 8) {
            invoke.payload = field.bytes;
        } else if (field.type == BYTES && field.number < ARRAY_SIZE(texts) && texts[field.number] != NULL) {
            if (!is_utf8(field.bytes))
                return -EBADMSG;
            *texts[field.number] = field.bytes;
        }
    }
    *ret = invoke;
    return 0;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static uint8_t *put_varint(uint8_t *at, uint64_t value) {
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put_number(uint8_t *at, unsigned number, uint64_t value) {
    if (value == 0)
        return at;
    *at++ = (uint8_t)(number << 3 | VARINT);
    return put_varint(at, value);
}

static uint8_t *put_bytes(uint8_t *at, unsigned number, const void *data, size_t size) {
    if (size == 0)
        return at;
    *at++ = (uint8_t)(number << 3 | BYTES);
    at = put_varint(at, size);
    memcpy(at, data, size);
    return at + size;
}

/* Around `size` bytes. */
static void put_frame(uint8_t *into, size_t size) {
    into[0] = 0;
    for (unsigned i = 0; i < 4; i++)
        into[1 + i] = (uint8_t)(size >> (24 - 8 * i));
}

size_t grpc_write_response(const struct grpc_result *result, uint8_t ret_head[GRPC_HEAD_MAX]) {
    static const char unhandled[] = "Unhandled";
    uint8_t *at = ret_head + GRPC_PREFIX;

    at = put_number(at, 1, result->status);
    at = put_bytes(at, 2, result->id, strlen(result->id));
    at = put_bytes(at, 3, result->version, strnlen(result->version, 128));
    if (result->failed)
        at = put_bytes(at, 4, unhandled, sizeof(unhandled) - 1);
    at = put_bytes(at, 5, result->log_tail.data, MIN(result->log_tail.size, LOG_TAIL_MAX));
    at = put_number(at, 7, result->duration_us);
    at = put_number(at, 8, result->init_us);
    if (result->payload > 0) {
        *at++ = 6 << 3 | BYTES;
        at = put_varint(at, result->payload);
    }
    put_frame(ret_head, (size_t)(at - ret_head) - GRPC_PREFIX + result->payload);
    return (size_t)(at - ret_head);
}

/* InvokeStreamResponse's one field, a message or bytes: its tag and length. */
static uint8_t *put_event(uint8_t *at, unsigned number, size_t size) {
    *at++ = (uint8_t)(number << 3 | BYTES);
    return put_varint(at, size);
}

size_t grpc_write_start(
    const char *id, const char *version, struct wire_slice content_type, uint8_t ret_message[GRPC_START_MAX]) {
    uint8_t inner[GRPC_START_MAX - 16], *at = inner, *out = ret_message + GRPC_PREFIX;

    at = put_bytes(at, 1, id, strlen(id));
    at = put_bytes(at, 2, version, strnlen(version, 128));
    at = put_bytes(at, 3, content_type.data, MIN(content_type.size, WIRE_STREAM_HEAD_CONTENT_TYPE_MAX));
    out = put_event(out, 1, (size_t)(at - inner));
    memcpy(out, inner, (size_t)(at - inner));
    out += at - inner;
    put_frame(ret_message, (size_t)(out - ret_message) - GRPC_PREFIX);
    return (size_t)(out - ret_message);
}

size_t grpc_write_chunk(uint32_t size, uint8_t ret_head[GRPC_CHUNK_HEAD_MAX]) {
    uint8_t *at = put_event(ret_head + GRPC_PREFIX, 2, size);
    put_frame(ret_head, (size_t)(at - ret_head) - GRPC_PREFIX + size);
    return (size_t)(at - ret_head);
}

size_t grpc_write_complete(const struct grpc_complete *complete, uint8_t ret_head[GRPC_HEAD_MAX]) {
    uint8_t inner[GRPC_HEAD_MAX - 32], *at = inner, *out = ret_head + GRPC_PREFIX;

    at = put_number(at, 1, complete->status);
    at = put_bytes(at, 2, complete->error_code.data, MIN(complete->error_code.size, WIRE_RESULT_ERROR_TYPE_MAX));
    at = put_bytes(at, 4, complete->log_tail.data, MIN(complete->log_tail.size, LOG_TAIL_MAX));
    at = put_number(at, 5, complete->duration_us);
    at = put_number(at, 6, complete->init_us);
    if (complete->details > 0) {
        *at++ = 3 << 3 | BYTES;
        at = put_varint(at, complete->details);
    }
    out = put_event(out, 3, (size_t)(at - inner) + complete->details);
    memcpy(out, inner, (size_t)(at - inner));
    out += at - inner;
    put_frame(ret_head, (size_t)(out - ret_head) - GRPC_PREFIX + complete->details);
    return (size_t)(out - ret_head);
}

/* ---- words ------------------------------------------------------------------------------------------------------ */

int grpc_read_timeout(struct wire_slice text, uint64_t *ret_us) {
    static const struct {
        char unit;
        uint64_t us;
    } units[] = {{'H', UINT64_C(3600000000)}, {'M', UINT64_C(60000000)}, {'S', UINT64_C(1000000)},
        {'m', UINT64_C(1000)}, {'u', 1}};
    uint64_t value = 0;
    char unit;

    if (text.size < 2 || text.size > 9)
        return -EINVAL;
    for (uint32_t i = 0; i + 1 < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return -EINVAL;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    unit = (char)text.data[text.size - 1];
    if (unit == 'n') {
        *ret_us = (value + 999) / 1000;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++)
        if (units[i].unit == unit) {
            *ret_us = value * units[i].us;
            return 0;
        }
    return -EINVAL;
}

enum grpc_status grpc_status_of(const char *code, uint16_t status) {
    static const struct {
        const char *code;
        enum grpc_status status;
    } table[] = {
        {"InvalidParameterValueException", GRPC_INVALID_ARGUMENT},
        {"InvalidRequestContentException", GRPC_INVALID_ARGUMENT},
        {"UnrecognizedClientException", GRPC_UNAUTHENTICATED},
        {"AccessDeniedException", GRPC_PERMISSION_DENIED},
        {"ResourceNotFoundException", GRPC_NOT_FOUND},
        {"ResourceConflictException", GRPC_FAILED_PRECONDITION},
        {"RequestTooLargeException", GRPC_INVALID_ARGUMENT},
        {"RequestTimeoutException", GRPC_DEADLINE_EXCEEDED},
        {"TooManyRequestsException", GRPC_RESOURCE_EXHAUSTED},
        {"NotImplementedException", GRPC_UNIMPLEMENTED},
        {"InvalidRuntimeException", GRPC_FAILED_PRECONDITION},
        {"ResourceNotReadyException", GRPC_UNAVAILABLE},
        {"SnapStartException", GRPC_FAILED_PRECONDITION},
        {"SnapStartTimeoutException", GRPC_DEADLINE_EXCEEDED},
    };
    if (status == 503)
        return GRPC_UNAVAILABLE;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(table[i].code, code) == 0)
            return table[i].status;
    return GRPC_INTERNAL;
}

const char *grpc_code_of(const char *code, uint16_t status) {
    return status == 503 ? "ServiceUnavailableException" : code;
}

size_t grpc_write_message(char *ret_text, size_t size, const char *message) {
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    for (; *message != '\0'; message++) {
        uint8_t c = (uint8_t)*message;
        bool plain = c >= 0x20 && c <= 0x7e && c != '%';
        if (n + (plain ? 1 : 3) >= size)
            break;
        if (plain) {
            ret_text[n++] = (char)c;
        } else {
            ret_text[n++] = '%';
            ret_text[n++] = digits[c >> 4];
            ret_text[n++] = digits[c & 15];
        }
    }
    ret_text[n] = '\0';
    return n;
}
