"""The C codec: wire.h and wire.c."""

from __future__ import annotations

from typing import Any

from schema import FIXED, HEADER_SIZE, NOTE


def c_header(schema: dict[str, Any]) -> str:
    out = [
        f"/* {NOTE} */",
        "#pragma once",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f"#define WIRE_VERSION {schema['version']}",
        f"#define WIRE_HEADER_SIZE {HEADER_SIZE}",
        f"#define WIRE_MESSAGE_MAX {schema['message_max']}",
        "",
        "enum wire_type {",
        *(f"    WIRE_{m['name'].upper()} = {m['type']}," for m in schema["message"]),
        "};",
        "",
    ]
    for enum in schema["enum"]:
        out.append(f"enum wire_{enum['name']} {{")
        out += [f"    WIRE_{enum['name'].upper()}_{k.upper()} = {v}," for k, v in enum["values"].items()]
        out += ["};", ""]
    for flags in schema["flags"]:
        out += [f"#define WIRE_{flags['name'].upper()}_{k.upper()} {v}u" for k, v in flags["values"].items()]
        out.append("")
    for message in schema["message"]:
        for name, _, maximum in message["fields"]:
            if maximum:
                out.append(f"#define WIRE_{message['name'].upper()}_{name.upper()}_MAX {maximum}u")
    out += ["", "/* X(name, NAME) for every message. */", "#define WIRE_MESSAGES(X) \\"]
    out += [f"    X({m['name']}, {m['name'].upper()}) \\" for m in schema["message"]]
    out[-1] = out[-1].removesuffix(" \\")
    return "\n".join([*out, *c_types(schema)]) + "\n"


def c_types(schema: dict[str, Any]) -> list[str]:
    out = [
        "",
        "struct wire_slice {",
        "    const uint8_t *data; /* into the packet; not terminated */",
        "    uint32_t size;",
        "};",
        "",
        "struct wire_header {",
        "    uint16_t type;",
        "    uint8_t version;",
        "    uint8_t flags;",
        "    uint32_t epoch;",
        "    uint32_t seq;",
        "    uint64_t object;",
        "    uint64_t generation;",
        "};",
        "",
        "/* Reads the header only. 0, or -EBADMSG (short, unknown version, reserved bits). */",
        "int wire_peek(const uint8_t *data, size_t size, struct wire_header *ret_header);",
        '/* The message\'s name, or "?". */',
        "const char *wire_name(uint16_t type);",
        "",
        "/* X_encode writes header (its type and version are filled in) and fields; returns the packet's size,",
        " * -EMSGSIZE (does not fit in the buffer), or -EINVAL (a field is above its maximum). X_decode returns 0 or",
        " * -EBADMSG and leaves its outputs untouched on failure. */",
    ]
    for message in schema["message"]:
        name = message["name"]
        out += ["", f"struct wire_{name} {{"]
        for field, kind, _ in message["fields"]:
            if kind in FIXED:
                out.append(f"    {FIXED[kind][0]} {field};")
            elif kind == "id":
                out.append(f"    uint8_t {field}[16];")
            else:
                out.append(f"    struct wire_slice {field};")
        if not message["fields"]:
            out.append("    char empty;")
        out += [
            "};",
            f"int wire_{name}_encode(const struct wire_header *header, const struct wire_{name} *message,",
            "    uint8_t *buffer, size_t size);",
            f"int wire_{name}_decode(const uint8_t *data, size_t size, struct wire_header *ret_header,",
            f"    struct wire_{name} *ret_message);",
        ]
    return out


C_PRELUDE = """\
#include "protocol/wire.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* Widths are constants where these are called: what is inlined is one comparison and one load or store. */
#define INLINE static inline __attribute__((always_inline, unused))

struct writer {
    uint8_t *at, *end;
    int error;
};

struct reader {
    const uint8_t *at, *end;
    bool bad;
};

INLINE void put_raw(struct writer *w, const void *data, size_t size) {
    if (w->error != 0)
        return;
    if ((size_t)(w->end - w->at) < size) {
        w->error = -EMSGSIZE;
        return;
    }
    if (size > 0)
        memcpy(w->at, data, size);
    w->at += size;
}

/* The low bytes come first. */
INLINE void put(struct writer *w, uint64_t value, size_t width) {
    value = htole64(value);
    put_raw(w, &value, width);
}

static void put_slice(struct writer *w, struct wire_slice slice, uint32_t maximum, bool text) {
    if (slice.size > maximum || (text && slice.size > 0 && memchr(slice.data, 0, slice.size) != NULL))
        w->error = w->error != 0 ? w->error : -EINVAL;
    put(w, slice.size, 4);
    put_raw(w, slice.data, slice.size);
}

INLINE void get_raw(struct reader *r, void *into, size_t size) {
    if ((size_t)(r->end - r->at) < size) {
        r->bad = true;
        r->at = r->end;
        return;
    }
    memcpy(into, r->at, size);
    r->at += size;
}

INLINE uint64_t get(struct reader *r, size_t width) {
    uint64_t value = 0;
    get_raw(r, &value, width);
    return le64toh(value);
}

static struct wire_slice get_slice(struct reader *r, uint32_t maximum, bool text) {
    uint32_t size = (uint32_t)get(r, 4);
    struct wire_slice slice = {.data = r->at, .size = size};
    if (size > maximum || (size_t)(r->end - r->at) < size || (text && size > 0 && memchr(r->at, 0, size) != NULL)) {
        r->bad = true;
        r->at = r->end;
        return (struct wire_slice){0};
    }
    r->at += size;
    return slice;
}

/* A header as it is in a packet: no gaps, least byte first. */
struct packed_header {
    uint16_t type;
    uint8_t version, flags;
    uint32_t epoch, seq, reserved;
    uint64_t object, generation;
};
static_assert(sizeof(struct packed_header) == WIRE_HEADER_SIZE, "there is a gap");

INLINE void put_header(struct writer *w, const struct wire_header *header, uint16_t type) {
    const struct packed_header packed = {
        .type = htole16(type),
        .version = WIRE_VERSION,
        .flags = header->flags,
        .epoch = htole32(header->epoch),
        .seq = htole32(header->seq),
        .object = htole64(header->object),
        .generation = htole64(header->generation),
    };
    put_raw(w, &packed, sizeof(packed));
}

INLINE struct wire_header get_header(struct reader *r) {
    struct packed_header packed = {0};
    get_raw(r, &packed, sizeof(packed));
    if (packed.reserved != 0 || packed.version != WIRE_VERSION)
        r->bad = true;
    return (struct wire_header){
        .type = le16toh(packed.type),
        .version = packed.version,
        .flags = packed.flags,
        .epoch = le32toh(packed.epoch),
        .seq = le32toh(packed.seq),
        .object = le64toh(packed.object),
        .generation = le64toh(packed.generation),
    };
}

int wire_peek(const uint8_t *data, size_t size, struct wire_header *ret_header) {
    struct reader r = {.at = data, .end = data + size};
    struct wire_header header = get_header(&r);
    if (r.bad)
        return -EBADMSG;
    *ret_header = header;
    return 0;
}
"""


def c_source(schema: dict[str, Any]) -> str:
    out = [f"/* {NOTE} */", C_PRELUDE, "const char *wire_name(uint16_t type) {", "    switch (type) {"]
    out += [f'    case WIRE_{m["name"].upper()}:\n        return "{m["name"]}";' for m in schema["message"]]
    out += ["    default:", '        return "?";', "    }", "}"]
    for message in schema["message"]:
        name = message["name"]
        put, get = [], []
        for field, kind, _ in message["fields"]:
            maximum = f"WIRE_{name.upper()}_{field.upper()}_MAX"
            if kind in FIXED:
                ctype, width = FIXED[kind]
                put.append(f"    put(&w, message->{field}, {width});")
                get.append(f"    message.{field} = ({ctype})get(&r, {width});")
            elif kind == "id":
                put.append(f"    put_raw(&w, message->{field}, 16);")
                get.append(f"    get_raw(&r, message.{field}, 16);")
            else:
                text = "true" if kind == "str" else "false"
                put.append(f"    put_slice(&w, message->{field}, {maximum}, {text});")
                get.append(f"    message.{field} = get_slice(&r, {maximum}, {text});")
        if not put:
            put.append("    (void)message;")
        out += [
            "",
            f"int wire_{name}_encode(const struct wire_header *header, const struct wire_{name} *message,",
            "    uint8_t *buffer, size_t size) {",
            "    struct writer w = {.at = buffer, .end = buffer + size};",
            f"    put_header(&w, header, WIRE_{name.upper()});",
            *put,
            "    return w.error != 0 ? w.error : (int)(w.at - buffer);",
            "}",
            "",
            f"int wire_{name}_decode(const uint8_t *data, size_t size, struct wire_header *ret_header,",
            f"    struct wire_{name} *ret_message) {{",
            "    struct reader r = {.at = data, .end = data + size};",
            "    struct wire_header header = get_header(&r);",
            f"    struct wire_{name} message = {{0}};",
            *get,
            f"    if (r.bad || r.at != r.end || header.type != WIRE_{name.upper()})",
            "        return -EBADMSG;",
            "    *ret_header = header;",
            "    *ret_message = message;",
            "    return 0;",
            "}",
        ]
    return "\n".join(out) + "\n"
