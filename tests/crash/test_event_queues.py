"""Queues of a real node on its bad days: a function that is throttled for long, one that always fails, kill -9 of the
processes around the dispatcher while events wait. The long forms are tests/soak/test_event_queues.py and
test_event_kills.py there; kill -9 of the dispatcher itself is test_event_kills.py here."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from bench.calls import zipped
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.queue import EventState, ListEventsRequest
from tests.conftest import need_root
from tests.crash import census
from tests.crash.test_event_disk import counters
from tests.crash.test_kills import kill_one
from tests.outcomes import Outcome
from tests.soak import test_event_kills as kills

SECONDS = 60.0
SOURCE = """
def handler(event, context):
    if event.get("fail"):
        raise ValueError("as asked")
"""
KEPT = 20
FAILING = 200
WAITING = 20
THROTTLES = 25


def deploy(client: Client, name: str) -> None:
    client.deploy(name, zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=300)


def await_counter(node: Node, name: str, least: int) -> None:
    await_true(lambda: counters(node).get(name, 0) >= least, SECONDS, f"{name} to come to {least}")


@contextlib.contextmanager
def held(node: Node, name: str) -> Iterator[Future[object]]:
    """A call that takes until the block ends: the environment that it is in is stopped. It is the only one there is."""
    stopped = census.environments(node)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    with Client(node.address, timeout=4 * SECONDS) as client, ThreadPoolExecutor(1) as one:
        try:
            call = one.submit(client.invoke, name, {})
            await_counter(node, "invocations_in_flight", 1)
            yield call
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@pytest.mark.case("crash", "events for a function whose concurrency is taken for long")
def test_a_function_that_is_throttled_for_long(outcome: Outcome) -> None:
    need_root()
    with Node.start() as node, Client(node.address, timeout=SECONDS) as client:
        for name in ("held", "free"):
            deploy(client, name)
        client.reserve("held", 1)
        client.invoke("held", {})
        with held(node, "held") as call:
            accepted = {client.invoke_async("held", {"n": n}) for n in range(WAITING)}
            begun, before = time.monotonic(), counters(node)
            await_counter(node, "events_throttled", before["events_throttled"] + THROTTLES)
            now, took = counters(node), time.monotonic() - begun
            # The pauses between looks grow to between an eighth and a quarter of a second.
            looks = now["events_throttled"] - before["events_throttled"]
            assert looks <= THROTTLES + took / 0.1, f"{looks} looks within {took:.1f} s"
            assert now["event_groups"] == before["event_groups"], "no record is written for them"
            listed = client.list_events(ListEventsRequest(function_name="held")).events
            assert {event.event_id: event.approximate_invoke_count for event in listed} == dict.fromkeys(accepted, 0)
            client.invoke_async("free", {})
            await_counter(node, "events_succeeded", 1)
            assert not call.done()
        assert call.result(SECONDS) is not None
        await_counter(node, "events_succeeded", 1 + WAITING)
        now = counters(node)
        assert (now["events_failed"], now["events_retried"], now["events_dead"]) == (0, 0, 0)
    outcome("they wait without using up attempts and without a record on the disk; others' are handled meanwhile")


@pytest.mark.case("crash", "a function that fails for every one of its events")
def test_a_function_that_always_fails(outcome: Outcome) -> None:
    need_root()
    settings = {"RUNTIMED_EVENTS_RETRY_DELAY_MS": "1", "RUNTIMED_EVENTS_DEAD": str(KEPT)}
    with Node.start(settings) as node, Client(node.address, timeout=SECONDS) as client:
        deploy(client, "fails")
        accepted = [client.invoke_async("fails", {"n": n, "fail": True}) for n in range(FAILING)]
        await_counter(node, "events_dead", FAILING)
        now = counters(node)
        assert (now["events_failed"], now["events_retried"]) == (3 * FAILING, 2 * FAILING)
        assert (now["events_dropped"], now["events_waiting"]) == (FAILING - KEPT, 0)
        dead = client.list_events(ListEventsRequest(state=EventState.DEAD)).events
        assert {event.event_id for event in dead} < set(accepted)
        assert [event.approximate_invoke_count for event in dead] == [3] * KEPT
        assert client.invoke("fails", {}).value is None, "calls are served"
    outcome("each is tried three times and given up; the newest are kept as far as `events.dead` says")


@pytest.mark.case("crash", "kill -9 of launcher, zygote, environment and control plane while events are accepted")
def test_no_event_is_lost_by_kill_9_around_the_dispatcher(outcome: Outcome) -> None:
    need_root()
    rng, sent, accepted = random.Random(7), 0, 0
    with Node.start(kills.RETRIES) as node:
        with Client(node.address) as client:
            client.deploy("work", zipped(kills.SOURCE), runtime="python3.11", handler="app.handler", timeout=30)
            client.invoke("work", {"n": 1, "pad": ""})
        for kind in ("zygote", "control", "environment", "launcher", "control", "zygote"):
            accepted += sum(kills.send(node, rng, sent + n) for n in range(10))
            sent += 10
            if kind == "launcher":
                os.kill(node.launcher.pid, signal.SIGKILL)
                node.start_again()
            else:
                kill_one(node, kind, rng)
        await_true(node.answers, SECONDS, "the node's return")
        with Client(node.address, timeout=SECONDS) as client:
            await_true(lambda: kills.left(client) == [], 2 * SECONDS, "all to be handled")
            dead = client.list_events(ListEventsRequest(state=EventState.DEAD)).events
        assert all(event.approximate_invoke_count == 3 for event in dead), dead
        now = counters(node)
        assert (now["events_damaged_files"], now["events_unreadable"], now["events_dropped"]) == (0, 0, 0)
        assert accepted > 20
    outcome("what was accepted is handled, or tried three times")
