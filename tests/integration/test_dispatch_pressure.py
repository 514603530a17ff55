"""A node short of memory: idle environments end, those worth least first, provisioned ones never, and calls go on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import Control, Environment, Invoker, Stage, await_true, counters, staged
from tests.integration.test_dispatch_ahead import begin as begin_ahead
from tests.integration.test_dispatch_ahead import put as put_pool
from tests.integration.test_dispatch_room import FUNCTIONS, begin, serve

NONE, SOME, FULL = range(3)
ANY_NUMBER = 0xFFFFFFFF
LARGE = 1 << 36


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """With one loop: which environments end first is a loop's own choice."""
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="1") as made:
        yield made


def press(control: Control, level: int, idle: int = ANY_NUMBER) -> None:
    control.acknowledged(control.put(wire.PutPressure(level=level, idle=idle), 0, 0))


def reclaimed(control: Control) -> int:
    return counters(control).node()["environments_reclaimed"]


def again(invoker: Invoker, environment: Environment, name: str) -> None:
    """A warm call."""
    number = invoker.call(name=name)
    environment.serve()
    assert invoker.answer(number)[0].status == 200


def large(stage: Stage, invoker: Invoker, name: str) -> Environment:
    """As `serve`, of an environment that is worth less than any other, whenever it was used."""
    number = invoker.call(name=name)
    environment = stage.launch(peak=LARGE)
    environment.start()
    environment.serve()
    assert invoker.answer(number)[0].status == 200
    return environment


def test_those_worth_least_end_until_so_many_are_left(stage: Stage) -> None:
    """Of functions that are alike, and were called once, those used longest ago."""
    control, invoker = begin(stage, 0), stage.invoker()
    made = [serve(stage, invoker, name) for name in "abcd"]
    press(control, FULL, 2)
    for environment in made[:2]:
        assert stage.ended(environment) is wire.EndReason.SPINDOWN
    assert stage.launcher.silent()
    assert reclaimed(control) == 2
    for environment, name in zip(made[2:], "cd", strict=True):
        again(invoker, environment, name)
    press(control, FULL, 2)  # told again: there are no more
    assert stage.launcher.silent()


def test_the_largest_ends_first(stage: Stage) -> None:
    control, invoker = begin(stage, 0), stage.invoker()
    made = [serve(stage, invoker, "a"), large(stage, invoker, "b"), serve(stage, invoker, "c")]
    press(control, FULL, 2)
    assert stage.ended(made[1]) is wire.EndReason.SPINDOWN
    assert stage.launcher.silent()


def test_one_too_many_that_falls_idle_ends(stage: Stage) -> None:
    """Whoever is worth least then; those at work are left alone, and a call is served by a new one as ever."""
    control, invoker = begin(stage, 0), stage.invoker()
    first = large(stage, invoker, "a")
    press(control, FULL, 1)
    assert stage.launcher.silent()
    second = large(stage, invoker, "b")
    assert stage.ended(first) is wire.EndReason.SPINDOWN
    again(invoker, second, "b")
    third = serve(stage, invoker, "a")
    assert stage.ended(second) is wire.EndReason.SPINDOWN
    again(invoker, third, "a")
    press(control, NONE)
    kept = [third, serve(stage, invoker, "b"), serve(stage, invoker, "c")]
    for environment, name in zip(kept, "abc", strict=True):
        again(invoker, environment, name)
    assert stage.launcher.silent()
    assert reclaimed(control) == 2


def test_under_some_pressure_what_is_in_use_stays(stage: Stage) -> None:
    """Used a moment ago and likely to be used again within seconds: under full pressure that does not save it."""
    control, invoker = begin(stage, 0), stage.invoker()
    made = {name: serve(stage, invoker, name) for name in "ab"}
    for _ in range(3):
        for name, environment in made.items():
            again(invoker, environment, name)
    press(control, SOME, 0)
    if reclaimed(control) == 0:  # else the machine took seconds
        for name, environment in made.items():
            again(invoker, environment, name)
    press(control, FULL, 0)
    await_true(lambda: reclaimed(control) == 2, "both are told to end")


def test_provisioned_ones_neither_count_nor_end(stage: Stage) -> None:
    control, invoker = begin(stage, 0), stage.invoker()
    put_pool(control, object_=1, provisioned=2)
    provisioned = [begin_ahead(stage, wire.InitType.PROVISIONED_CONCURRENCY) for _ in range(2)]
    await_true(lambda: counters(control).node()["environments_idle"] == 2, "they are idle")
    other = serve(stage, invoker, "b")
    press(control, FULL, 1)
    assert stage.launcher.silent()
    press(control, FULL, 0)
    stage.ended(other)
    assert stage.launcher.silent()
    page = counters(control).node()
    assert (page["environments_provisioned"], page["provisioned_in_use"]) == (2, 0)
    numbers = [invoker.call(name="a") for _ in range(2)]
    invokes = [environment.invoke()[0] for environment in provisioned]
    assert counters(control).node()["provisioned_in_use"] == 2
    for environment, invoke in zip(provisioned, invokes, strict=True):
        environment.result(invoke.id)
    assert {invoker.answer()[0].status for _ in numbers} == {200}
    await_true(lambda: counters(control).node()["provisioned_in_use"] == 0, "none is at work")
    assert stage.launcher.silent()


def test_a_control_plane_that_says_nothing_of_it_means_none(stage: Stage) -> None:
    """One that starts anew tells everything anew: what it does not tell is not so any more."""
    control, invoker = begin(stage, 0), stage.invoker()
    press(control, FULL, 1)
    first = serve(stage, invoker, "a")
    second = begin(stage, 0)  # a new incarnation
    kept = serve(stage, invoker, "b")
    again(invoker, first, "a")
    again(invoker, kept, "b")
    assert stage.launcher.silent()
    assert reclaimed(second) == 0


@pytest.mark.parametrize(("fields", "object_"), [({"level": 3}, 0), ({"level": 1, "idle": 1}, 7)])
def test_refused(stage: Stage, fields: dict[str, int], object_: int) -> None:
    control = begin(stage, 0)
    seq = control.put(wire.PutPressure(**fields), object_, 0)
    while True:
        _, message = control.next()
        if isinstance(message, wire.Nack):
            break
    assert message.refused == seq


@pytest.mark.parametrize("loops", ["1", "3"])
def test_random_pressure(tmp_path: Path, loops: str) -> None:
    """Whatever the memory does, each call is answered, and in the end no more are idle than may be."""
    draw = random.Random(7)
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS=loops) as stage:
        control = begin(stage, 0)
        invokers = [stage.invoker() for _ in range(3)]
        alive: dict[int, Environment] = {}
        open_calls = [0] * len(invokers)
        for turn in range(240):
            at = draw.randrange(len(invokers))
            if turn < 180 and open_calls[at] < 4:
                invokers[at].call(name=draw.choice(FUNCTIONS))
                open_calls[at] += 1
            if turn % 20 == 0:
                press(control, draw.choice((NONE, SOME, FULL, FULL)), draw.randrange(4))
            open_calls = step(stage, alive, invokers, open_calls)
        press(control, FULL, 2)

        def settled() -> bool:
            step(stage, alive, invokers, open_calls)
            node = counters(control).node()
            return node["calls_open"] == 0 and node["environments"] == node["environments_idle"] <= 2

        await_true(settled, "two are left, or fewer")
        node = counters(control).node()
        assert node["logic_errors"] == 0 and node["answers_refused"] == 0
        assert node["answers_success"] == node["calls"] > 50
        assert node["environments_reclaimed"] > 0


def step(stage: Stage, alive: dict[int, Environment], invokers: list[Invoker], open_calls: list[int]) -> list[int]:
    """Launches, ends, serves and reads whatever there is."""
    while not stage.launcher.silent(0.001):
        header, message = stage.launcher.next()
        if isinstance(message, wire.End):
            alive.pop(header.object).exit(9)
        elif isinstance(message, wire.Launch):
            environment = Environment(stage.launcher, header.object, stage.directory, peak=1 << 20, frozen="0\n")
            stage.links.append(environment)
            alive[header.object] = environment
            environment.start()
    for environment in list(alive.values()):
        if environment.silent(0):
            continue
        try:
            invoke, _ = environment.invoke()
        except EOFError:  # told to end, which the launcher hears next
            continue
        environment.result(invoke.id)
    left = list(open_calls)
    for number, invoker in enumerate(invokers):
        while not invoker.silent(0):
            assert invoker.answer()[0].status == 200
            left[number] -= 1
    return left
