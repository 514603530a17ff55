"""Environments that keep the loop busy for nothing: no more of what they say is read than their ration pays for, and
who asks nothing of that kind, or has an invocation, is served as ever. On the real dispatcher, with the test as the
environment."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed.dispatch.counters import CounterPage
from runtimed.model import wire
from tests.integration.dispatch_stage import PATIENCE, ROUTE, Stage, await_true, counters, staged, target
from tests.integration.stream_caller import HttpStream, busy, end, head, idle_again
from tests.integration.test_dispatch_runtime_api import NEXT, Runtime, ask, begin_next, invoked, report
from tests.integration.test_dispatch_runtime_hostile import PING

RATE = 5_000
LIMIT = wire.PutLimit(concurrency=1000, ration=RATE)
BURST, INVOCATION = 2 * RATE, 4_000
"""Units, and units a second: native/dispatch/include/dispatch/ration.h."""
CONNECTION, WAKE, CALL, PART = 25, 5, 10, 4
DEBT = 1_000  # more than one turn of the loop can leave
QUEUED = 1_000  # packets that a socket holds, at most
GIVE_UP = 10.0  # a machine so slow that nothing has to be bounded
NEIGHBOUR = wire.PutRoute(name="g", qualifier="$LATEST", target=2)
RUNTIME = {"runtime_api": 1, "timeout_ms": 60_000, "init_timeout_ms": 60_000}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def runtime(stage: Stage) -> Iterator[Runtime]:
    runtime = Runtime(stage)
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def page(stage: Stage, runtime: Runtime) -> Iterator[CounterPage]:
    control = stage.control()
    control.greet()
    other = target(function_uid=bytes(16), function_name="g", arn=target().arn[:-1] + "g", timeout_ms=60_000)
    control.synchronise((0, LIMIT), (1, target(**RUNTIME)), (2, other), (1, ROUTE), (2, NEIGHBOUR))
    page = counters(control)
    yield page
    page.close()


def afford(cost: int, do: Callable[[], int]) -> None:
    """`do` says how often it happened, each time for `cost` units: never more often than the ration and the time that
    passed pay for."""
    began = time.monotonic()
    done = 0
    granted = BURST + INVOCATION + DEBT
    while done * cost < granted + RATE // 2 and time.monotonic() - began < GIVE_UP:
        done += do()
        paid = granted + RATE * (time.monotonic() - began)
        assert done * cost <= paid, f"{done} times for {cost} units, and {paid:.0f} were to be had"


class Pinger:
    """Pipelines calls on one connection."""

    def __init__(self, runtime: Runtime) -> None:
        self.sock = runtime.raw()
        self.rest = b""
        self.before = b""

    def step(self) -> int:
        """Sends and reads what it may; how many were answered."""
        self.sock.setblocking(False)
        select.select([self.sock], [], [], 0.01)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.rest = self.rest or PING * 1000
                self.rest = self.rest[self.sock.send(self.rest) :]
        try:
            data = self.before + self.sock.recv(1 << 18)
        except BlockingIOError:
            return 0
        self.before = data[-3:]
        return data.count(b"pong")


def test_calls_without_end(stage: Stage, runtime: Runtime, page: CounterPage) -> None:
    invoked(runtime, stage.invoker())
    pinger = Pinger(runtime)
    with pinger.sock:
        afford(CALL, pinger.step)
    runtime.environment.exit()


def test_connections_without_end(stage: Stage, runtime: Runtime, page: CounterPage) -> None:
    """Each with a call, so that its end shows."""

    def connect() -> int:
        with runtime.raw() as sock:
            sock.sendall(PING)
            assert sock.recv(1 << 12).endswith(b"pong")
        return 1

    invoked(runtime, stage.invoker())
    afford(CONNECTION + WAKE + CALL, connect)
    runtime.environment.exit()


def test_parts_without_end(stage: Stage) -> None:
    """The smallest, by the channel, with nobody who wants them; and it is a good environment afterwards."""
    control = stage.control()
    control.greet()
    control.synchronise((0, LIMIT), (1, target(timeout_ms=60_000)), (1, ROUTE))
    page = counters(control)
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id, b"first")
        caller.head()
    await_true(lambda: page.node()["abandoned"] == 1, "the caller has left")
    packet = wire.encode(wire.StreamChunk(data=b"x"))
    sent = 0

    def taken() -> int:
        nonlocal sent
        for _ in range(100):
            environment.sock.send(packet)
        sent += 100
        return 100 if sent > QUEUED else 0

    environment.sock.settimeout(PATIENCE)
    afford(PART, taken)
    end(environment)
    idle_again(stage, environment)
    page.close()


def rested(runtime: Runtime, page: CounterPage) -> None:
    """It has been left unread once more."""
    before = page.node()["environment_rests"]
    pinger = Pinger(runtime)
    with pinger.sock:
        await_true(lambda: pinger.step() < 0 or page.node()["environment_rests"] > before, "a rest")


def test_who_rests_is_invoked(stage: Stage, runtime: Runtime, page: CounterPage) -> None:
    invoker = stage.invoker()
    connection, number = invoked(runtime, invoker)
    assert report(connection, number, "response").status == 202
    invoker.answer()
    begin_next(connection)
    for n in range(5):
        rested(runtime, page)
        call = invoker.call(b'{"n":%d}' % n)
        response = connection.getresponse()
        assert response.read() == b'{"n":%d}' % n
        assert (
            report(connection, response.headers["Lambda-Runtime-Aws-Request-Id"], "response", b"%d" % n).status == 202
        )
        assert invoker.answer(call)[1] == b"%d" % n
        begin_next(connection)
    runtime.environment.exit()


def test_what_was_said_before_the_end_counts(stage: Stage, runtime: Runtime, page: CounterPage) -> None:
    """Also what was said during a rest."""
    invoker = stage.invoker()
    connection, number = invoked(runtime, invoker)
    rested(runtime, page)
    pinger = Pinger(runtime)
    path = f"/2018-06-01/runtime/invocation/{number}/response"
    with pinger.sock:
        pinger.step()
        connection.request("POST", path, b'"said"')
        runtime.environment.exit()
        assert invoker.answer()[1] == b'"said"'


def test_the_neighbours(stage: Stage, runtime: Runtime, page: CounterPage) -> None:
    """They are served while the worst goes on on every connection that there may be."""
    invoked(runtime, stage.invoker())
    invoker = stage.invoker()
    call = invoker.call(name="g")
    neighbour = stage.launch()
    neighbour.start()
    neighbour.serve()
    invoker.answer(call)
    stop = threading.Event()

    def nag() -> None:
        pinger = Pinger(runtime)
        with pinger.sock, contextlib.suppress(ConnectionError):
            while not stop.is_set():
                pinger.step()

    def knock() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                socket.create_connection(runtime.listener.getsockname(), timeout=PATIENCE).close()

    threads = [threading.Thread(target=what) for what in (nag, nag, knock)]
    for thread in threads:
        thread.start()
    try:
        await_true(lambda: page.node()["environment_rests"] > 0, "the ration is used up")
        for n in range(100):
            call = invoker.call(b"%d" % n, name="g")
            neighbour.serve(b"%d" % n)
            assert invoker.answer(call)[1] == b"%d" % n
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    runtime.environment.exit()


def test_small_chunks_go_on_together(stage: Stage, runtime: Runtime, page: CounterPage) -> None:
    """What a runtime writes at once in chunks of a byte is not sent to its caller byte by byte."""
    with HttpStream(stage) as caller:
        caller.begin()
        runtime.launch()
        connection = runtime.connect()
        event = ask(connection, "GET", NEXT)
        path = f"/2018-06-01/runtime/invocation/{event.id}/response"
        fields = "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked"
        with runtime.raw() as sock:
            sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode())
            caller.head()
            sock.sendall(b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
            assert b" 202 " in sock.recv(1 << 12)
        parts = []
        while (event_ := caller.event())[0] == "PayloadChunk":
            parts.append(event_[1])
    assert b"".join(parts) == b"x" * 10_000
    assert len(parts) < 1_000
    runtime.environment.exit()
