"""A function's word about copies: SnapStart, which is Lambda's, and Snapshot, which is ours."""

from __future__ import annotations

from itertools import product

import pytest

from runtimed.model import errors
from runtimed.model.function import (
    SnapshotChoice,
    SnapStart,
    SnapStartApplyOn,
    check_snapshot,
    snap_start_of,
    snapshot_choice,
)
from runtimed.model.shape import UNSET, UnsetType

NODE, AUTO, ON, OFF = SnapshotChoice.NODE, SnapshotChoice.AUTO, SnapshotChoice.ON, SnapshotChoice.OFF
ASKS = SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS)
NONE = SnapStart()

# What was, what SnapStart says, what Snapshot says: what it comes to; None: a contradiction.
TABLE: dict[
    tuple[SnapshotChoice, SnapStart | UnsetType, SnapshotChoice | UnsetType], SnapshotChoice | None
] = {
    **{(was, UNSET, UNSET): was for was in SnapshotChoice},
    **{(was, UNSET, said): said for was, said in product(SnapshotChoice, SnapshotChoice)},
    **{(was, NONE, said): said for was, said in product(SnapshotChoice, SnapshotChoice)},
    **{(was, ASKS, UNSET): ON for was in SnapshotChoice},
    **{(was, ASKS, said): None for was, said in product(SnapshotChoice, (NODE, AUTO, OFF))},
    **{(was, ASKS, ON): ON for was in SnapshotChoice},
    (NODE, NONE, UNSET): NODE,
    (AUTO, NONE, UNSET): AUTO,
    (OFF, NONE, UNSET): OFF,
    (ON, NONE, UNSET): NODE,
}  # fmt: skip


def test_every_combination() -> None:
    assert len(TABLE) == 4 * 3 * 5
    for (was, snap_start, said), outcome in TABLE.items():
        if outcome is None:
            with pytest.raises(errors.InvalidParameterValue, match="Snapshot: (node|auto|off) contradicts"):
                snapshot_choice(snap_start, said, was)
        else:
            assert snapshot_choice(snap_start, said, was) is outcome, (was, snap_start, said)


def test_on_is_snap_start() -> None:
    assert [snap_start_of(choice) for choice in (NODE, AUTO, OFF)] == [NONE] * 3
    assert snap_start_of(ON) == ASKS
    for choice in SnapshotChoice:
        assert snapshot_choice(snap_start_of(choice), choice) is choice


@pytest.mark.parametrize("runtime", ["provided.al2023", "nodejs22.x"])
def test_python_alone_is_copied(runtime: str) -> None:
    for choice in (NODE, OFF):
        check_snapshot(choice, runtime)
    with pytest.raises(errors.InvalidParameterValue, match="Set ApplyOn to None"):
        check_snapshot(ON, runtime)
    with pytest.raises(errors.InvalidParameterValue, match="Set Snapshot to node or off"):
        check_snapshot(AUTO, runtime)
    for choice in SnapshotChoice:
        check_snapshot(choice, "python3.11")
