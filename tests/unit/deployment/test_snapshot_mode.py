"""What a function and its node say about copies, and what becomes of it."""

from __future__ import annotations

import msgspec
import pytest

from runtimed.deployment.targets import SNAP_START_INIT_SECONDS, init_limit, snapshot_mode
from runtimed.model.function import LoggingConfig, SnapshotChoice, SnapStart, SnapStartApplyOn
from runtimed.model.wire import SnapshotMode
from runtimed.store.targets import Definition

DEFINED = Definition(
    runtime="python3.11", handler="app.handler", description="", timeout=3, memory_size=128, storage_size=512,
    logging=LoggingConfig(), zip_sha256="", zip_size=0,
)  # fmt: skip
OFF, AUTO, ON = SnapshotMode.OFF, SnapshotMode.AUTOMATIC, SnapshotMode.ON


def defined(choice: SnapshotChoice, runtime: str = "python3.11") -> Definition:
    return msgspec.structs.replace(DEFINED, snapshot=choice, runtime=runtime)


@pytest.mark.parametrize(
    ("choice", "modes"),
    [
        (SnapshotChoice.NODE, [OFF, AUTO, ON]),
        (SnapshotChoice.AUTO, [AUTO] * 3),
        (SnapshotChoice.ON, [ON] * 3),
        (SnapshotChoice.OFF, [OFF] * 3),
    ],
)
def test_the_function_s_word_counts(choice: SnapshotChoice, modes: list[SnapshotMode]) -> None:
    assert [snapshot_mode(defined(choice), node) for node in ("off", "auto", "on")] == modes
    for runtime in ("provided.al2023", "nodejs22.x"):
        assert {snapshot_mode(defined(choice, runtime), node) for node in ("off", "auto", "on")} == {OFF}


def test_what_an_older_database_has() -> None:
    """SnapStart alone, and before that nothing."""
    members = msgspec.to_builtins(DEFINED)
    del members["snapshot"]
    asked = members | {"snap_start": msgspec.to_builtins(SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS))}
    del members["snap_start"]
    assert msgspec.convert(members, Definition).choice is SnapshotChoice.NODE
    assert msgspec.convert(asked, Definition).choice is SnapshotChoice.ON
    assert snapshot_mode(msgspec.convert(asked, Definition), "off") is ON


def test_only_who_asks_for_a_snapshot_has_longer_for_it() -> None:
    limits = {choice: init_limit(defined(choice), 10) for choice in SnapshotChoice}
    assert limits.pop(SnapshotChoice.ON) == SNAP_START_INIT_SECONDS
    assert set(limits.values()) == {10}
