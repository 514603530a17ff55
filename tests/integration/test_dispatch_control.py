"""The link to the control plane: greeting, synchronisation, refusals, levels, incarnations, draining."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import PROGRAM, ROUTE, Control, Stage, await_true, counters, staged, target

SANITIZED = PROGRAM.exists() and any(name in PROGRAM.read_bytes() for name in (b"__asan_init", b"__tsan_init"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def status(stage: Stage, name: str = "f", **fields: Any) -> int:
    """What a dry run says."""
    invoker = stage.invoker()
    invoker.call(name=name, flags=wire.CallFlags.DRY_RUN, **fields)
    return invoker.answer()[0].status


def refusal(control: Control, seq: int) -> wire.Nack:
    _, nack = control.expect(wire.Nack)
    assert nack.refused == seq
    control.acknowledged(seq)
    return nack


def test_greeting_carries_the_counters(stage: Stage) -> None:
    control = stage.control()
    _, hello = control.expect(wire.Hello)
    assert (hello.role, hello.build) == (wire.Role.DISPATCH, "b1")
    assert len(control.received) == 1
    page = counters(control)
    assert page.node()["calls"] == 0
    with pytest.raises(PermissionError):
        mmap.mmap(control.received[0], 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        os.ftruncate(control.received[0], 0)


def test_another_build_is_refused(stage: Stage) -> None:
    control = stage.control()
    control.expect(wire.Hello)
    control.send(wire.Hello(role=wire.Role.CONTROL, build="b2"))
    _, nack = control.expect(wire.Nack)
    assert nack.field == "build"
    assert control.closed()
    assert stage.control().greet() == []


def test_what_is_not_put_again_is_retired(stage: Stage) -> None:
    stage.ready()
    assert status(stage) == 204
    control = stage.control()
    control.greet()
    control.put(wire.SyncBegin(), 0, 0)
    control.acknowledged(control.put(target(function_name="g"), 2))
    assert status(stage) == 204, "until the end of the synchronisation all goes on"
    control.put(wire.PutRoute(name="g", qualifier="$LATEST", target=2), 2)
    control.acknowledged(control.put(wire.SyncEnd(), 0, 0))
    assert status(stage) == 404
    assert status(stage, "g") == 204


def test_a_link_that_breaks_in_the_middle_retires_nothing(stage: Stage) -> None:
    stage.ready()
    control = stage.control()
    control.greet()
    control.acknowledged(control.put(wire.SyncBegin(), 0, 0))
    control.close()
    control = stage.control()
    control.greet()
    assert refusal(control, control.put(wire.SyncEnd(), 0, 0)).error
    assert status(stage) == 204


def test_newer_generations_win(stage: Stage) -> None:
    control = stage.ready()
    control.acknowledged(control.put(target(max_concurrency=0), 1, 5))
    invoker = stage.invoker()
    invoker.call()
    assert invoker.answer()[0].status == 429
    control.acknowledged(control.put(target(), 1, 4))
    invoker.call()
    assert invoker.answer()[0].status == 429, "an older one is acknowledged and ignored"
    control.acknowledged(control.put(target(), 1, 6))
    invoker.call()
    stage.launch()
    control.acknowledged(control.put(target(function_name="g"), 2, 1))
    control.acknowledged(control.put(wire.PutRoute(name="f", qualifier="$LATEST", target=2), 1, 2))
    control.acknowledged(control.put(ROUTE, 1, 1))
    invoker.call()
    header, _ = stage.launcher.expect(wire.Launch)
    assert header.object


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (target(memory_mb=0), "memory_mb"),
        (target(memory_mb=40000), "memory_mb"),
        (target(timeout_ms=0), "timeout_ms"),
        (target(timeout_ms=0xFFFFFFFF), "timeout_ms"),
        (target(init_timeout_ms=0), "init_timeout_ms"),
        (target(max_environments=0), "max_environments"),
        (target(log_format=2), "log_format"),
        (target(function_name=""), "function_name"),
        (target(function_version=""), "function_version"),
        (wire.PutRoute(name="", target=1), "name"),
        (wire.PutRoute(name="x", target=99), "target"),
        (wire.PutRoute(name="x", target=1, alternate=99), "alternate"),
        (wire.PutRoute(name="x", target=1, alternate_weight=65537), "alternate_weight"),
        (wire.PutLimit(concurrency=1), "object"),
        (wire.Launch(), ""),
    ],
)
def test_refusals_name_the_field(stage: Stage, message: wire.Message, field: str) -> None:
    control = stage.ready()
    nack = refusal(control, control.put(message, 7, 2))
    assert nack.field == field
    assert nack.error
    assert nack.reason
    assert status(stage) == 204


def test_a_target_belongs_to_one_function(stage: Stage) -> None:
    control = stage.ready()
    assert refusal(control, control.put(target(function_uid=bytes(16)), 1, 2)).field == "function_uid"


@pytest.mark.parametrize(
    "packet",
    [b"noise", wire.encode(wire.PutTarget(), seq=5)[:-1], wire.encode(wire.Hello(), seq=2), b"z" * 90000],
    ids=["noise", "cut short", "HELLO again", "too large"],
)
def test_malformed_packets(stage: Stage, packet: bytes) -> None:
    """A message that is malformed is refused; a link that is not understood is left. Serving goes on."""
    control = stage.ready()
    control.raw(packet)
    if packet[:2] == struct.pack("<H", wire.PutTarget.TYPE):
        assert control.expect(wire.Nack)[1].refused == 5
    else:
        assert control.closed()
    assert status(stage) == 204


def test_deletion(stage: Stage) -> None:
    control = stage.ready()
    control.acknowledged(control.put(wire.DelRoute(), 1, 2))
    assert status(stage) == 404
    control.acknowledged(control.put(wire.DelRoute(), 1, 2))
    control.acknowledged(control.put(ROUTE, 1, 3))
    assert status(stage) == 204
    control.acknowledged(control.put(wire.DelTarget(), 1, 2))
    assert status(stage) == 404, "a route that leads nowhere"
    control.acknowledged(control.put(wire.DelTarget(), 1, 2))


def test_deleted_target_finishes_what_it_took(stage: Stage) -> None:
    control = stage.ready(max_environments=2)
    invoker = stage.invoker()
    numbers = [invoker.call() for _ in range(3)]
    environments = [stage.launch() for _ in range(2)]
    for environment in environments:
        environment.start()
    busy = environments[0].invoke()[0]
    control.acknowledged(control.put(wire.DelTarget(), 1, 2))
    invoker.call()
    assert invoker.answer()[0].status == 404
    environments[0].result(busy.id)
    environments[0].serve()
    environments[1].serve()
    assert {invoker.answer()[0].status for _ in numbers} == {200}
    reasons = []
    for _ in environments:
        header, end = stage.launcher.expect(wire.End)
        reasons.append(end.reason)
        next(e for e in environments if e.number == header.object).exit(9)
    assert reasons == [wire.EndReason.RETIRED] * 2
    page = counters(control)
    await_true(lambda: page.target(1) is None, "its counters' slot is free again")
    assert page.node()["environments"] == 0


def test_a_retired_target_comes_back(stage: Stage) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    control.acknowledged(control.put(wire.DelTarget(), 1, 2))
    control.acknowledged(control.put(target(), 1, 1))
    environment.result(invoke.id)
    invoker.answer()
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].status == 200


def test_retiring_an_environment(stage: Stage) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    control.acknowledged(control.put(wire.EnvRetire(), environment.number, 0))
    assert stage.launcher.silent(), "not while it works"
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200
    assert stage.ended(environment) == wire.EndReason.SPINDOWN
    control.acknowledged(control.put(wire.EnvRetire(), environment.number, 0))
    control.acknowledged(control.put(wire.EnvRetire(), 12345, 0))


def test_levels(stage: Stage) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    environment.invoke()
    _, demand = control.level(wire.Demand)
    while (demand.busy, demand.idle, demand.starting, demand.waiting) != (1, 0, 0, 0):
        header, demand = control.level(wire.Demand)
        assert header.object == 1
    environment.exit(3 << 8)
    while True:
        header, state = control.level(wire.EnvState)
        if state.state == wire.EnvironmentState.DEAD:
            break
    assert (header.object, state.target, state.reason) == (environment.number, 1, "Runtime.ExitError")


def test_levels_are_bounded(stage: Stage) -> None:
    """A control plane that does not read costs no memory, and hears the newest values when it reads again."""
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    with Path(f"/proc/{stage.pid}/statm").open() as file:
        before = int(file.read().split()[1])
    for _ in range(20000):
        invoker.call()
        environment.serve()
        invoker.answer()
    with Path(f"/proc/{stage.pid}/statm").open() as file:
        after = int(file.read().split()[1])
    # The log ring's pages; AddressSanitizer keeps what was freed.
    assert (after - before) * 4096 < (512 if SANITIZED else 16) << 20
    seen = 0
    while not control.silent(0.2):
        Control.__mro__[1].next(control)
        seen += 1
    assert seen < 2000


def test_next_incarnation_learns_what_is_there(stage: Stage) -> None:
    """The control plane dies while an invocation runs: it completes, and the next incarnation knows everything."""
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    control.close()
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].status == 200
    control = stage.control()
    ((number, seen),) = control.greet()
    assert number == environment.number
    assert (seen.target, seen.state, seen.invocations) == (1, wire.EnvironmentState.IDLE, 3)
    control.synchronise((1, target()), (1, ROUTE))
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].status == 200


def test_a_new_link_replaces_the_old_one(stage: Stage) -> None:
    old = stage.ready()
    new = stage.control()
    new.greet()
    assert old.closed()
    new.synchronise((1, target()), (1, ROUTE))
    assert status(stage) == 204


def test_drained_by_the_launcher_it_leaves(stage: Stage) -> None:
    stage.ready()
    invoker, late = stage.invoker(), stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    stage.launcher.send(wire.Drain())
    # Which of two sockets is read first is nobody's promise: a caller that is refused knows that it has been.
    await_true(lambda: late.answer(late.call(flags=int(wire.CallFlags.DRY_RUN)))[0].status == 503, "calls are refused")
    late.call()
    answer, _ = late.answer()
    assert (answer.status, answer.code) == (503, "ServiceException")
    assert stage.running()
    environment.print("last\n")
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200
    assert stage.left() == 0
    assert stage.records()[-1].kind == 4, "the log is written to its end"


def test_drained_by_the_control_plane_it_stays(stage: Stage) -> None:
    control = stage.ready()
    control.acknowledged(control.put(wire.Drain(), 0, 0))
    assert status(stage) == 503
    assert stage.running()
    control = stage.control()
    control.greet()
    control.synchronise((1, target()), (1, ROUTE))
    assert status(stage) == 204, "a control plane that synchronises wants it to serve"


def test_without_the_launcher_it_leaves(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    environment.invoke()
    stage.launcher.sock.close()
    assert stage.left() == 0
    assert invoker.closed()


@pytest.mark.only_where(not SANITIZED, reason="sanitizers need system calls of their own")
def test_it_is_confined(stage: Stage) -> None:
    """Every thread has a filter and no new privileges."""
    for task in Path(f"/proc/{stage.pid}/task").iterdir():
        fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert fields["Seccomp"] == "2"
        assert fields["NoNewPrivs"] == "1"
