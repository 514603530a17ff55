"""What one dispatcher hands over is wrong, damaged or not its own: it is refused, and the other goes on."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed.model import wire
from tests.conftest import need_root
from tests.integration.dispatch_stage import Invoker, await_true, counters
from tests.integration.handover_stage import CONNECTION, ENVIRONMENT, PLAN, VERSION, Flags, Pair, paired


def state(**changes: Any) -> bytes:
    fields = {"descriptors": int(Flags.CHANNEL | Flags.LOG), "target": 1, "incarnation": 1, **changes}
    number = fields.pop("number", 5)
    return wire.encode(wire.EnvironmentHanded(**fields), object=number)


def descriptors(*kinds: str) -> list[int]:
    """Fresh ones: c(hannel), l(og), f(ile), s(tream), t(cp) listener, p(eer of one)."""
    found = []
    for kind in kinds:
        if kind == "c":
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        elif kind == "s":
            one, other = socket.socketpair()
        elif kind == "l":
            read, write = os.pipe()
            os.close(write)
            found.append(read)
            continue
        elif kind == "f":
            found.append(os.open("/etc/hostname", os.O_RDONLY))
            continue
        else:
            one = socket.create_server(("127.0.0.1", 0))
            other = socket.socket()
            if kind == "p":
                other.connect(one.getsockname())
                one.close()
                one, other = other, socket.socket()
        found.append(one.detach())
        other.close()
    return found


GOOD = {"version": VERSION, "kind": ENVIRONMENT, "plan": PLAN, "known": b"\1\2"}
BAD: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"version": 0, "state": state()}, ("c", "l")),
    ({"version": 2, "state": state()}, ("c", "l")),
    ({"plan": 8, "state": state()}, ("c", "l")),
    ({"known": b"\1", "state": state()}, ("c", "l")),
    ({"known": b"\0\2", "state": state()}, ("c", "l")),
    ({"known": b"\2\1", "state": state()}, ("c", "l")),
    ({"known": b"\1\2\2", "state": state()}, ("c", "l")),
    ({"state": state()}, ("l", "c")),
    ({"state": state()}, ("s", "l")),
    ({"state": state()}, ("c", "f")),
    ({"state": state(), "known": b"\1"}, ("c",)),
    ({"state": state(), "known": b""}, ()),
    ({"state": state(), "known": b"\1\2\0"}, ("c", "l", "p")),
    ({"state": state(), "known": b"\1\2\0\0\0\0\0\0"}, ("c", "l", "f", "f", "f", "f", "f", "f")),
    ({"state": state(descriptors=255), "known": b"\1\2\4\10\20\0"}, ("c", "l", "f", "f", "t", "p")),
    ({"state": state(descriptors=2), "known": b"\2"}, ("l",)),
    ({"state": state(target=2)}, ("c", "l")),
    ({"state": state(target=0)}, ("c", "l")),
    ({"state": state(number=6)}, ("c", "l")),
    ({"state": state(frozen=2)}, ("c", "l")),
    ({"state": state(runtime_api=1)}, ("c", "l")),
    ({"state": state(runtime_api=2)}, ("c", "l")),
    ({"state": state()[:-1]}, ("c", "l")),
    ({"state": state() + b"\0"}, ("c", "l")),
    ({"state": b""}, ("c", "l")),
    ({"state": b"\xff" * 3072}, ("c", "l")),
    ({"state": wire.encode(wire.ConnectionHanded(input=b"x"), object=5)}, ("c", "l")),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with paired(tmp_path_factory.mktemp("pair")) as pair:
        pair.start()
        yield pair


def goes_on(pair: Pair) -> None:
    """Nothing of it stayed, and calls are taken."""
    invoker: Invoker = pair.new.invoker()
    invoker.call(name="nobody")
    assert invoker.answer()[0].status == 404
    invoker.close()
    node = counters(pair.control).node()
    assert (node["environments"], node["logic_errors"]) == (0, 0)


@pytest.mark.parametrize(("fields", "kinds"), BAD)
def test_a_wrong_state_is_refused_and_the_environment_ended(
    shared: Pair, fields: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    shared.hand(5, descriptors(*kinds), **{**GOOD, **fields})
    header, _ = shared.new.launcher.expect(wire.End)
    assert header.object == 5
    goes_on(shared)


def elsewhere() -> list[int]:
    """A connection in a network namespace of its own."""
    made: list[int] = []

    def make() -> None:
        assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0  # CLONE_NEWNET, of this thread
        made.append(socket.socket().detach())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made


def test_a_waiting_connection_from_elsewhere_is_refused(tmp_path: Path) -> None:
    """In another network namespace than the listener."""
    need_root()
    with paired(tmp_path, runtime_api=1) as pair:
        pair.start()
        flags = int(Flags.LISTENER | Flags.WAITING)
        pair.hand(
            5, descriptors("t", "p"), **{**GOOD, "known": b"\20\0", "state": state(descriptors=flags, runtime_api=1)}
        )
        await_true(lambda: counters(pair.control).node()["environments"] == 1, "one of the same namespace is taken")
        fds = descriptors("t")
        number = state(descriptors=flags, runtime_api=1, number=6)
        pair.hand(6, [*fds, *elsewhere()], **{**GOOD, "known": b"\20\0", "state": number})
        assert pair.new.launcher.expect(wire.End)[0].object == 6


def test_flipped_and_random_bytes_end_nothing_but_what_they_speak_of(shared: Pair) -> None:
    dice = random.Random(7)
    good = state()
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        shared.hand(5, descriptors("l", "c"), **{**GOOD, "state": bytes(damaged)})  # in the wrong order: never right
        assert shared.new.launcher.expect(wire.End)[0].object == 5
    goes_on(shared)


@pytest.mark.parametrize("kinds", [(), ("l",), ("f",), ("t",), ("s", "s"), ("c", "c"), ("f", "l", "c")])
def test_what_is_no_callers_connection_is_dropped(shared: Pair, kinds: tuple[str, ...]) -> None:
    before = counters(shared.control).node()["connections"]
    for version in (VERSION, 9):
        packet = wire.encode(wire.ConnectionHanded(input=b"GET"))
        shared.hand(0, descriptors(*kinds), version=version, kind=CONNECTION, state=packet)
        shared.hand(0, descriptors("s"), version=version, kind=CONNECTION, state=packet[:-1])
        shared.hand(0, descriptors("s"), version=version, kind=9, state=packet)
    goes_on(shared)
    await_true(lambda: counters(shared.control).node()["connections"] <= before, "none is kept")
