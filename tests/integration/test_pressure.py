"""A node whose memory is bounded, with functions that take much of it: idle environments end, and calls go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from bench.node import Node, await_true, free_address
from runtimed.client import Client
from runtimed.model.concurrency import ProvisionedConcurrencyStatus
from runtimed.telemetry.memory import MemoryReader
from tests.conftest import need_root

PATIENCE = 60.0
MB = 1 << 20
LARGE = [f"large-{number}" for number in range(6)]
SOURCE = """
held = b"x" * (MEGABYTES << 20)

def handler(event, context):
    return len(held) >> 20
"""


def source(directory: Path, megabytes: int) -> Path:
    path = directory / f"takes-{megabytes}"
    path.mkdir()
    (path / "app.py").write_text(SOURCE.replace("MEGABYTES", str(megabytes)))
    return path


def number(stat: str, name: str) -> int:
    return next(int(line.split()[1]) for line in stat.splitlines() if line.split()[0] == name)


@contextmanager
def bounded(node: Node, left: float) -> Iterator[None]:
    """The control group of the node's environments gets a limit, of which no more than this share is left."""
    tree = MemoryReader(node.cgroup).places()[0]
    assert tree.name == node.cgroup
    first = (tree / "memory.limit_in_bytes").exists()
    limit, used = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
    prefix = "total_" if first else ""
    stat = (tree / "memory.stat").read_text()
    cache = number(stat, f"{prefix}inactive_file") + number(stat, f"{prefix}active_file")
    needed = int((tree / f"memory.{used}").read_text()) - cache
    (tree / f"memory.{limit}").write_text(str(int(needed / (1 - left))))
    try:
        yield
    finally:
        (tree / f"memory.{limit}").write_text("-1" if first else "max")


def metric(where: str, name: str) -> float:
    """Not a number while there is none: memory is looked at for the first time a second after the start."""
    with urlopen(f"http://{where}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return float(next((line.split()[-1] for line in lines if line.split()[0] == f"runtimed_{name}"), "nan"))


@pytest.fixture
def where() -> str:
    return free_address()


@pytest.fixture
def node(where: str) -> Iterator[Node]:
    need_root()
    with Node.start({"RUNTIMED_METRICS_LISTEN": where, "RUNTIMED_POOLS_PARKED": "0"}) as started:
        yield started


def idle(client: Client, name: str) -> int:
    return client.statistics(name).functions[0].environments.idle


def ready(client: Client) -> bool:
    found = client.provisioned("kept")["$LATEST"]
    return found.status is ProvisionedConcurrencyStatus.READY


def test_idle_environments_end_and_calls_go_on(node: Node, where: str, tmp_path: Path) -> None:
    with Client(node.address) as client:
        large, small = source(tmp_path, 48), source(tmp_path, 1)
        for name in (*LARGE, "kept", "used"):
            client.deploy(name, large if name in LARGE else small, handler="app.handler", memory_size=256, timeout=60)
        client.provision("kept", 1)
        await_true(lambda: ready(client), PATIENCE, "one is provisioned")
        for name in (*LARGE, "used"):
            client.invoke(name, {})
        assert sum(idle(client, name) for name in LARGE) == len(LARGE)
        await_true(lambda: metric(where, "memory_pressure") == 0, PATIENCE, "a first look at memory")

        def use() -> None:
            for name in ("used", "kept"):
                assert client.invoke(name, {}).value == 1

        def ended() -> bool:
            use()
            return metric(where, "node_environments_reclaimed_total") >= 2

        with bounded(node, 0.03):
            await_true(ended, PATIENCE, "large ones ended")
            assert "memory is very short: " in node.log.read_text()
            # What was used all along is still there, and so is what is provisioned; all are served as ever.
            use()
            assert client.statistics("used").functions[0].cold_starts == 1
            assert ready(client)
        for name in LARGE:
            assert client.invoke(name, {}).value == 48
        await_true(lambda: metric(where, "memory_pressure") == 0, PATIENCE, "enough memory")
        assert "memory is not short any more" in node.log.read_text()
        assert metric(where, "node_environments_provisioned") == 1
