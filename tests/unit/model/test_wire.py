"""The Python codec against the golden vectors that the C codec is tested with too."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from runtimed.model import wire

VECTORS = pathlib.Path(__file__).resolve().parents[3] / "native" / "tests" / "vectors"
DESCRIBED: dict[str, Any] = json.loads((VECTORS / "vectors.json").read_text())


def packet(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


def expected(name: str) -> tuple[wire.Header, wire.Message]:
    header = DESCRIBED[name]["header"]
    shape = wire.MESSAGES[header["type"]]
    kinds = {field: kind for field, kind, _ in shape.LAYOUT}
    fields = {
        field: bytes.fromhex(value) if kinds[field] in ("id", "bytes") else value
        for field, value in DESCRIBED[name]["fields"].items()
    }
    return wire.Header(**header), shape(**fields)


def test_every_message_has_vectors() -> None:
    types = {DESCRIBED[name]["header"]["type"] for name in DESCRIBED}
    assert types == set(wire.MESSAGES)


@pytest.mark.parametrize("name", DESCRIBED)
def test_vector(name: str) -> None:
    header, message = expected(name)
    assert wire.decode(packet(name)) == (header, message)
    envelope = header._asdict()
    envelope.pop("type")
    assert wire.encode(message, **envelope) == packet(name)


@pytest.mark.parametrize("name", DESCRIBED)
def test_cut_and_stretched_packets_are_refused(name: str) -> None:
    data = packet(name)
    for length in range(len(data)):
        with pytest.raises(ValueError):  # noqa: PT011  the codec's own word for anything malformed
            wire.decode(data[:length])
    with pytest.raises(ValueError, match="left over"):
        wire.decode(data + b"\0")


@pytest.mark.parametrize(("at", "what"), [(2, "version"), (12, "reserved"), (0, "type")])
def test_other_headers_are_refused(at: int, what: str) -> None:
    data = bytearray(packet("ack.small"))
    data[at] ^= 0x80
    with pytest.raises(ValueError, match=what):
        wire.decode(bytes(data))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        wire.encode(wire.Hello(build="x" * 65))
    with pytest.raises(ValueError, match="NUL"):
        wire.encode(wire.Hello(build="a\0b"))
    with pytest.raises(ValueError, match="16 bytes"):
        wire.encode(wire.Invoke(id=b"short"))
    with pytest.raises(ValueError, match="status"):
        wire.encode(wire.Answer(status=65536))
