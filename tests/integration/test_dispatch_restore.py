"""Environments that were restored from a snapshot, as the dispatcher tells of them: to callers and in the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.dispatch.logs import Kind, Status, parse_report
from runtimed.dispatch.render import render
from runtimed.model import wire
from tests.integration.dispatch_stage import Stage, staged

TAIL = int(wire.CallFlags.LOG_TAIL)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("as_json", [False, True])
def test_a_restore_is_reported_as_one(stage: Stage, as_json: bool) -> None:
    stage.ready(log_format=wire.LogFormat.JSON if as_json else wire.LogFormat.TEXT)
    invoker = stage.invoker()
    invoker.call(flags=TAIL)
    environment = stage.launch(restored=True)
    assert environment.start().init_type == wire.InitType.SNAP_START
    environment.serve()
    first = invoker.answer()[0]
    invoker.call()
    environment.serve()
    invoker.answer()
    records = stage.await_records(8)
    kinds = [Kind.INIT_START, Kind.INIT_REPORT, Kind.START, Kind.END, Kind.REPORT, Kind.START, Kind.END, Kind.REPORT]
    assert [record.kind for record in records] == kinds
    shown = [render(record, as_json=as_json, runtime="python3.11") or "" for record in records]
    assert first.log_tail.decode().splitlines() == [line for line in shown[2:5] if line]
    if as_json:
        assert '"platform.restoreStart"' in shown[0]
        assert re.search(r'"platform.restoreReport","record":{"status":"success","metrics":{"durationMs":', shown[1])
        assert re.search(r'"restoreDurationMs":[0-9.]+,"billedRestoreDurationMs":[1-9]', shown[4])
        assert '"initDurationMs"' not in shown[4]
    else:
        assert shown[0] == "RESTORE_START Runtime Version: python:3.11"
        assert re.fullmatch(r"RESTORE_REPORT Restore Duration: \d+\.\d\d ms", shown[1])
        assert re.search(r"\tRestore Duration: \d+\.\d\d ms\tBilled Restore Duration: [1-9]\d* ms$", shown[4])
        assert "Init Duration" not in shown[4]
    assert "estore" not in shown[7], "of a later invocation"


def test_a_hook_that_fails_after_restoring(stage: Stage) -> None:
    """As Lambda's callers are told, which is not as an error of the function's."""
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch(restored=True)
    environment.expect(wire.Start)
    environment.send(wire.InitError(error_type="Runtime.AfterRestoreError", body=b"{}"))
    answer = invoker.answer()[0]
    assert (answer.outcome, answer.status, answer.code) == (wire.Outcome.REFUSED, 400, "SnapStartException")
    report = parse_report(stage.await_records(2)[1].payload)
    assert report is not None
    assert (report.status, report.error_type) == (Status.FAILURE, "Runtime.AfterRestoreError")
    assert report.init_type == wire.InitType.SNAP_START
    stage.ended(environment)


def test_restoring_takes_too_long(stage: Stage) -> None:
    """It is not tried again inside the invocation, as an init phase would be."""
    stage.ready(init_timeout_ms=100)
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch(restored=True)
    environment.expect(wire.Start)
    stage.ended(environment)
    answer = invoker.answer()[0]
    assert (answer.outcome, answer.status, answer.code) == (wire.Outcome.REFUSED, 408, "SnapStartTimeoutException")
    report = parse_report(stage.await_records(2)[1].payload)
    assert report is not None
    assert (report.status, report.init_type) == (Status.TIMEOUT, wire.InitType.SNAP_START)
