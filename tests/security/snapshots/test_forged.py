"""Snapshots that the function's code made: environments filled with one end or serve, and nobody else notices."""

from __future__ import annotations

import contextlib
import random

import pytest

from runtimed.model import wire
from tests.integration.snapshot_stage import MAKER, Stage, State, begin, expect, run, send_start


def test_a_snapshot_taken_in_the_middle(stage: Stage) -> None:
    """Code of the function's that finds the runtime's own call and makes it: copies go on from there, which is its own
    affair, and serve."""
    stage.put(
        f"if os.getpid() == {MAKER}:\n"
        "    frame = sys._getframe()\n"
        "    while 'channel' not in frame.f_locals: frame = frame.f_back\n"
        "    frame.f_locals['native'].snapshot(frame.f_locals['channel'], True)\n"
        "born = uuid.uuid4().hex"
    )
    maker = begin(stage)
    expect(stage, State.READY)
    copy = stage.launch()
    send_start(copy)
    answers = [copy.receive()]
    assert run(maker, "result = None")["count"] == 1
    assert isinstance(answers[0], wire.InitDone | wire.InitError)


# The descriptor that the snapshot is written into is exchanged for a file in memory, and the pipe put where descriptors
# are not counted; so the function has its own snapshot, to change it, and the pipe, to hand that in.
FORGE = f"""
if os.getpid() == {MAKER}:
    os.dup2(4, 0)
    os.dup2(os.memfd_create("mine"), 2)
    os.dup2(2, 4)
    for fd in range(5, 32):
        try: os.close(fd)
        except OSError: pass
"""
HAND_IN = """
import struct
data = bytearray(os.pread(2, os.fstat(2).st_size, 0))
assert data[:8] == b"napshot1", bytes(data[:16])
tables = struct.unpack_from("<Q", data, 32)[0]
%s
view = memoryview(data)
while view: view = view[os.write(0, view[:65536]):]
os.close(0)
result = tables
"""


def forged(stage: Stage, change: str) -> None:
    stage.put(FORGE)
    maker = begin(stage)
    run(maker, HAND_IN % change)
    stage.end(maker)


def test_a_snapshot_that_the_function_hands_in_itself(stage: Stage) -> None:
    """Unchanged: so the others below are what they are meant to be."""
    forged(stage, "")
    expect(stage, State.READY)
    assert len({run(begin(stage), "result = None")["born"] for _ in range(2)}) == 1


@pytest.mark.parametrize("seed", range(8))
def test_forged_snapshots(stage: Stage, seed: int) -> None:
    """Heads, tables, and contents changed at random: an environment that is filled with one ends or serves; the
    launcher, the zygote and other environments do not notice."""
    picks = random.Random(seed)
    places = [f"{picks.randrange(8, 2048)}" if at < 2 else f"{picks.randrange(1 << 30)} % tables" for at in range(4)]
    changes = [f"data[{place}] = {picks.randrange(256)}" for place in places[: 1 + seed % 4]]
    if seed % 4 == 3:
        changes = [f"start = tables + {picks.randrange(1 << 30)} % (len(data) - tables - 9000)",
                   f"data[start:start + 8192] = random.Random({seed}).randbytes(8192)"]  # fmt: skip
    stage.put("neighbour = 1", wire.SnapshotMode.OFF, beyond=1)
    neighbour = begin(stage, beyond=1)
    forged(stage, "\n".join(changes))
    expect(stage, State.READY)
    for _ in range(3):
        ended_or_serves(stage)
    assert run(neighbour, "result = None")["count"] == 1
    stage.put("another = 1", wire.SnapshotMode.OFF, beyond=1)
    assert run(begin(stage, beyond=1), "result = None")["count"] == 1


def ended_or_serves(stage: Stage) -> None:
    """It may say anything, or go round in circles until the time-out of its init phase."""
    environment = stage.launch()
    environment.channel.settimeout(5)
    with contextlib.suppress(OSError):
        send_start(environment)
        environment.channel.recv(wire.MESSAGE_MAX)
    stage.end(environment)
