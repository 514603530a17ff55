"""The length of an upload is checked while it passes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec import UNSET, UnsetType

from runtimed.api.functions import _whole
from runtimed.model import errors, quotas


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def take(size: int | UnsetType, *chunks: bytes) -> bytes:
    return b"".join([chunk async for chunk in _whole(stream(*chunks), size)])


async def test_what_was_announced_passes() -> None:
    assert await take(5, b"ab", b"", b"cde") == b"abcde"
    assert await take(UNSET, b"ab") == b"ab"


@pytest.mark.parametrize(
    ("size", "chunks", "sentence"),
    [
        (5, [b"abcd"], "ended after 4 of 5"),
        (5, [b"abcdef"], "more than the 5"),
        (5, [], "no bytes"),
        (UNSET, [b""], "no bytes"),
    ],
)
async def test_what_was_not_announced_is_refused(size: int | UnsetType, chunks: list[bytes], sentence: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=sentence):
        await take(size, *chunks)


async def test_no_upload_is_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "PACKAGE_ZIPPED_BYTES", 3)
    with pytest.raises(errors.InvalidParameterValue, match="larger than 3 bytes"):
        await take(UNSET, b"ab", b"cd")
