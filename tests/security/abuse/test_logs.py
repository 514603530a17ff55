"""Logs: the dispatcher reads them in the loop that also answers the neighbour, and keeps 32 MB of each function."""

from __future__ import annotations

import pytest

from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage

# Four segments of 8 MB, and the one that is begun while the oldest goes.
KEPT_BYTES = 5 * (8 << 20)


def kept(stage: Stage) -> int:
    """Bytes of the function with the most."""
    folders = (stage.node.state_dir / "logs").iterdir()
    return max(sum(file.stat().st_size for file in folder.iterdir()) for folder in folders)


@pytest.mark.case("abuse", "log flood")
def test_lines(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("logs", {"deed": "lines"}, rounds=2)
    seen.timed_out()
    assert kept(stage) < KEPT_BYTES
    outcome("slowed to 4 MB/s, timed out; the newest 32 MB are kept", seen.neighbour)


@pytest.mark.case("abuse", "log flood of empty lines")
def test_short_lines(stage: Stage, outcome: Outcome) -> None:
    """Each would be a record of 44 bytes and some work in the loop."""
    seen = stage.suffer("logs", {"deed": "short_lines"}, rounds=2)
    seen.timed_out()
    assert kept(stage) < KEPT_BYTES
    outcome("a burst becomes one record; charged with its headers, slowed, timed out", seen.neighbour)


@pytest.mark.case("abuse", "one endless line in the log")
def test_endless_line(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("logs", {"deed": "endless_line"}, rounds=1)
    seen.timed_out()
    assert kept(stage) < KEPT_BYTES
    outcome("cut into lines of 256 KB; slowed, timed out", seen.neighbour)


@pytest.mark.case("abuse", "binary log")
def test_binary(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("logs", {"deed": "binary"}, rounds=1)
    seen.timed_out()
    outcome("kept byte for byte; slowed, timed out", seen.neighbour)


@pytest.mark.case("abuse", "a megabyte of last words")
def test_last_words(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("logs", {"deed": "last_words"}, rounds=1, timeout=60)
    seen.exited("exit status 7")
    outcome("`Runtime.ExitError`, the log as far as the pipe held it", seen.neighbour)


@pytest.mark.case("abuse", "a line of 3 MB")
def test_long_line(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("logs", {"deed": "long_line"}, rounds=1, timeout=60)
    assert seen.values() == [True]
    outcome("cut into lines of 256 KB", seen.neighbour)
