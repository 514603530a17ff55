"""Snapshots and what they may take: memory, time, uses. One launcher, whose limits are small, serves all tests but
those with limits of their own; each test has plans of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

import pytest

from bench.node import await_true
from tests.integration.launcher_stage import Played, played
from tests.integration.snapshot_stage import Refusal, Stage, State, begin, expect, made, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")

MEMORY_MB = 64
# Writes so many megabytes, and stands still with the pipe open. Only the maker has it.
STANDS = """
if os.getpid() == 30000:
    with open("/dev/zero", "rb") as zero:
        data = memoryview(zero.read(%d << 20))
    try:
        while data: data = data[os.write(4, data[:65536]):]
    except BrokenPipeError: pass
    os.dup2(4, 200); os.close(4)
"""
# The same, in pieces, with a pause behind each that was read.
DRIPS = """
if os.getpid() == 30000:
    import fcntl, select, struct, termios
    piece, reader = bytes(256 << 10), select.poll()
    reader.register(4, 0)  # what is told unasked: nobody reads any more
    left = lambda: not reader.poll(0) and struct.unpack("i", fcntl.ioctl(4, termios.FIONREAD, bytes(4)))[0]
    try:
        for _ in range(4 * %d):
            os.write(4, piece)
            while left(): time.sleep(0.001)
            time.sleep(0.005)
    except BrokenPipeError: pass
    os.dup2(4, 200); os.close(4)
"""
# Writes what is given, and is done.
WHOLE = """
if os.getpid() == 30000:
    data = memoryview(%s)
    try:
        while data: data = data[os.write(4, data[:65536]):]
    except BrokenPipeError: pass
    os.close(4)
"""
ENDED = "b'x' * (%d << 20) + (0x646e65746f687370).to_bytes(8, 'little')"
numbers = itertools.count(1, 10)


@pytest.fixture(scope="module")
def shared() -> Iterator[Played]:
    with played(zygotes=1, snapshots={"memory_mb": MEMORY_MB}) as stage:
        yield stage


@pytest.fixture
def stage(shared: Played) -> Iterator[Stage]:
    with contextlib.closing(Stage(shared, next(numbers))) as stage:
        yield stage


def of(stage: Stage, beyond: int) -> Stage:
    """The same stage, looking at another of its plans."""
    other = Stage(stage.played, stage.number + beyond)
    other.living = stage.living
    return other


def test_the_largest_breaks_off_and_not_who_writes_next(stage: Stage) -> None:
    large, small = of(stage, 0), of(stage, 1)
    large.put(STANDS % (MEMORY_MB * 3 // 4))
    begin(large)
    expect(large, State.MAKING)
    small.put(WHOLE % (ENDED % (MEMORY_MB * 3 // 8)))
    begin(small)
    expect(large, State.NONE)
    expect(small, State.READY)


def test_one_that_is_larger_than_all_may_be_is_refused(stage: Stage) -> None:
    stage.put(STANDS % (MEMORY_MB + 1))
    begin(stage)
    assert expect(stage, State.REFUSED).refusal == Refusal.TOO_LARGE
    assert run(begin(stage), "result = None")["count"] == 1


def test_who_writes_slowly_is_counted_too(stage: Stage) -> None:
    stage.put(DRIPS % (MEMORY_MB + 1))
    begin(stage)
    assert expect(stage, State.REFUSED).refusal == Refusal.TOO_LARGE


def test_who_broke_off_for_want_of_room_is_not_given_up(stage: Stage) -> None:
    """It may try again later; until then its environments are ordinary ones."""
    large, small = of(stage, 0), of(stage, 1)
    small.put(STANDS % (MEMORY_MB * 3 // 8))
    begin(small)
    expect(small, State.MAKING)
    large.put(STANDS % (MEMORY_MB * 3 // 4))
    for _ in range(4):  # more than failures make it refused
        begin(large)
    told = expect(large, State.NONE)
    assert told.refusal == Refusal.NONE
    assert run(begin(large), "result = None")["count"] == 1


def test_the_one_used_longest_ago_goes_when_there_is_no_room(stage: Stage) -> None:
    plans = [of(stage, beyond) for beyond in range(3)]
    for one in plans[:2]:
        made(one, "kept = os.urandom(20 << 20)")
    run(begin(plans[0]), "result = None")  # the second is now the one that was used longest ago
    made(plans[2], "kept = os.urandom(20 << 20)")
    expect(plans[1], State.NONE)
    born = [run(begin(plans[0]), "result = None")["born"] for _ in range(2)]
    assert born[0] == born[1]


def test_it_has_a_limit_of_time() -> None:
    """From its first byte on. As it is the function's own doing, no more are made after some of that."""
    with played(zygotes=1, snapshots={"making_ms": 300}) as one, contextlib.closing(Stage(one, 1)) as stage:
        stage.put(STANDS % 1)
        for state in (State.NONE, State.NONE, State.REFUSED):
            environment = begin(stage)
            told = expect(stage, State.MAKING)
            told = expect(stage, state)
            assert run(environment, "result = None")["count"] == 1
        assert told.refusal == Refusal.FAILED


def births(stage: Stage) -> Iterator[str]:
    """Whose copy each next environment is."""
    while True:
        environment = begin(stage)
        yield run(environment, "result = None")["born"]
        stage.end(environment)


def test_it_is_made_anew_after_so_many_uses() -> None:
    with played(zygotes=1, snapshots={"uses": 3}) as one, contextlib.closing(Stage(one, 1)) as stage:
        first = run(made(stage), "result = None")["born"]
        born = births(stage)
        assert [next(born) for _ in range(3)] == [first] * 3
        second = next(born)
        assert second != first
        expect(stage, State.READY)
        assert [next(born) for _ in range(3)] == [second] * 3


def test_it_is_made_anew_after_a_time() -> None:
    with played(zygotes=1, snapshots={"age_ms": 500}) as one, contextlib.closing(Stage(one, 1)) as stage:
        first = run(made(stage), "result = None")["born"]
        born = births(stage)
        await_true(lambda: next(born) != first, 60, "another snapshot")
