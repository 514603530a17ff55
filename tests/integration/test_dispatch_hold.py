"""Calls that are held back for environments at work, although others are idle (hold.h)."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dispatch_stage import PATIENCE, Environment, Invoker, Stage, staged

HOT = max(2, 2 * (os.sysconf("SC_NPROCESSORS_ONLN")))
"""Invocations of a target that are handed over before others are held back."""
LONG = "600000000"
"""Microseconds that an invocation counts for hot: longer than any test."""


@contextlib.contextmanager
def crowded(directory: Path, fresh_us: str) -> Iterator[tuple[Stage, Invoker, list[Environment]]]:
    """A node whose processors are taken for busy, with two idle environments more than are kept at work."""
    with staged(directory, RUNTIMED_HOLD=fresh_us) as stage:
        stage.ready(max_environments=HOT + 2)
        invoker = stage.invoker()
        for _ in range(HOT + 2):
            invoker.call()
        environments = [stage.launch() for _ in range(HOT + 2)]
        for environment in environments:
            environment.start()
        for environment in environments:
            environment.serve()
        for _ in environments:
            invoker.answer()
        yield stage, invoker, environments


def invoked(environments: list[Environment]) -> Environment:
    """The next one that is given an invocation."""
    ready, _, _ = select.select([environment.sock for environment in environments], [], [], PATIENCE)
    assert ready, "no environment was given an invocation"
    return next(environment for environment in environments if environment.sock in ready)


def fill(invoker: Invoker, environments: list[Environment]) -> tuple[dict[Environment, bytes], list[Environment]]:
    """As many calls as are handed over at once: who has which of them, and who is idle."""
    for _ in range(HOT):
        invoker.call()
    idle, busy = list(environments), {}
    for _ in range(HOT):
        environment = invoked(idle)
        busy[environment] = environment.invoke()[0].id
        idle.remove(environment)
    return busy, idle


def test_a_call_waits_for_one_that_is_hot(tmp_path: Path) -> None:
    with crowded(tmp_path, LONG) as (_, invoker, environments):
        busy, idle = fill(invoker, environments)
        first, second = invoker.call(b'{"n":1}'), invoker.call(b'{"n":2}')
        free, held = busy.popitem()
        free.result(held)
        assert invoker.answer()[0].status == 200
        for number, body in ((first, b'{"n":1}'), (second, b'{"n":2}')):  # in the order in which they came
            invoke, event = free.invoke()
            assert event == body
            free.result(invoke.id, body)
            assert invoker.answer(number)[1] == body
        assert all(environment.silent() for environment in idle)
        invoker.call()  # fewer are at work than may be: who was used last has it, nobody waits
        invoked(list(environments)).serve()
        assert invoker.answer()[0].status == 200
        for environment, number in busy.items():
            environment.result(number)
            invoker.answer()


def test_a_call_whose_caller_went_away_is_not_handed_over(tmp_path: Path) -> None:
    with crowded(tmp_path, LONG) as (stage, invoker, environments):
        busy, idle = fill(invoker, environments)
        leaving = stage.invoker()
        leaving.call(b'{"n":1}')
        leaving.close()
        number = invoker.call(b'{"n":2}')
        free, held = busy.popitem()
        free.result(held)
        assert invoker.answer()[0].status == 200
        seen = []
        while not seen or seen[-1] != b'{"n":2}':  # whether it left in time is up to the two sockets
            invoke, event = free.invoke()
            seen.append(event)
            free.result(invoke.id, event)
        assert invoker.answer(number)[1] == b'{"n":2}'
        assert all(environment.silent() for environment in idle)
        for environment, name in busy.items():
            environment.result(name)
            invoker.answer()


@pytest.mark.parametrize("calls", [1, 2])
def test_no_call_waits_for_what_does_not_end(tmp_path: Path, calls: int) -> None:
    """None becomes free: those that are held back go to idle environments after all."""
    with crowded(tmp_path, "20000") as (_, invoker, environments):
        for _ in range(HOT + calls):
            invoker.call()
        idle, busy = list(environments), {}
        for _ in range(HOT + calls):
            environment = invoked(idle)
            busy[environment] = environment.invoke()[0].id
            idle.remove(environment)
        for environment, number in busy.items():
            environment.result(number)
            assert invoker.answer()[0].status == 200
