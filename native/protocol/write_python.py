"""The Python codec: runtimed/model/wire.py."""

from __future__ import annotations

from typing import Any

from schema import HEADER_SIZE, NOTE

PY_PRELUDE = '''\
"""{note}

The control protocol's codec; what each message means stands in the schema. `encode` gives a packet for a SOCK_SEQPACKET
socket; `decode` takes one and raises ValueError for anything malformed.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import ClassVar, NamedTuple

from msgspec import Struct

VERSION = {version}
HEADER_SIZE = {header_size}
MESSAGE_MAX = {message_max}

_HEADER = struct.Struct("<HBBIIIQQ")
_U32 = struct.Struct("<I")


class Header(NamedTuple):
    """What precedes every message: who speaks (epoch, seq) and of what (object, generation)."""

    type: int
    flags: int = 0
    epoch: int = 0
    seq: int = 0
    object: int = 0
    generation: int = 0


class Message(Struct, frozen=True, kw_only=True):
    """Base of all messages; `LAYOUT` is (field, kind, maximum) in the order on the wire."""

    TYPE: ClassVar[int] = 0
    LAYOUT: ClassVar[tuple[tuple[str, str, int], ...]] = ()


_FIXED = {{"u8": struct.Struct("<B"), "u16": struct.Struct("<H"), "u32": _U32, "u64": struct.Struct("<Q")}}


def encode(
    message: Message, *, flags: int = 0, epoch: int = 0, seq: int = 0, object: int = 0, generation: int = 0
) -> bytes:
    """One packet. ValueError when a field is above its maximum or out of range."""
    parts = [_HEADER.pack(message.TYPE, VERSION, flags, epoch, seq, 0, object, generation)]
    for name, kind, maximum in message.LAYOUT:
        value = getattr(message, name)
        fixed = _FIXED.get(kind)
        if fixed is not None:
            try:
                parts.append(fixed.pack(value))
            except struct.error as error:
                raise ValueError(f"{{type(message).__name__}}.{{name}}: {{error}}") from None
            continue
        data = value.encode() if isinstance(value, str) else bytes(value)
        if kind == "id":
            if len(data) != 16:
                raise ValueError(f"{{type(message).__name__}}.{{name}}: 16 bytes, not {{len(data)}}")
            parts.append(data)
            continue
        if len(data) > maximum:
            raise ValueError(f"{{type(message).__name__}}.{{name}}: {{len(data)}} bytes, at most {{maximum}}")
        if kind == "str" and b"\\0" in data:
            raise ValueError(f"{{type(message).__name__}}.{{name}}: NUL in a string")
        parts.append(_U32.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def decode(packet: bytes) -> tuple[Header, Message]:
    """Header and message of one packet. ValueError for anything that encode could not have made."""
    if len(packet) < HEADER_SIZE:
        raise ValueError("short packet")
    kind_of, version, flags, epoch, seq, reserved, object_, generation = _HEADER.unpack_from(packet)
    if version != VERSION or reserved:
        raise ValueError(f"version {{version}}, reserved {{reserved}}")
    shape = MESSAGES.get(kind_of)
    if shape is None:
        raise ValueError(f"unknown type {{kind_of}}")
    at = HEADER_SIZE
    values: dict[str, int | str | bytes] = {{}}
    try:
        for name, kind, maximum in shape.LAYOUT:
            fixed = _FIXED.get(kind)
            if fixed is not None:
                (values[name],) = fixed.unpack_from(packet, at)
                at += fixed.size
                continue
            size = 16
            if kind != "id":
                (size,) = _U32.unpack_from(packet, at)
                at += 4
                if size > maximum:
                    raise ValueError(f"{{shape.__name__}}.{{name}}: {{size}} bytes, at most {{maximum}}")
            data = packet[at : at + size]
            if len(data) != size:
                raise ValueError(f"{{shape.__name__}}.{{name}}: cut short")
            at += size
            if kind == "str":
                if b"\\0" in data:
                    raise ValueError(f"{{shape.__name__}}.{{name}}: NUL in a string")
                values[name] = data.decode(errors="replace")
            else:
                values[name] = data
    except struct.error:
        raise ValueError(f"{{shape.__name__}}: cut short") from None
    if at != len(packet):
        raise ValueError(f"{{shape.__name__}}: {{len(packet) - at}} bytes left over")
    return Header(kind_of, flags, epoch, seq, object_, generation), shape(**values)
'''

PY_TYPES = {"u8": "int", "u16": "int", "u32": "int", "u64": "int", "id": "bytes", "str": "str", "bytes": "bytes"}
PY_ZERO = {"int": "0", "bytes": 'b""', "str": '""'}


def camel(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


def python_source(schema: dict[str, Any]) -> str:
    prelude = PY_PRELUDE.format(
        note=NOTE, version=schema["version"], header_size=HEADER_SIZE, message_max=schema["message_max"]
    )
    out = [prelude]
    for enum in schema["enum"]:
        out += ["", f"class {camel(enum['name'])}(IntEnum):"]
        out += [f"    {k.upper()} = {v}" for k, v in enum["values"].items()] + [""]
    for flags in schema["flags"]:
        out += ["", f"class {camel(flags['name'])}Flags(IntFlag):"]
        out += [f"    {k.upper()} = {v}" for k, v in flags["values"].items()] + [""]
    for message in schema["message"]:
        out += ["", f"class {camel(message['name'])}(Message, frozen=True, kw_only=True):"]
        out.append(f"    TYPE: ClassVar[int] = {message['type']}")
        if message["fields"]:
            out.append("    LAYOUT: ClassVar[tuple[tuple[str, str, int], ...]] = (")
            out += [f'        ("{n}", "{k}", {m}),' for n, k, m in message["fields"]] + ["    )"]
        for name, kind, _ in message["fields"]:
            zero = "bytes(16)" if kind == "id" else PY_ZERO[PY_TYPES[kind]]
            out.append(f"    {name}: {PY_TYPES[kind]} = {zero}")
        out.append("")
    out += ["", "MESSAGES: dict[int, type[Message]] = {"]
    out += [f"    {m['type']}: {camel(m['name'])}," for m in schema["message"]] + ["}"]
    return "\n".join(out) + "\n"
