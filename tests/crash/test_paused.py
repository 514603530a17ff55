"""SIGSTOP to each process for a second, then SIGCONT: who waits, who does not, and that all is well afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model import wire
from tests.crash import census, load
from tests.outcomes import Outcome

SECONDS = 60.0
PAUSE = 0.7


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.case("fault", "each process stands still for a while (SIGSTOP)")
def test_each_in_turn(shared: Node, outcome: Outcome) -> None:
    kinds = census.by_kind(shared)
    with load.Load(shared, load.FUNCTIONS) as pressure:
        for kind in ("control", "launcher", "seater", "imager", "zygote", "shellmaker", "dispatch"):
            with stopped(census.by_kind(shared)[kind][0]):
                moment = time.monotonic()
                if kind != "dispatch":
                    paths = ("dispatch",) if kind == "control" else ("dispatch", "grpc")
                    await_true(
                        lambda m=moment, p=paths: pressure.served_since(m, p), SECONDS, f"answers without {kind}"
                    )
                pressure.pause(PAUSE)
            moment = time.monotonic()
            await_true(lambda m=moment: pressure.served_since(m), SECONDS, f"answers after {kind} goes on")
    assert not pressure.wrong, "\n".join(pressure.wrong) + census.output(shared)
    await_true(lambda: not census.consistent(shared), SECONDS, "counters that agree")
    after = census.by_kind(shared)
    for kind in ("control", "launcher", "seater", "imager", "dispatch"):
        assert after[kind] == kinds[kind], f"{kind} was replaced"
    outcome("only what needs it waits: warm calls go on without any but the dispatcher; afterwards nothing is lost")


@pytest.mark.case("fault", "an environment stands still (SIGSTOP)")
def test_an_environment(shared: Node, outcome: Outcome) -> None:
    with Client(shared.address) as client:
        client.deploy("brief", load.source("brief"), runtime="python3.11", handler="app.handler", timeout=2)
        with load.Caller(shared) as caller:
            before = census.environments(shared)
            caller.call("brief", {"nonce": 1})
            (pid,) = census.environments(shared) - before
            os.kill(pid, signal.SIGSTOP)
            answer, body = caller.call("brief", {"nonce": 2})
            assert answer.outcome == wire.Outcome.FUNCTION_ERROR and b"timed out" in body, body
            answer, body = caller.call("brief", {"nonce": 3})
            assert b'"nonce": 3' in body, body
        client.delete_function("brief")
    outcome("its call ends with the function's time-out, and it is replaced")
