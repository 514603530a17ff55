"""The launcher's client against a peer: greeting, plans, tasks, discovery, and its end."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtimed.link.mirror import Refused, Unconnected
from runtimed.model import wire
from runtimed.model.runtime import RuntimeState
from runtimed.sandbox.launcher import Failed, Launcher
from runtimed.sandbox.runtimes import Candidate, Runtimes
from tests.integration.control_stage import Stage, staged
from tests.integration.peers import LauncherPeer, pair, until

PLAN = wire.PutPlan(max=1, rate=1, runtime="python3.11", package="0" * 64)


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


async def test_another_build_is_refused() -> None:
    ours, theirs = pair()
    peer = LauncherPeer(theirs)
    launcher = Launcher(ours, "another", on_peer=lambda sock, epoch: None, on_lost=lambda reason: None)
    with pytest.raises(Failed, match="restart runtimed"):
        await launcher.greet()
    launcher.close()
    peer.connection.close()


async def test_a_plan_is_there_when_it_is_ready(stage: Stage) -> None:
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.PENDING)
    putting = asyncio.create_task(stage.launcher.put_plan(5, PLAN))
    await until(lambda: stage.launcher_peer.objects(wire.PutPlan) == {5})
    await asyncio.sleep(0.01)
    assert not putting.done()
    stage.launcher_peer.connection.send(wire.PlanState(state=wire.Progress.READY), object=5)
    await putting
    await stage.launcher.delete_plan(5)
    assert stage.launcher_peer.objects(wire.PutPlan) == set()


async def test_a_plan_that_fails_or_is_refused(stage: Stage) -> None:
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.FAILED, reason="no such thing")
    with pytest.raises(Failed, match="no such thing"):
        await stage.launcher.put_plan(5, PLAN)
    stage.launcher_peer.refuse = lambda message: "package"
    with pytest.raises(Refused, match="package"):
        await stage.launcher.put_plan(6, PLAN)


async def test_the_launchers_end_releases_everybody(stage: Stage) -> None:
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.PENDING)
    waiting = asyncio.create_task(stage.launcher.put_plan(5, PLAN))
    await until(lambda: stage.launcher_peer.objects(wire.PutPlan) == {5})
    stage.launcher_peer.connection.close()
    with pytest.raises(Unconnected):
        await waiting
    assert stage.lost == [None]


async def test_discovery_believes_only_what_it_must(stage: Stage) -> None:
    answers = {
        0: json.dumps({"version": "3.11.2", "implementation": "cpython"}).encode(),
        1: json.dumps({"version": "3.11.9", "implementation": "cpython"}).encode(),
        2: b"x" * 1_000_000,
        3: b"\0\xff",
        4: json.dumps({"version": "3.12.1", "implementation": "cpython"}).encode(),
    }
    stage.launcher_peer.output = lambda task: answers[task.interpreter]
    candidates = [Candidate(number, f"/usr/bin/python3.{10 + number}") for number in answers]
    runtimes = Runtimes(stage.launcher, candidates)
    await runtimes.discover()
    assert runtimes.interpreter("python3.11") == 1
    assert runtimes.interpreter("python3.12") == 4
    assert runtimes.interpreter("python3.13") is None
    await stage.launcher.synchronise()
    assert stage.launcher_peer.objects(wire.PutRuntime) == {1, 4}
    stage.launcher_peer.connection.send(
        wire.RuntimeState(name="python3.12", state=wire.Progress.READY, pid=9), object=4
    )
    await until(runtimes.zygotes)
    assert runtimes.zygotes() == [("python3.12", 9)]
    shown = [(status.name, status.version, status.state) for status in runtimes.status()]
    assert shown == [
        ("python3.12", "3.12.1", RuntimeState.READY),
        ("python3.11", "3.11.9", RuntimeState.PENDING),
        ("provided.al2023", "", RuntimeState.READY),  # through the newest interpreter
        ("provided", "", RuntimeState.READY),
        ("python3.12", "", RuntimeState.FAILED),
        ("python3.13", "", RuntimeState.FAILED),
    ]


async def test_a_probe_that_fails(stage: Stage) -> None:
    stage.launcher_peer.task_end = wire.TaskDone(status=127 << 8)
    stage.launcher_peer.errors = b"cannot load libpython"
    runtimes = Runtimes(stage.launcher, [Candidate(0, "/opt/python3.11")])
    await runtimes.discover()
    [status] = runtimes.status()
    assert status.reason == "it left with status 127: cannot load libpython"


async def test_no_descriptor_is_left_behind(stage: Stage) -> None:
    stage.launcher_peer.output = lambda task: b"hello"
    before = len(os.listdir("/proc/self/fd"))
    runtimes = Runtimes(stage.launcher, [Candidate(number, "/usr/bin/python3.11") for number in range(20)])
    await runtimes.discover()
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)
