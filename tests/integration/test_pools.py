"""Pools on a real node: what is parked and provisioned, and that it stays over ends and returns."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.concurrency import ProvisionedConcurrencyStatus
from tests.conftest import need_root

pytestmark = pytest.mark.soak  # each waits for several starts of processes
PATIENCE = 60.0
SLOW_TO_START = """
import os, time

time.sleep(0.1)

def handler(event, context):
    time.sleep(event.get("seconds", 0))
    return os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
"""


@pytest.fixture
def parking() -> Iterator[Node]:
    """A node that parks."""
    need_root()
    with Node.start({"RUNTIMED_POOLS_PARKED": "3"}) as node:
        yield node


def source(directory: Path) -> Path:
    (directory / "app.py").write_text(SLOW_TO_START)
    return directory


def environments(client: Client, name: str) -> int:
    """Through their init phase."""
    found = client.statistics(name).functions[0].environments
    return found.idle + found.busy


def status(client: Client, name: str) -> tuple[ProvisionedConcurrencyStatus, int]:
    found = client.provisioned(name)["$LATEST"]
    return found.status, found.available_provisioned_concurrent_executions


def test_one_is_parked_for_who_takes_long_to_start(parking: Node, tmp_path: Path) -> None:
    """While the only environment is at work another one is started, without anybody having asked for it."""
    with Client(parking.address) as client:
        client.deploy("slow", source(tmp_path), handler="app.handler")
        over = threading.Event()

        def call() -> None:
            while not over.is_set():
                client.invoke("slow", {"seconds": 1})

        caller = threading.Thread(target=call)
        caller.start()
        try:
            await_true(lambda: environments(client, "slow") == 2, PATIENCE, "one at work and one parked")
        finally:
            over.set()
            caller.join()
        assert client.statistics("slow").functions[0].cold_starts == 1


def test_provisioned_ones_stay_over_ends_of_processes(own_node: Node, tmp_path: Path) -> None:
    ready = (ProvisionedConcurrencyStatus.READY, 2)
    with Client(own_node.address) as client:
        client.deploy("kept", source(tmp_path), handler="app.handler")
        client.provision("kept", 2)
        await_true(lambda: status(client, "kept") == ready, PATIENCE, "two are ready")
        assert client.invoke("kept").value == "provisioned-concurrency"

        before = own_node.roles()
        os.kill(before["control"], signal.SIGKILL)
        await_true(lambda: own_node.roles().get("control") not in (None, before["control"]), PATIENCE, "a new one")
        await_true(own_node.answers, PATIENCE, "its answer")
        await_true(lambda: status(client, "kept") == ready, PATIENCE, "it knows of both")
        assert client.invoke("kept").value == "provisioned-concurrency"

        before = own_node.roles()
        os.kill(before["dispatch"], signal.SIGKILL)  # all environments end with it
        await_true(lambda: own_node.roles().get("dispatch") not in (None, before["dispatch"]), PATIENCE, "a new one")
        await_true(lambda: status(client, "kept") == ready, PATIENCE, "two others are ready")
    own_node.launcher.send_signal(signal.SIGTERM)
    own_node.start_again()
    with Client(own_node.address) as client:
        await_true(lambda: status(client, "kept") == ready, PATIENCE, "two after a start")
        client.unprovision("kept")
        assert client.provisioned("kept") == {}
        await_true(lambda: environments(client, "kept") == 0, PATIENCE, "they have ended")
