"""The invoke socket: who may come, several calls at once, cancelling, slow and malformed callers."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import ROUTE, Invoker, Stage, await_true, counters, staged, target

LARGE = b'"' + b"x" * ((6 << 20) - 2) + b'"'


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def test_nothing_is_served_before_the_first_synchronisation(stage: Stage) -> None:
    early = stage.invoker()
    early.call(name="g")
    control = stage.control()
    control.greet()
    control.put(wire.SyncBegin(), 0, 0)
    control.acknowledged(control.put(target(), 1))
    assert early.silent()
    control.put(ROUTE, 1)
    control.acknowledged(control.put(wire.SyncEnd(), 0, 0))
    assert early.answer()[0].status == 404


def connect_as(path: Path, uid: int) -> bool:
    """True when a process of that user is answered."""
    path.chmod(0o777)
    for directory in (path.parent, *path.parent.parents):
        if directory.owner() == "root" and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        try:
            os.setgid(uid)
            os.setuid(uid)
            invoker = Invoker(path)
            invoker.call(name="nobody's")
            os._exit(0 if invoker.answer()[0].status == 404 else 2)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_may_connect(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    with staged(tmp_path, RUNTIMED_ALLOW_UIDS="4242,4343") as stage:
        control = stage.ready()
        assert connect_as(stage.path, 4242)
        assert connect_as(stage.path, 4343)
        assert not connect_as(stage.path, 4444)
        assert counters(control).node()["connections_refused"] == 1


def test_many_calls_on_one_connection_answered_in_any_order(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    numbers = [invoker.call(b"%d" % n) for n in range(5)]
    environments = [stage.launch() for _ in numbers]
    for environment in environments:
        environment.start()
    taken = {}
    for environment in environments:
        invoke, body = environment.invoke()
        taken[int(body)] = (environment, invoke)
    for n in (3, 0, 4, 1, 2):
        environment, invoke = taken[n]
        environment.result(invoke.id, b"%d" % (n * 10))
        assert invoker.answer(numbers[n])[1] == b"%d" % (n * 10)


def test_interleaved_uploads(stage: Stage) -> None:
    stage.ready(max_environments=2)
    invoker = stage.invoker()
    first = stage.warm(invoker)
    bodies = {100: b'"' + b"a" * 150_000 + b'"', 101: b'"' + b"b" * 150_000 + b'"'}
    for number, body in bodies.items():
        invoker.send(wire.Call(name="f", total=len(body), body=body[:65536]), object=number)
    for at in range(65536, 150_002, 30000):
        for number, body in bodies.items():
            invoker.send(wire.CallChunk(data=body[at : at + 30000]), object=number)
    invoke, body = first.invoke()
    assert body == bodies[100]
    first.result(invoke.id)
    invoker.answer(100)
    assert first.invoke()[1] == bodies[101]


def test_cancelling_what_waits_takes_it_out_of_the_queue(stage: Stage) -> None:
    control = stage.ready(max_environments=1)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    running = invoker.call(b"1")
    invoke, _ = environment.invoke()
    waiting = invoker.call(b"2")
    page = counters(control)
    await_true(lambda: page.node()["waiting"] == 1, "it waits")
    invoker.send(wire.Cancel(), object=waiting)
    answer, _ = invoker.answer(waiting)
    assert (answer.status, answer.code) == (499, "RequestCancelled")
    environment.result(invoke.id)
    invoker.answer(running)
    assert environment.silent()
    assert page.node()["waiting"] == 0


def test_cancelling_what_runs_leaves_the_environment_alone(stage: Stage) -> None:
    control = stage.ready(max_environments=1)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    number = invoker.call(b"1")
    invoke, _ = environment.invoke()
    invoker.send(wire.Cancel(), object=number)
    invoker.send(wire.Cancel(), object=number)
    assert invoker.answer(number)[0].status == 499
    page = counters(control)
    assert page.node()["invocations_in_flight"] == 1, "the slot is held until the environment is ready"
    environment.result(invoke.id)
    await_true(lambda: page.node()["invocations_in_flight"] == 0, "the slot comes back")
    assert invoker.silent()
    invoker.call(b"2")
    environment.serve(b"2")
    assert invoker.answer()[1] == b"2"


def test_cancelling_an_upload(stage: Stage) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    invoker.send(wire.Call(name="f", total=100_000, body=b"1"), object=9)
    invoker.send(wire.Cancel(), object=9)
    invoker.send(wire.CallChunk(data=b"late"), object=9)
    assert invoker.answer(9)[0].status == 499
    page = counters(control)
    await_true(lambda: page.node()["payload_bytes"] == 0, "its memory comes back")
    assert stage.launcher.silent()


def test_connection_that_goes_away(stage: Stage) -> None:
    control = stage.ready(max_environments=1)
    first, second = stage.invoker(), stage.invoker()
    environment = stage.warm(first)
    first.call(b"1")
    first.call(b"2")
    invoke, _ = environment.invoke()
    first.sock.close()
    page = counters(control)
    await_true(lambda: page.node()["abandoned"] == 2, "its calls are given up")
    second.call(b"3")
    environment.result(invoke.id)
    invoke, body = environment.invoke()
    assert body == b"3", "what waited for nobody is not run"
    environment.result(invoke.id)
    second.answer()
    assert page.node()["calls_open"] == 0


def test_slow_reader_does_not_hold_environments(stage: Stage) -> None:
    """Its answers wait in the dispatcher; the environment serves others; everything arrives when it reads at last."""
    control = stage.ready(max_environments=1)
    slow, quick = stage.invoker(), stage.invoker()
    environment = stage.warm(quick)
    numbers = [slow.call() for _ in range(4)]
    for _ in numbers:
        environment.serve(LARGE)
    quick.call()
    environment.serve(b"1")
    assert quick.answer()[1] == b"1"
    page = counters(control)
    assert page.node()["payload_bytes"] > 20 << 20
    for number in numbers:
        assert slow.answer(number)[1] == LARGE
    await_true(lambda: page.node()["payload_bytes"] == 0, "all memory comes back")


def test_reader_that_never_reads_is_dropped(stage: Stage) -> None:
    control = stage.ready(max_environments=1)
    slow, quick = stage.invoker(), stage.invoker()
    environment = stage.warm(quick)
    page = counters(control)
    for _ in range(30):
        slow.call()
    for _ in range(11):
        environment.serve(LARGE)
    await_true(lambda: page.node()["connections_dropped"] == 1, "64 MB unread are too much")
    environment.serve()  # it had begun; nobody waits for it
    quick.call()
    environment.serve()
    quick.answer()
    await_true(lambda: page.node()["payload_bytes"] == 0, "all memory comes back")
    assert page.node()["calls_open"] == 0


@pytest.mark.parametrize(
    "packets",
    [
        [b"nonsense"],
        [b"x" * 90000],
        [wire.encode(wire.Hello())],
        [wire.encode(wire.Call(name="f", total=1, body=b"12"), object=1)],
        [wire.encode(wire.Call(name="f", total=9, body=b"1"), object=1)] * 2,
        [
            wire.encode(wire.Call(name="f", total=3, body=b"1"), object=1),
            wire.encode(wire.CallChunk(data=b"234"), object=1),
        ],
        [wire.encode(wire.Call(name="f", total=3, body=b"1"), object=1), wire.encode(wire.CallChunk(), object=1)],
    ],
    ids=["noise", "too large", "not for it", "longer than announced", "twice", "overflow", "empty chunk"],
)
def test_malformed_callers_are_dropped(stage: Stage, packets: list[bytes]) -> None:
    control = stage.ready()
    bad, good = stage.invoker(), stage.invoker()
    environment = stage.warm(good)
    for packet in packets:
        bad.raw(packet)
    assert bad.closed()
    good.call()
    environment.serve()
    assert good.answer()[0].outcome == wire.Outcome.SUCCESS
    page = counters(control)
    assert page.node()["connections_dropped"] == 1
    await_true(lambda: page.node()["payload_bytes"] == 0, "its memory comes back")


def test_descriptors_from_callers_are_not_taken(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    before = stage.descriptors()
    with socket.socket() as sent:
        call = wire.encode(wire.Call(name="f", total=1, body=b"1"), object=77)
        socket.send_fds(invoker.sock, [call], [sent.fileno()] * 4)
    environment.serve()
    assert invoker.answer(77)[0].outcome == wire.Outcome.SUCCESS
    await_true(lambda: stage.descriptors() <= before, "none more than before")


def test_too_many_calls_on_one_connection(stage: Stage) -> None:
    stage.ready(max_waiting=5000, timeout_ms=60000)
    control = stage.control()
    control.greet()
    control.synchronise((0, wire.PutLimit(concurrency=10000)), (1, target(max_waiting=5000)), (1, ROUTE), generation=2)
    invoker = stage.invoker()
    for _ in range(4097):
        invoker.call()
    answer, _ = invoker.answer(4097)
    assert (answer.status, answer.reason) == (429, "CallerRateLimitExceeded")


def test_bodies_beyond_the_memory_budget_are_refused(stage: Stage) -> None:
    control = stage.ready(max_environments=1, max_waiting=900, timeout_ms=60000)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    page = counters(control)
    numbers = [invoker.call(LARGE) for _ in range(90)]
    await_true(lambda: page.node()["calls"] == 1 + len(numbers), "all are taken or refused")
    answer, _ = invoker.answer()
    assert (answer.status, answer.code) == (503, "ServiceException")
    assert page.node()["payload_bytes"] <= 512 << 20
    for _ in range(len(numbers) - page.node()["refused_memory"]):
        environment.serve()
    await_true(lambda: page.node()["payload_bytes"] == 0, "all memory comes back")


def test_no_descriptors_left_to_accept_with(stage: Stage) -> None:
    """The loop does not turn in vain, and accepts again when there are some."""
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    page = counters(control)
    held = {int(name) for name in os.listdir(f"/proc/{stage.pid}/fd")}
    soft, hard = resource.prlimit(stage.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(stage.pid, resource.RLIMIT_NOFILE, (min(set(range(len(held) + 1)) - held), hard))
    late = stage.invoker()
    late.call()
    turns = page.node()["loop_turns"]
    assert late.silent(0.5)
    assert page.node()["loop_turns"] - turns < 50
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].status == 200
    resource.prlimit(stage.pid, resource.RLIMIT_NOFILE, (soft, hard))
    environment.serve()
    assert late.answer()[0].status == 200
