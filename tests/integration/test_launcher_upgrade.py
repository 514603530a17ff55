"""The launcher while one dispatcher replaces another; the test plays both, and either may lie."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from runtimed.model import wire
from tests.integration.launcher_peers import Environment, Peer
from tests.integration.launcher_stage import BUILD, Played, plan, played
from tests.integration.test_launcher import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")

ECHO = "def handler(event, context):\n    return event\n"
VERSION = 7  # of HANDED, as the successor says; between the two dispatchers alone
Flags = wire.LaunchedFlags


@pytest.fixture(scope="module")
def stage() -> Iterator[Played]:
    with played(drain_ms=60_000) as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        stage.put(2, plan(stage.deploy(ECHO)))
        yield stage


def successor(stage: Played) -> Peer:
    """SIGHUP; the new one, greeted."""
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    new = stage.accept("dispatch")
    new.send(wire.Hello(role=wire.Role.DISPATCH, features=VERSION))
    new.expect(wire.Peer)
    return new


def serve(stage: Played, new: Peer) -> Peer:
    """The new one takes calls. Returns the old one, which was told."""
    new.send(wire.Serving())
    old, stage.dispatch = stage.dispatch, new
    assert old.expect(wire.HandOver)[1].version == VERSION
    return old


def replaced(stage: Played) -> Peer:
    new = successor(stage)
    _, hello, fds = new.expect(wire.Hello)
    close(fds)
    assert hello.features == 1
    return serve(stage, new)


def finish(stage: Played, old: Peer) -> None:
    old.leave()
    _, last, _ = stage.dispatch.expect(wire.Handed, where=lambda message: message.kind == wire.HandedKind.ALL)
    assert last.version == 0
    old.close()


def hand(old: Peer, environment: int, fds: list[int], kind: int = wire.HandedKind.ENVIRONMENT, **lies: object) -> None:
    message = wire.Handed(version=VERSION, kind=kind, state=b"not read here", **lies)  # type: ignore[arg-type]
    socket.send_fds(old.socket, [wire.encode(message, object=environment)], fds)


def close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def memfds(pid: int) -> set[str]:
    """Names of the memory files that a process has open."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            if name.startswith("/memfd:"):
                found.add(name.removeprefix("/memfd:").split()[0])
    return found


def given(environment: Environment) -> dict[wire.LaunchedFlags, int]:
    return {Flags.CHANNEL: environment.channel.fileno(), **environment.fds}


def test_the_new_one_hears_what_the_launcher_knows(stage: Played) -> None:
    environment = stage.launch(2)
    old = replaced(stage)
    fds = given(environment)
    hand(old, environment.id, list(fds.values()), plan=1, uid=0, known=b"\1\1")
    header, handed, received = stage.dispatch.expect(wire.Handed)
    assert (header.object, handed.version, handed.state) == (environment.id, VERSION, b"not read here")
    assert (handed.plan, handed.uid) == (2, environment.uid), "not what the old one says"
    assert handed.known == bytes(fds)
    close(received)
    stage.end(environment)
    finish(stage, old)


def test_who_gave_all_away_may_launch_for_a_call_that_came_late(stage: Played) -> None:
    """As many as granted to each of the two, until the old one has left."""
    stage.put(3, plan(stage.deploy(ECHO), max=1))
    first = stage.launch(3)
    old = replaced(stage)
    new, stage.dispatch = stage.dispatch, old
    late = stage.launch(3)
    assert old.expect(wire.LaunchFailed, stage.ask(3))[1].error == errno.EDQUOT
    stage.end(late)
    stage.end(first)
    stage.dispatch = new
    finish(stage, old)
    only = stage.launch(3)
    assert new.expect(wire.LaunchFailed, stage.ask(3))[1].error == errno.EDQUOT
    stage.end(only)


def test_the_descriptors_of_others_are_not_known(stage: Played) -> None:
    one, other = stage.launch(1), stage.launch(2)
    old = replaced(stage)
    ours, read, write = given(one), *os.pipe()
    wrong = [given(other)[Flags.CHANNEL], ours[Flags.LOG], read, given(other)[Flags.LISTENER], os.open("/", os.O_PATH)]
    hand(old, one.id, wrong)
    _, handed, received = stage.dispatch.expect(wire.Handed)
    assert handed.known == bytes([0, Flags.LOG, 0, 0, 0])
    close([*received, read, write, wrong[-1]])
    stage.end(one)
    old.send(wire.End(reason=0), other.id)  # that one is its own still
    old.expect(wire.Exited, other.id)
    other.close()
    finish(stage, old)


def test_only_what_is_the_old_ones_is_handed_over(stage: Played) -> None:
    mine = stage.launch(1)
    old = replaced(stage)
    stage._id += 1000
    theirs = stage.launch(1)
    for number in (theirs.id, 987654321, 0):
        hand(old, number, list(given(theirs).values()))
    hand(old, mine.id, list(given(mine).values()))
    header, _, received = stage.dispatch.expect(wire.Handed)
    assert header.object == mine.id, "the others were passed over"
    close(received)
    hand(old, mine.id, [])  # a second time
    hand(old, 0, [], kind=wire.HandedKind.ALL)
    header, last, _ = stage.dispatch.expect(wire.Handed)
    assert (header.object, last.kind, last.version) == (0, wire.HandedKind.ALL, VERSION)
    stage.end(mine)
    stage.end(theirs)
    finish(stage, old)


def test_an_end_after_the_hand_over_is_the_new_ones_to_ask_for(stage: Played) -> None:
    environment = stage.launch(1)
    old = replaced(stage)
    hand(old, environment.id, list(given(environment).values()))
    close(stage.dispatch.expect(wire.Handed)[2])
    old.send(wire.End(reason=0), environment.id)
    old.send(wire.Arena(), environment.id)
    assert old.expect(wire.Arena)[1].size == 0, "the old one gets no memory for it"
    assert isinstance(environment.start(), wire.InitDone), "it lives"
    stage.end(environment)
    finish(stage, old)


@pytest.mark.parametrize(
    "packet",
    [
        bytes([1, 0, 2]) + wire.encode(wire.Hello(role=wire.Role.DISPATCH))[3:],  # another version of the protocol
        wire.encode(wire.Hello(role=wire.Role.DISPATCH, build="another")),
        wire.encode(wire.Hello(role=wire.Role.DISPATCH)) + b"more",
        wire.encode(wire.Hello(role=wire.Role.DISPATCH))[:-1],
        b"",
    ],
)
def test_a_successor_that_speaks_otherwise_is_ended_and_the_old_one_goes_on(stage: Played, packet: bytes) -> None:
    assert stage.process is not None
    environment = stage.launch(1)
    stage.process.send_signal(signal.SIGHUP)
    new = stage.accept("dispatch")
    if packet:
        new.socket.send(packet)
    else:
        new.leave(1)
    stage.control.expect(wire.Peer)  # with the old one, anew
    new.close()
    stage.dispatch.expect(wire.Peer)
    assert isinstance(environment.start(), wire.InitDone), "nothing was taken from it"
    stage.end(environment)


@pytest.mark.parametrize(
    "packet",
    [
        b"x" * 40,
        bytes(wire.encode(wire.Handed(version=VERSION, kind=1)))[:-3],
        wire.encode(wire.Handed(version=VERSION, kind=wire.HandedKind.LOST)),
        wire.encode(wire.Handed(version=0, kind=wire.HandedKind.ALL)),  # the launcher's own word
        bytes(80000),
    ],
)
def test_damaged_packets_end_the_old_one_alone(stage: Played, packet: bytes) -> None:
    handed, kept = stage.launch(1), stage.launch(1)
    old = replaced(stage)
    hand(old, handed.id, list(given(handed).values()))
    close(stage.dispatch.expect(wire.Handed)[2])
    old.socket.send(packet)
    stage.dispatch.expect(wire.Handed, where=lambda message: message.kind == wire.HandedKind.LOST)
    assert isinstance(handed.start(), wire.InitDone), "what was handed over lives"
    kept.close()
    old.close()
    stage.end(handed)


def test_counters_pass_from_one_to_the_next(stage: Played) -> None:
    """To a successor, to its successor when it dies before it serves, and not for longer."""
    page = os.memfd_create("page")
    number = os.fstat(page).st_ino

    def brought(peer: Peer) -> list[int]:
        _, _, fds = peer.expect(wire.Hello)
        found = [os.fstat(fd).st_ino for fd in fds]
        close(fds)
        return found

    def greet(peer: Peer, fds: list[int]) -> None:
        packet = wire.encode(wire.Hello(role=wire.Role.DISPATCH, build=BUILD, features=VERSION))
        socket.send_fds(peer.socket, [packet], fds)
        peer.expect(wire.Peer)

    old = stage.dispatch
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    new = stage.accept("dispatch")
    greet(new, [page])
    serve(stage, new)
    brought(new)
    finish(stage, old)
    os.close(page)

    again = successor(stage)
    assert brought(again) == [number]
    assert "page" in memfds(stage.pid)
    again.leave(1)
    again.close()
    stage.dispatch.expect(wire.Peer)

    os.kill(stage.dispatch.pid, signal.SIGKILL)  # it is kept until somebody serves
    for _ in range(2):
        stage.dispatch.close()
        stage.dispatch = stage.accept("dispatch")
        assert brought(stage.dispatch) == [number]
        greet(stage.dispatch, [fd := os.memfd_create("other")])
        os.close(fd)
        stage.dispatch.leave(1)
    stage.dispatch.close()
    stage.dispatch = stage.accept("dispatch")
    assert brought(stage.dispatch) == [number]
    greet(stage.dispatch, [])
    stage.dispatch.send(wire.Serving())
    stage.end(stage.launch(1))
    wait_until(lambda: "page" not in memfds(stage.pid), "nobody keeps it")
