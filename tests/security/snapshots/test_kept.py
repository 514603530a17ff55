"""What a function's snapshots cost the node, however its code goes about it: memory that environments keep, and the
launcher's time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.node import await_true
from tests.conftest import need_root
from tests.integration.launcher_stage import played
from tests.integration.snapshot_stage import MAKER, Stage, State, begin, expect, ordinary, run
from tests.integration.test_launcher import process_of

MEMORY_MB = 64
WAIT = 60.0


@pytest.fixture
def small() -> Iterator[Stage]:
    """Where snapshots may take little, and are made anew after each use."""
    need_root()
    limits = {"memory_mb": MEMORY_MB, "uses": 1}
    with played(zygotes=1, snapshots=limits) as one, contextlib.closing(Stage(one, 1)) as stage:
        yield stage


def files(pid: int) -> dict[int, int]:
    """Snapshots that a process has open or in its memory: bytes, by inode."""
    found = {}
    for directory in ("fd", "map_files"):
        for entry in Path(f"/proc/{pid}/{directory}").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(entry).startswith("/memfd:snapshot"):
                    status = entry.stat()
                    found[status.st_ino] = status.st_blocks * 512
    return found


def is_quiet(stage: Stage) -> bool:
    """Nothing is being made: what the launcher has is sealed."""
    for entry in Path(f"/proc/{stage.played.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(entry).startswith("/memfd:snapshot"):
                with entry.open("rb") as file:
                    if not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
                        return False
    return True


def test_what_environments_still_have_in_their_memory_counts(small: Stage) -> None:
    """Copies of one snapshot after another live on: together these take no more than all snapshots may."""
    small.put("kept = os.urandom(16 << 20)")
    kept: dict[int, int] = {}
    for _ in range(10):
        environment = begin(small)
        await_true(lambda: is_quiet(small), WAIT, "the end of a snapshot in the making")
        kept |= files(process_of(environment))
        everything = kept | files(small.played.pid)
        assert sum(everything.values()) <= MEMORY_MB << 20, everything
    assert len(kept) >= 2, "one was made anew while copies of the one before it lived"
    assert len({run(one, "result = None")["born"] for one in small.living}) > len(kept), "others are ordinary"
    small.close()
    small.put("kept = os.urandom(32 << 20)", beyond=1)

    def is_made() -> bool:
        begin(small, beyond=1)
        return begin(small, beyond=1).restored

    await_true(is_made, WAIT, "a snapshot, now that there is room again")


def test_who_writes_little_at_a_time_is_not_read_each_time(stage: Stage) -> None:
    """The launcher is needed by others too: it lets more gather."""
    stage.put(
        f"if os.getpid() == {MAKER}:\n"
        "    import fcntl, struct, termios\n"
        "    left = lambda: struct.unpack('i', fcntl.ioctl(4, termios.FIONREAD, bytes(4)))[0]\n"
        "    begun = time.monotonic()\n"
        "    for _ in range(100):\n"
        "        os.write(4, bytes(8))\n"
        "        while left(): pass\n"
        "    took = time.monotonic() - begun\n"
        "    os.dup2(4, 200); os.close(4)"
    )
    maker = begin(stage)
    assert run(maker, "result = took")["result"] >= 0.05, "a hundred times, a millisecond apart"
    ordinary(stage)
    stage.end(maker)
    expect(stage, State.NONE)
