"""Callers of InvokeWithResponseStream and InvokeStream, and the environment's side of a response in parts."""

from __future__ import annotations

import json
import select
from typing import Any

import grpc
from botocore.eventstream import EventStreamBuffer

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from runtimed.model import wire
from tests.integration.dispatch_stage import PART, PATIENCE, Environment, Stage
from tests.integration.http_caller import Caller

STREAM = "/runtimed.v1.Invocations/InvokeStream"
EVENTSTREAM = "application/vnd.amazon.eventstream"
BUFFER = 256 << 10
Ended = tuple[bytes, dict[str, Any]]


class HttpStream(Caller):
    """InvokeWithResponseStream, read as slowly as a test likes."""

    def __init__(self, stage: Stage, *, tcp: bool = False) -> None:
        super().__init__(stage, tcp=tcp)
        self._events = EventStreamBuffer()
        self.fields: dict[str, str] = {}
        self.over = False

    def begin(self, *fields: str, body: bytes = b"{}", version: str = "1.1") -> None:
        head = f"POST /2021-11-15/functions/f/response-streaming-invocations HTTP/{version}\r\nHost: h\r\n"
        self.send(head + "".join(f"{field}\r\n" for field in fields) + f"Content-Length: {len(body)}\r\n\r\n")
        self.send(body)

    def head(self) -> dict[str, str]:
        answer = self.answer()
        assert answer.status == 200
        self.fields = answer.fields
        return answer.fields

    def _chunk(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        size, _, rest = self._buffer.partition(b"\r\n")
        n = int(size, 16)
        while len(rest) < n + 2:
            self._more()
            rest = self._buffer.partition(b"\r\n")[2]
        assert rest[n : n + 2] == b"\r\n"
        self._buffer = rest[n + 2 :]
        return rest[:n]

    def event(self) -> tuple[str, bytes]:
        """The next one: its type and payload."""
        while True:
            for event in self._events:
                assert event.headers[":message-type"] == "event"
                return event.headers[":event-type"], event.payload
            data = self._chunk()
            assert data, "the stream ends without an InvokeComplete"
            self._events.add_data(data)

    def part(self) -> bytes:
        kind, payload = self.event()
        assert kind == "PayloadChunk", payload
        return payload

    def rest(self) -> Ended:
        """All parts that are to come, and the InvokeComplete."""
        parts = []
        while True:
            kind, payload = self.event()
            if kind == "InvokeComplete":
                assert self._chunk() == b""
                return b"".join(parts), json.loads(payload)
            parts.append(payload)


def head(environment: Environment, number: bytes, data: bytes = b"", content_type: str = "") -> None:
    environment.send(wire.StreamHead(id=number, content_type=content_type, data=data))


def chunk(environment: Environment, data: bytes) -> None:
    environment.send(wire.StreamChunk(data=data))


def end(environment: Environment, error: str = "", body: bytes = b"") -> None:
    message = wire.StreamEnd(error=int(bool(error)), error_type=error, body=body)
    environment.send(message, flags=wire.HeaderFlags.READY)


def invoke_stream(channel: grpc.Channel, timeout: float = PATIENCE, **fields: Any) -> Any:
    call = channel.unary_stream(
        STREAM,
        request_serializer=pb.InvokeRequest.SerializeToString,
        response_deserializer=pb.InvokeStreamResponse.FromString,
    )
    return call(pb.InvokeRequest(**{"function_name": "f", **fields}), timeout=timeout)


def busy(stage: Stage) -> tuple[Environment, wire.Invoke]:
    """A new environment with the invocation that is waiting."""
    environment = stage.launch()
    environment.start()
    return environment, environment.invoke()[0]


def idle_again(stage: Stage, environment: Environment) -> None:
    """It takes a further invocation."""
    invoker = stage.invoker()
    number = invoker.call()
    environment.serve(b'"again"')
    assert invoker.answer(number)[1] == b'"again"'


def fill(environment: Environment) -> int:
    """Parts until the channel takes none for a while: how many. More than what waits in the dispatcher."""
    environment.sock.settimeout(0)
    writable = select.poll()  # any descriptor, however high
    writable.register(environment.sock, select.POLLOUT)
    sent = 0
    try:
        while True:
            if not writable.poll(300):
                if sent * PART > BUFFER:
                    return sent
                continue
            try:
                chunk(environment, sent.to_bytes(8, "big") * (PART // 8))
            except BlockingIOError:
                continue
            except ConnectionError:
                return sent  # it was ended
            sent += 1
            if sent * PART > 64 * BUFFER:
                return sent  # nothing holds it up
    finally:
        environment.sock.settimeout(PATIENCE)
