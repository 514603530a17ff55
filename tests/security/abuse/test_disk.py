"""/tmp: a file system of the function's own, of its own size, and the disk's time, which is everybody's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage

ENOSPC = 28
MB = 512  # ephemeral storage by default; the file system takes some for itself


def its_files(count: int) -> Any:
    """The same environment keeps them, as on Lambda."""

    def look(found: dict[str, list[str]]) -> None:
        assert len(found["tmp"]) == count

    return look


@pytest.mark.case("abuse", "`/tmp` filled with bytes")
def test_bytes(stage: Stage, outcome: Outcome) -> None:
    def another(name: str) -> None:
        found = {tuple(one["tmp"]): one["wrote"] for one in stage.together(name, 2, "hold_and_write")}
        assert found == {(): 1 << 20, ("full",): -ENOSPC}, "the full environment, and a new one that has room"

    seen = stage.suffer("disk", {"deed": "fill_with_bytes"}, rounds=1, timeout=60, then=another)
    ((errno, size),) = seen.values()
    assert errno == ENOSPC and 0.9 * MB < size < MB
    outcome("`ENOSPC` at 512 MB; another environment of the function has its own", seen.neighbour)


@pytest.mark.case("abuse", "`/tmp` promised away by fallocate")
def test_fallocate(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("disk", {"deed": "fill_at_once"}, rounds=1, timeout=60, clean=its_files(1))
    assert seen.values() == [ENOSPC]
    outcome("`ENOSPC`", seen.neighbour)


@pytest.mark.case("abuse", "`/tmp` filled with empty files")
def test_inodes(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("disk", {"deed": "fill_with_files"}, rounds=1, timeout=60, then=lambda name: None)
    ((made, errno),) = seen.values()
    assert errno == ENOSPC and made > 30_000
    outcome("`ENOSPC` at some 32,000 files", seen.neighbour)


@pytest.mark.case("abuse", "a sparse file as large as can be")
def test_hole(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("disk", {"deed": "hole"}, rounds=1, timeout=60)
    assert seen.values() == [True]
    outcome("takes no room", seen.neighbour)


@pytest.mark.case("abuse", "a tree deeper than any path")
def test_deep(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("disk", {"deed": "deep"}, rounds=1, timeout=60)
    seen.exited("exit status 6")
    outcome("goes with the file system", seen.neighbour)


@pytest.mark.case("abuse", "writes and fsync without end, four environments")
def test_flood(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("disk", {"deed": "flood"}, rounds=1, at_once=4)
    seen.timed_out()
    outcome("timed out", seen.neighbour)
