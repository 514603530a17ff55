"""The event log's algorithm, checked exhaustively in small: whatever comes when, and wherever the power goes."""

from __future__ import annotations

import pytest

from tests.native.event_log_model import FAULTS, Bounds, walk

SMALL = (
    Bounds(events=1, cuts=1, failures=1, groups=2, segments=4),
    Bounds(events=1, cuts=2, failures=1, groups=1, segments=4),
    Bounds(events=2, cuts=1, failures=1, groups=1, segments=3),
)


@pytest.mark.parametrize("bounds", SMALL)
def test_every_state(bounds: Bounds) -> None:
    n, wrong = walk(bounds)
    assert wrong == ""
    assert n > 1000


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    assert any(walk(bounds, fault)[1] for bounds in SMALL)


@pytest.mark.soak
def test_every_state_with_more_of_everything() -> None:
    n, wrong = walk(Bounds(events=2, cuts=2, failures=1, groups=1, segments=4))
    assert wrong == ""
    assert n > 40_000
