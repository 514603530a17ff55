"""The dispatcher is replaced under load (SIGHUP to the launcher): nobody is told anything but right answers, and the
environments go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from tests.conftest import need_root
from tests.crash import census, steady
from tests.outcomes import Outcome

SECONDS = 60.0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    need_root()
    with Node.start() as node:
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
        before = set(census.by_kind(node)["environment"])
        for _ in range(3):
            replace(node)
            await_service(pressure)
        after = set(census.by_kind(node)["environment"])
    assert not pressure.faults, "\n".join(pressure.faults) + census.output(node)
    assert before <= after, f"environments that ended: {before - after}"
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    outcome("no call fails over HTTP/1.1, gRPC and the dispatcher's socket; every environment goes on in the new one")
