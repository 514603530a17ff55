"""The whole node from outside: what the control plane is allowed, and what its end and return change for functions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.node import RUNTIMECTL, Node, await_true, cgroups
from runtimed.client import Client
from runtimed.dispatch.invocations import Invocations, Reply
from runtimed.model import wire
from runtimed.model.function import LogFormat, LoggingConfig
from tests.conftest import need_root

SLOW = """
import time

def handler(event, context):
    time.sleep(event.get("seconds", 0))
    print("slept")
    return {"slept": event.get("seconds", 0)}
"""


def package(directory: Path, source: str = SLOW) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "app.py").write_text(source)
    return directory


def test_the_control_plane_has_no_privileges(node: Node) -> None:
    pid = node.roles()["control"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert {int(word) for word in status["Uid"].split()} != {0}
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"].strip() == "1"
    root = Path(f"/proc/{pid}/root")
    assert not (root / "root/.ssh").exists()
    assert (root / str(node.state_dir).lstrip("/")).is_dir()


def test_the_dispatcher_weighs_more_than_an_environment(node: Node) -> None:
    """All functions wait for it: it has a leaf of its own beside theirs."""
    leaves = [path / "dispatch" for path in cgroups(node.cgroup) if (path / "dispatch").is_dir()]
    weights = [
        (int((leaf / name).read_text()), each)
        for leaf in leaves
        for name, each in (("cpu.shares", 1024), ("cpu.weight", 100))
        if (leaf / name).exists()
    ]
    assert len(weights) == len(leaves) == 1
    assert weights[0][0] >= 8 * weights[0][1]
    assert (leaves[0] / "cgroup.procs").read_text().split() == [str(node.roles()["dispatch"])]


def test_the_log_tail_is_the_log(node: Node, tmp_path: Path) -> None:
    """The dispatcher renders the tail, the control plane the log: they agree to the letter."""
    for log_format in LogFormat:
        name = f"tail-{log_format.value.lower()}"
        with Client(node.address) as client:
            client.deploy(name, package(tmp_path / name), logging_config=LoggingConfig(log_format=log_format))
            result = client.invoke(name, {"seconds": 0}, log_tail=True)
            tail = result.log_tail.splitlines()

            def lines(request_id: str = result.request_id, name: str = name, client: Client = client) -> list[str]:
                return [event.message for event in client.logs(name, request_id=request_id)]

            # A writer of its own puts the log on disk, a moment after the answer.
            await_true(lambda: len(lines()) == len(tail), 30, "the whole log")  # noqa: B023
            assert lines() == tail
        assert "slept" in tail


LOUD = """
import logging
import os

def handler(event, context):
    logging.info("too low")
    logging.warning("heard", extra={"order": 7})
    return [os.environ["AWS_LAMBDA_LOG_FORMAT"], os.environ.get("AWS_LAMBDA_LOG_LEVEL")]
"""


def test_logs_as_json_with_levels(node: Node, tmp_path: Path) -> None:
    code = package(tmp_path / "loud", LOUD)
    options = ("--log-format", "json", "--log-level", "warn", "--system-log-level", "warn")
    assert node.runtimectl("deploy", "loud", code, *options).returncode == 0
    with Client(node.address) as client:
        result = client.invoke("loud")
        assert result.value == ["JSON", "WARN"]
        await_true(lambda: list(client.logs("loud")) != [], 30, "its log")
        [line] = [event.message for event in client.logs("loud")]
    told = json.loads(line)
    assert (told["level"], told["message"], told["order"]) == ("WARNING", "heard", 7)
    assert told["requestId"] == result.request_id
    refused = node.runtimectl("deploy", "loud", code, "--log-format", "text", "--log-level", "warn")
    assert (refused.returncode, "--log-format json" in refused.stderr) == (2, True)
    assert node.runtimectl("deploy", "loud", code, "--log-format", "text").returncode == 0
    with Client(node.address) as client:
        assert client.get_function("loud").logging_config == LoggingConfig()
        assert client.invoke("loud").value == ["Text", None]


def test_settings_of_logs_reach_who_writes_them() -> None:
    need_root()
    settings = {"RUNTIMED_NODE_LOG_LEVEL": "error", "RUNTIMED_LOGS_DAYS": "3", "RUNTIMED_LOGS_FUNCTION_MB": "5"}
    with Node.start(settings) as node:
        environment = Path(f"/proc/{node.roles()['dispatch']}/environ").read_bytes().split(b"\0")
        assert {b"RUNTIMED_LOGS_DAYS=3", b"RUNTIMED_LOGS_FUNCTION_MB=5", b"RUNTIMED_LOGS_NODE_MB=4096"} <= set(
            environment
        )
        node.launcher.send_signal(signal.SIGTERM)
        node.launcher.wait()
        assert node.log.read_text() == "", "nothing was wrong"


@contextlib.contextmanager
def following(node: Node, name: str, text: str) -> Iterator[Any]:
    """`runtimectl logs --follow` as a process; it ends with the block."""
    command = [*RUNTIMECTL, "logs", name, "--follow", "-n", "9", "--filter", text]
    with subprocess.Popen(
        command, env=node.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        try:
            yield follower
        finally:
            follower.kill()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def test_the_control_plane_is_killed_while_a_function_runs(
    own_node: Node, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    replies: list[Reply] = []

    async def invoke() -> None:
        invocations = Invocations(own_node.run_dir / "dispatch.sock")
        replies.append(await invocations.call("slow", "", b'{"seconds": 3}'))
        invocations.close()

    running = threading.Thread(target=asyncio.run, args=(invoke(),))
    with Client(own_node.address) as client:
        client.deploy("slow", package(tmp_path / "slow"), timeout=20)
        client.invoke("slow")
        follower = stack.enter_context(following(own_node, "slow", "slept"))
        assert follower.stdout.readline().endswith("slept\n")
        running.start()
        await_true(lambda: client.status().environments.busy == 1, 30, "a busy environment")
    before = own_node.roles()
    os.kill(before["control"], signal.SIGKILL)
    await_true(own_node.answers, 30, "the control plane's return")
    running.join()
    assert (replies[0].answer.status, replies[0].answer.outcome) == (200, wire.Outcome.SUCCESS)
    assert replies[0].body == b'{"slept": 3}'
    after = own_node.roles()
    assert after["control"] != before["control"]
    assert {role: after[role] for role in ("launcher", "dispatch")} == {
        role: before[role] for role in ("launcher", "dispatch")
    }
    with Client(own_node.address) as client:
        assert client.get_function("slow").timeout == 20
        await_true(lambda: client.status().environments.idle == 1, 30, "the environment that was kept")
        assert client.invoke("slow").response.init_duration_us == 0, "and is warm"
        await_true(lambda: [event.message for event in client.logs("slow")].count("slept") == 3, 30, "all in the log")
        seen = [follower.stdout.readline() for _ in range(2)]
        assert all(line.endswith("slept\n") for line in seen), "who followed the log goes on with it"
        follower.send_signal(signal.SIGINT)
        out, err = follower.communicate(timeout=30)
        assert (follower.returncode, out, err.strip()) == (130, "", "")


def test_the_dispatcher_is_killed(own_node: Node, tmp_path: Path) -> None:
    with Client(own_node.address) as client:
        client.deploy("slow", package(tmp_path / "slow"))
        client.invoke("slow", {})
        before = own_node.roles()
        os.kill(before["dispatch"], signal.SIGKILL)
        await_true(lambda: own_node.roles().get("dispatch") not in (None, before["dispatch"]), 60, "a new dispatcher")
        await_true(lambda: client.status().ready, 60, "the node in step again")
        assert client.invoke("slow", {}).payload == b'{"slept": 0}'
    assert own_node.roles()["control"] == before["control"]


@pytest.mark.slow
def test_a_node_started_again_knows_its_functions(own_node: Node, tmp_path: Path) -> None:
    with Client(own_node.address) as client:
        client.deploy("slow", package(tmp_path / "slow"), environment={"KEY": "value"})
    own_node.launcher.send_signal(signal.SIGKILL)
    own_node.launcher.wait()
    await_true(lambda: "control" not in own_node.roles(), 30, "the end of the control plane")
    again = Node(own_node.directory, {key: value for key, value in own_node.environment.items() if "RUNTIMED_" in key})
    own_node.launcher = again.launcher
    await_true(own_node.answers, 60, "the node's return")
    with Client(own_node.address) as client:
        assert client.get_function("slow").environment.variables == {"KEY": "value"}
        assert client.invoke("slow", {}).payload == b'{"slept": 0}'
