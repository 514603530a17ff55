"""A body's long text is found without decoding it, whatever stands around it."""

from __future__ import annotations

import base64
import json
import os
import random

import pytest

from runtimed.gateway.rest.body import CUT, LONG, PIECE, REST_MAX, TEXTS_MAX, cut, decode_region, decode_text
from runtimed.model import errors


async def joined(data: bytes, region: object) -> bytes:
    return b"".join([piece async for piece in decode_region(data, region)])  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [LONG, LONG + 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
@pytest.mark.parametrize("slashes", [False, True])
async def test_the_archive_among_other_members(size: int, slashes: bool) -> None:
    archive = os.urandom(size) if not slashes else b"\xff" * size  # base64: slashes only
    members = {"A": 'quotes " and \\" and \\', "Code": {"ZipFile": base64.b64encode(archive).decode()}, "Z": "\\"}
    text = json.dumps(members)
    data = (text.replace("/", "\\/") if slashes else text).encode()
    rest, region = cut(b"head" + data + b"tail", 4, 4 + len(data))
    assert json.loads(rest) == {**members, "Code": {"ZipFile": CUT}}
    assert region is not None
    assert await joined(b"head" + data + b"tail", region) == archive


def test_short_ones_stay() -> None:
    data = json.dumps({"ZipFile": "A" * LONG, "B": ["x"] * 100}).encode()
    assert cut(data[1:], 0, len(data) - 1) == (data[1:], None)
    assert cut(b"", 0, 0) == (b"", None)


@pytest.mark.parametrize(
    "data",
    [
        json.dumps({"a": "x" * (LONG + 1), "b": "x" * (LONG + 1)}).encode(),
        b"[" + b"1," * REST_MAX,
        b'"a",' * (REST_MAX // 4 + 10),
        b'""' * (TEXTS_MAX + 10),
    ],
    ids=["two", "numbers", "texts", "empty texts"],
)
def test_too_much(data: bytes) -> None:
    with pytest.raises(errors.RequestTooLarge):
        cut(data, 0, len(data))


@pytest.mark.parametrize("data", [b'{"a', b'{"a\\"', b'"' + b'\\"' * (TEXTS_MAX + 1) + b'"', b'"' + b"\\" * 100_001])
def test_without_an_end(data: bytes) -> None:
    with pytest.raises(errors.InvalidRequestContent):
        cut(data, 0, len(data))


def test_as_a_parser_sees_it() -> None:
    """Random members: what is cut is what JSON says the long text is."""
    chance = random.Random(7)
    pieces = ['"', "\\", "/", "a", "é", "\n", "{", "]", "\\\\", '\\"']
    for _ in range(300):
        members: dict[str, object] = {
            "".join(chance.choices(pieces, k=3)) + str(n): "".join(chance.choices(pieces, k=chance.randrange(9)))
            for n in range(5)
        }
        where = str(chance.randrange(5)) + "long"
        members[where] = "\\" * chance.randrange(3) + "x" * LONG + '"'
        data = json.dumps(members, ensure_ascii=chance.random() < 0.5).encode()
        rest, region = cut(data, 0, len(data))
        assert region is not None
        assert json.loads(rest) == {**members, where: CUT}
        assert json.loads(data[region.at - 1 : region.end + 1]) == members[where]


@pytest.mark.parametrize("text", ["!", "abc", "a=bc", "YWJj\n"])
async def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="base64"):
        _ = [piece async for piece in decode_text(text)]
    data = f'"{text}{"A" * LONG}"'.encode()
    region = cut(data, 0, len(data))[1]
    with pytest.raises(errors.InvalidParameterValue, match="base64"):
        await joined(data, region)
