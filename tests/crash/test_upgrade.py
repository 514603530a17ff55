"""The dispatcher is replaced under load (SIGHUP to the launcher): nobody is told anything but right answers, and the
environments go on."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator

import msgspec
import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model import wire
from tests.conftest import need_root
from tests.crash import census, load, steady
from tests.outcomes import Outcome

SECONDS = 60.0


@pytest.fixture(scope="module", params=[1, 2], ids=["one loop", "two loops"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    need_root()
    # As long as it takes: on a machine that is busy enough, clients read their GOAWAY late.
    settings = {"RUNTIMED_NODE_DRAIN_SECONDS": "60", "RUNTIMED_NODE_HANG_SECONDS": "120"}
    with Node.start({"RUNTIMED_DISPATCH_LOOPS": str(request.param), **settings}) as node:
        with Client(node.address) as client:
            steady.deploy(client)
        yield node


def dispatchers(node: Node) -> list[int]:
    return census.by_kind(node).get("dispatch", [])


def replace(node: Node) -> None:
    """Returns when the new dispatcher is alone."""
    before = dispatchers(node)
    os.kill(node.launcher.pid, signal.SIGHUP)

    def done() -> bool:
        now = dispatchers(node)
        return len(now) == 1 and now != before

    await_true(done, SECONDS, "the dispatcher's replacement")


def await_service(pressure: steady.Steady) -> None:
    moment = time.monotonic()
    try:
        await_true(lambda: pressure.served_since(moment), SECONDS, "answers on each way")
    except TimeoutError as error:
        error.add_note(f"{dict(pressure.right)}\n" + "\n".join(pressure.faults) + census.output(pressure.node))
        raise


@pytest.mark.case("crash", "the dispatcher is replaced under load, three times")
def test_nobody_notices(node: Node, outcome: Outcome) -> None:
    with steady.Steady(node) as pressure:
        await_service(pressure)
        before = census.environments(node)
        for _ in range(3):
            replace(node)
            await_service(pressure)
        after = set(census.by_kind(node)["environment"])
    assert not pressure.faults, "\n".join(pressure.faults) + census.output(node)
    assert before <= after, f"environments that ended: {before - after}"
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    outcome("no call fails over HTTP/1.1, gRPC and the dispatcher's socket; every environment goes on in the new one")


@pytest.mark.case("crash", "kill -9 of the control plane, three times, while callers invoke warm functions")
def test_nobody_notices_the_control_plane(node: Node, outcome: Outcome) -> None:
    with steady.Steady(node, ways=("http", "grpc", "dispatch")) as pressure:
        await_service(pressure)
        for _ in range(3):
            os.kill(census.by_kind(node)["control"][0], signal.SIGKILL)
            await_service(pressure)
            await_true(node.answers, SECONDS, "the control plane's return")
        await_service(pressure)
    assert not pressure.faults, "\n".join(pressure.faults) + census.output(node)
    outcome("no call fails over HTTP/1.1, gRPC and the dispatcher's socket")


@pytest.mark.case("crash", "kill -9 of every environment of a function while the control plane does nothing")
def test_environments_are_replaced_without_the_control_plane(node: Node, outcome: Outcome) -> None:
    """It is held, not killed: so it cannot be back in time to help."""
    caller = load.Caller(node)
    calls = itertools.count()

    def served() -> str | None:
        """Which environment answered; none where the call met one that was just ending."""
        nonce = f"alone {next(calls)}"
        answer, body = caller.call(steady.NAME, {"nonce": nonce})
        if answer.outcome != wire.Outcome.SUCCESS:
            assert b"Runtime.ExitError" in body or answer.status >= 500, (answer, body)
            return None
        found = msgspec.json.decode(body)
        assert found["nonce"] == nonce
        return str(found["me"])

    first = served()
    [control] = census.by_kind(node)["control"]
    os.kill(control, signal.SIGSTOP)
    try:
        for pid in census.by_kind(node)["environment"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await_true(lambda: served() not in (None, first), SECONDS, "another environment")
        assert census.by_kind(node)["control"] == [control]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(control, signal.SIGCONT)
        caller.close()
    await_true(node.answers, SECONDS, "the control plane's answer")
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    outcome("others take their place; calls are answered all the while")


@pytest.mark.case("crash", "kill -9 of the new dispatcher and of the old one while one replaces the other")
def test_either_may_die(node: Node, outcome: Outcome) -> None:
    with steady.Steady(node) as pressure:
        for chosen in (0, -1):
            await_service(pressure)
            before = dispatchers(node)
            os.kill(node.launcher.pid, signal.SIGHUP)
            await_true(lambda before=before: dispatchers(node) != before, SECONDS, "another dispatcher")  # type: ignore[misc]
            with contextlib.suppress(ProcessLookupError):
                os.kill((before if chosen == 0 else dispatchers(node))[chosen], signal.SIGKILL)
            await_true(lambda: len(dispatchers(node)) == 1, SECONDS, "one dispatcher")
            await_service(pressure)
    await_true(node.answers, SECONDS, "the control plane's answer")
    outcome("one serves, and every way in answers again")
