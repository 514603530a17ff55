"""Callers that stand still while their answer is sent, or take a byte now and then: they are cut off after the time
that is set, and the environment goes on. On the real dispatcher, with the test as the environment and the caller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.dispatch.counters import CounterPage
from runtimed.model import wire
from tests.integration.dispatch_stage import (
    PART,
    PATIENCE,
    ROUTE,
    Control,
    Environment,
    Stage,
    await_true,
    counters,
    staged,
    target,
)
from tests.integration.grpc_caller import PATH, Peer, RstStreamFrame, WindowUpdateFrame
from tests.integration.http_caller import Caller
from tests.integration.stream_caller import HttpStream, busy, chunk, end, fill, head, idle_again

STALL_MS = 300
CANCEL = 8  # of HTTP/2's errors


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    control = stage.control()
    control.greet()
    limit = wire.PutLimit(concurrency=1000, stall_ms=STALL_MS, stream_burst=1 << 30, stream_rate=1 << 30)
    control.synchronise((0, limit), (1, target(timeout_ms=600_000)), (1, ROUTE))
    return control


@pytest.fixture
def page(control: Control) -> Iterator[CounterPage]:
    page = counters(control)
    yield page
    page.close()


def dropped(page: CounterPage) -> None:
    await_true(lambda: page.node()["connections_dropped"] == 1, "the caller is cut off")


def goes_on(stage: Stage, page: CounterPage, environment: Environment) -> None:
    """Its stream ends in nothing, and it takes a further invocation."""
    for _ in range(16):
        chunk(environment, b"y" * PART)
    end(environment)
    idle_again(stage, environment)
    await_true(lambda: page.node()["payload_bytes"] == 0, "the memory comes back")


def test_a_stream_that_nobody_reads(stage: Stage, page: CounterPage) -> None:
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id)
        fill(environment)
        dropped(page)
        goes_on(stage, page, environment)
        caller.head()
        with pytest.raises((EOFError, ConnectionError, AssertionError)):
            caller.rest()
    assert page.node()["abandoned"] == 1


def test_a_stream_that_is_read_in_time(stage: Stage, control: Control, page: CounterPage) -> None:
    """However short the time: it only runs while something waits for the caller."""
    control.acknowledged(control.put(wire.PutLimit(concurrency=1000, stall_ms=1), 0, 2))
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id)
        caller.head()
        for number in range(5):
            chunk(environment, b"%d" % number)
            assert caller.part() == b"%d" % number
        end(environment)
        assert caller.rest() == (b"", {})
    assert page.node()["connections_dropped"] == 0


def test_an_answer_that_nobody_reads(stage: Stage, page: CounterPage) -> None:
    with Caller(stage) as caller:
        caller.post()
        environment, invoke = busy(stage)
        environment.result(invoke.id, b"r" * (4 << 20))
        dropped(page)
        idle_again(stage, environment)
        await_true(lambda: page.node()["payload_bytes"] == 0, "the memory comes back")


def reset(peer: Peer, window: int) -> RstStreamFrame:
    """The frame that ends a stream, to which so much more window is given now and then."""
    deadline = time.monotonic() + PATIENCE
    peer.sock.settimeout(0.02)
    while time.monotonic() < deadline:
        try:
            frame: RstStreamFrame = peer.until(RstStreamFrame)
        except TimeoutError:
            if window:
                peer.send(WindowUpdateFrame(0, window), WindowUpdateFrame(1, window))
        else:
            return frame
    raise TimeoutError("the stream is not cut off")


@pytest.mark.parametrize("window", [0, 1], ids=["never", "a byte at a time"])
def test_a_window_that_hardly_opens(stage: Stage, page: CounterPage, window: int) -> None:
    with Peer(stage) as peer:
        peer.send(peer.opening(1, path=PATH + "Stream"), peer.message(1))
        environment, invoke = busy(stage)
        head(environment, invoke.id)
        fill(environment)
        frame = reset(peer, window)
        assert (frame.stream_id, frame.error_code) == (1, CANCEL)
        goes_on(stage, page, environment)
    assert page.node()["connections_dropped"] == 1
