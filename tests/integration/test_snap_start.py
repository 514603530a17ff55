"""SnapStart as an owner sees it: on a real node, from the deployment to what the state says."""

from __future__ import annotations

import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model import errors
from runtimed.model.function import LastUpdateStatus, SnapStart, SnapStartApplyOn, SnapStartOptimizationStatus
from runtimed.model.shape import UNSET

ON = SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS)
OFF = SnapStart(apply_on=SnapStartApplyOn.NONE)
CODE = """\
import os, time, uuid
BORN, kept = uuid.uuid4().hex, %s
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    return [BORN, context.log_stream_name, os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]]
"""


def source(directory: Path, kept: str = "None") -> Path:
    path = directory / "app.py"
    path.write_text(CODE % kept)
    return path


def in_parallel(client: Client, name: str, count: int = 2) -> dict[str, list[Any]]:
    """What environments said that were busy at the same time, by their log streams."""
    with ThreadPoolExecutor(count) as pool:
        answers: list[Any] = list(
            pool.map(lambda _: json.loads(client.invoke(name, {"sleep": 0.3}).payload), range(count))
        )
    return {stream: [born, kind] for born, stream, kind in answers}


def await_lines(client: Client, name: str, *patterns: str) -> None:
    """The log follows the answers."""

    def told() -> bool:
        lines = [event.message for event in client.logs(name)]
        return all(any(re.match(pattern, line) for line in lines) for pattern in patterns)

    await_true(told, 60, f"lines like {patterns}")


def test_a_function_with_snap_start(node: Node, tmp_path: Path) -> None:
    with Client(node.address) as client:
        try:
            made = client.deploy("snap-on", source(tmp_path), snap_start=ON, timeout=60)
            assert made.snap_start.apply_on is SnapStartApplyOn.PUBLISHED_VERSIONS
            client.invoke("snap-on", {})

            def status() -> SnapStartOptimizationStatus:
                return client.get_function("snap-on").snap_start.optimization_status

            await_true(lambda: status() is SnapStartOptimizationStatus.ON, 60, "a snapshot")
            seen: dict[str, list[str]] = {}

            def several() -> bool:
                seen.update(in_parallel(client, "snap-on"))
                return len(seen) > 1

            await_true(several, 60, "a second environment")
            assert len({born for born, _ in seen.values()}) == 1
            assert {kind for _, kind in seen.values()} == {"snap-start"}
            assert client.get_function("snap-on").state_reason is UNSET
            await_lines(
                client,
                "snap-on",
                r"RESTORE_START Runtime Version: python:3",
                r"RESTORE_REPORT Restore Duration: \d+\.\d\d ms$",
                r"REPORT .*\tRestore Duration: \d+\.\d\d ms\tBilled Restore Duration: \d+ ms$",
                r"REPORT .*\tInit Duration: ",  # of the one that was copied
            )
            shown = node.runtimectl("functions", "get", "snap-on").stdout
            assert "SnapStart" in shown and "yes" in shown
        finally:
            client.delete_function("snap-on")


MOST = 12  # environments at a time
REMEMBERING = """\
import os, time, uuid
BORN, SEEN = uuid.uuid4().hex, {name: os.environ.get(name) for name in ("FIRST", "SECOND")}
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    now = {name: os.environ.get(name) for name in ("FIRST", "SECOND")}
    return [BORN, context.log_stream_name, [SEEN, now]]
"""


def test_variables_are_those_of_the_configuration(node: Node, tmp_path: Path) -> None:
    """Of copies too, and after a change: neither what was taken away nor what the init phase made of it is left."""
    (tmp_path / "app.py").write_text(REMEMBERING)
    with Client(node.address) as client:
        try:
            client.deploy(
                "snap-variables", tmp_path / "app.py", snap_start=ON, timeout=60,
                environment={"FIRST": "one", "SECOND": "two"},
            )  # fmt: skip

            rounds = itertools.count(2)

            def copied(expected: dict[str, str | None]) -> bool:
                """One more at a time in each round, until some are born of one init phase; all know these variables."""
                seen = in_parallel(client, "snap-variables", min(next(rounds), MOST))
                assert all(said == [expected, expected] for _, said in seen.values()), seen
                return len({born for born, _ in seen.values()}) < len(seen)

            await_true(lambda: copied({"FIRST": "one", "SECOND": "two"}), 60, "a copy")
            client.update_function_configuration("snap-variables", environment={"FIRST": "three"})

            def changed() -> bool:
                return client.get_function("snap-variables").last_update_status is LastUpdateStatus.SUCCESSFUL

            await_true(changed, 60, "the end of the change")
            rounds = itertools.count(2)
            await_true(lambda: copied({"FIRST": "three", "SECOND": None}), 60, "a copy after the change")
        finally:
            client.delete_function("snap-variables")


def test_a_function_that_cannot_be_copied_says_why(node: Node, tmp_path: Path) -> None:
    with Client(node.address) as client:
        try:
            client.deploy("snap-not", source(tmp_path, "open('/etc/passwd')"), snap_start=ON, timeout=60)
            client.invoke("snap-not", {})
            await_true(lambda: client.get_function("snap-not").state_reason is not UNSET, 60, "the reason")
            found = client.get_function("snap-not")
            assert found.snap_start.optimization_status is SnapStartOptimizationStatus.OFF
            assert found.state_reason_code == "SnapStartNotPossible"
            assert "files, sockets or pipes were open" in str(found.state_reason)
            assert "files, sockets or pipes" in node.runtimectl("functions", "get", "snap-not").stdout
            changed = client.deploy("snap-not", source(tmp_path, "open('/etc/passwd')"), snap_start=OFF)
            assert changed.state_reason is UNSET
            assert json.loads(client.invoke("snap-not", {}).payload)[2] == "on-demand"
        finally:
            client.delete_function("snap-not")


HOOKED = """\
import os, time
from snapshot_restore_py import register_after_restore, register_before_snapshot
register_before_snapshot(os.putenv, "BEFORE", "x")
made = os.getpid()
@register_after_restore
def after():
    if os.getpid() != made:
        raise ValueError("no network yet")
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    return "served"
"""


def test_a_hook_that_raises_after_restoring(node: Node, tmp_path: Path) -> None:
    """The environment that was copied serves; a copy of it does not begin, and its caller is told as Lambda's is."""
    with Client(node.address) as client:
        (tmp_path / "app.py").write_text(HOOKED)
        try:
            client.deploy("snap-hook", tmp_path / "app.py", snap_start=ON, timeout=60)
            assert client.invoke("snap-hook", {}).value == "served"

            def is_on() -> bool:
                status = client.get_function("snap-hook").snap_start.optimization_status
                return status is SnapStartOptimizationStatus.ON

            await_true(is_on, 60, "a snapshot")

            def refused() -> bool:
                with ThreadPoolExecutor(2) as pool:
                    calls = [pool.submit(client.invoke, "snap-hook", {"sleep": 0.3}) for _ in range(2)]
                told = [call.exception() for call in calls]
                assert None in told, told
                return any(isinstance(error, errors.SnapStartFailed) for error in told)

            await_true(refused, 60, "a copy")
            report = r"RESTORE_REPORT Restore Duration: .* ms\tStatus: error\tError Type: Runtime\.AfterRestoreError$"
            await_lines(client, "snap-hook", r"(?s).*ValueError.*no network yet", report)
        finally:
            client.delete_function("snap-hook")
