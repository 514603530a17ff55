"""Callers that take more than their share: others are served meanwhile, and the abuse ends by itself."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from runtimed.api.table import Performers, bind
from runtimed.gateway.grpc.limits import Limits
from runtimed.gateway.grpc.pb import functions_pb2
from runtimed.gateway.grpc.server import Server
from tests.integration.conftest import KEY, Gateway, Loop
from tests.integration.performers import performers
from tests.integration.stub import Stub, creation, package, refused, until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
CALM = 11  # RFC 9113, section 7: ENHANCE_YOUR_CALM
LIMITS = Limits(calls=40, handshake_seconds=3.0, first_seconds=2.0, idle_seconds=1.0)
HELD = functions_pb2.CreateFunctionUpload


class Narrow(Gateway):
    """A server with narrow limits."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self.loop = loop
        self.socket = directory / "control.sock"
        state = directory / "state"
        state.mkdir()

        async def start() -> tuple[Performers, Server]:
            made = performers(state)
            server = Server(bind(made), socket=self.socket, address="127.0.0.1:0", key=KEY, limits=LIMITS)
            await server.start()
            return made, server

        self.performers, self.server = loop.run(start)
        self.address, self.tcp = f"unix:{self.socket}", f"127.0.0.1:{self.server.port}"


@pytest.fixture
def narrow(loop: Loop, tmp_path: Path) -> Iterator[Narrow]:
    made = Narrow(loop, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def stub(narrow: Narrow) -> Iterator[Stub]:
    made = Stub(narrow.address)
    made.create()
    until(lambda: made.get().state == functions_pb2.STATE_ACTIVE)
    yield made
    made.channel.close()


def connect(gateway: Gateway) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", gateway.server.port), 30)
    made.settimeout(60)
    return made


def frame(kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data))[1:] + bytes([kind, 0, 0, 0, 0, 0]) + data


def frames(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """What the server sends, until it closes."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := sock.recv(65536):
            data += more
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3]):
                end = 9 + int.from_bytes(data[:3])
                yield data[3], data[9:end]
                data = data[end:]


def test_huge_metadata(narrow: Narrow, stub: Stub) -> None:
    loud = Stub(narrow.address, (("x", "y" * 100_000),))
    status, _, _ = refused(loud.get)
    assert status in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    loud.channel.close()
    assert stub.invoke(payload=b"1").payload == b"1"


def test_connections_that_say_nothing(narrow: Narrow, stub: Stub) -> None:
    """A thousand of them: callers on the port and on the socket are served, and the silent ones are closed."""
    silent = [connect(narrow) for _ in range(1000)]
    known = Stub(narrow.tcp, (("authorization", f"Bearer {KEY}"),))
    try:
        assert stub.invoke(payload=b"1").payload == known.invoke(payload=b"1").payload == b"1"
        for sock in silent:
            list(frames(sock))  # to its end
    finally:
        known.channel.close()
        for sock in silent:
            sock.close()
    assert stub.invoke(payload=b"2").payload == b"2"


def test_idle_connections_are_closed(narrow: Narrow) -> None:
    sock = connect(narrow)
    sock.sendall(PREFACE + frame(SETTINGS))
    kinds = [kind for kind, _ in frames(sock)]
    assert kinds[0] == SETTINGS and GOAWAY in kinds
    sock.close()


def test_a_flood_of_pings(narrow: Narrow, stub: Stub) -> None:
    sock = connect(narrow)
    with contextlib.suppress(ConnectionError):
        sock.sendall(PREFACE + frame(SETTINGS) + frame(PING, bytes(8)) * 100)
    codes = [struct.unpack(">I", data[4:8])[0] for kind, data in frames(sock) if kind == GOAWAY]
    assert CALM in codes
    sock.close()
    assert stub.invoke(payload=b"1").payload == b"1"


def test_an_upload_that_is_opened_and_left(narrow: Narrow, stub: Stub) -> None:
    over = threading.Event()

    def nothing() -> Iterator[HELD]:
        over.wait(60)
        yield from ()

    try:
        status, sentence, metadata = refused(lambda: stub.upload("CreateFunction", nothing()))
    finally:
        over.set()
    assert status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert metadata["runtimed-error-code"] == "RequestTimeoutException"
    assert "nothing came" in sentence
    assert stub.create(package(), function_name="other").function_name == "other"


def test_more_calls_than_there_may_be(narrow: Narrow, stub: Stub) -> None:
    """They are refused; the port's callers do not take the socket's places."""
    key = (("authorization", f"Bearer {KEY}"),)
    greedy = Stub(narrow.tcp, key)
    over = threading.Event()

    def held() -> Iterator[HELD]:
        yield next(creation(function_name="held"))
        over.wait(60)

    make = greedy.channel.stream_unary(
        "/runtimed.v1.Functions/CreateFunction",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=functions_pb2.FunctionConfiguration.FromString,
    )
    calls = []
    try:
        calls += [make.future(held(), metadata=key, timeout=60) for _ in range(LIMITS.calls)]
        late = Stub(narrow.tcp, key)
        until(lambda: busy(late))
        assert stub.invoke(payload=b"1").payload == b"1"
        over.set()
        for call in calls:
            call.cancel()
        until(lambda: not busy(late))
        late.channel.close()
    finally:
        over.set()
        for call in calls:
            call.cancel()
        greedy.channel.close()


def busy(stub: Stub) -> bool:
    try:
        stub.get()
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)  # type: ignore[attr-defined]
    return False


def test_a_slow_reader_of_logs(narrow: Narrow, stub: Stub) -> None:
    """It follows a log and reads nothing: callers are served, and the server stops in time."""
    for n in range(20):
        stub.invoke(payload=b'"%s"' % (b"x" * 1000 + b"%d" % n))
    readers = [stub.logs(function_name="echo", follow=True) for _ in range(10)]
    assert stub.invoke(payload=b"1").payload == b"1"
    began = time.monotonic()
    narrow.stop()
    assert time.monotonic() - began < 30
    for reader in readers:
        reader.cancel()
