"""One dispatcher hands over to another: what goes on, and what stays."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import Environment, await_true, counters
from tests.integration.handover_stage import ALL, CONNECTION, ENVIRONMENT, LOST, Flags, Pair, paired
from tests.integration.test_dispatch_runtime_api import Runtime, begin_next


@pytest.fixture(params=[(1, 1), (2, 2), (1, 3), (3, 1)], ids=["one loop", "two loops", "more loops", "fewer loops"])
def loops(request: pytest.FixtureRequest) -> tuple[int, int]:
    """How many the old one and the new one have."""
    found: tuple[int, int] = request.param
    return found


@pytest.fixture
def pair(tmp_path: Path, loops: tuple[int, int]) -> Iterator[Pair]:
    with paired(tmp_path, loops) as pair:
        yield pair


def served_by(pair: Pair, environment: Environment, body: bytes = b'"here"') -> None:
    """A call of the new one's reaches that environment."""
    invoker = pair.new.invoker()
    invoker.call()
    environment.serve(body)
    assert invoker.answer()[1] == body


# ---- environments ------------------------------------------------------------------------------------------------


def test_idle_environments_go_on(pair: Pair) -> None:
    invoker = pair.old.invoker()
    first = pair.old.warm(invoker)
    invoker.close()
    pair.begin()
    assert [kind for kind in pair.pass_all() if kind != CONNECTION] == [ENVIRONMENT, ALL]
    served_by(pair, first)
    assert counters(pair.control).node()["launches"] == 0
    assert pair.old.left() == 0


def test_they_count_among_as_many_as_may_be(tmp_path: Path, loops: tuple[int, int]) -> None:
    """None is launched beside them, and another one in the place of one that ends."""
    with paired(tmp_path, loops, max_environments=1) as pair:
        invoker = pair.old.invoker()
        first = pair.old.warm(invoker)
        invoker.close()
        pair.begin()
        pair.pass_all()
        served_by(pair, first)
        invoker = pair.new.invoker()
        running = invoker.call()
        first.invoke()
        waiting = invoker.call()
        assert pair.new.launcher.silent(0.2)
        pair.new.launcher.send(wire.Exited(status=9), object=first.number)
        assert b"Runtime.ExitError" in invoker.answer(running)[1]
        second = pair.new.launch()
        second.start()
        second.serve(b'"another"')
        assert invoker.answer(waiting)[1] == b'"another"'


def test_one_that_was_frozen_is_thawed(tmp_path: Path, loops: tuple[int, int]) -> None:
    with paired(tmp_path, loops, freeze_after_ms=1) as pair:
        invoker = pair.old.invoker()
        environment = pair.old.warm(invoker)
        await_true(lambda: counters(pair.their).node()["environments_frozen"] == 1, "it is frozen")
        frozen = environment.freezer.read_text()
        invoker.close()
        pair.begin()
        pair.pass_all()
        await_true(lambda: counters(pair.control).node()["environments_frozen"] == 1, "it is known as frozen")
        assert environment.freezer.read_text() == frozen
        served_by(pair, environment)
        assert pair.old.left() == 0


def test_one_at_work_follows_when_it_is_done(pair: Pair) -> None:
    invoker = pair.old.invoker()
    environment = pair.old.warm(invoker)
    number = invoker.call()
    invoke, _ = environment.invoke()
    pair.begin()
    kinds = [pair.next()]
    while kinds[-1][1].kind != ALL:
        kinds.append(pair.next())
    assert ENVIRONMENT not in [passed[1].kind for passed in kinds], "it is at work"
    for passed in kinds:
        pair.give(passed)
    environment.result(invoke.id, b'"late"')
    assert invoker.answer(number)[1] == b'"late"', "the old one answers what it took"
    pair.give(pair.next_environment())
    served_by(pair, environment)
    invoker.call()  # the same connection, to the new one
    environment.serve(b'"again"')
    assert invoker.answer()[1] == b'"again"'
    assert pair.old.left() == 0


def test_shared_memory_is_given_back_and_asked_for_again(pair: Pair) -> None:
    """The arena was sealed for the old one alone."""
    invoker = pair.old.invoker()
    environment = pair.old.warm(invoker)
    large = b'"' + b"x" * 400_000 + b'"'
    invoker.call(large)
    assert pair.old.launcher.asked() == environment.number
    arena = os.memfd_create("arena", os.MFD_ALLOW_SEALING)
    os.ftruncate(arena, 6 << 20)
    pair.old.launcher.send(wire.Arena(size=6 << 20), fds=(arena,), object=environment.number)
    os.close(arena)
    environment.serve()
    invoker.answer()
    invoker.close()
    pair.begin()
    pair.pass_all()
    caller = pair.new.invoker()
    caller.call(b"{}")
    _, message = environment.next()
    while not isinstance(message, wire.Invoke):  # ATTACH and ARENA of before
        _, message = environment.next()
    environment.result(message.id)
    caller.answer()
    caller.call(large)
    assert pair.new.launcher.asked() == environment.number
    assert pair.old.left() == 0


def test_a_runtime_that_waits_goes_on(tmp_path: Path, loops: tuple[int, int]) -> None:
    with paired(tmp_path, loops, runtime_api=1) as pair:
        invoker = pair.old.invoker()
        invoker.call()
        runtime = Runtime(pair.old)
        runtime.launch()
        connection = runtime.connect()
        begin_next(connection)
        response = connection.getresponse()
        number = response.headers["Lambda-Runtime-Aws-Request-Id"]
        response.read()
        connection.request("POST", f"/2018-06-01/runtime/invocation/{number}/response", b'"one"')
        assert connection.getresponse().read() is not None
        begin_next(connection)
        assert invoker.answer()[1] == b'"one"'
        invoker.close()
        pair.begin()
        passed = pair.next_environment()
        _, state = wire.decode(passed[1].state)
        assert isinstance(state, wire.EnvironmentHanded)
        assert state.descriptors & Flags.WAITING
        pair.give(passed)
        pair.give(pair.next())
        caller = pair.new.invoker()
        caller.call(b'"event"')
        response = connection.getresponse()
        assert response.read() == b'"event"', "the same request is answered"
        number = response.headers["Lambda-Runtime-Aws-Request-Id"]
        connection.request("POST", f"/2018-06-01/runtime/invocation/{number}/response", b'"two"')
        assert connection.getresponse().status == 202
        assert caller.answer()[1] == b'"two"'
        runtime.close()
        assert pair.old.left() == 0


# ---- connections -------------------------------------------------------------------------------------------------


def test_callers_of_one_that_dies_hear_of_it(pair: Pair) -> None:
    """Their connections are the new one's by then; those that nothing is owed on go on."""
    waiting, idle = pair.old.invoker(), pair.old.invoker()
    environment = pair.old.warm(idle)
    waiting.call()
    environment.invoke()
    pair.begin()
    assert pair.pass_all().count(CONNECTION) == 2
    idle.call(name="nobody")
    assert idle.answer()[0].status == 404
    os.kill(pair.old.pid, signal.SIGKILL)
    assert pair.old.left() == -signal.SIGKILL
    pair.hand(0, [], kind=LOST)
    assert waiting.closed()
    idle.call(name="nobody")
    assert idle.answer()[0].status == 404


def invocation(body: bytes, extra: str = "") -> bytes:
    head = f"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def answer(sock: socket.socket) -> bytes:
    """The body of one answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    [size] = [int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
    while len(body) < size:
        body += sock.recv(65536)
    assert len(body) == size, "no more than one"
    return body


def test_requests_behind_the_one_that_runs_are_answered_by_the_new_one(pair: Pair) -> None:
    environment = pair.old.warm(pair.old.invoker())
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(60)
        caller.connect(str(pair.old.http_path))
        caller.sendall(invocation(b"1") + invocation(b"2") + invocation(b"3")[:-40])
        invoke, _ = environment.invoke()
        pair.begin()
        pair.pass_on(CONNECTION)  # each of its loops has begun
        environment.result(invoke.id, b'"one"')
        assert answer(caller) == b'"one"'
        pair.pass_ordered(CONNECTION, ENVIRONMENT)
        invoke, event = environment.invoke()
        assert event == b"2"
        environment.result(invoke.id, b'"two"')
        assert answer(caller) == b'"two"'
        caller.sendall(invocation(b"3")[-40:])
        environment.serve(b'"three"')
        assert answer(caller) == b'"three"'
    assert counters(pair.control).node()["http_malformed"] == 0


def test_a_body_that_is_coming_is_read_by_who_began(pair: Pair) -> None:
    environment = pair.old.warm(pair.old.invoker())
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(60)
        caller.connect(str(pair.old.http_path))
        whole = invocation(b'"' + b"x" * 100_000 + b'"')
        caller.sendall(whole[:50_000])
        await_true(lambda: counters(pair.their).node()["http_requests"] == 1, "its head is read")
        pair.begin()
        pair.pass_all(ENVIRONMENT)
        caller.sendall(whole[50_000:])
        another = pair.old.launch()  # its own are handed over
        another.start()
        another.serve(b'"large"')
        assert answer(caller) == b'"large"'
        served_by(pair, environment)


def unread(sock: socket.socket) -> int:
    """Bytes of ours that the peer has not read."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_a_preface_that_is_coming_is_not_taken_for_a_request(pair: Pair) -> None:
    """To one that reads nothing nothing is given: what was read is looked at once more."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    invoker = pair.old.invoker()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(60)
        caller.connect(str(pair.old.http_path))
        caller.sendall(preface[:20])
        await_true(lambda: unread(caller) == 0, "it is read")
        environment = pair.old.warm(invoker)
        number = invoker.call()
        invoke, _ = environment.invoke()
        pair.begin(0)
        pair.old.launcher.send(wire.Beat(), seq=1)
        pair.old.launcher.expect(wire.Beat)
        caller.sendall(preface[20:])
        assert caller.recv(9)[3] == 4, "SETTINGS"
        environment.result(invoke.id, b'"mine"')
        assert invoker.answer(number)[1] == b'"mine"'
    assert counters(pair.their).node()["http_malformed"] == 0


@pytest.mark.parametrize("version", [0])
def test_to_one_that_reads_nothing_nothing_is_given(pair: Pair, version: int) -> None:
    """The version rule: it answers what it has, and leaves with its environments."""
    invoker = pair.old.invoker()
    environment = pair.old.warm(invoker)
    number = invoker.call()
    invoke, _ = environment.invoke()
    pair.begin(version)
    environment.result(invoke.id, b'"mine"')
    assert invoker.answer(number)[1] == b'"mine"'
    assert invoker.closed()
    assert pair.old.left() == 0
