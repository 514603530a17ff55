"""Arenas: large bodies through memory that an environment shares with the dispatcher. The test is the launcher, which
makes it, and the environment, which maps it; both lie where they can."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    PART,
    PATIENCE,
    Control,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
)

LEAST = 256 << 10
SIZE = (6 << 20) + (64 << 10)
MOST = (6 << 20) + 100  # what an environment may answer
READY, ARENA = wire.HeaderFlags.READY, wire.HeaderFlags.ARENA
POPULATE_WRITE = 23
PUNCH = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def event(size: int) -> bytes:
    return b'"' + bytes(97 + number % 26 for number in range(251)) * (size // 251) + b"x" * (size % 251 - 2) + b'"'


def bodies(size: int) -> tuple[bytes, bytes]:
    """An event and an answer of that size, which differ in every byte but the quotes."""
    return b'"' + os.urandom(size // 2 - 1).hex().encode() + b"e" * (size % 2) + b'"', os.urandom(size)


def made(size: int = SIZE) -> int:
    """As the launcher makes them."""
    fd = os.memfd_create("arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


class Sharer:
    """An environment with its arena, from the environment's side."""

    def __init__(self, stage: Stage, invoker: Invoker) -> None:
        self.stage, self.invoker = stage, invoker
        self.environment = stage.warm(invoker)
        self.fd = -1
        self.memory: mmap.mmap | None = None

    def asked(self, fd: int | None = None, size: int = SIZE) -> None:
        """A large event by chunks; the launcher is asked for an arena, and gives it."""
        self.invoker.call(event(LEAST + 1))
        invoke, _ = self.environment.invoke()
        assert self.stage.launcher.asked() == self.environment.number
        fd = made() if fd is None else fd
        self.stage.launcher.send(wire.Arena(size=size), fds=(fd,) if fd >= 0 else (), object=self.environment.number)
        if fd >= 0:
            os.close(fd)
        self.environment.result(invoke.id)
        assert self.invoker.answer()[0].outcome == wire.Outcome.SUCCESS

    def attach(self, total: int = LEAST + 1) -> tuple[wire.Attach, wire.Invoke]:
        """The next event, of that size, with the arena before it. It is neither mapped nor acknowledged yet."""
        self.invoker.call(event(total))
        _, attach = self.environment.expect(wire.Attach)
        _, arena = self.environment.expect(wire.Arena)
        assert arena.size == attach.size == SIZE
        self.fd = self.environment.received[-1]
        invoke, _ = self.environment.invoke()
        return attach, invoke

    def fill(self, size: int) -> None:
        if self.memory is None:
            self.memory = mmap.mmap(self.fd, SIZE)
        self.memory.madvise(POPULATE_WRITE, 0, size)

    def shared(self, filled: int = SIZE) -> None:
        """All of the way, with an answer by the socket."""
        self.asked()
        _, invoke = self.attach()
        self.fill(filled)
        self.environment.send(wire.Attached())
        self.environment.result(invoke.id)
        self.invoker.answer()

    def event(self) -> tuple[wire.Header, wire.Invoke]:
        return self.environment.expect(wire.Invoke)

    def answer(self, invoke: wire.Invoke, body: bytes, **fields: int) -> None:
        assert self.memory is not None
        self.memory[: len(body)] = body
        self.environment.send(wire.Result(id=invoke.id, total=len(body), **fields), flags=READY | ARENA)


@pytest.fixture
def control(stage: Stage) -> Control:
    return stage.ready()


@pytest.fixture
def sharer(stage: Stage, control: Control) -> Iterator[Sharer]:
    made_one = Sharer(stage, stage.invoker())
    yield made_one
    if made_one.memory is not None:
        made_one.memory.close()


@pytest.mark.parametrize("size", [LEAST + 1, 1 << 20, MOST - 100])
def test_both_ways(sharer: Sharer, control: Control, size: int) -> None:
    sharer.shared()
    before = counters(control).node()
    sent, expected = bodies(size)
    sharer.invoker.call(sent)
    header, invoke = sharer.event()
    assert header.flags == ARENA
    assert (invoke.total, invoke.body) == (size, b"")
    assert sharer.memory is not None
    assert sharer.memory[:size] == sent
    sharer.answer(invoke, expected)
    answer, body = sharer.invoker.answer()
    assert answer.outcome == wire.Outcome.SUCCESS
    assert body == expected
    after = counters(control).node()
    assert after["arena_payloads"] - before["arena_payloads"] == 2
    assert after["arenas"] == 1
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "memory given back")


def test_up_to_256_kib_by_the_socket(sharer: Sharer) -> None:
    sharer.shared()
    sent, expected = bodies(LEAST)
    sharer.invoker.call(sent)
    invoke, body = sharer.environment.invoke()
    assert body == sent
    assert invoke.body == sent[:PART]
    sharer.environment.result(invoke.id, expected)
    assert sharer.invoker.answer()[1] == expected


def test_a_large_answer_asks_too(sharer: Sharer, stage: Stage) -> None:
    sharer.invoker.call()
    invoke, _ = sharer.environment.invoke()
    sharer.environment.result(invoke.id, b"x" * (LEAST + 1))
    assert stage.launcher.asked() == sharer.environment.number
    assert sharer.invoker.answer()[0].outcome == wire.Outcome.SUCCESS


def test_the_rest_is_asked_to_be_filled(sharer: Sharer) -> None:
    """What is not there does not go there; by powers of two it is asked for, and used once it is."""
    sharer.asked()
    attach, invoke = sharer.attach(LEAST + 1)
    assert attach.fill == 2 * LEAST
    sharer.fill(attach.fill)
    sharer.environment.send(wire.Attached())
    sharer.environment.result(invoke.id)
    sharer.invoker.answer()
    sent = event(1 << 20)
    sharer.invoker.call(sent)
    _, attach = sharer.environment.expect(wire.Attach)
    assert (attach.size, attach.fill) == (0, 1 << 20)
    invoke, body = sharer.environment.invoke()
    assert body == sent, "by the socket"
    sharer.environment.result(invoke.id)
    sharer.invoker.answer()
    sharer.fill(attach.fill)
    sharer.invoker.call(sent)
    _, invoke = sharer.event()
    assert invoke.body == b"", "in the arena"


def test_none_to_be_had(sharer: Sharer) -> None:
    """The launcher could make none: all goes on by the socket, and it is not asked again."""
    sharer.asked(fd=-1, size=0)
    for size in (LEAST + 1, 1 << 20):
        sent, expected = bodies(size)
        sharer.invoker.call(sent)
        invoke, body = sharer.environment.invoke()
        assert body == sent
        sharer.environment.result(invoke.id, expected)
        assert sharer.invoker.answer()[1] == expected
    assert sharer.stage.launcher.silent()


def test_an_environment_that_cannot_map_it(sharer: Sharer, control: Control) -> None:
    sharer.asked()
    _, invoke = sharer.attach()
    sharer.environment.send(wire.Attached(error=errno.ENOMEM))
    sharer.environment.result(invoke.id)
    sharer.invoker.answer()
    sent, expected = bodies(1 << 20)
    sharer.invoker.call(sent)
    invoke, body = sharer.environment.invoke()
    assert body == sent
    sharer.environment.result(invoke.id, expected)
    assert sharer.invoker.answer()[1] == expected
    assert counters(control).node()["arenas"] == 0


def test_another_environment_gets_another(stage: Stage, control: Control, sharer: Sharer) -> None:
    sharer.shared()
    sharer.environment.exit(0)
    await_true(lambda: counters(control).node()["arenas"] == 0, "the arena goes with its environment")
    other = Sharer(stage, stage.invoker())
    other.shared()
    assert os.fstat(other.fd).st_ino != os.fstat(sharer.fd).st_ino
    assert other.memory is not None
    other.memory.close()


def test_nothing_of_it_stays_in_the_dispatcher(stage: Stage, control: Control, sharer: Sharer) -> None:
    sharer.shared()
    maps, fds = Path(f"/proc/{stage.pid}/maps"), Path(f"/proc/{stage.pid}/fd")

    def holds() -> bool:
        return "memfd:arena" in maps.read_text() or any("memfd:arena" in os.readlink(fd) for fd in fds.iterdir())

    assert holds()
    sharer.environment.exit(0)
    await_true(lambda: not holds(), "unmapped and closed")


def test_idle_it_is_given_back(stage: Stage) -> None:
    """After a while, by an environment that runs for it, and is frozen again; the next large body asks anew."""
    control = stage.ready(freeze_after_ms=20)
    sharer = Sharer(stage, stage.invoker())
    sharer.shared()
    environment = sharer.environment
    await_true(lambda: environment.freezer.read_text().startswith("1"), "frozen")
    _, attach = environment.expect(wire.Attach, timeout=PATIENCE)
    assert (attach.size, attach.fill) == (0, 0)
    await_true(lambda: counters(control).node()["arenas"] == 0, "given back")
    await_true(lambda: environment.freezer.read_text().startswith("1"), "frozen again")
    assert sharer.memory is not None
    sharer.memory.close()
    sharer.memory = None
    sharer.shared()
    await_true(lambda: counters(control).node()["arenas"] == 1, "another")


# ---- environments that cheat ---------------------------------------------------------------------------------------


def cheated(sharer: Sharer, cheat: Callable[[Sharer, wire.Invoke], None]) -> None:
    """It is ended, and its caller is told."""
    sharer.invoker.call()
    invoke, _ = sharer.environment.invoke()
    cheat(sharer, invoke)
    _, body = sharer.invoker.answer()
    assert json.loads(body)["errorType"] == "Sandbox.Failure"
    assert sharer.stage.ended(sharer.environment) == wire.EndReason.PROTOCOL


def result(sharer: Sharer, invoke: wire.Invoke, total: int, body: bytes = b"") -> None:
    sharer.environment.send(wire.Result(id=invoke.id, total=total, body=body), flags=READY | ARENA)


CHEATS: dict[str, Callable[[Sharer, wire.Invoke], None]] = {
    "more than the arena": lambda sharer, invoke: result(sharer, invoke, SIZE + 1),
    "4 GiB": lambda sharer, invoke: result(sharer, invoke, 0xFFFFFFFF),
    "more than has memory": lambda sharer, invoke: result(sharer, invoke, 3 << 20),
    "nothing": lambda sharer, invoke: result(sharer, invoke, 0),
    "a part of it by the socket": lambda sharer, invoke: result(sharer, invoke, LEAST, b"x"),
    "ATTACHED again": lambda sharer, invoke: sharer.environment.send(wire.Attached()),
    "ATTACHED too late, and failed": lambda sharer, invoke: sharer.environment.send(wire.Attached(error=12)),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats(sharer: Sharer, name: str) -> None:
    sharer.shared(filled=2 << 20)
    cheated(sharer, CHEATS[name])


def test_an_answer_in_an_arena_that_is_none(sharer: Sharer) -> None:
    cheated(sharer, lambda sharer, invoke: result(sharer, invoke, 100))


def test_an_answer_before_it_is_attached(sharer: Sharer) -> None:
    sharer.asked()
    _, invoke = sharer.attach()
    result(sharer, invoke, 100)
    assert json.loads(sharer.invoker.answer()[1])["errorType"] == "Sandbox.Failure"
    assert sharer.stage.ended(sharer.environment) == wire.EndReason.PROTOCOL


def test_seals_of_its_own(sharer: Sharer) -> None:
    """Which would keep the dispatcher from sealing it."""
    sharer.asked()
    sharer.attach()
    fcntl.fcntl(sharer.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    sharer.environment.send(wire.Attached())
    assert json.loads(sharer.invoker.answer()[1])["errorType"] == "Sandbox.Failure"
    assert sharer.stage.ended(sharer.environment) == wire.EndReason.PROTOCOL


def refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError as error:
        return error.errno == errno.EPERM
    return False


def test_memory_cannot_be_taken_out(sharer: Sharer) -> None:
    """Neither by shrinking nor by holes, through the descriptor or a mapping: what is there stays there."""
    sharer.shared()
    assert sharer.memory is not None
    memory = sharer.memory
    again = os.open(f"/proc/self/fd/{sharer.fd}", os.O_RDWR)
    for fd in (sharer.fd, again):
        assert refused(lambda fd=fd: os.ftruncate(fd, 0))  # type: ignore[misc]
        assert refused(lambda fd=fd: os.ftruncate(fd, SIZE * 2))  # type: ignore[misc]
        assert refused(lambda fd=fd: os.pwrite(fd, b"x", 0))  # type: ignore[misc]
        assert refused(lambda fd=fd: mmap.mmap(fd, SIZE))  # type: ignore[misc]
        assert punched(fd) == errno.EPERM
    os.close(again)
    assert refused(lambda: memory.madvise(mmap.MADV_REMOVE, 0, PART))
    memory.madvise(mmap.MADV_DONTNEED)
    assert os.lseek(sharer.fd, 0, os.SEEK_HOLE) == SIZE


def punched(fd: int) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(fd, PUNCH, ctypes.c_long(0), ctypes.c_long(PART))
    return 0 if done == 0 else ctypes.get_errno()


def test_it_charges_nothing_to_the_dispatcher(sharer: Sharer) -> None:
    """An environment that touches no page of it gets no event there."""
    sharer.shared(filled=mmap.PAGESIZE)
    for size in (LEAST + 1, 1 << 20, 6 << 20):
        sent = event(size)
        sharer.invoker.call(sent)
        _, attach = sharer.environment.expect(wire.Attach)
        assert attach.fill >= size
        invoke, body = sharer.environment.invoke()
        assert body == sent
        sharer.environment.result(invoke.id)
        sharer.invoker.answer()
    assert os.fstat(sharer.fd).st_blocks * 512 == mmap.PAGESIZE


def test_who_writes_while_it_is_read(sharer: Sharer) -> None:
    """A caller gets so many bytes, whichever; the next event is whole."""
    sharer.shared()
    assert sharer.memory is not None
    for round_ in range(20):
        sharer.invoker.call()
        invoke, _ = sharer.environment.invoke()
        sharer.answer(invoke, bytes([round_]) * (6 << 20))
        for at in range(0, 6 << 20, 1 << 20):
            sharer.memory[at : at + 4096] = b"\xff" * 4096
        answer, body = sharer.invoker.answer()
        assert answer.outcome == wire.Outcome.SUCCESS
        assert len(body) == 6 << 20
        assert set(body) <= {round_, 255}
    sent, _ = bodies(1 << 20)
    sharer.invoker.call(sent)
    sharer.event()
    assert sharer.memory[: len(sent)] == sent


def test_what_was_read_in_it_is_no_longer_there_for_the_next(sharer: Sharer) -> None:
    """An answer that its caller reads late is a copy: the next event does not show in it."""
    sharer.shared()
    slow, quick = sharer.stage.invoker(), sharer.invoker
    slow.call()
    invoke, _ = sharer.environment.invoke()
    _, expected = bodies(6 << 20)
    sharer.answer(invoke, expected)
    for _ in range(3):
        sent, other = bodies(6 << 20)
        quick.call(sent)
        _, invoke = sharer.event()
        sharer.answer(invoke, other)
        assert quick.answer()[1] == other
    assert slow.answer()[1] == expected


def test_too_large_an_answer(sharer: Sharer) -> None:
    sharer.shared()
    sharer.invoker.call()
    invoke, _ = sharer.environment.invoke()
    sharer.answer(invoke, b"x" * (MOST + 1))
    assert json.loads(sharer.invoker.answer()[1])["errorType"] == "Function.ResponseSizeTooLarge"
    sharer.invoker.call()
    assert isinstance(sharer.event()[1], wire.Invoke)
