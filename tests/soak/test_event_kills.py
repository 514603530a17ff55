"""kill -9 of each process of a node at random while events are accepted and handled, for minutes.

RUNTIMED_SOAK_MINUTES (10) says how long, RUNTIMED_SOAK_SEED which kills; the seed is printed. Where the dispatcher
lives, what its function wrote is the ledger: each event that was accepted was handled. Where it dies too, lines that it
had not written yet die with it: then the log itself is asked, which must come to hold nothing and have damaged nothing.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from bench.calls import zipped
from bench.node import Node, await_true
from runtimed.client import Client, ClientError
from runtimed.model import errors
from runtimed.model.log import LogKind
from runtimed.model.queue import EventState, ListEventsRequest
from tests.conftest import need_root
from tests.crash import census
from tests.crash.test_kills import SECONDS
from tests.soak.test_crash_kills import kill

MILD = ("control", "zygote", "environment", "anchor", "seater", "imager", "shellmaker", "task")
ALL = (*MILD, "dispatch", "launcher")
RETRIES = {"RUNTIMED_EVENTS_RETRY_DELAY_MS": "50", "RUNTIMED_EVENTS_DEAD": "100000"}
SOURCE = """
def handler(event, context):
    print("handled", event["n"])
    if event["n"] % 7 == 0 and event["pad"]:
        raise ValueError("now and then")
"""


def send(node: Node, rng: random.Random, number: int) -> bool:
    """Was it accepted?"""
    try:
        with Client(node.address, timeout=SECONDS) as client:
            client.invoke_async("work", {"n": number, "pad": "x" * rng.choice((0, 10, 5000))}, event_id=f"n-{number}")
    except (errors.ApiError, ClientError):
        return False
    return True


def strike(node: Node, kinds: tuple[str, ...], rng: random.Random) -> None:
    which = rng.choice(kinds)
    if which != "launcher":
        kill(node, which, rng)
    elif rng.random() < 0.3:
        os.kill(node.launcher.pid, signal.SIGKILL)
        node.start_again()


def storm(node: Node, kinds: tuple[str, ...], rng: random.Random, until: float) -> set[int]:
    """Those that were accepted."""
    accepted, number = set[int](), 0
    while time.monotonic() < until:
        for _ in range(rng.randrange(1, 40)):
            number += 1
            if send(node, rng, number):
                accepted.add(number)
        strike(node, kinds, rng)
    await_true(node.answers, SECONDS, "the node's return")
    return accepted


def left(client: Client) -> list[str]:
    """Events that wait or run; one more while that cannot be told."""
    try:
        states = (EventState.WAITING, EventState.RUNNING)
        pages = [client.list_events(ListEventsRequest(state=state)) for state in states]
        return [event.event_id for page in pages for event in page.events]
    except (errors.ServiceUnavailable, ClientError):
        return ["not known"]


@pytest.mark.soak
@pytest.mark.parametrize("kinds", [MILD, ALL], ids=["all but the dispatcher", "all"])
def test_no_event_is_lost(kinds: tuple[str, ...]) -> None:
    need_root()
    minutes = float(os.environ.get("RUNTIMED_SOAK_MINUTES", "10"))
    seed = int(os.environ.get("RUNTIMED_SOAK_SEED", str(time.time_ns() % 1_000_000)))
    print(f"seed {seed}, {minutes:g} minutes")
    rng = random.Random(seed)
    with Node.start(RETRIES) as node:
        with Client(node.address) as client:
            client.deploy("work", zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=30)
        accepted = storm(node, kinds, rng, time.monotonic() + minutes * 60)
        with Client(node.address, timeout=SECONDS) as client:
            await_true(lambda: left(client) == [], 600, "all to be handled")
            dead = client.list_events(ListEventsRequest(state=EventState.DEAD, max_items=1000)).events
            assert all(event.approximate_invoke_count == 3 for event in dead), dead
            await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
            page = census.counters(node, census.by_kind(node)["dispatch"][0])
            assert page["events_damaged_files"] == page["events_unreadable"] == page["events_dropped"] == 0
            lines = [event.message.strip() for event in client.logs("work") if event.kind is LogKind.FUNCTION]
        handled = {int(line.split()[1]) for line in lines if line.startswith("handled ")}
        print(f"{len(accepted)} accepted, {len(handled)} in the log, {len(dead)} given up")
        assert accepted
        assert kinds is not MILD or not accepted - handled, sorted(accepted - handled)[:20]
