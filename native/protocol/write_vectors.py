"""Golden vectors: each message once with small values and once with the largest, as packets and as JSON.

They are made here by a third, independent encoder; the tests of both codecs must read and write exactly these.
"""

from __future__ import annotations

import json
from typing import Any

from schema import FIXED

LONGEST = 300  # of a str or bytes in a vector; what is longer is for the codecs' own tests
TEXT = "grün, 緑, 🟢 "


def value(kind: str, maximum: int, number: int, large: bool) -> int | bytes:
    """A field's value: recognisable, and another for each field."""
    if kind in FIXED:
        width = FIXED[kind][1]
        return (1 << (8 * width)) - 1 - number if large else number + 1
    if kind == "id":
        return bytes((number + i) & 255 for i in range(16))
    size = min(maximum, LONGEST) if large else min(maximum, number)
    if kind == "str":
        return cut((TEXT * (size // 4 + 1)).encode(), size)
    return bytes((number * 7 + i) & 255 for i in range(size))


def cut(text: bytes, size: int) -> bytes:
    """At most `size` bytes of UTF-8, whole characters."""
    return text[:size].decode(errors="ignore").encode()


def packet(message: dict[str, Any], large: bool) -> tuple[bytes, dict[str, Any]]:
    top = (1 << 64) - 1
    header = {
        "type": message["type"],
        "flags": 255 if large else 0,
        "epoch": (1 << 32) - 1 if large else 1,
        "seq": (1 << 32) - 2 if large else 2,
        "object": top if large else 3,
        "generation": top - 1 if large else 4,
    }
    out = header["type"].to_bytes(2, "little") + bytes([1, header["flags"]])
    for name, width in (("epoch", 4), ("seq", 4), ("", 4), ("object", 8), ("generation", 8)):
        out += (header[name] if name else 0).to_bytes(width, "little")
    fields: dict[str, Any] = {}
    for number, (name, kind, maximum) in enumerate(message["fields"]):
        made = value(kind, maximum, number, large)
        if isinstance(made, int):
            out += made.to_bytes(FIXED[kind][1], "little")
            fields[name] = made
        else:
            out += (b"" if kind == "id" else len(made).to_bytes(4, "little")) + made
            fields[name] = made.decode() if kind == "str" else made.hex()
    return out, {"header": header, "fields": fields}


def vectors(schema: dict[str, Any]) -> dict[str, bytes]:
    """File names and contents."""
    files: dict[str, bytes] = {}
    described: dict[str, Any] = {}
    for message in schema["message"]:
        for word, large in (("small", False), ("large", True)):
            name = f"{message['name']}.{word}"
            files[f"{name}.bin"], described[name] = packet(message, large)
    files["vectors.json"] = (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode()
    return files
