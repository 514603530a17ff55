"""Connections are packed on as few loops as can serve them, and move between two requests: nobody can tell."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import Control, Invoker, Stage, await_true, counters, staged
from tests.integration.handover_stage import CONNECTION, paired
from tests.integration.http_caller import Caller
from tests.integration.test_dispatch_loops import PATIENT, level

ROOM = 512  # connections that are packed on one loop (spread.h)
DRY_RUN = "X-Amz-Invocation-Type: DryRun"  # answered by the loop alone
AT_ONCE = 20


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Two loops; the parameter: percent at which one is busy."""
    percent = str(getattr(request, "param", 75))
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="2", RUNTIMED_DISPATCH_BUSY_PERCENT=percent) as made:
        yield made


def connections(control: Control) -> list[int]:
    return [level(control, loop, "connections") for loop in range(2)]


def test_connections_are_packed_while_one_loop_is_enough(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    with ExitStack() as stack:
        for _ in range(5):
            stage.invoker()
            stack.enter_context(Caller(stage))
            stack.enter_context(Caller(stage, tcp=True))
        await_true(lambda: counters(control).node()["connections"] == 15, "all are accepted")
        assert connections(control) == [15, 0]
    await_true(lambda: counters(control).node()["connections"] == 5, "the others are closed")
    assert counters(control).node()["connections_moved"] == 0


def converse(callers: list[Caller]) -> None:
    """Several requests on each connection at once, and all their answers."""
    for caller in callers:
        for _ in range(AT_ONCE):
            caller.post(b"{}", DRY_RUN)
    for caller in callers:
        for _ in range(AT_ONCE):
            assert caller.answer().status == 204


def call(invokers: list[Invoker]) -> None:
    for invoker in invokers:
        numbers = [invoker.call(flags=int(wire.CallFlags.DRY_RUN)) for _ in range(AT_ONCE)]
        for number in numbers:
            assert invoker.answer(number)[0].status == 204


@pytest.mark.parametrize("stage", [1], indirect=True)
def test_what_a_busy_loop_has_moves_and_nothing_is_lost_or_answered_twice(stage: Stage) -> None:
    """A head of which half has come stays where it is; all else goes on wherever it was moved to."""
    control = stage.ready(**PATIENT)
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(stage)) for _ in range(4)]
        half = stack.enter_context(Caller(stage))
        invokers = [stage.invoker() for _ in range(4)]
        await_true(lambda: counters(control).node()["connections"] == 9, "all are accepted")
        half.send("POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\n")
        rounds, seen = 0, 0
        while seen < 8 or 0 in connections(control):
            converse(callers)
            call(invokers)
            rounds += 1
            seen = counters(control).node()["connections_moved"]
            assert rounds < 100_000, f"{connections(control)}, {seen} were moved"
        converse(callers)
        half.send(f"{DRY_RUN}\r\nContent-Length: 2\r\n\r\n{{}}")
        assert half.answer().status == 204
        node = counters(control).node()
        assert node["calls"] == (rounds * 8 + 4) * AT_ONCE + 1
        assert (node["connections"], node["connections_dropped"], node["logic_errors"]) == (9, 0, 0)
        for sock in (half.sock, *(caller.sock for caller in callers), *(invoker.sock for invoker in invokers)):
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1, socket.MSG_PEEK)


def test_a_loop_that_is_not_needed_is_given_up(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    with ExitStack() as stack:
        crowd = [stack.enter_context(Caller(stage)) for _ in range(ROOM)]
        await_true(lambda: connections(control) == [ROOM, 0], "the first loop is full")
        with Caller(stage) as caller:
            await_true(lambda: connections(control) == [ROOM, 1], "the next one has another loop")
            for each in crowd:
                each.sock.close()
            sent = 0

            def gathered() -> bool:
                nonlocal sent
                caller.post(b"{}", DRY_RUN)
                assert caller.answer().status == 204
                sent += 1
                return connections(control) == [1, 0]

            await_true(gathered, "it is with the first loop")
            caller.post(b"{}", DRY_RUN)
            assert caller.answer().status == 204
            node = counters(control).node()
            assert node["connections_moved"] == 1
            assert node["calls"] == sent + 1


def test_nothing_moves_where_connections_go_by_their_number(tmp_path: Path) -> None:
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="2") as stage:
        control = stage.ready(**PATIENT)
        with ExitStack() as stack:
            callers = [stack.enter_context(Caller(stage)) for _ in range(4)]
            await_true(lambda: connections(control) == [2, 2], "two on each")
            converse(callers)
            assert counters(control).node()["connections_moved"] == 0


def test_who_is_moved_while_the_dispatcher_is_replaced_is_answered(tmp_path: Path) -> None:
    """All the while each caller has its answers, and in the end the new one has all of them."""
    with paired(tmp_path, (2, 2), busy=1, **PATIENT) as pair, ExitStack() as stack:
        callers = [stack.enter_context(Caller(pair.old)) for _ in range(6)]
        over = threading.Event()
        threads = stack.enter_context(ThreadPoolExecutor())
        stack.callback(over.set)

        def go_on(caller: Caller) -> int:
            answered = 0
            while not over.is_set():
                converse([caller])
                answered += AT_ONCE
            return answered

        asked = [threads.submit(go_on, caller) for caller in callers]
        await_true(lambda: counters(pair.their).node()["connections_moved"] >= 3, "some are moved")
        pair.begin()
        pair.pass_all(*[CONNECTION] * len(callers))
        assert pair.old.left() == 0
        await_true(lambda: counters(pair.control).node()["connections"] == len(callers), "all are with the new one")
        moved = counters(pair.control).node()["connections_moved"]
        await_true(lambda: counters(pair.control).node()["connections_moved"] > moved, "some are moved there")
        over.set()
        answered = sum(each.result(60) for each in asked)
        node = counters(pair.control).node()
        assert answered == node["calls"] + counters(pair.their).node()["calls"], "each was counted once"
        assert (node["connections_dropped"], node["http_malformed"], node["logic_errors"]) == (0, 0, 0)
