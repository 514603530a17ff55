"""SnapStart as an owner sees it: on a real node, from the deployment to what the state says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.function import SnapStart, SnapStartApplyOn, SnapStartOptimizationStatus
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


def in_parallel(client: Client, name: str) -> dict[str, list[str]]:
    """What environments said that were busy at the same time, by their log streams."""
    with ThreadPoolExecutor(2) as pool:
        answers: list[Any] = list(pool.map(lambda _: json.loads(client.invoke(name, {"sleep": 0.3}).payload), range(2)))
    return {stream: [born, kind] for born, stream, kind in answers}


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
            shown = node.runtimectl("functions", "get", "snap-on").stdout
            assert "SnapStart" in shown and "yes" in shown
        finally:
            client.delete_function("snap-on")


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
