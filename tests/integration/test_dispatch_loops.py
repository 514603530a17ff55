"""Several loops: connections are spread over them, environments go where they are needed, and nobody can tell."""

from __future__ import annotations

import random
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    PATIENCE,
    ROUTE,
    UNSET,
    Control,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
    target,
)
from tests.integration.test_dispatch_runtime_api import NEXT, Runtime, ask, report

LOOPS = 2
PATIENT = {"timeout_ms": 120_000, "init_timeout_ms": 120_000}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS=str(LOOPS)) as made:
        yield made


def level(control: Control, loop: int, name: str) -> int:
    value = counters(control).loop(loop)[name]
    return value - 2**64 if value >= 2**63 else value


def invokers(stage: Stage, control: Control, count: int = LOOPS) -> list[Invoker]:
    """One on each loop, and around again."""
    made = []
    for number in range(count):
        made.append(stage.invoker())
        await_true(lambda: counters(control).node()["connections"] == number + 1, "a connection")  # noqa: B023
    for loop in range(LOOPS):
        assert level(control, loop, "connections") == count // LOOPS
    return made


def test_another_loops_idle_environment_serves_before_a_new_one_is_launched(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    first, second = invokers(stage, control)
    environment = stage.warm(first)
    for _ in range(20):  # to and fro
        for invoker in (second, first):
            invoker.call()
            environment.serve()
            assert invoker.answer()[0].status == 200
    await_true(lambda: counters(control).node()["invocations_in_flight"] == 0, "the last one is over")
    node = counters(control).node()
    assert (node["launches"], node["environments"], node["cold_starts"]) == (1, 1, 1)
    assert (node["logic_errors"], node["waiting"]) == (0, 0)


def test_a_runtime_of_the_functions_own_goes_to_and_fro(stage: Stage) -> None:
    """With the connection on which it waits for its next event, and one on which it says nothing. There is no other,
    however late it comes."""
    control = stage.ready(runtime_api=1, max_environments=1, **PATIENT)
    runtime = Runtime(stage)
    try:
        callers = invokers(stage, control)
        callers[0].call(b"0")
        runtime.launch()
        connection = runtime.connect()
        runtime.connect().connect()
        event = ask(connection, "GET", NEXT)
        for number in range(20):
            assert report(connection, event.id, "response", b"[%d]" % number).status == 202
            assert callers[number % LOOPS].answer()[1] == b"[%d]" % number
            callers[(number + 1) % LOOPS].call(b"%d" % (number + 1))
            event = ask(connection, "GET", NEXT)
            assert event.body == b"%d" % (number + 1)
        node = counters(control).node()
        assert (node["launches"], node["environments_ended"], node["logic_errors"]) == (1, 0, 0)
    finally:
        runtime.close()


def test_a_busy_function_has_environments_of_both_loops(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    callers = invokers(stage, control)
    made = []
    for caller in callers:
        caller.call()
        made.append(stage.launch())
        made[-1].start()
    held = [(environment, environment.invoke()[0]) for environment in made]  # none has both
    for environment, invoke in held:
        environment.result(invoke.id)
    for caller in callers:
        caller.answer()
    assert [level(control, loop, "environments") for loop in range(LOOPS)] == [1, 1]
    assert [level(control, loop, "invocations") for loop in range(LOOPS)] == [1, 1]


def test_what_frees_up_in_another_loop_comes_before_a_launch_that_takes_long(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    one, other = invokers(stage, control)
    environment = stage.warm(one)
    for _ in range(3):  # it changes loops each time
        running = one.call()
        invoke, _ = environment.invoke()
        waiting = other.call()
        environment.result(invoke.id)
        assert one.answer(running)[0].status == 200
        environment.serve()
        assert other.answer(waiting)[0].status == 200
        one, other = other, one
    node = counters(control).node()  # how many more are asked for is the machine's business: none is granted
    assert (node["cold_starts"], node["logic_errors"]) == (1, 0)


@pytest.mark.parametrize("limit", [{"max_concurrency": 1}, {"max_environments": 1}])
def test_one_environment_and_whoever_calls(stage: Stage, limit: dict[str, int]) -> None:
    """A reservation of one is refused while it is used, whichever loop asks, and works from any; with one environment
    the others wait for it."""
    control = stage.ready(**PATIENT | limit)
    callers = invokers(stage, control)
    environment = stage.warm(callers[0])
    for turn in range(40):
        one, other = callers[turn % 2], callers[(turn + 1) % 2]
        running = one.call()
        invoke, _ = environment.invoke()
        number = other.call()
        if "max_concurrency" in limit:
            assert other.answer(number)[0].status == 429
        environment.result(invoke.id)
        assert one.answer(running)[0].status == 200
        if "max_environments" in limit:
            environment.serve()
            assert other.answer(number)[0].status == 200
    assert counters(control).node()["launches"] == 1


def test_a_busy_loop_does_not_keep_the_environment_for_ever(stage: Stage) -> None:
    """Its own queue never empties; the other loop's caller is served all the same."""
    control = stage.ready(**PATIENT, max_environments=1)
    busy, other = invokers(stage, control)
    environment = stage.warm(busy)
    for _ in range(3):
        busy.call()
    other.call()
    served = 0
    while not select.select([other.sock], [], [], 0)[0]:
        environment.serve()
        busy.call()
        served += 1
        assert served < 20_000, "starved"
    assert other.answer()[0].status == 200


def test_the_end_of_an_environment_is_told_where_it_went(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    first, second = invokers(stage, control)
    environment = stage.warm(first)
    second.call()
    invoke, _ = environment.invoke()
    environment.exit(9)
    answer, body = second.answer()
    assert answer.status == 200 and b"Runtime.ExitError" in body
    assert invoke.id == answer.request_id
    _, state = control.level(wire.EnvState)
    while state.state != wire.EnvironmentState.DEAD:
        _, state = control.level(wire.EnvState)
    again = stage.warm(first)
    assert again.number != environment.number
    assert counters(control).node()["environments"] == 1


def test_who_waits_hears_that_another_loops_environment_ended(stage: Stage) -> None:
    """There may be only one, and it was the other loop's: another is launched for whoever waits here."""
    control = stage.ready(**PATIENT, max_environments=1)
    first, second = invokers(stage, control)
    environment = stage.warm(second)
    running = second.call()
    environment.invoke()
    waiting = first.call()
    await_true(lambda: level(control, 0, "waiting") == 1, "it waits")
    assert stage.launcher.silent(0.2), "and for longer than anybody waits before one is launched, if it may be"
    environment.exit(9)
    assert b"Runtime.ExitError" in second.answer(running)[1]
    another = stage.launch()
    another.start()
    another.serve()
    assert first.answer(waiting)[0].status == 200


def test_what_is_acknowledged_every_loop_knows(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    callers = invokers(stage, control, 4)
    stage.warm(callers[0])
    for turn in range(100):
        control.acknowledged(control.put(wire.DelRoute(), 1, 2 * turn + 2))
        for caller in callers:
            caller.call()
        assert {caller.answer()[0].status for caller in callers} == {404}
        control.acknowledged(control.put(ROUTE, 1, 2 * turn + 3))
        for caller in callers:
            caller.call(flags=int(wire.CallFlags.DRY_RUN))
        assert {caller.answer()[0].status for caller in callers} == {204}


def test_the_control_plane_sees_one_node(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    callers = invokers(stage, control)
    made = []
    for caller in callers:
        caller.call()
        made.append(stage.launch())
        made[-1].start()
        made[-1].invoke()
    told: set[str] = set()
    while told != {"busy", "in use"}:
        _, message = control.level(wire.Message)
        if isinstance(message, wire.Demand) and message.busy == 2:
            told.add("busy")
        if isinstance(message, wire.LimitState) and message.in_use == 2:
            told.add("in use")
    another = stage.control()
    seen = another.greet()
    assert [number for number, _ in seen] == sorted(environment.number for environment in made)
    assert {row.state for _, row in seen} == {wire.EnvironmentState.BUSY}
    another.synchronise((1, target(**PATIENT)), (1, ROUTE), generation=2)
    for environment in made:
        another.put(wire.EnvRetire(), environment.number)
    another.put(wire.DelTarget(), 1, 3)
    for environment in made:
        environment.hang_up()


def test_a_deleted_function_is_forgotten_by_all(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    first, second = invokers(stage, control)
    environment = stage.warm(first)
    second.call()
    environment.serve()
    second.answer()
    control.acknowledged(control.put(wire.DelTarget(), 1, 2))
    assert stage.ended(environment) == wire.EndReason.RETIRED
    await_true(lambda: not list(counters(control).targets()), "no loop counts for it")


def test_drain_waits_for_both_loops(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    callers = invokers(stage, control)
    running: list[tuple[Invoker, Environment, bytes]] = []
    for caller in callers:
        caller.call()
        environment = stage.launch()
        environment.start()
        running.append((caller, environment, environment.invoke()[0].id))
    stage.launcher.send(wire.Drain())
    await_true(lambda: refuses(callers[0]) and refuses(callers[1]), "both refuse")
    for caller, environment, number in running:
        assert stage.running()
        environment.result(number)
        answer, _ = caller.answer()
        while answer.request_id != number:
            answer, _ = caller.answer()
        assert answer.status == 200
    assert stage.left() == 0


def refuses(caller: Invoker) -> bool:
    number = caller.call(flags=int(wire.CallFlags.DRY_RUN))
    return caller.answer(number)[0].status == 503


def test_a_launcher_that_beats_hears_of_all_loops(stage: Stage) -> None:
    stage.launcher.send(wire.Beat(), seq=7)
    header, _ = stage.launcher.expect(wire.Beat)
    assert header.seq == 7


class Traffic:
    """Random calls on connections of both loops to two functions; the test is their environments."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.rng = stage, random.Random(seed)
        self.limit, self.reserved = 7, 2
        self.control = stage.control()
        self.control.greet()
        functions = (("a", UNSET), ("b", self.reserved))
        self.control.synchronise(
            (0, wire.PutLimit(concurrency=self.limit)),
            *(
                (n, target(function_name=name, function_uid=bytes([n] * 16), max_concurrency=reserved, **PATIENT))
                for n, (name, reserved) in enumerate(functions, 1)
            ),
            *((n, wire.PutRoute(name=name, qualifier="$LATEST", target=n)) for n, (name, _) in enumerate(functions, 1)),
        )
        self.callers = [stage.invoker() for _ in range(6)]
        self.environments: list[Environment] = []
        self.running: dict[bytes, Environment] = {}
        self.answers = {200: 0, 429: 0}
        self.waiting = 0

    def look(self, seconds: float) -> None:
        links = {link.sock: link for link in (self.stage.launcher, *self.environments, *self.callers)}
        for sock in select.select(list(links), [], [], seconds)[0]:
            link = links[sock]
            if link is self.stage.launcher:
                environment = self.stage.launch()
                environment.start()
                self.environments.append(environment)
            elif isinstance(link, Environment):
                invoke, _ = link.invoke()
                self.running[invoke.id] = link
            elif isinstance(link, Invoker):
                status = link.answer()[0].status
                self.answers[status] += 1
                self.waiting -= 1
        # What an environment holds has a token: never more than there are.
        assert len(self.running) <= self.limit

    def call(self) -> None:
        self.rng.choice(self.callers).call(name=self.rng.choice("ab"))
        self.waiting += 1

    def finish(self) -> None:
        number = self.rng.choice(list(self.running))
        self.running.pop(number).result(number)


@pytest.mark.parametrize("seed", range(3))
def test_limits_are_exact_whichever_loop_asks(stage: Stage, seed: int) -> None:
    traffic = Traffic(stage, seed)
    for _ in range(1500):
        if traffic.rng.random() < 0.6:
            traffic.call()
        elif traffic.running:
            traffic.finish()
        traffic.look(0)
    while traffic.waiting:
        if traffic.running:
            traffic.finish()
        traffic.look(PATIENCE if not traffic.running else 0)
    assert traffic.answers[200] > 10 and traffic.answers[429] > 10
    # No token is lost: all are there for a single loop, and then for the other.
    for caller in traffic.callers[:2]:
        await_true(lambda: counters(traffic.control).node()["invocations_in_flight"] == 0, "all tokens are back")
        before = dict(traffic.answers)
        for name in "ab" * (traffic.limit + 1):
            caller.call(name=name)
            traffic.waiting += 1
        refused = 2 * (traffic.limit + 1) - traffic.limit
        while traffic.answers[429] < before[429] + refused or len(traffic.running) < traffic.limit:
            traffic.look(PATIENCE)
        while traffic.waiting:
            if traffic.running:
                traffic.finish()
            traffic.look(0)
        assert traffic.answers[200] == before[200] + traffic.limit
    node = counters(traffic.control).node()
    assert node["logic_errors"] == 0 and node["invocations_in_flight"] == 0 and node["waiting"] == 0


def test_a_stop_with_environments_on_their_way_frees_all(tmp_path: Path) -> None:
    """The process leaves with 0 (under a sanitizer: without a leak) while environments go to and fro."""
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="3") as stage:
        control = stage.ready(**PATIENT)
        callers = [stage.invoker() for _ in range(3)]
        environment = stage.warm(callers[0])
        for turn in range(30):
            callers[turn % 3].call()
            environment.serve()
            callers[turn % 3].answer()
        callers[0].call()
        callers[1].call()
        assert counters(control).loops == 3
