"""How responses in parts end before they are whole, and callers that are slow or leave: on the real dispatcher, with
the test as the environment and the caller."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import PART, ROUTE, Control, Stage, await_true, counters, staged, target
from tests.integration.stream_caller import BUFFER, HttpStream, busy, chunk, end, fill, head, idle_again


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    return stage.ready(timeout_ms=60000)


@pytest.fixture
def caller(stage: Stage, control: Control) -> Iterator[HttpStream]:
    with HttpStream(stage) as caller:
        yield caller


# ---- ends --------------------------------------------------------------------------------------------------------


def test_the_environment_exits(stage: Stage, caller: HttpStream) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"half")
    environment.exit(signal.SIGKILL, oom=1)
    caller.head()
    data, complete = caller.rest()
    assert (data, complete["ErrorCode"]) == (b"half", "Runtime.OutOfMemory")
    assert json.loads(complete["ErrorDetails"])["errorType"] == "Runtime.OutOfMemory"


def test_it_exits_with_all_said(stage: Stage, caller: HttpStream) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"half")
    chunk(environment, b"whole")
    end(environment)
    environment.exit(0)
    caller.head()
    assert caller.rest() == (b"halfwhole", {})


def test_the_function_times_out(stage: Stage) -> None:
    stage.ready(timeout_ms=1500)
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id, b"half")
        caller.head()
        data, complete = caller.rest()
        assert (data, complete["ErrorCode"]) == (b"half", "Sandbox.Timedout")
        assert "timed out after 1.50 seconds" in complete["ErrorDetails"]
        assert stage.ended(environment) == wire.EndReason.TIMEOUT


GARBAGE = {
    "another head": wire.StreamHead(id=bytes(16)),
    "a result": wire.Result(id=bytes(16)),
    "a part of a result": wire.Chunk(data=b"x"),
    "ready": wire.Ready(),
    "an empty part": wire.StreamChunk(data=b""),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_the_middle(stage: Stage, caller: HttpStream, control: Control, what: str) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"half")
    message = GARBAGE[what]
    if hasattr(message, "id"):
        message = type(message)(id=invoke.id)
    environment.send(message)
    caller.head()
    data, complete = caller.rest()
    assert (data, complete["ErrorCode"]) == (b"half", "Sandbox.Failure")
    assert stage.ended(environment) == wire.EndReason.PROTOCOL
    assert counters(control).node()["violations"] == 1


def test_garbage_in_the_middle_of_what_is_kept_whole(stage: Stage, control: Control) -> None:
    invoker = stage.invoker()
    number = invoker.call()
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"half")
    environment.send(wire.Chunk(data=b"x" * PART))
    assert json.loads(invoker.answer(number)[1])["errorType"] == "Sandbox.Failure"
    assert stage.ended(environment) == wire.EndReason.PROTOCOL


@pytest.mark.parametrize("message", [wire.StreamChunk(data=b"x"), wire.StreamEnd(), wire.StreamHead(id=bytes(16))])
def test_parts_behind_the_end(stage: Stage, caller: HttpStream, control: Control, message: wire.Message) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"all")
    end(environment)
    environment.send(message)
    caller.head()
    assert caller.rest() == (b"all", {})
    assert stage.ended(environment) == wire.EndReason.PROTOCOL


@pytest.mark.parametrize("message", [wire.StreamChunk(data=b"x"), wire.StreamEnd(), wire.StreamHead(id=bytes(16))])
def test_no_head_of_its_own(stage: Stage, caller: HttpStream, message: wire.Message) -> None:
    caller.begin()
    environment, _ = busy(stage)
    environment.send(message)
    caller.head()
    assert caller.rest()[1]["ErrorCode"] == "Sandbox.Failure"
    assert stage.ended(environment) == wire.EndReason.PROTOCOL


# ---- slow and gone callers ---------------------------------------------------------------------------------------


def test_a_slow_reader_holds_the_handler_up(stage: Stage, caller: HttpStream, control: Control) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id)
    sent = fill(environment)
    assert BUFFER < sent * PART < 8 * BUFFER  # the caller's socket and the channel hold something too
    assert counters(control).node()["payload_bytes"] < 3 * BUFFER
    caller.head()
    for number in range(sent):
        assert caller.part() == number.to_bytes(8, "big") * (PART // 8)
    chunk(environment, b"last")
    end(environment)
    assert caller.rest() == (b"last", {})
    idle_again(stage, environment)
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the memory comes back")


def test_the_environment_is_free_before_the_reader_is_done(stage: Stage, caller: HttpStream) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id)
    for _ in range(4):
        chunk(environment, b"x" * PART)
    end(environment)
    idle_again(stage, environment)
    caller.head()
    assert caller.rest() == (b"x" * 4 * PART, {})


def test_a_reader_that_leaves(stage: Stage, control: Control) -> None:
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id)
        fill(environment)
    # It goes on into nothing.
    for _ in range(32):
        chunk(environment, b"y" * PART)
    end(environment)
    idle_again(stage, environment)
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the memory comes back")
    counted = counters(control).node()
    assert (counted["abandoned"], counted["calls_open"]) == (1, 0)


def test_it_exits_while_the_reader_stalls(stage: Stage, caller: HttpStream) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id)
    sent = fill(environment)
    environment.exit(1 << 8)
    caller.head()
    data, complete = caller.rest()
    assert (len(data), complete["ErrorCode"]) == (sent * PART, "Runtime.ExitError")


def test_it_times_out_while_the_reader_stalls(stage: Stage) -> None:
    stage.ready(timeout_ms=2500)
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id)
        fill(environment)
        assert stage.ended(environment) == wire.EndReason.TIMEOUT
        caller.head()
        assert caller.rest()[1]["ErrorCode"] == "Sandbox.Timedout"


# ---- limits ------------------------------------------------------------------------------------------------------


def limited(stage: Stage, **limits: int) -> Control:
    control = stage.control()
    control.greet()
    limit = wire.PutLimit(concurrency=1000, **limits)
    control.synchronise((0, limit), (1, target(timeout_ms=60000)), (1, ROUTE))
    return control


def test_too_much(stage: Stage) -> None:
    control = limited(stage, stream_bytes=3 * PART)
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id)
        for _ in range(4):
            chunk(environment, b"x" * PART)
        caller.head()
        data, complete = caller.rest()
        assert (len(data), complete["ErrorCode"]) == (3 * PART, "Function.ResponseSizeTooLarge")
        assert f"({3 * PART} bytes)" in complete["ErrorDetails"]
        chunk(environment, b"and more")
        end(environment)
        idle_again(stage, environment)
        assert counters(control).node()["responses_too_large"] == 1
        slot = counters(control).target(1)
        assert slot is not None and slot["function_errors"] == 1


def test_a_burst_and_a_rate(stage: Stage) -> None:
    """Within the burst at once, above it no faster than the rate; how long that takes at most, nobody promises."""
    limited(stage, stream_burst=4 * PART, stream_rate=8 * PART)
    with HttpStream(stage) as caller:
        caller.begin()
        environment, invoke = busy(stage)
        head(environment, invoke.id)
        caller.head()
        began = time.monotonic()
        for _ in range(12):
            chunk(environment, b"x" * PART)
            assert caller.part() == b"x" * PART
        end(environment)
        assert caller.rest() == (b"", {})
        assert time.monotonic() - began >= 0.8
