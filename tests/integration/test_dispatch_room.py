"""Room on the node: a limit of environments over all functions, and whose go when another function needs one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    PATIENCE,
    Control,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
    target,
)

FUNCTIONS = "abcdefgh"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def begin(stage: Stage, environments: int) -> Control:
    """Functions a to h, with plans 1 to 8, and so many environments for all of them."""
    control = stage.control()
    control.greet()
    numbered = list(enumerate(FUNCTIONS, 1))
    control.synchronise(
        (0, wire.PutLimit(concurrency=1000, environments=environments)),
        *((n, target(plan=n, function_uid=bytes([n] * 16), function_name=name)) for n, name in numbered),
        *((n, wire.PutRoute(name=name, qualifier="$LATEST", target=n)) for n, name in numbered),
    )
    return control


def serve(stage: Stage, invoker: Invoker, name: str) -> Environment:
    """A cold call, answered; its environment is idle."""
    number = invoker.call(name=name)
    environment = stage.launch()
    environment.start()
    environment.serve(name.encode().join([b'"', b'"']))
    assert invoker.answer(number)[1] == f'"{name}"'.encode()
    return environment


def test_the_idle_one_used_longest_ago_makes_room(stage: Stage) -> None:
    begin(stage, 2)
    invoker = stage.invoker()
    first, second = serve(stage, invoker, "a"), serve(stage, invoker, "b")
    number = invoker.call(name="a")  # now b's was used longest ago
    first.serve()
    invoker.answer(number)
    number = invoker.call(name="c")
    assert stage.ended(second) is wire.EndReason.SPINDOWN
    third = stage.launch()
    third.start()
    third.serve()
    assert invoker.answer(number)[0].status == 200
    number = invoker.call(name="a")
    first.serve()
    invoker.answer(number)
    assert stage.launcher.silent()


def test_with_none_idle_the_next_that_frees_up_makes_room(stage: Stage) -> None:
    begin(stage, 2)
    invoker = stage.invoker()
    first, second = serve(stage, invoker, "a"), serve(stage, invoker, "b")
    running = [invoker.call(name="a"), invoker.call(name="b")]
    invokes = [first.invoke()[0], second.invoke()[0]]
    late = invoker.call(name="c")
    assert stage.launcher.silent()
    second.result(invokes[1].id)
    invoker.answer(running[1])
    assert stage.ended(second) is wire.EndReason.SPINDOWN
    third = stage.launch()
    third.start()
    third.serve(b"3")
    assert invoker.answer(late)[1] == b"3"
    first.result(invokes[0].id)
    invoker.answer(running[0])
    assert stage.launcher.silent()


def test_a_busy_function_does_not_keep_others_out(stage: Stage) -> None:
    """Its queue is never empty; the other one waits for a bounded time all the same."""
    begin(stage, 1)
    busy, other = stage.invoker(), stage.invoker()
    environment = serve(stage, busy, "a")
    for _ in range(3):
        busy.call(name="a")
    late = other.call(name="b")
    served, deadline = 0, time.monotonic() + PATIENCE
    while True:
        try:
            invoke, _ = environment.invoke()
        except EOFError:
            break
        busy.call(name="a")
        environment.result(invoke.id)
        busy.answer()
        served += 1
        assert time.monotonic() < deadline, "starved"
    assert served >= 3, "it was before them in the line"
    stage.ended(environment)
    environment = stage.launch()
    environment.start()
    environment.serve(b"1")
    assert other.answer(late)[1] == b"1"
    stage.ended(environment)  # the queue of the busy one has waited meanwhile
    environment = stage.launch()
    environment.start()
    for _ in range(3):
        environment.serve()
        busy.answer()


def test_the_limit_can_be_changed(stage: Stage) -> None:
    control = begin(stage, 3)
    invoker = stage.invoker()
    made = [serve(stage, invoker, name) for name in "abc"]
    control.acknowledged(control.put(wire.PutLimit(concurrency=1000, environments=1), 0, 2))
    stage.ended(made[0])
    stage.ended(made[1])
    number = invoker.call(name="c")
    made[2].serve()
    invoker.answer(number)
    numbers = [invoker.call(name="a"), invoker.call(name="b")]
    stage.ended(made[2])
    control.acknowledged(control.put(wire.PutLimit(concurrency=1000), 0, 3))  # without limit
    for _ in numbers:
        environment = stage.launch()
        environment.start()
        environment.serve()
        invoker.answer()


def test_deleted_while_it_waits_for_room(stage: Stage) -> None:
    control = begin(stage, 1)
    invoker, gone = stage.invoker(), stage.invoker()
    environment = serve(stage, invoker, "a")
    running = invoker.call(name="a")
    invoke, _ = environment.invoke()
    gone.call(name="b")
    assert stage.launcher.silent()
    control.acknowledged(control.put(wire.DelTarget(), 2, 1 << 60))
    gone.close()
    await_true(lambda: counters(control).node()["waiting"] == 0, "the call is gone with its caller")
    environment.result(invoke.id)
    invoker.answer(running)
    number = invoker.call(name="a")
    environment.serve()
    invoker.answer(number)
    page = counters(control)
    assert page.node()["environments"] == 1 and page.node()["waiting"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_random_calls_over_many_functions(stage: Stage, seed: int) -> None:
    """Every call is answered by its own function, and there are never more environments than allowed."""
    draw, limit = random.Random(seed), 3
    control = begin(stage, limit)
    invoker = stage.invoker()
    alive: dict[int, tuple[Environment, str]] = {}
    open_calls: dict[int, str] = {}
    left = 150
    while left or open_calls:
        while left and len(open_calls) < 6:
            name = draw.choice(FUNCTIONS)
            open_calls[invoker.call(f'"{name}"'.encode(), name=name)] = name
            left -= 1
        turn_of_the_launcher(stage, alive, limit)
        for environment, _ in list(alive.values()):
            if environment.silent(0.001):
                continue
            try:
                invoke, body = environment.invoke()
            except EOFError:  # told to end, which the launcher hears next
                continue
            environment.result(invoke.id, body)
        while not invoker.silent(0):
            header, answer = invoker.next()
            assert isinstance(answer, wire.Answer) and answer.status == 200
            assert answer.body == f'"{open_calls.pop(header.object)}"'.encode()
    assert counters(control).node()["logic_errors"] == 0


def turn_of_the_launcher(stage: Stage, alive: dict[int, tuple[Environment, str]], limit: int) -> None:
    while not stage.launcher.silent(0.001):
        header, message = stage.launcher.next()
        if isinstance(message, wire.End):
            environment, _ = alive.pop(header.object)
            environment.exit(9)
            continue
        assert isinstance(message, wire.Launch)
        environment = Environment(stage.launcher, header.object, stage.directory, peak=1, frozen="0\n")
        stage.links.append(environment)
        alive[header.object] = (environment, FUNCTIONS[message.plan - 1])
        assert len(alive) <= limit
        environment.start()
