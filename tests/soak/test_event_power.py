"""Power cuts below the real dispatcher, on a real ext4 with its journal, on a disk that knows what was not synced.

The disk is a file of a FUSE server's (tests/crash/recorded_disk.py) behind a loop device; the dispatcher goes on, and
what the power would have left at some moment is mounted elsewhere, and handled by a dispatcher of its own: everything
acknowledged is there, nothing that was not sent, nothing again that was settled.

RUNTIMED_SOAK_CUTS (100) says how many, RUNTIMED_SOAK_SEED which; the seed is printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need_root
from tests.crash.recorded_disk import Recorded, recorded
from tests.crash.test_event_kills import Ledger, Life, drain
from tests.integration.disks import mounted
from tests.integration.event_stage import kill, staged

CUTS = int(os.environ.get("RUNTIMED_SOAK_CUTS", "100"))
SEED = int(os.environ.get("RUNTIMED_SOAK_SEED", str(time.time_ns() % 1_000_000)))
MEGABYTES = 96
REQUESTS = 40
"""Of the file system to its disk: a cut comes within so many."""
STEPS = 10_000
BACKLOG = 100
"""Events that wait: above it none is sent."""


@contextlib.contextmanager
def ext4(file: Path, *options: str) -> Iterator[Path]:
    """What lies in that file, mounted; the journal is replayed."""
    command = ["losetup", "--find", "--show", *options, file]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        with mounted(b"ext4", source=device) as top:
            yield top
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def step(life: Life) -> None:
    if len(life.ledger.acked) - len(life.ledger.handled) < BACKLOG:
        life.step()
    else:
        life.listen()


def settled(life: Life) -> set[int]:
    """Events whose end is on the disk: after it the dispatcher gave out another event, and then acknowledged one."""
    known, tried = set(life.ledger.handled), life.ledger.tried.total()
    for _ in range(STEPS):
        if life.ledger.tried.total() > tried:
            break
        step(life)
    last = life.send()
    for _ in range(STEPS):
        if last in life.ledger.acked:
            return known
        life.listen()
    raise AssertionError("an event is not acknowledged")


def cut(life: Life, disk: Recorded, image: Path) -> tuple[Ledger, int]:
    """What the image has to answer for, and how many blocks were not synced."""
    before = Ledger()
    before.acked = dict(life.ledger.acked)
    disk.begin_cut(life.rng.randrange(1 << 30), life.rng.randrange(1, REQUESTS), image)
    for _ in range(STEPS):
        if (blocks := disk.cut()) is not None:
            before.sent = life.ledger.sent
            before.handled = set(life.ledger.handled)
            before.tried = Counter(life.ledger.tried)
            return before, blocks
        step(life)
    raise AssertionError("nothing is written")


def judge(directory: Path, image: Path, before: Ledger, over: set[int]) -> int:
    """How many events were left."""
    tried = Counter(before.tried)
    with ext4(image) as top, staged(directory, top / "queue") as stage:
        drain(stage, before)
    again = {number for number, times in before.tried.items() if times > tried[number]}
    missing = {number for number in before.acked if number not in before.handled and tried[number] < 3}
    assert not missing, f"acknowledged, and not there after the cut: {sorted(missing)}"
    assert not again & over, f"settled, and there again after the cut: {sorted(again & over)}"
    return len(again)


@pytest.mark.soak
def test_power_cuts_below_a_file_system(tmp_path: Path) -> None:
    need_root()
    print(f"seed {SEED}, {CUTS} cuts")
    rng, empty, image = random.Random(SEED), tmp_path / "empty", tmp_path / "image"
    with empty.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", empty], check=True)
    ledger, cuts, left = Ledger(), Counter[bool](), 0
    with (
        recorded(empty) as disk,
        ext4(disk.path, "--direct-io=on") as top,
        staged(tmp_path / "stage", top / "queue") as stage,
    ):
        life = Life(stage, rng, ledger)
        for number in range(CUTS):
            over = settled(life)
            before, dirty = cut(life, disk, image)
            cuts[dirty > 0] += 1
            left += judge(tmp_path / f"cut{number}", image, before, over)
        kill(stage)
    print(f"{cuts[True]} cuts with unsynced blocks, {cuts[False]} without; {left} events were left in all")
    assert cuts[True] > CUTS // 4
