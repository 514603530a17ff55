"""The worst of them in many environments at the same time; all of these are there before the first misbehaves."""

from __future__ import annotations

import pytest

from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage


@pytest.mark.case("abuse", "eight fork bombs")
def test_fork_bombs(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("processes", {"deed": "fork_bomb"}, rounds=1, at_once=8)
    seen.timed_out_or_out_of_memory()
    outcome("all timed out or out of memory, all of it gone", seen.neighbour)


@pytest.mark.case("abuse", "eight memory hogs")
def test_memory_hogs(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "anonymous"}, rounds=1, at_once=8, timeout=60)
    seen.out_of_memory()
    outcome("all `Runtime.OutOfMemory`", seen.neighbour)


@pytest.mark.case("abuse", "eight log floods")
def test_log_floods(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("logs", {"deed": "lines"}, rounds=1, at_once=8)
    seen.timed_out()
    outcome("all slowed and timed out", seen.neighbour)


@pytest.mark.case("abuse", "sixteen environments that spin")
def test_spinners(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "spin"}, rounds=2, at_once=16)
    seen.timed_out()
    outcome("all timed out; the daemons keep their own share of the processor", seen.neighbour)
