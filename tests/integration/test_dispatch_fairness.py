"""A full node, and many functions: nobody starves, shares are alike, nothing is launched beyond need. By counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import Control, Environment, Stage, await_true, counters, staged, target

FUNCTIONS = 20
ENVIRONMENTS = 4
CALLS = 64
TWICE = 2
LONG_MS = 600_000  # no call is given up, however slow the machine


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="1") as made:
        yield made


def begin(stage: Stage) -> Control:
    control = stage.control()
    control.greet()
    numbers = range(1, FUNCTIONS + 1)
    control.synchronise(
        (0, wire.PutLimit(concurrency=1000, environments=ENVIRONMENTS)),
        *(
            (n, target(plan=n, function_uid=bytes([n] * 16), function_name=f"f{n}", timeout_ms=LONG_MS))
            for n in numbers
        ),
        *((n, wire.PutRoute(name=f"f{n}", qualifier="$LATEST", target=n)) for n in numbers),
    )
    return control


class Crowd:
    """Each function always has so many calls open; environments answer one a turn, slow ones one in three turns."""

    def __init__(self, stage: Stage, demand: dict[int, int], slow: set[int]) -> None:
        self._stage = stage
        self._slow = slow
        self._invoker = stage.invoker()
        self._names: dict[int, int] = {}
        self._alive: dict[int, tuple[Environment, int]] = {}
        self._turn = 0
        self.launched: Counter[int] = Counter()
        self.done: Counter[int] = Counter()
        for number, count in demand.items():
            for _ in range(count):
                self._call(number)

    def _call(self, number: int) -> None:
        self._names[self._invoker.call(name=f"f{number}")] = number

    def turn(self, *, again: bool = True) -> None:
        self._turn += 1
        while not self._stage.launcher.silent(0):
            header, message = self._stage.launcher.next()
            if isinstance(message, wire.End):
                self._alive.pop(header.object)[0].exit(9)
            elif isinstance(message, wire.Launch):
                made = Environment(self._stage.launcher, header.object, self._stage.directory, peak=1, frozen="0\n")
                self._stage.links.append(made)
                self._alive[header.object] = (made, message.plan)
                self.launched[message.plan] += 1
                assert len(self._alive) <= ENVIRONMENTS
                made.start()
        for environment, number in list(self._alive.values()):
            if (number in self._slow and self._turn % 3) or environment.silent(0.001):
                continue
            try:
                environment.result(environment.invoke()[0].id)
            except EOFError:  # told to end, which the launcher hears next
                continue
        while not self._invoker.silent(0):
            header, answer = self._invoker.next()
            assert isinstance(answer, wire.Answer) and answer.status == 200, answer
            number = self._names.pop(header.object)
            self.done[number] += 1
            if again:
                self._call(number)

    @property
    def open(self) -> int:
        return len(self._names)


@pytest.mark.soak  # a hundred environments made and ended: minutes where the machine is busy
def test_a_full_node_starves_nobody(stage: Stage) -> None:
    """Functions with one to eight calls open at a time, a third of them slow, on four environments: until the one
    served least has been served twice nobody has had a share beyond all proportion, and all are answered."""
    draw = random.Random(3)
    control = begin(stage)
    demand = {number: draw.choice((1, 2, 8)) for number in range(1, FUNCTIONS + 1)}
    crowd = Crowd(stage, demand, slow=set(range(1, FUNCTIONS + 1, 3)))

    def each_was_served() -> bool:
        crowd.turn()
        return min(crowd.done[number] for number in demand) >= TWICE

    await_true(each_was_served, "each function's second answer")
    turns = Counter({number: crowd.launched[number] for number in demand})
    # An environment stays with its function while the others have not waited much longer: it is environments that are
    # shared, turn by turn. Who has had most of them has had no more than a few times what the least had.
    assert max(turns.values()) <= 10 * min(turns.values()), turns

    def over() -> bool:
        crowd.turn(again=False)
        return crowd.open == 0

    await_true(over, "the last answers")
    page = counters(control).node()
    assert page["answers_success"] == page["calls"] == sum(crowd.done.values())
    assert page["logic_errors"] == 0


def test_calls_that_come_while_environments_are_on_their_way_launch_no_more(stage: Stage) -> None:
    """Wave after wave, and the one environment that there is serves all: launches stay below what waited at once."""
    control = stage.ready(max_environments=1000, max_waiting=1000)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    launched: set[int] = set()

    def look() -> None:
        while not stage.launcher.silent(0):
            header, message = stage.launcher.next()
            assert isinstance(message, wire.Launch)
            launched.add(header.object)

    for _ in range(4):
        for _ in range(CALLS):
            invoker.call()
        for _ in range(CALLS):
            environment.serve()
            assert invoker.answer()[0].status == 200
            look()
    await_true(lambda: counters(control).node()["waiting"] == 0, "nobody waits")
    look()
    assert len(launched) < CALLS  # one had the environment
    assert counters(control).node()["launches"] == 1 + len(launched)


def test_calls_one_after_the_other_launch_nothing(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    for _ in range(CALLS):
        invoker.call()
        environment.serve()
        assert invoker.answer()[0].status == 200
    assert stage.launcher.silent()


def test_environments_for_calls_that_others_served_are_kept_for_the_next(stage: Stage) -> None:
    """They come when nobody waits any more; the next wave finds them, and launches nothing."""
    control = stage.ready(max_environments=8)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    running, _ = environment.invoke()
    for _ in range(7):
        invoker.call()
    late = [stage.launcher.expect(wire.Launch)[0].object for _ in range(7)]
    environment.result(running.id)
    invoker.answer()
    for _ in range(7):
        environment.serve()
        invoker.answer()
    made = []
    for number in late:
        made.append(Environment(stage.launcher, number, stage.directory, peak=1, frozen="0\n"))
        stage.links.append(made[-1])
        made[-1].start()
    await_true(lambda: counters(control).node()["environments_idle"] == 8, "all are idle")
    for _ in range(8):
        invoker.call()
    for one in (environment, *made):
        one.serve()
        assert invoker.answer()[0].status == 200
    assert stage.launcher.silent()
