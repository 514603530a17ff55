"""Scaling of provisioned concurrency on a real node: a schedule, a busy function, the command line, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from bench.node import RUNTIMECTL, Node, await_true
from runtimed.client import AsyncClient, Client
from runtimed.model import errors
from runtimed.model.concurrency import ProvisionedConcurrencyStatus
from tests.conftest import need_root

PATIENCE = 60.0
SOURCE = """
import time

def handler(event, context):
    time.sleep(event.get("seconds", 0))
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With one function; periods are short."""
    need_root()
    directory = tmp_path_factory.mktemp("scaled")
    (directory / "app.py").write_text(SOURCE)
    periods = {
        "RUNTIMED_POOLS_SCALING_PERIOD_MS": "200",
        "RUNTIMED_POOLS_SCALE_OUT_PERIODS": "2",
        "RUNTIMED_POOLS_SCALE_IN_PERIODS": "3",
    }
    with Node.start(periods) as started:
        with Client(started.address) as client:
            client.deploy("scaled", directory, handler="app.handler", timeout=60)
        yield started


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    """The function is not scaled before and after."""
    with Client(node.address) as made:
        yield made
        for target in made.scaling.targets():
            made.scaling.deregister(target.function_name)
        made.unprovision("scaled")


def capacity(client: Client) -> int:
    return client.scaling.targets("scaled")[0].capacity


def ready(client: Client) -> tuple[ProvisionedConcurrencyStatus, int]:
    found = client.provisioned("scaled")["$LATEST"]
    return found.status, found.available_provisioned_concurrent_executions


def plan_soon(client: Client, minimum: int) -> None:
    """In a moment; on a machine where that has passed before it is known, a little later."""
    for seconds in (2, 5, 20):
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        try:
            planned = client.scaling.schedule("scaled", "soon", f"at({at:%Y-%m-%dT%H:%M:%S})", minimum=minimum)
        except errors.InvalidParameterValue:
            continue
        assert planned.next_time == at
        return
    raise AssertionError("twenty seconds have passed before a schedule was put")


@contextmanager
def busy(node: Node, callers: int) -> Iterator[None]:
    """So many environments are at work nearly all the time."""
    over = threading.Event()

    def call() -> None:
        with Client(node.address) as client:
            while not over.is_set():
                client.invoke("scaled", {"seconds": 0.5})

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_schedule_is_kept(node: Node, client: Client) -> None:
    client.scaling.register("scaled", 1, 4)
    plan_soon(client, 3)
    client.scaling.schedule("scaled", "later", "cron(0 8 ? * MON-FRI *)", timezone="Europe/Berlin", maximum=2)
    await_true(lambda: capacity(client) == 3, PATIENCE, "the schedule")
    await_true(lambda: ready(client) == (ProvisionedConcurrencyStatus.READY, 3), PATIENCE, "three are ready")
    assert [action.scheduled_action_name for action in client.scaling.actions("scaled")] == ["later"]


def test_a_schedule_is_kept_by_the_next_control_plane(node: Node, client: Client) -> None:
    client.scaling.register("scaled", 1, 4)
    plan_soon(client, 2)
    before = node.roles()["control"]
    os.kill(before, signal.SIGKILL)
    await_true(lambda: node.roles().get("control") not in (None, before), PATIENCE, "a new control plane")
    await_true(node.answers, PATIENCE, "its answer")
    await_true(lambda: capacity(client) == 2, PATIENCE, "the schedule")
    assert client.scaling.actions("scaled") == []


def test_a_busy_function_gets_more_and_an_idle_one_fewer(node: Node, client: Client) -> None:
    client.scaling.register("scaled", 1, 5)
    client.scaling.track("scaled", 0.5)
    with busy(node, 4):
        await_true(lambda: capacity(client) >= 3, PATIENCE, "more than are at work")
        await_true(lambda: ready(client)[0] is ProvisionedConcurrencyStatus.READY, PATIENCE, "they are ready")
        before = node.roles()["control"]
        os.kill(before, signal.SIGKILL)
        await_true(lambda: node.roles().get("control") not in (None, before), PATIENCE, "a new control plane")
        await_true(node.answers, PATIENCE, "its answer")
        assert client.scaling.targets("scaled")[0].policy is not None
    await_true(lambda: capacity(client) == 1, PATIENCE, "no more than the least")
    await_true(lambda: ready(client) == (ProvisionedConcurrencyStatus.READY, 1), PATIENCE, "the others have ended")


async def test_the_asynchronous_client(node: Node, client: Client) -> None:
    async with AsyncClient(node.address) as other:
        assert (await other.scaling.register("scaled", 0, 2)).capacity == 0
        assert (await other.scaling.track("scaled", 0.7, scale_in=False)).policy == (
            client.scaling.targets("scaled")[0].policy
        )
        made = await other.scaling.schedule("scaled", "x", "rate(1 day)", minimum=1)
        assert await other.scaling.actions("scaled") == [made]
        await other.scaling.unschedule("scaled", "x")
        await other.scaling.untrack("scaled")
        assert await other.scaling.targets() == client.scaling.targets()
        await other.scaling.deregister("scaled")
        with pytest.raises(errors.ResourceNotFound):
            await other.scaling.actions("scaled")
        with pytest.raises(errors.InvalidParameterValue, match=r"0\.1 to 0\.9"):
            await other.scaling.track("scaled", 0.95)
        assert (await other.account()).account_limit.concurrent_executions == 1000


def completed(node: Node, line: str) -> list[str]:
    """What a shell is told to offer for the last word of a command line."""
    words = ["runtimectl", *line.split()]
    asked = {"_RUNTIMECTL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(RUNTIMECTL, env=node.environment | asked, stdout=subprocess.PIPE, text=True, check=False)
    return [offer.partition(",")[2] for offer in done.stdout.split()]


def test_the_command_line(node: Node, client: Client) -> None:
    assert "Nothing is scaled" in node.runtimectl("provision", "target").stderr
    missing = node.runtimectl("provision", "schedule", "scaled", "night", "cron(0 22 * * ? *)", "--max", "1")
    assert missing.returncode == 4
    assert "runtimectl provision target scaled --min 1 --max 10" in missing.stderr
    done = node.runtimectl(
        "provision", "target", "scaled", "--min", "1", "--max", "3", "--utilization", "0.7", "--json"
    )
    (target,) = json.loads(done.stdout)["ScalableTargets"]
    assert (target["MaxCapacity"], target["Policy"]["TargetValue"]) == (3, 0.7)
    night = ("provision", "schedule", "scaled", "night")
    done = node.runtimectl(*night, "cron(0 22 * * ? *)", "--max", "1", "--timezone", "Europe/Berlin")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Europe/Berlin" in done.stdout
    assert completed(node, "provision schedule scaled ni") == ["night"]
    assert completed(node, "provision schedule scaled x") == []
    wrong = node.runtimectl(*night, "cron(0 22 * * * *)", "--max", "1", "--json")
    assert wrong.returncode == 4
    assert "must be ?" in json.loads(wrong.stderr)["error"]["message"]
    assert node.runtimectl(*night, "--delete").stderr.startswith("Nothing is planned")
    assert node.runtimectl(*night).returncode == 2
    done = node.runtimectl("provision", "put", "scaled", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-4:-1] == ["1", "1", "1"]
    assert "scaled" in node.runtimectl("provision", "--json").stdout
    assert node.runtimectl("provision", "delete", "scaled").stdout == "scaled: nothing is provisioned\n"
    assert node.runtimectl("provision", "target", "scaled", "--delete").returncode == 0
