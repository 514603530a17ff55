"""The dispatcher's messages of responses in parts: event streams against botocore's decoder, gRPC's against the
generated Python code."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from tests.native.test_http_twins import SHARED, Reader, blob, reader

__all__ = ["reader"]

FEW = settings(SHARED, max_examples=150)
DETAILS_MAX = 256 << 10
ID = "00000000-0000-4000-8000-000000000000"
PLAIN = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


def events(words: list[str]) -> list[tuple[dict[str, Any], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(map(blob, words)))
    return [(event.headers, event.payload) for event in buffer]


def message(words: list[str], more: bytes = b"") -> pb.InvokeStreamResponse:
    frame = b"".join(map(blob, words)) + more
    assert frame[0] == 0
    assert struct.unpack(">I", frame[1:5]) == (len(frame) - 5,)
    return pb.InvokeStreamResponse.FromString(frame[5:])


@given(data=st.binary(max_size=3000))
@FEW
def test_payload_chunks(reader: Reader, data: bytes) -> None:
    headers = {
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    assert events(reader.ask("E", data)) == [(headers, data)]


@given(code=PLAIN, details=st.one_of(PLAIN.map(str.encode), st.binary(max_size=60)), log=st.binary(max_size=100))
@FEW
def test_invoke_complete(reader: Reader, code: str, details: bytes, log: bytes) -> None:
    details = details.replace(b"\0", b"")
    [(headers, payload)] = events(reader.ask("F", code.encode() + b"\0" + details + b"\0" + log))
    assert headers == {
        ":event-type": "InvokeComplete",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    told = json.loads(payload)
    if log:
        assert base64.b64decode(told.pop("LogResult")) == log
    if not code:
        assert told == {}
        return
    assert told["ErrorCode"] == code
    try:
        assert told["ErrorDetails"] == details.decode()
    except UnicodeDecodeError:
        assert "\ufffd" in told["ErrorDetails"]


@pytest.mark.parametrize("size", [DETAILS_MAX - 1, DETAILS_MAX, DETAILS_MAX + 1, DETAILS_MAX + 2])
def test_long_details_are_cut_between_characters(reader: Reader, size: int) -> None:
    [(_, payload)] = events(reader.ask("F", b"E\0" + ("x" * (size % 2) + "ü" * (size // 2)).encode() + b"\0"))
    told = json.loads(payload)["ErrorDetails"].encode()
    assert len(told) <= DETAILS_MAX and len(told) >= min(size, DETAILS_MAX) - 1


@given(version=st.sampled_from(["$LATEST", "17"]), kind=PLAIN)
@FEW
def test_starts(reader: Reader, version: str, kind: str) -> None:
    start = pb.InvokeStreamStart(request_id=ID, executed_version=version, content_type=kind)
    assert message(reader.ask("I", version.encode() + b"\0" + kind.encode())) == pb.InvokeStreamResponse(start=start)


@given(data=st.binary(max_size=3000))
@FEW
def test_parts(reader: Reader, data: bytes) -> None:
    assert message(reader.ask("K", data)) == pb.InvokeStreamResponse(payload_chunk=data)


@given(
    status=st.sampled_from([200, 204]),
    code=st.sampled_from(["", "ValueError"]),
    details=st.binary(max_size=400),
    log=st.binary(max_size=200),
    times=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
)
@FEW
def test_ends(reader: Reader, status: int, code: str, details: bytes, log: bytes, times: tuple[int, int]) -> None:
    asked = struct.pack("=IIQQ", status, len(details), *times) + code.encode() + b"\0" + log
    complete = pb.InvokeStreamComplete(status_code=status, duration_us=times[0], init_duration_us=times[1])
    if code:
        complete.error_code = code
    if details:
        complete.error_details = details
    if log:
        complete.log_result = log
    assert message(reader.ask("L", asked), details) == pb.InvokeStreamResponse(complete=complete)
