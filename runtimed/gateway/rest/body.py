"""A request's JSON, with an archive of many megabytes in the middle of it.

An uploaded package comes as one text in base64 among the other members, which may stand before and behind it. `cut`
finds the one long text without decoding it and gives back the JSON with CUT in its place; `decode_region` then decodes
the text in pieces. So a request costs as much memory as its other members, which are bounded.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from mmap import mmap

from msgspec import Struct

from runtimed.model import errors

LONG = 16 * 1024
"""A text of more bytes is cut out: no member but an archive has so many."""
REST_MAX = 256 * 1024
"""All else together."""
TEXTS_MAX = 50_000
CUT = "\0cut"
"""No member may hold a NUL, so nobody can send this."""
_CUT_JSON = b"\\u0000cut"
PIECE = 4 * 96 * 1024  # of base64


class Region(Struct, frozen=True):
    """Where the long text lies, without its quotes."""

    at: int
    end: int


def cut(text: bytes | mmap, at: int, end: int) -> tuple[bytes, Region | None]:
    """The JSON between `at` and `end` without its long text. Raises RequestTooLarge and InvalidRequestContent."""
    kept: list[bytes] = []
    region: Region | None = None
    size, begin, texts = 0, at, 0
    while (quote := text.find(b'"', at, end)) >= 0:
        close = _closing(text, quote + 1, end)
        texts += 1
        if texts > TEXTS_MAX or size + quote - begin > REST_MAX:
            raise _too_large()
        if close - quote - 1 > LONG:
            if region is not None:
                raise _too_large()
            region = Region(quote + 1, close)
            kept += (text[begin : quote + 1], _CUT_JSON)
            size += quote + 1 - begin
            begin = close
        at = close + 1
    if size + end - begin > REST_MAX:
        raise _too_large()
    kept.append(text[begin:end])
    return b"".join(kept), region


def _closing(text: bytes | mmap, at: int, end: int) -> int:
    """The quote that ends the text beginning at `at`."""
    close = at
    for _ in range(TEXTS_MAX):
        close = text.find(b'"', close, end)
        if close < 0:
            break
        before = text[max(at, close - LONG) : close]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return close
        close += 1
    raise errors.InvalidRequestContent("The body could not be read as JSON: a text has no end.")


def _too_large() -> errors.RequestTooLarge:
    return errors.RequestTooLarge(
        f"The request is larger than any of this API: beside one archive it may have {REST_MAX} bytes."
    )


async def decode_region(text: bytes | mmap, region: Region) -> AsyncIterator[bytes]:
    """The bytes that the base64 in this region stands for. Raises InvalidParameterValue."""
    at, carried = region.at, b""
    while at < region.end:
        piece = carried + text[at : min(at + PIECE, region.end)]
        at += PIECE
        last = len(piece)
        if at < region.end:
            # Some writers of JSON escape slashes, which base64 has.
            slash = len(piece) - 1 if piece.endswith(b"\\") else len(piece)
            carried = piece[slash:]
            piece = piece[:slash].replace(b"\\/", b"/")
            last = len(piece) - len(piece) % 4
            carried = piece[last:] + carried
        else:
            piece = piece.replace(b"\\/", b"/")
            last = len(piece)
        yield decoded(piece[:last])


async def decode_text(text: str) -> AsyncIterator[bytes]:
    """The same for a short one, at once."""
    yield decoded(text.encode())


def decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise errors.InvalidParameterValue("ZipFile: is not the base64 of a zip archive.") from None
