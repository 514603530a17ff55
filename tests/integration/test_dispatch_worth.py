"""Whose environment ends on a full node, and how fast a function may grow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import PATIENCE, Stage, staged
from tests.integration.test_dispatch_room import begin, serve

WAITS_SECONDS = 0.1  # ROOM_PATIENCE_US
HOT_SECONDS = 0.5  # since its last use an environment of an unknown function is surely above ROOM_HOT_RATE
HUGE = 1 << 36


@pytest.mark.parametrize("huge_first", [False, True])
def test_the_larger_one_makes_room(tmp_path: Path, huge_first: bool) -> None:
    """Whichever was used later, as it saves the memory of thousands."""
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="1") as stage:
        begin(stage, 2)
        invoker = stage.invoker()
        made = {}
        for name, huge in (("a", huge_first), ("b", not huge_first)):
            number = invoker.call(name=name)
            made[huge] = environment = stage.launch(peak=HUGE if huge else 10 << 20)
            environment.start()
            environment.serve()
            invoker.answer(number)
        number = invoker.call(name="c")
        assert stage.ended(made[True]) is wire.EndReason.SPINDOWN
        environment = stage.launch()
        environment.start()
        environment.serve()
        assert invoker.answer(number)[0].status == 200
        assert stage.launcher.silent()


def alternates(stage: Stage) -> bool:
    """Two functions on a node that is full with an environment of each; each calls twice at once, in turn. False: they
    were too slow for that to say anything."""
    begin(stage, 2)
    invoker = stage.invoker()
    made, used = {}, {}
    for name in "ab":
        used[name] = time.monotonic()
        made[name] = serve(stage, invoker, name)
    for name, other in ("ab", "ba") * 3:
        since = time.monotonic()
        for _ in range(2):
            invoker.call(name=name)
        for _ in range(2):
            made[name].serve()
        assert [invoker.answer()[0].status for _ in range(2)] == [200, 200]
        used[name], now = since, time.monotonic()
        if now - since >= WAITS_SECONDS or now - used[other] >= HOT_SECONDS:
            return False
        assert stage.launcher.silent(0), "one made room although the other function's environment was to be free soon"
    return True


def test_two_functions_in_turn_do_not_end_each_other_s(tmp_path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    number = 0
    while time.monotonic() < deadline:
        directory = tmp_path / str(number := number + 1)
        directory.mkdir()
        with staged(directory, RUNTIMED_DISPATCH_LOOPS="1") as stage:
            if alternates(stage):
                return
    pytest.fail("the machine was never quick enough")


def test_who_waited_long_enough_gets_room(tmp_path: Path) -> None:
    """None of its own became free: then another function's environment goes, however likely it is to be used."""
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="1") as stage:
        begin(stage, 2)
        invoker = stage.invoker()
        first, other = serve(stage, invoker, "a"), serve(stage, invoker, "b")
        numbers = [invoker.call(name="a") for _ in range(2)]
        running, _ = first.invoke()
        assert stage.ended(other) is wire.EndReason.SPINDOWN
        second = stage.launch()
        second.start()
        second.serve()
        first.result(running.id)
        for _ in numbers:
            assert invoker.answer()[0].status == 200


def test_a_function_grows_by_so_many_and_then_evenly(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        control = begin(stage, 0)
        control.acknowledged(control.put(wire.PutLimit(concurrency=1000, burst=5), 0, 2))
        invoker = stage.invoker()
        since = time.monotonic()
        for _ in range(6):
            invoker.call(name="a")
        for _ in range(5):
            stage.launch()
        invoker.call(name="b")  # another function's are its own
        plans = [message.plan for message in (stage.launcher.expect(wire.Launch)[1] for _ in range(2))]
        assert sorted(plans) == [1, 2]
        if plans[0] == 1:
            assert time.monotonic() - since >= 1.99
        control.acknowledged(control.put(wire.PutLimit(concurrency=1000), 0, 3))  # without limit
        for _ in range(3):
            invoker.call(name="a")
        for _ in range(3):
            assert stage.launcher.expect(wire.Launch)[1].plan == 1
