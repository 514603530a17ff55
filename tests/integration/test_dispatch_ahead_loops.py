"""Environments ahead of demand in several loops: as many as are wanted of all together, for callers of any."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import PATIENCE, Environment, Invoker, Stage, await_true, counters, staged
from tests.integration.test_dispatch_ahead import ON_DEMAND, PROVISIONED, begin, demand, functions, put
from tests.integration.test_dispatch_loops import LOOPS, PATIENT, invokers


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS=str(LOOPS)) as made:
        yield made


def invoked(environments: list[Environment]) -> Environment:
    """The next one that is given an invocation."""
    ready, _, _ = select.select([environment.sock for environment in environments], [], [], PATIENCE)
    assert ready, "no environment was given an invocation"
    return next(environment for environment in environments if environment.sock in ready)


def exchange(invoker: Invoker, environments: list[Environment]) -> Environment:
    """A call, and whose it was."""
    number = invoker.call()
    environment = invoked(environments)
    environment.serve()
    assert invoker.answer(number)[0].status == 200
    return environment


def test_a_provisioned_one_serves_callers_of_all_loops(stage: Stage) -> None:
    """It is the only one that there may be."""
    control = stage.ready(**PATIENT, max_environments=1)
    put(control, provisioned=1)
    environment = begin(stage, PROVISIONED)
    demand(control, provisioned=1)
    callers = invokers(stage, control)
    for turn in range(40):
        exchange(callers[turn % 2], [environment])
    for caller in callers:
        caller.call()
    for _ in callers:
        environment.serve()
    for caller in callers:
        assert caller.answer()[0].status == 200
    node = counters(control).node()
    assert (node["launches"], node["cold_starts"], node["logic_errors"]) == (1, 1, 0)
    assert stage.launcher.silent(0.1)


def test_as_many_as_are_wanted_of_all_loops_together(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    put(control, provisioned=3)
    made = [begin(stage, PROVISIONED) for _ in range(3)]
    demand(control, provisioned=3, idle=3)
    assert stage.launcher.silent(0.2)
    put(control, 3, provisioned=1)
    gone = [stage.launcher.expect(wire.End)[0].object for _ in range(2)]
    left = [environment for environment in made if environment.number not in gone]
    assert len(left) == 1
    for environment in made:
        if environment.number in gone:
            environment.exit()
    demand(control, provisioned=1, idle=1)
    for caller in invokers(stage, control):
        exchange(caller, left)
    assert stage.launcher.silent(0.2)


def test_one_that_ends_where_it_went_is_replaced_once(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    put(control, provisioned=1)
    environment = begin(stage, PROVISIONED)
    demand(control, provisioned=1)  # else who calls meanwhile waits for one of its own
    callers = invokers(stage, control)
    for number in range(3):
        for caller in callers:
            exchange(caller, [environment])
        exchange(callers[number % 2], [environment])
        environment.exit(9)
        environment = begin(stage, PROVISIONED)
        demand(control, provisioned=1)
    assert stage.launcher.silent(0.2)


def test_what_comes_beyond_them_is_launched_in_any_loop(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    put(control, provisioned=1)
    kept = begin(stage, PROVISIONED)
    demand(control, provisioned=1)
    callers = invokers(stage, control)
    for caller, other in (callers, callers[::-1]):
        number = caller.call()
        invoke, _ = kept.invoke()
        beyond = other.call()
        spill = begin(stage, ON_DEMAND)
        spill.serve(b'"beyond"')
        assert other.answer(beyond)[1] == b'"beyond"'
        spill.exit()
        kept.result(invoke.id)
        assert caller.answer(number)[0].status == 200
        await_true(lambda: counters(control).node()["environments"] == 1, "the other one is gone")


def test_parked_ones_that_went_to_another_loop_are_replaced(stage: Stage) -> None:
    control = stage.ready(**PATIENT)
    put(control, parked=LOOPS)
    made = [begin(stage) for _ in range(LOOPS)]
    demand(control, idle=LOOPS)
    callers = invokers(stage, control)
    for _ in range(LOOPS):  # one loop takes them all
        callers[0].call()
    busy: dict[Environment, bytes] = {}
    for _ in range(LOOPS):
        environment = invoked([one for one in made if one not in busy])
        busy[environment] = environment.invoke()[0].id
    for _ in range(LOOPS):
        begin(stage)
    for environment, invocation in busy.items():
        environment.result(invocation)
    for _ in range(LOOPS):
        assert callers[0].answer()[0].status == 200
    demand(control, idle=2 * LOOPS)
    assert stage.launcher.silent(0.2)


def test_none_is_launched_while_another_loop_waits_for_room(stage: Stage) -> None:
    control = functions(stage, LOOPS, "abc")
    callers = invokers(stage, control)
    for _ in range(LOOPS):
        callers[0].call(name="a")
    busy: dict[Environment, bytes] = {}
    for environment in [begin(stage) for _ in range(LOOPS)]:
        busy[environment] = environment.invoke()[0].id
    late = callers[1].call(name="c")
    await_true(lambda: counters(control).node()["waiting"] == 1, "it waits for room")
    put(control, object_=2, parked=LOOPS)
    assert stage.launcher.silent(0.3)
    environment, invocation = busy.popitem()
    environment.result(invocation)
    assert callers[0].answer()[0].status == 200
    assert stage.ended(environment) is wire.EndReason.SPINDOWN
    third = begin(stage)
    third.serve(b'"late"')
    assert callers[1].answer(late)[1] == b'"late"'
    for environment, invocation in busy.items():
        environment.result(invocation)
    assert callers[0].answer()[0].status == 200
