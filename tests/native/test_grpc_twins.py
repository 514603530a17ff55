"""The dispatcher's gRPC messages against the generated Python code, its statuses against the API's table of errors."""

from __future__ import annotations

import struct

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from runtimed.model import errors
from tests.native.test_http_twins import SHARED, Reader, blob, reader

__all__ = ["reader"]

TEXTS = ("function_name", "qualifier", "client_context", "trace_id", "tenant_id")
REQUESTS = st.builds(
    pb.InvokeRequest,
    **{name: st.text(max_size=20) for name in TEXTS},
    invocation_type=st.integers(-(2**31), 2**31 - 1),
    log_type=st.integers(-(2**31), 2**31 - 1),
    payload=st.binary(max_size=300),
).map(pb.InvokeRequest.SerializeToString)
VARINTS = st.one_of(st.integers(0, 200), st.integers(0, 2**64 - 1)).map(
    lambda n: bytes([*((n >> at & 127) | 128 for at in range(0, max(0, n.bit_length() - 7), 7)), 0])
)
FIELDS = st.builds(
    lambda number, kind, rest: bytes([(number << 3 | kind) & 127]) + rest,
    st.integers(0, 15),
    st.integers(0, 7),
    st.one_of(
        VARINTS,
        st.binary(max_size=12),
        st.binary(max_size=60).map(lambda text: bytes([len(text)]) + text),
        st.text(max_size=15).map(lambda text: bytes([len(text.encode("utf-8"))]) + text.encode("utf-8")),
    ),
)
MESSAGES = st.one_of(REQUESTS, st.binary(max_size=80), st.lists(st.one_of(FIELDS, REQUESTS), max_size=6).map(b"".join))


@given(message=MESSAGES)
@SHARED
def test_requests(reader: Reader, message: bytes) -> None:
    words = reader.ask("G", message)
    try:
        read = pb.InvokeRequest.FromString(message)
    except DecodeError:
        assert words == ["EBADMSG"]
        return
    assert [int(word) for word in words[:2]] == [read.invocation_type, read.log_type]
    assert [blob(word).decode() for word in words[2:7]] == [getattr(read, name) for name in TEXTS]
    assert blob(words[7]) == read.payload


@pytest.mark.parametrize("depth", [1, 60, 99])
def test_groups(reader: Reader, depth: int) -> None:
    message = b"\x5b" * depth + b"\x5c" * depth + b"\x0a\x01f"
    assert pb.InvokeRequest.FromString(message).function_name == "f"
    assert blob(reader.ask("G", message)[2]) == b"f"
    assert reader.ask("G", message[1:]) == ["EBADMSG"]


def test_deep_groups_end(reader: Reader) -> None:
    assert reader.ask("G", b"\x5b" * 100_000 + b"\x5c" * 100_000) == ["EBADMSG"]


@given(
    status=st.sampled_from([200, 204]),
    failed=st.booleans(),
    version=st.sampled_from(["$LATEST", "17"]),
    tail=st.binary(max_size=200),
    payload=st.binary(max_size=400),
    times=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
)
@SHARED
def test_responses(
    reader: Reader, status: int, failed: bool, version: str, tail: bytes, payload: bytes, times: tuple[int, int]
) -> None:
    asked = struct.pack("=IIIQQ", status, failed, len(payload), *times) + version.encode() + b"\0" + tail
    frame = blob(reader.ask("P", asked)[0]) + payload
    assert frame[0] == 0
    assert struct.unpack(">I", frame[1:5]) == (len(frame) - 5,)
    expected = pb.InvokeResponse(
        status_code=status,
        request_id="00000000-0000-4000-8000-000000000000",
        executed_version=version,
        payload=payload,
        duration_us=times[0],
        init_duration_us=times[1],
    )
    if failed:
        expected.function_error = "Unhandled"
    if tail:
        expected.log_result = tail
    assert pb.InvokeResponse.FromString(frame[5:]) == expected


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1H", 3_600_000_000), ("2M", 120_000_000), ("3S", 3_000_000), ("4m", 4000), ("5u", 5), ("6n", 1), ("0n", 0),
        ("99999999H", 99999999 * 3_600_000_000),
        ("", None), ("1", None), ("S", None), ("1s", None), ("-1S", None), ("1 S", None), ("123456789S", None),
    ],
)  # fmt: skip
def test_timeouts(reader: Reader, text: str, us: int | None) -> None:
    assert reader.ask("T", text.encode()) == ["EINVAL" if us is None else str(us)]


def test_statuses(reader: Reader) -> None:
    """What the dispatcher answers with is in the API's table, with the same status."""
    answered = {
        "InvalidParameterValueException", "InvalidRequestContentException", "UnrecognizedClientException",
        "AccessDeniedException", "ResourceNotFoundException", "RequestTooLargeException", "RequestTimeoutException",
        "TooManyRequestsException", "NotImplementedException", "ServiceException", "ServiceUnavailableException",
        "InvalidRuntimeException", "ResourceNotReadyException", "SnapStartException", "SnapStartTimeoutException",
    }  # fmt: skip
    for code in answered:
        error = errors.error_class(code)
        assert error.code == code
        number, said = reader.ask("C", struct.pack("=H", error.status) + code.encode())
        assert (int(number), said) == (grpc.StatusCode[error.grpc].value[0], code)
    number, said = reader.ask("C", struct.pack("=H", 503) + b"ServiceException")
    assert errors.error_class(said) is errors.ServiceUnavailable
    assert int(number) == grpc.StatusCode.UNAVAILABLE.value[0]
