"""Environments ahead of demand: provisioned, parked and prewarmed ones, and the gaps that tell when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    ROUTE,
    Control,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
    target,
)
from tests.integration.handover_stage import paired

OWN = 0xFFFFFFFF
RETRY_SECONDS = 0.99  # AHEAD_RETRY_US, and a clock that is read in whole milliseconds
PROVISIONED = wire.InitType.PROVISIONED_CONCURRENCY
ON_DEMAND = wire.InitType.ON_DEMAND


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


@pytest.fixture
def one_loop(tmp_path: Path) -> Iterator[Stage]:
    """Where the order of what is ended and launched matters: that of different loops is nobody's."""
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="1") as made:
        yield made


def pool(**changes: int) -> wire.PutPool:
    return wire.PutPool(**{"keep_alive_ms": OWN, **changes})


def put(control: Control, generation: int = 2, object_: int = 1, **changes: int) -> None:
    control.acknowledged(control.put(pool(**changes), object_, generation))


def begin(stage: Stage, init_type: int = ON_DEMAND) -> Environment:
    """The next environment, through its init phase."""
    environment = stage.launch()
    assert environment.start().init_type == init_type
    return environment


def demand(control: Control, **wanted: int) -> wire.Demand:
    """The target's demand, once it says this."""
    while True:
        _, level = control.level(wire.Demand)
        if all(getattr(level, name) == value for name, value in wanted.items()):
            return level


def serve(stage: Stage, invoker: Invoker, environment: Environment, name: str = "f") -> None:
    number = invoker.call(name=name)
    environment.serve()
    invoker.answer(number)


def test_parked_ones_are_taken_and_replaced(one_loop: Stage) -> None:
    stage = one_loop
    control = stage.ready()
    put(control, parked=2)
    first, second = begin(stage), begin(stage)
    demand(control, idle=2)
    assert stage.launcher.silent()
    invoker = stage.invoker()
    numbers = [invoker.call(), invoker.call()]
    ids = [environment.invoke()[0].id for environment in (first, second)]
    third, fourth = begin(stage), begin(stage)  # behind them
    first.result(ids[0])
    second.result(ids[1])
    for number in numbers:
        invoker.answer(number)
    demand(control, idle=4)
    assert stage.launcher.silent()
    assert counters(control).node()["cold_starts"] == 2
    # What was used comes before what was not.
    serve(stage, invoker, second)
    assert third.silent(0) and fourth.silent(0)


def test_parked_ones_outlive_keep_alive(stage: Stage) -> None:
    """As many as are wanted; when none are wanted any more, they go."""
    control = stage.ready(keep_alive_ms=50, freeze_after_ms=1)
    put(control, parked=1)
    kept = begin(stage)
    await_true(lambda: kept.freezer.read_text().startswith("1"), "frozen")
    invoker = stage.invoker()
    number = invoker.call()
    invoke, _ = kept.invoke()
    other = begin(stage)
    kept.result(invoke.id)
    invoker.answer(number)
    header, end = stage.launcher.expect(wire.End)  # one of the two is enough
    assert header.object in (kept.number, other.number)
    assert end.reason == wire.EndReason.SPINDOWN
    gone, left = (kept, other) if header.object == kept.number else (other, kept)
    gone.exit()
    assert stage.launcher.silent(0.2)
    put(control, 3)
    assert stage.ended(left) is wire.EndReason.SPINDOWN
    assert stage.launcher.silent()


def test_pool_keep_alive_replaces_the_target_s(stage: Stage) -> None:
    control = stage.ready(keep_alive_ms=600_000)
    put(control, keep_alive_ms=30)
    environment = stage.warm(stage.invoker())
    assert stage.ended(environment) is wire.EndReason.SPINDOWN


def test_idle_ones_hear_of_a_shorter_time(stage: Stage) -> None:
    control = stage.ready(keep_alive_ms=600_000)
    environment = stage.warm(stage.invoker())
    put(control, keep_alive_ms=30)
    assert stage.ended(environment) is wire.EndReason.SPINDOWN


def test_none_is_launched_while_somebody_waits(stage: Stage) -> None:
    """Two invocations, one environment on the way: it and one for the other one come before any parked one."""
    control = stage.ready(max_environments=3)
    invoker = stage.invoker()
    numbers = [invoker.call(), invoker.call()]
    header, _ = stage.launcher.expect(wire.Launch)
    other, _ = stage.launcher.expect(wire.Launch)
    put(control, parked=1)
    assert stage.launcher.silent(0.1)
    made = []
    for number in (header.object, other.object):
        made.append(Environment(stage.launcher, number, stage.directory, peak=1, frozen="0\n"))
        stage.links.append(made[-1])
        made[-1].start()
    for environment in made:
        environment.serve()
    assert {invoker.answer()[0].status for _ in numbers} == {200}


def test_provisioned_ones_are_launched_as_such_and_used_first(stage: Stage) -> None:
    control = stage.ready(keep_alive_ms=50)
    put(control, provisioned=2)
    first, second = begin(stage, PROVISIONED), begin(stage, PROVISIONED)
    demand(control, idle=2, provisioned=2)
    invoker = stage.invoker()
    numbers = [invoker.call() for _ in range(2)]
    ids = {environment: environment.invoke()[0].id for environment in (first, second)}
    numbers.append(invoker.call())
    spill = begin(stage, ON_DEMAND)
    spill.serve()
    invoker.answer(numbers[2])
    assert stage.ended(spill) is wire.EndReason.SPINDOWN  # its keep-alive ends; that of the others does not
    (slot,) = counters(control).targets()
    assert (slot.counts["provisioned"], slot.counts["spillover"]) == (2, 1)
    for environment, number in ids.items():
        environment.result(number)
    invoker.answer()
    invoker.answer()
    assert stage.launcher.silent(0.2)


def test_a_provisioned_one_that_ends_is_replaced(stage: Stage) -> None:
    control = stage.ready()
    put(control, provisioned=1)
    first = begin(stage, PROVISIONED)
    demand(control, provisioned=1)
    first.exit(9)
    second = begin(stage, PROVISIONED)
    demand(control, provisioned=1)
    put(control, 3)
    assert stage.ended(second) is wire.EndReason.SPINDOWN
    demand(control, provisioned=0, idle=0)
    assert stage.launcher.silent()


def test_one_that_cannot_be_made_is_tried_less_and_less_often(stage: Stage) -> None:
    control = stage.ready()
    put(control, provisioned=1)
    stage.launch().expect(wire.Start)
    environment = stage.links[-1]
    assert isinstance(environment, Environment)
    failed = time.monotonic()
    environment.send(wire.InitError(error_type="Runtime.ImportModuleError", body=b"{}"))
    demand(control, provision_failures=1)
    stage.ended(environment)
    again = stage.launch()
    assert time.monotonic() - failed >= RETRY_SECONDS
    again.expect(wire.Start)
    again.exit(1)
    demand(control, provision_failures=2)
    put(control, 3, provisioned=2)  # asked anew: tried anew
    begin(stage, PROVISIONED)
    demand(control, provision_failures=0, provisioned=1)


def functions(stage: Stage, environments: int, names: str) -> Control:
    control = stage.control()
    control.greet()
    numbered = list(enumerate(names, 1))
    control.synchronise(
        (0, wire.PutLimit(concurrency=1000, environments=environments)),
        *((n, target(plan=n, function_uid=bytes([n] * 16), function_name=name)) for n, name in numbered),
        *((n, wire.PutRoute(name=name, qualifier="$LATEST", target=n)) for n, name in numbered),
    )
    return control


def test_provisioned_ones_make_no_room_but_get_it(one_loop: Stage) -> None:
    stage = one_loop
    control = functions(stage, 2, "abc")
    invoker = stage.invoker()
    number = invoker.call(name="a")
    first = begin(stage)
    first.serve()
    invoker.answer(number)
    put(control, object_=2, provisioned=2)
    kept = begin(stage, PROVISIONED)
    assert stage.ended(first) is wire.EndReason.SPINDOWN
    begin(stage, PROVISIONED)
    late = invoker.call(name="c")  # nobody makes room for it
    assert stage.launcher.silent(0.2)
    serve(stage, invoker, stage.links[-1] if isinstance(stage.links[-1], Environment) else kept, "b")
    assert stage.launcher.silent(0.1)
    put(control, 3, object_=2, provisioned=1)
    header, _ = stage.launcher.expect(wire.End)
    next(e for e in stage.links if isinstance(e, Environment) and e.number == header.object).exit()
    third = begin(stage)
    third.serve(b"3")
    assert invoker.answer(late)[1] == b"3"


def test_parked_ones_take_nobody_s_room(stage: Stage) -> None:
    control = functions(stage, 2, "ab")
    invoker = stage.invoker()
    for name in "ab":
        number = invoker.call(name=name)
        environment = begin(stage)
        environment.serve()
        invoker.answer(number)
    put(control, object_=1, parked=2)
    assert stage.launcher.silent(0.3)


def test_prewarmed_between_two_times(stage: Stage) -> None:
    control = stage.ready(keep_alive_ms=20)
    put(control, keep_alive_ms=20, prewarm_ms=150, prewarm_end_ms=600)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    assert stage.ended(environment) is wire.EndReason.SPINDOWN
    again = begin(stage)  # nobody asked
    assert stage.ended(again) is wire.EndReason.SPINDOWN  # nobody came
    assert stage.launcher.silent(0.2)


LONG_MS = 600_000
SHORT_MS = 30


def overlapping(stage: Stage, invoker: Invoker) -> tuple[Environment, Environment]:
    """Two calls at once, each with an environment on its way."""
    for _ in range(2):
        invoker.call()
    return stage.launch(), stage.launch()


def test_the_one_that_is_used_next_is_kept_for_longer_than_the_others(one_loop: Stage) -> None:
    control = one_loop.ready(keep_alive_ms=1)
    put(control, keep_alive_ms=LONG_MS, keep_others_ms=SHORT_MS)
    invoker = one_loop.invoker()
    first, other = overlapping(one_loop, invoker)
    first.start()
    other.start()
    other.serve()  # while the first is at work
    invoker.answer()
    assert one_loop.ended(other) is wire.EndReason.SPINDOWN
    first.serve()
    invoker.answer()
    assert one_loop.launcher.silent(0.2)
    number = invoker.call()
    first.serve(b"again")
    assert invoker.answer(number)[1] == b"again"


def test_one_that_is_not_the_first_any_more_is_kept_no_longer(one_loop: Stage) -> None:
    control = one_loop.ready(keep_alive_ms=1)
    put(control, keep_alive_ms=LONG_MS, keep_others_ms=SHORT_MS)
    invoker = one_loop.invoker()
    other, first = overlapping(one_loop, invoker)
    other.start()
    for _ in range(2):
        other.serve()
        invoker.answer()
    assert one_loop.launcher.silent(0.2), "nothing is used before it"
    first.start()  # too late for anybody, and ready for the next
    assert one_loop.ended(other) is wire.EndReason.SPINDOWN
    assert one_loop.launcher.silent(0.2)


def test_gaps_are_counted_at_the_function(stage: Stage) -> None:
    """Whatever became of its environments."""
    control = stage.ready(keep_alive_ms=1)
    invoker = stage.invoker()
    page = counters(control)
    assert dict(page.gaps(0)) == {}
    for _ in range(3):
        environment = stage.warm(invoker)
        stage.ended(environment)
    ((target_id, gaps),) = page.gaps(0)
    assert target_id == 1
    assert (gaps.total, sum(gaps.bins.values())) == (2, 2)


@pytest.mark.parametrize("field", ["provisioned", "parked", "prewarm_end_ms"])
def test_what_is_out_of_range_is_refused(stage: Stage, field: str) -> None:
    control = stage.ready()
    value = {"prewarm_end_ms": 5}.get(field, 1_000_000)
    seq = control.put(pool(**{"prewarm_ms": 10, field: value}), 1, 2)
    _, nack = control.expect(wire.Nack)
    assert (nack.refused, nack.field) == (seq, field)


def test_a_pool_needs_a_target(stage: Stage) -> None:
    control = stage.ready()
    seq = control.put(pool(), 7, 2)
    _, nack = control.expect(wire.Nack)
    assert (nack.refused, nack.field) == (seq, "object")


def test_a_new_control_plane_finds_and_keeps_them(stage: Stage) -> None:
    control = stage.ready()
    put(control, provisioned=1)
    begin(stage, PROVISIONED)
    control.close()
    control = stage.control()
    control.greet()
    control.synchronise((1, target()), (1, pool(provisioned=1)), (1, ROUTE), generation=5)
    demand(control, provisioned=1)
    assert stage.launcher.silent(0.1)


def test_handed_over_they_are_what_they_were(tmp_path: Path) -> None:
    """Provisioned and counted: none is launched beside it, and another one in its place."""
    with paired(tmp_path) as pair:
        put(pair.their, provisioned=1)
        first = begin(pair.old, PROVISIONED)
        demand(pair.their, provisioned=1, idle=1)
        pair.begin()
        put(pair.control, provisioned=1)
        pair.pass_all()
        demand(pair.control, provisioned=1, idle=1)
        assert pair.new.launcher.silent(0.2)
        serve(pair.new, pair.new.invoker(), first)
        pair.new.launcher.send(wire.Exited(status=9), object=first.number)
        begin(pair.new, PROVISIONED)
        demand(pair.control, provisioned=1, idle=1)
        assert pair.new.launcher.silent(0.1)


def test_they_make_place_for_provisioned_ones_of_their_own_function(one_loop: Stage) -> None:
    """As many as there may be are idle already."""
    stage = one_loop
    control = stage.ready(max_environments=1)
    environment = stage.warm(stage.invoker())
    put(control, provisioned=1)
    assert stage.ended(environment) is wire.EndReason.SPINDOWN
    begin(stage, PROVISIONED)
    demand(control, provisioned=1, idle=1)
    assert stage.launcher.silent(0.1)
