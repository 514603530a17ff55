"""A function says itself whether its environments may be copies, whatever its node says; on real nodes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model import errors
from runtimed.model.function import SnapshotChoice, SnapStartApplyOn, SnapStartOptimizationStatus
from runtimed.model.shape import UNSET
from tests.conftest import need_root
from tests.integration.test_snap_start import ON as SNAP_START
from tests.integration.zips import Member, build

NODE, AUTO, ON, OFF = SnapshotChoice.NODE, SnapshotChoice.AUTO, SnapshotChoice.ON, SnapshotChoice.OFF
MOST = 12  # environments at a time
CUSTOM = "provided.al2023"
CODE = """\
import os, time, uuid
born = uuid.uuid4().hex
def handler(event, context):
    time.sleep(0.2)
    return [born, context.log_stream_name, os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]]
"""


class Seen:
    """Environments of a function, by their log streams: of which init phase each is, and how it says that it began."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self.born: dict[str, str] = {}
        self.kinds: set[str] = set()

    def more(self, most: int = MOST) -> None:
        """One at a time more than were seen, and two at first."""
        count = min(max(len(self.born) + 1, 2), most)
        with ThreadPoolExecutor(count) as pool:
            for answer in pool.map(lambda _: self._client.invoke(self._name, {}).payload, range(count)):
                born, stream, kind = json.loads(answer)
                self.born[stream] = born
                self.kinds.add(kind)

    def copied(self) -> bool:
        return len(set(self.born.values())) < len(self.born)


def await_copies(client: Client, name: str) -> None:
    """Copies that there are of an environment; where the function asks for them, its configuration has said before that
    there is a snapshot."""
    seen = Seen(client, name)

    def ready() -> bool:
        seen.more(most=3)
        return client.get_function(name).snap_start.optimization_status is SnapStartOptimizationStatus.ON

    def copied() -> bool:
        seen.more()
        return seen.copied()

    if client.get_function(name).snapshot is not NODE:
        await_true(ready, 60, "a snapshot")
    await_true(copied, 60, "a copy")
    assert seen.kinds == {"snap-start"}


def check_plain(client: Client, name: str) -> None:
    """Every environment has an init phase of its own, and says so."""
    seen = Seen(client, name)

    def four() -> bool:
        seen.more()
        return len(seen.born) >= 4

    await_true(four, 60, "four environments")
    assert not seen.copied()
    assert seen.kinds == {"on-demand"}
    assert client.get_function(name).snap_start.optimization_status is SnapStartOptimizationStatus.OFF


def snapshots(node: Node) -> int:
    """Those that the launcher has, or is making."""
    found = 0
    for entry in Path(f"/proc/{node.launcher.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(entry).startswith("/memfd:snapshot")
    return found


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    with Client(node.address) as client:
        yield client


def test_the_node_says_on_and_the_function_off(code: Path) -> None:
    """No snapshot at all; another function of the node is copied."""
    need_root()
    with Node.start({"RUNTIMED_POOLS_SNAPSHOT": "on"}) as node, Client(node.address) as client:
        made = client.deploy("refuses", code, snapshot=OFF, timeout=60)
        assert (made.snapshot, made.snap_start.apply_on) == (OFF, SnapStartApplyOn.NONE)
        check_plain(client, "refuses")
        assert snapshots(node) == 0
        assert "off: never" in node.runtimectl("functions", "get", "refuses").stdout
        assert client.deploy("leaves-it", code, timeout=60).snapshot is NODE
        await_copies(client, "leaves-it")
        assert client.deploy("leaves-it", code, snapshot=OFF).snapshot is OFF
        check_plain(client, "leaves-it")


def test_the_node_says_off_and_the_function_auto(node: Node, client: Client, code: Path) -> None:
    """As if the node said auto (test_launcher_snapshots has which environment is copied), for this function alone."""
    try:
        shown = node.runtimectl("deploy", "choice-auto", code, "--snapshot", "auto", "--timeout", "60")
        assert shown.returncode == 0, shown.stderr
        found = client.get_function("choice-auto")
        assert (found.snapshot, found.snap_start.apply_on) == (AUTO, SnapStartApplyOn.NONE)
        assert "auto (no snapshot yet)" in node.runtimectl("functions", "get", "choice-auto").stdout
        await_copies(client, "choice-auto")
        assert "auto (there is a snapshot)" in node.runtimectl("functions", "get", "choice-auto").stdout
        assert client.deploy("choice-auto", code, snapshot=NODE).snapshot is NODE
        check_plain(client, "choice-auto")
    finally:
        client.delete_function("choice-auto")


def test_on_is_snap_start(node: Node, client: Client, code: Path) -> None:
    try:
        made = client.deploy("choice-on", code, snapshot=ON, timeout=60)
        assert (made.snapshot, made.snap_start.apply_on) == (ON, SnapStartApplyOn.PUBLISHED_VERSIONS)
        await_copies(client, "choice-on")
        assert "yes (there is a snapshot)" in node.runtimectl("functions", "get", "choice-on").stdout
        revision = client.get_function("choice-on").revision_id
        assert client.deploy("choice-on", code, snap_start=SNAP_START).revision_id == revision, "it is the same"
        done = node.runtimectl("deploy", "choice-on", code, "--no-snap-start")
        assert done.returncode == 0, done.stderr
        assert client.get_function("choice-on").snapshot is NODE
        check_plain(client, "choice-on")
    finally:
        client.delete_function("choice-on")


def test_why_it_is_not_possible(node: Node, client: Client, code: Path) -> None:
    code.write_text(CODE + "kept = open('/etc/passwd')\n")
    try:
        client.deploy("choice-not", code, snapshot=AUTO, timeout=60)
        seen = Seen(client, "choice-not")

        def told() -> bool:
            seen.more()
            return client.get_function("choice-not").state_reason is not UNSET

        await_true(told, 60, "the reason")
        text = node.runtimectl("functions", "get", "choice-not").stdout
        assert "auto, but not possible" in text and "files, sockets or pipes were open" in text
        assert client.deploy("choice-not", code, snapshot=OFF).state_reason is UNSET
    finally:
        client.delete_function("choice-not")


def test_what_is_refused(node: Node, client: Client, code: Path) -> None:
    package = build(Member(name=b"bootstrap", content=b"#!/bin/sh\n", mode=0o100755))
    try:
        with pytest.raises(errors.InvalidParameterValue, match="cannot be copied"):
            client.create_function("choice-refused", package, snapshot=AUTO, runtime=CUSTOM, handler="any")
        with pytest.raises(errors.InvalidParameterValue, match="ApplyOn to None"):
            client.create_function("choice-refused", package, snapshot=ON, runtime=CUSTOM, handler="any")
        with pytest.raises(errors.InvalidParameterValue, match="off contradicts"):
            client.deploy("choice-refused", code, snap_start=SNAP_START, snapshot=OFF)
        done = node.runtimectl("deploy", "choice-refused", code, "--snap-start", "--snapshot", "auto")
        assert (done.returncode, "contradict each other" in done.stderr) == (2, True)
        client.deploy("choice-refused", code, snapshot=AUTO)
        with pytest.raises(errors.InvalidParameterValue, match="Set Snapshot to node or off"):
            client.update_function_configuration("choice-refused", runtime=CUSTOM)
        client.deploy("choice-refused", code, snapshot=OFF)
        client.provision("choice-refused", 1)
        with pytest.raises(errors.InvalidParameterValue, match="concurrency is provisioned"):
            client.update_function_configuration("choice-refused", snapshot=ON)
        assert client.update_function_configuration("choice-refused", snapshot=AUTO).snapshot is AUTO
    finally:
        client.delete_function("choice-refused")
