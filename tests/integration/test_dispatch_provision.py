"""Tokens of provisioned concurrency, and what a function's burst keeps waiting for too long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import Control, Environment, Invoker, Stage, await_true, counters, staged, target
from tests.integration.event_stage import accept, await_count, counted, prepare
from tests.integration.event_stage import staged as event_staged
from tests.integration.test_dispatch_ahead import begin as begin_ahead
from tests.integration.test_dispatch_ahead import put as put_pool
from tests.integration.test_dispatch_room import FUNCTIONS

ACCOUNT, RESERVED = "ConcurrentInvocationLimitExceeded", "ReservedFunctionConcurrentInvocationLimitExceeded"
UNSET = 0xFFFFFFFF


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def prepared(stage: Stage, *, limit: int, reserved: int = UNSET, provisioned: int) -> tuple[Control, list[Environment]]:
    """Functions a and b in an account; so many environments of a are ready."""
    control = stage.control()
    control.greet()
    control.synchronise(
        (0, wire.PutLimit(concurrency=limit)),
        *(
            (n, target(plan=n, function_uid=bytes([n] * 16), function_name=FUNCTIONS[n - 1],
                       max_concurrency=reserved if n == 1 else UNSET))
            for n in (1, 2)
        ),
        *((n, wire.PutRoute(name=FUNCTIONS[n - 1], qualifier="$LATEST", target=n)) for n in (1, 2)),
    )  # fmt: skip
    put_pool(control, object_=1, provisioned=provisioned)
    made = [begin_ahead(stage, wire.InitType.PROVISIONED_CONCURRENCY) for _ in range(provisioned)]
    await_true(lambda: counters(control).node()["environments_provisioned"] == provisioned, "they are ready")
    return control, made


def refused(invoker: Invoker, name: str) -> str:
    """Why a call is throttled."""
    invoker.call(name=name)
    answer, _ = invoker.answer()
    assert (answer.status, answer.code) == (429, "TooManyRequestsException")
    return answer.reason


def taken(invoker: Invoker, environment: Environment, name: str) -> tuple[int, bytes]:
    """A call that the environment has: its number, and the invocation's id."""
    return invoker.call(name=name), environment.invoke()[0].id


def cold(stage: Stage, invoker: Invoker, name: str) -> tuple[Environment, int, bytes]:
    """The same of a call for which an environment is launched."""
    number = invoker.call(name=name)
    environment = stage.launch()
    environment.start()
    return environment, number, environment.invoke()[0].id


def test_what_is_provisioned_is_taken_out_of_what_others_share(stage: Stage) -> None:
    """Whether it is used or not; what comes beyond it spills over into that."""
    _, ready = prepared(stage, limit=3, provisioned=2)
    mine, others = stage.invoker(), stage.invoker()
    environment, number, running = cold(stage, others, "b")
    assert refused(others, "b") == ACCOUNT
    first, second = (taken(mine, one, "a") for one in reversed(ready))
    assert refused(mine, "a") == ACCOUNT  # the one that is left has b
    environment.result(running)
    others.answer(number)
    spilt, third, spilling = cold(stage, mine, "a")
    assert refused(others, "b") == ACCOUNT
    assert refused(mine, "a") == ACCOUNT
    ready[1].result(first[1])
    mine.answer(first[0])
    assert refused(others, "b") == ACCOUNT  # what became free is a's own
    again = taken(mine, ready[1], "a")
    spilt.result(spilling)
    mine.answer(third)
    number, running = taken(others, environment, "b")
    for one, (call, invocation) in ((ready[1], again), (ready[0], second)):
        one.result(invocation)
        mine.answer(call)
    environment.result(running)
    others.answer(number)


def test_of_a_reservation_it_is_a_part(stage: Stage) -> None:
    _, ready = prepared(stage, limit=3, reserved=2, provisioned=1)
    mine, others = stage.invoker(), stage.invoker()
    first = taken(mine, ready[0], "a")
    spilt, second, spilling = cold(stage, mine, "a")
    assert refused(mine, "a") == RESERVED
    environment, number, running = cold(stage, others, "b")
    assert refused(others, "b") == ACCOUNT
    for one, invoker, call, invocation in (
        (ready[0], mine, *first), (spilt, mine, second, spilling), (environment, others, number, running)
    ):  # fmt: skip
        one.result(invocation)
        invoker.answer(call)


def test_it_can_be_changed_while_it_is_used(stage: Stage) -> None:
    """What was taken comes back to where it belongs; of a target that is gone nothing stays behind."""
    control, ready = prepared(stage, limit=3, provisioned=2)
    mine, others = stage.invoker(), stage.invoker()
    running = [(one, taken(mine, one, "a")) for one in reversed(ready)]
    put_pool(control, 3, object_=1, provisioned=0)
    made = [cold(stage, others, "b") for _ in range(3)]
    assert refused(others, "b") == ACCOUNT
    for environment, (number, invocation) in running:
        environment.result(invocation)
        mine.answer(number)
        stage.ended(environment)
    assert refused(others, "b") == ACCOUNT
    put_pool(control, 4, object_=2, provisioned=0)
    for environment, number, invocation in made:
        environment.result(invocation)
        others.answer(number)
    put_pool(control, 5, object_=1, provisioned=1)
    begin_ahead(stage, wire.InitType.PROVISIONED_CONCURRENCY)
    held = [taken(others, environment, "b") for environment, _, _ in reversed(made[1:])]
    assert refused(others, "b") == ACCOUNT
    control.acknowledged(control.put(wire.DelTarget(), 1, 1 << 60))
    held.append(taken(others, made[0][0], "b"))
    assert refused(others, "b") == ACCOUNT
    for (environment, _, _), (number, invocation) in zip((*reversed(made[1:]), made[0]), held, strict=True):
        environment.result(invocation)
        others.answer(number)


# ---- bursts ------------------------------------------------------------------------------------------------------


def test_who_would_wait_for_too_long_is_throttled(stage: Stage) -> None:
    """One environment in ten seconds, and a queue that is given up sooner: what the first cannot serve is refused at
    once, what it can is not."""
    control = stage.control()
    control.greet()
    control.synchronise(
        (0, wire.PutLimit(concurrency=100, burst=1)),
        (1, target(timeout_ms=1000, init_timeout_ms=1000)),
        (2, target(function_uid=bytes(16), function_name="g", timeout_ms=20_000)),
        (1, wire.PutRoute(name="f", qualifier="$LATEST", target=1)),
        (2, wire.PutRoute(name="g", qualifier="$LATEST", target=2)),
    )
    invoker, patient = stage.invoker(), stage.invoker()
    number = invoker.call()
    header, _ = stage.launcher.expect(wire.Launch)
    assert refused(invoker, "f") == ACCOUNT
    assert counters(control).node()["throttled_burst"] == 1
    for _ in range(2):  # its queue is given up only after 42 s: there will be four more environments
        patient.call(name="g")
    assert stage.launcher.expect(wire.Launch)[1].plan == 7
    assert patient.silent()
    stage.launcher.send(wire.LaunchFailed(error=1, step="x"), object=header.object)
    assert invoker.answer(number)[0].status in (500, 502)
    control.acknowledged(control.put(wire.PutLimit(concurrency=100), 0, 2))
    assert counters(control).node()["throttled_burst"] == 1


def test_events_wait_for_it(tmp_path: Path) -> None:
    """None is refused, none counts as an attempt that failed."""
    with event_staged(tmp_path / "stage", tmp_path / "events") as stage:
        control = prepare(stage, timeout_ms=20_000)
        control.acknowledged(control.put(wire.PutLimit(concurrency=100, burst=1), 0, 1 << 40))
        invoker = stage.invoker()
        for number in range(5):
            accept(invoker, b'{"n":%d}' % number)
        environment = stage.launch()
        environment.start()
        for _ in range(5):
            environment.serve()
        await_count(control, "events_succeeded", 5)
        assert counted(control, "events_retried") == counted(control, "events_dead") == 0
