"""kill -9 of what stands ready: environments that are idle, parked or provisioned, frozen most of them, and
zygotes. Nobody may notice but who ran inside, the pools fill up again, and what is said of provisioned concurrency
is so."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from bench.calls import zipped
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.concurrency import ProvisionedConcurrencyStatus
from tests.conftest import need_root
from tests.crash import census, load
from tests.outcomes import Outcome

SECONDS = 60.0
PROVISIONED = 2
FUNCTIONS = ["plain", "parked", "kept"]
SLOW = "import time\ntime.sleep(0.05)\n"  # such an init phase is worth a parked environment


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    need_root()
    settings = {"RUNTIMED_POOLS_PARKED": "2", "RUNTIMED_POOLS_FREEZE_AFTER_MS": "10"}
    with Node.start(settings) as node, Client(node.address) as client:
        for name in FUNCTIONS:
            text = ("" if name == "plain" else SLOW) + load.SOURCE.format(name=name, revision=0)
            client.deploy(name, zipped(text), runtime="python3.11", handler="app.handler", timeout=20)
        client.provision("kept", PROVISIONED)
        await_true(lambda: ready(client), SECONDS, "what is provisioned is ready")
        with calling(client):
            await_true(lambda: present(client, "parked") == 2, SECONDS, "one at work and one parked")
        yield node


@contextlib.contextmanager
def calling(client: Client) -> Iterator[None]:
    """All the while one environment of `parked` is at work."""
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            client.invoke("parked", {"nonce": 0, "pause": 1})

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield
    finally:
        over.set()
        caller.join()


def present(client: Client, name: str) -> int:
    """Its environments that are through their init phase."""
    found = client.statistics(name).functions[0].environments
    return found.idle + found.busy


def ready(client: Client) -> bool:
    found = client.provisioned("kept")["$LATEST"]
    return (found.status, found.available_provisioned_concurrent_executions) == (
        ProvisionedConcurrencyStatus.READY, PROVISIONED,
    )  # fmt: skip


def at_rest(client: Client) -> bool:
    """Nothing starts, nothing is at work, all that is idle is frozen."""
    for name in FUNCTIONS:
        found = client.statistics(name).functions[0].environments
        if found.starting or found.busy or found.idle != found.frozen:
            return False
    return True


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.case("crash", "kill -9 of all environments that are idle, parked or provisioned, and frozen")
def test_nobody_notices_that_idle_ones_were_killed(node: Node, outcome: Outcome) -> None:
    """A process that is frozen may die only when it is thawed for the next event, which another one gets then."""
    with Client(node.address) as client:
        for name in FUNCTIONS:
            assert client.invoke(name, {"nonce": 1}).value["nonce"] == 1
        await_true(lambda: ready(client) and at_rest(client), SECONDS, "all are there, and frozen")
        before = census.by_kind(node)["environment"]
        assert len(before) > len(FUNCTIONS) + PROVISIONED - 1
        kill(before)
        for name in FUNCTIONS:
            result = client.invoke(name, {"nonce": 2}, timeout=SECONDS)
            assert result.error() is None, f"{name}: {result.error()}"
            assert result.value["nonce"] == 2
        await_true(lambda: not {*before} & {*census.by_kind(node)["environment"]}, SECONDS, "all of them are gone")
        await_true(lambda: ready(client), SECONDS, "others are provisioned")
        now = {*census.by_kind(node)["environment"]}
        assert len(now) >= PROVISIONED
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    outcome("the next call of each function is answered by another environment; what is provisioned is ready again")


def survive(node: Node, kinds: list[str], rng: random.Random) -> load.Load:
    """Kills one of each kind under load, the next when all functions have been served since."""
    with load.Load(node, FUNCTIONS, callers=3, moving=False) as pressure:
        for kind in kinds:
            since = time.monotonic()
            await_true(lambda since=since: pressure.served_since(since), SECONDS, "the load is served")
            found: list[int] = []

            def there(kind: str = kind, found: list[int] = found) -> bool:
                found[:] = census.by_kind(node).get(kind, [])
                return bool(found)

            await_true(there, SECONDS, f"there is a {kind}")
            kill([rng.choice(found)])
        since = time.monotonic()
        await_true(lambda: pressure.served_since(since), SECONDS, "the load is served after the last")
    assert not pressure.wrong, "\n".join(pressure.wrong) + census.output(node)
    return pressure


def check(node: Node, kinds: list[str], seed: int) -> None:
    pressure = survive(node, kinds, random.Random(seed))
    failed = {what: count for what, count in pressure.told.items() if not what.endswith("right")}
    killed = kinds.count("environment")
    assert sum(failed.values()) <= killed, f"{failed} of {killed} killed (seed {seed})" + census.output(node)
    with Client(node.address) as client:
        await_true(lambda: ready(client), SECONDS, "all that is provisioned is ready again")
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")


@pytest.mark.case("crash", "kill -9 of parked, provisioned and idle environments and of zygotes under load")
def test_only_who_ran_inside_notices(node: Node, outcome: Outcome) -> None:
    check(node, ["environment", "environment", "zygote", "environment"], random.randrange(2**32))
    outcome("at most the call that ran inside fails; others, and who waits for what a zygote was to make, are answered")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_many_kills(node: Node, seed: int) -> None:
    rng = random.Random(seed)
    check(node, rng.choices(["environment", "zygote"], [5, 1], k=60), seed)
