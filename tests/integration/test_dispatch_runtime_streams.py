"""Runtimes of functions' own that stream their responses over the Runtime API, on the real dispatcher: the test is the
runtime and the caller."""

from __future__ import annotations

import base64
import contextlib
import json
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dispatch_stage import PART, PATIENCE, Control, Stage, await_true, counters, staged
from tests.integration.stream_caller import BUFFER, HttpStream
from tests.integration.test_dispatch_runtime_api import NEXT, Runtime, ask, report

ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
ERROR_BODY = "Lambda-Runtime-Function-Error-Body"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    return stage.ready(runtime_api=1, timeout_ms=60000)


@pytest.fixture
def runtime(stage: Stage, control: Control) -> Iterator[Runtime]:
    runtime = Runtime(stage)
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def caller(stage: Stage, control: Control) -> Iterator[HttpStream]:
    with HttpStream(stage) as caller:
        yield caller


class Streaming:
    """One event taken, and its response on the way, byte by byte."""

    def __init__(self, runtime: Runtime, *, launch: bool = True) -> None:
        if launch:
            runtime.launch()
        self.sock = runtime.raw()
        self.sock.sendall(f"GET {NEXT} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        head = self._answer()
        self.id = head.partition("Lambda-Runtime-Aws-Request-Id: ")[2].partition("\r\n")[0]

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _answer(self) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.sock.recv(1 << 16) or pytest.fail(data.decode())
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            body += self.sock.recv(1 << 16)
        return head.decode()

    def begin(self, *fields: str) -> None:
        path = f"/2018-06-01/runtime/invocation/{self.id}/response"
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: h",
            "Lambda-Runtime-Function-Response-Mode: streaming",
            "Transfer-Encoding: chunked",
            f"Trailer: {ERROR_TYPE}, {ERROR_BODY}",
            *fields,
        ]
        self.sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())

    def chunk(self, data: bytes) -> None:
        self.sock.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self, *trailers: str) -> int:
        self.sock.sendall(("0\r\n" + "".join(f"{line}\r\n" for line in trailers) + "\r\n").encode())
        return int(self._answer().split()[1])

    def fill(self) -> int:
        """Bytes that are taken until none are for a while."""
        self.sock.setblocking(False)
        sent, left = 0, b""
        try:
            while select.select([], [self.sock], [], 0.3)[1] or sent <= BUFFER:
                assert sent < 64 * BUFFER, "nothing holds it up"
                left = left or b"%x\r\n" % PART + b"x" * PART + b"\r\n"
                with contextlib.suppress(BlockingIOError):
                    n = self.sock.send(left)
                    sent, left = sent + n, left[n:]
        finally:
            self.sock.settimeout(PATIENCE)
        self.sock.setblocking(True)
        self._left = left
        return sent

    def finish_chunk(self) -> None:
        self.sock.sendall(self._left)


def test_parts_come_as_they_are_written(runtime: Runtime, caller: HttpStream) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin("Content-Type: text/event-stream")
        assert caller.head()["content-type"] == "text/event-stream"
        for part in (b"one", b"two", b"three"):
            stream.chunk(part)
            assert caller.part() == part
        assert stream.end() == 202
        assert caller.rest() == (b"", {})
        caller.begin()
        stream.sock.sendall(f"GET {NEXT} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert "Lambda-Runtime-Aws-Request-Id" in stream._answer()


def test_errors_in_trailers(runtime: Runtime, caller: HttpStream) -> None:
    caller.begin()
    body = json.dumps({"errorMessage": "ä" * 3000, "errorType": "Oops", "stackTrace": ["x" * 9000]})
    with Streaming(runtime) as stream:
        stream.begin()
        stream.chunk(b"half")
        coded = base64.b64encode(body.encode()).decode()
        assert stream.end(f"{ERROR_TYPE}: Runtime.Oops", f"{ERROR_BODY.lower()}:  {coded} ") == 202
        caller.head()
        assert caller.rest() == (b"half", {"ErrorCode": "Runtime.Oops", "ErrorDetails": body})


@pytest.mark.parametrize(
    "trailers",
    [[f"{ERROR_TYPE}: Runtime.Oops"], [f"{ERROR_TYPE}: Runtime.Oops", f"{ERROR_BODY}: no base64"]],
)
def test_an_error_without_its_object(runtime: Runtime, caller: HttpStream, trailers: list[str]) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        assert stream.end(*trailers) == 202
        caller.head()
        assert caller.rest() == (b"", {"ErrorCode": "Runtime.Oops", "ErrorDetails": '{"errorType":"Runtime.Oops"}'})


def test_trailers_that_are_too_long(runtime: Runtime, caller: HttpStream) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        stream.chunk(b"half")
        assert stream.end(f"{ERROR_BODY}: {'A' * 100000}") == 400
        caller.head()
        assert caller.rest()[1]["ErrorCode"] == "Runtime.TruncatedResponse"


def test_a_response_that_is_cut(runtime: Runtime, caller: HttpStream) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        stream.chunk(b"half")
        caller.head()
        assert caller.part() == b"half"
    data, complete = caller.rest()
    assert (data, complete["ErrorCode"]) == (b"", "Runtime.TruncatedResponse")


def test_other_calls_meanwhile(runtime: Runtime, caller: HttpStream) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        stream.chunk(b"one")
        other = runtime.connect()
        assert report(other, stream.id, "response").refused(403, "InvalidStateTransition")
        assert report(other, stream.id, "error").refused(403, "InvalidStateTransition")
        assert ask(other, "GET", NEXT).refused(403, "InvalidStateTransition")
        assert stream.end() == 202
        caller.head()
        assert caller.rest() == (b"one", {})


def test_a_whole_body_with_a_length(runtime: Runtime, stage: Stage) -> None:
    """For a caller that wants it whole, too."""
    invoker = stage.invoker()
    number = invoker.call()
    runtime.launch()
    connection = runtime.connect()
    event = ask(connection, "GET", NEXT)
    assert (
        report(connection, event.id, "response", b"[1]", Lambda_Runtime_Function_Response_Mode="Streaming").status
        == 202
    )
    assert invoker.answer(number)[1] == b"[1]"


def test_a_slow_reader_holds_the_runtime_up(runtime: Runtime, caller: HttpStream, control: Control) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        sent = stream.fill()
        assert BUFFER < sent < 32 * BUFFER
        assert counters(control).node()["payload_bytes"] < 3 * BUFFER
        caller.head()
        data = b""
        while len(data) < sent // (PART + 8) * PART - PART:
            data += caller.part()
        stream.finish_chunk()
        assert stream.end() == 202
        rest, complete = caller.rest()
        assert complete == {} and set(data + rest) == {ord("x")} and len(data + rest) % PART == 0
    await_true(lambda: counters(control).node()["payload_bytes"] < 4096, "the memory comes back")


def test_a_runtime_that_resets_while_it_is_held_up(runtime: Runtime, caller: HttpStream, control: Control) -> None:
    """Nothing turns round meanwhile; then the end is told."""
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        stream.fill()
        stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    page = counters(control)
    before = page.node()["loop_turns"]
    select.select([], [], [], 0.3)
    assert page.node()["loop_turns"] - before < 1000
    caller.head()
    assert caller.rest()[1]["ErrorCode"] == "Runtime.TruncatedResponse"


def test_the_process_ends_while_it_is_held_up(runtime: Runtime, caller: HttpStream) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        stream.fill()
    runtime.environment.exit(1 << 8)
    caller.head()
    data, complete = caller.rest()
    assert len(data) > BUFFER and complete["ErrorCode"] in ("Runtime.TruncatedResponse", "Runtime.ExitError")


def test_a_reader_that_leaves(runtime: Runtime, caller: HttpStream, control: Control) -> None:
    caller.begin()
    with Streaming(runtime) as stream:
        stream.begin()
        stream.fill()
        caller.sock.close()
        stream.finish_chunk()
        for _ in range(32):
            stream.chunk(b"y" * PART)
        assert stream.end() == 202
    await_true(lambda: counters(control).node()["abandoned"] == 1, "the caller is gone")
