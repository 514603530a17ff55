"""Runtimes that wear the Runtime API out: the test is the runtime, the dispatcher is the real one, and goes on."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dispatch_stage import PATIENCE, Control, Stage, await_true, counters, staged
from tests.integration.test_dispatch_runtime_api import (
    CONNECTIONS,
    NEXT,
    Answer,
    Runtime,
    ask,
    begin_next,
    invoked,
    report,
)

PING = b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = b"GET " + NEXT.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n"
PIPELINED = 200_000
LARGEST = (6 << 20) + 100


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def runtime(stage: Stage) -> Iterator[Runtime]:
    runtime = Runtime(stage)
    small(runtime.listener)
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def control(stage: Stage, runtime: Runtime) -> Control:
    return stage.ready(runtime_api=1, timeout_ms=60_000, init_timeout_ms=60_000)


def small(sock: socket.socket) -> None:
    """It holds little: what a test stuffs it with is worked off within an environment's ration."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 16)


def stuff(sock: socket.socket, request: bytes) -> int:
    """Pipelines it until nobody takes any more; how often it went. What is under way of it is finished by `drained`."""
    whole = request * 1000
    sent = 0
    small(sock)
    sock.settimeout(0.5)
    try:
        while sent < len(request) * PIPELINED:
            sent += sock.send(whole[sent % len(whole) :])
    except TimeoutError:
        pass
    assert sent < len(request) * PIPELINED, "the other side stops reading at some time"
    return sent


def drained(sock: socket.socket, request: bytes, sent: int, answer: bytes) -> None:
    """Reads all the answers: exactly one for each request."""
    whole = -(-sent // len(request))
    rest = request[sent % len(request) :] if sent % len(request) else b""
    got = rest_sent = 0
    before = b""
    sock.settimeout(PATIENCE)
    while got < whole:
        data = sock.recv(1 << 20)
        assert data, "the connection goes on"
        if rest_sent < len(rest):
            rest_sent += sock.send(rest[rest_sent:])
        data = before + data
        got += data.count(answer)
        before = data[-len(answer) + 1 :]
    assert got == whole


@pytest.mark.parametrize(("state", "request_"), [("started", PING), ("ready", PING), ("ready", REFUSED)])
def test_answers_that_are_not_read(
    stage: Stage, runtime: Runtime, control: Control, state: str, request_: bytes
) -> None:
    """The one that the socket takes in part only is finished like any other, and nothing else is made of it."""
    invoker = stage.invoker()
    page = counters(control)
    waiting = runtime.connect()
    if state == "started":
        invoker.call()
        runtime.launch()
    else:
        connection, number = invoked(runtime, invoker)
        assert report(connection, number, "response").status == 202
        assert invoker.answer()[1] == b"{}"
        begin_next(connection)
        assert refused_next(waiting), "another one waits already"
    with runtime.raw() as sock:
        drained(sock, request_, stuff(sock, request_), b"pong" if request_ == PING else b"InvalidStateTransition")
    if state == "started":
        begin_next(waiting)
        event = Answer(waiting.getresponse())
        assert (event.status, event.body) == (200, b"{}")
        assert report(waiting, event.id, "response", b"1").status == 202
        assert invoker.answer()[1] == b"1"
        begin_next(waiting)
    await_true(lambda: page.node()["payload_bytes"] == 0, "no memory is charged")
    assert page.node()["logic_errors"] == 0
    page.close()


def test_many_bodies_at_once(stage: Stage, runtime: Runtime, control: Control) -> None:
    """Announced on every connection, they take no more of the node's memory than one environment's share."""
    page = counters(control)
    invoker = stage.invoker()
    _, number = invoked(runtime, invoker)
    path = f"/2018-06-01/runtime/invocation/{number}/response"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(runtime.raw()) for _ in range(CONNECTIONS - 1)]
        for sock in held:
            sock.sendall(head.encode() + b"x")
        await_true(lambda: page.node()["payload_bytes"] > LARGEST, "some of them are taken in")
        assert page.node()["payload_bytes"] < 2 * LARGEST + 65536
    invoker.answer()
    runtime.environment.exit(signal.SIGKILL)
    await_true(lambda: page.node()["payload_bytes"] == 0, "no memory is charged")
    page.close()


def test_events_that_are_not_read(stage: Stage, runtime: Runtime, control: Control) -> None:
    """Asked for on every connection and read on none: as above."""
    page = counters(control)
    invoker = stage.invoker()
    connection, number = invoked(runtime, invoker, b'"' + b"e" * ((6 << 20) - 2) + b'"')
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS - 1):
            sock = stack.enter_context(runtime.raw())
            sock.sendall(REFUSED)
            assert sock.recv(64).startswith(b"HTTP/1.1 200"), "it has come, and is not read on"
        await_true(lambda: page.node()["payload_bytes"] > LARGEST, "some of them are kept")
        assert page.node()["payload_bytes"] < 3 * LARGEST + 65536, "the event itself, and the share"
        assert report(connection, number, "response", b"9").status == 202
        assert invoker.answer()[1] == b"9"
    runtime.environment.exit(signal.SIGKILL)
    await_true(lambda: page.node()["payload_bytes"] == 0, "no memory is charged")
    page.close()


def refused_next(connection: http.client.HTTPConnection) -> bool:
    return ask(connection, "GET", NEXT).refused(403, "InvalidStateTransition")
