"""Zip files byte by byte, so that they can be wrong in every way."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from msgspec import Struct, structs

LOCAL = struct.Struct("<4sHHHHHIIIHH")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")


class Member(Struct, frozen=True, kw_only=True):
    """One entry; what is None follows from the others."""

    name: bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0x0800
    mode: int = 0o100644
    made_by: int = 3 << 8 | 20
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    offset: int | None = None
    local_name: bytes | None = None
    local_method: int | None = None
    extra: bytes = b""
    disk: int = 0


def deflate(content: bytes) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return pack.compress(content) + pack.flush()


def build(*members: Member, front: bytes = b"", **end: Any) -> bytes:
    """The archive. `end` overrides fields of the end record: count, size, offset, disk, comment."""
    out = bytearray(front)
    directory = bytearray()
    for member in members:
        packed = member.packed
        if packed is None:
            packed = deflate(member.content) if member.method == 8 else member.content
        crc = zlib.crc32(member.content) if member.crc is None else member.crc
        size = len(member.content) if member.size is None else member.size
        packed_size = len(packed) if member.packed_size is None else member.packed_size
        at = len(out) - len(front) if member.offset is None else member.offset
        local_name = member.name if member.local_name is None else member.local_name
        local_method = member.method if member.local_method is None else member.local_method
        if member.offset is None:
            out += LOCAL.pack(
                b"PK\3\4", 20, member.flags, local_method, 0, 0, crc, len(packed), size & 0xFFFFFFFF, len(local_name), 0
            )
            out += local_name + packed
        directory += CENTRAL.pack(
            b"PK\1\2", member.made_by, 20, member.flags, member.method, 0, 0, crc, packed_size, size & 0xFFFFFFFF,
            len(member.name), len(member.extra), 0, member.disk, 0, member.mode << 16, at,
        )  # fmt: skip
        directory += member.name + member.extra
    comment = end.get("comment", b"")
    count, disk = end.get("count", len(members)), end.get("disk", 0)
    size, offset = end.get("size", len(directory)), end.get("offset", len(out) - len(front))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", disk, disk, count, count, size, offset, len(comment)) + comment
    return bytes(out + directory + tail)


def plain(
    name: str = "app.py", content: bytes = b"def handler(event, context):\n    return event\n", **more: Any
) -> Member:
    return structs.replace(Member(name=name.encode(), content=content), **more)
