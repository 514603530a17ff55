"""kill -9 of what functions with SnapStart hang on, under load: the zygote that a snapshot is good for, the environment
that is being copied, copies and their pid 1. A call fails only with the process that it runs in. The long form:
tests/soak/test_snapshot_kills.py."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.function import SnapStart, SnapStartApplyOn, SnapStartOptimizationStatus
from runtimed.model.shape import UNSET
from tests.conftest import need_root
from tests.crash import census, load
from tests.crash.test_kills import SECONDS, kill_one
from tests.outcomes import Outcome

FUNCTIONS = ["copied-0", "copied-1"]
ROUNDS = ("zygote", "environment", "zygote", "anchor", "zygote")
ON = SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS)
# Environments are let go of at once, so that all the while new ones are made, as copies.
SETTINGS = {"RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": "0", "RUNTIMED_SANDBOX_ZYGOTES_PER_RUNTIME": "1"}


def deploy(client: Client, name: str) -> None:
    client.deploy(name, load.source(name), runtime="python3.11", handler="app.handler", timeout=20, snap_start=ON)


@pytest.fixture
def shared() -> Iterator[Node]:
    need_root()
    with Node.start(SETTINGS) as node:
        with Client(node.address) as client:
            for name in FUNCTIONS:
                deploy(client, name)
        yield node


def failures(pressure: load.Load) -> int:
    """Calls whose environment ended under them."""
    return sum(count for what, count in pressure.told.items() if what.partition(": ")[2] in load.FAILURES)


def has_snapshots(node: Node) -> bool:
    """Or was told that there are none: three copies killed in a row as they begin are taken for no good ones."""
    with Client(node.address) as client:
        found = [client.get_function(name) for name in FUNCTIONS]
    on = SnapStartOptimizationStatus.ON
    return all(one.snap_start.optimization_status is on or one.state_reason is not UNSET for one in found)


def kill_environments(node: Node) -> int:
    """Those that there are until a slow call's is among them, as others are gone before they are found; how many."""
    killed = 0
    with Client(node.address) as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.invoke, FUNCTIONS[0], {"nonce": 0, "pause": 15})

        def is_over() -> bool:
            nonlocal killed
            for pid in census.by_kind(node).get("environment", []):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            return slow.done()

        await_true(is_over, SECONDS, "the end of a slow call")
    return killed


def storm(node: Node, kinds: Iterable[str], rng: random.Random) -> load.Load:
    """A call may fail for each process killed in which one can be, and for no other reason."""
    inside = 0
    with load.Load(node, FUNCTIONS, moving=False) as pressure:
        begun = time.monotonic()
        await_true(lambda: pressure.served_since(begun), SECONDS, "the load's first answers")
        for kind in kinds:
            if kind == "environment":
                inside += kill_environments(node)
                moment = time.monotonic()
            else:
                moment = kill_one(node, kind, rng)
                inside += kind == "anchor"
            await_true(lambda moment=moment: pressure.served_since(moment), SECONDS, f"answers after a {kind} died")
            assert failures(pressure) <= inside, pressure.told
    assert not pressure.wrong, "\n".join(pressure.wrong) + census.output(node)
    assert not pressure.told["dispatch: lost"]
    refused = [what for what in pressure.told if " 500 " in what or "ServiceError" in what]
    assert not refused, pressure.told
    return pressure


@pytest.mark.case("crash", "kill -9 of zygotes, of environments that are copies or copied, of their pid 1 under load")
def test_functions_with_snap_start(shared: Node, outcome: Outcome) -> None:
    storm(shared, ROUNDS, random.Random())

    def made_anew() -> bool:
        serve(shared)
        return has_snapshots(shared)

    await_true(made_anew, SECONDS, "snapshots of the new zygote")
    outcome(
        "at most the one call that ran inside fails, as Runtime.ExitError; snapshots of a zygote that died are made "
        "anew, of the next environment"
    )


def serve(node: Node) -> None:
    with Client(node.address) as client:
        for name in FUNCTIONS:
            client.invoke(name, {"nonce": 0})
