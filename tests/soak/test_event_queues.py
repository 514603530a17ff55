"""Queues of a real node in large: a function that always fails, with RUNTIMED_SOAK_EVENTS (a million) events, and
RUNTIMED_SOAK_FUNCTIONS (1,000) functions with queues, of which one is flooded (figures: bench/event_fairness.py)."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import events, measure
from bench.calls import zipped
from bench.event_recover import private_mb
from bench.measure import Compiled
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.log import LogKind
from runtimed.model.queue import CancelEventsRequest, EventState, ListEventsRequest
from tests.conftest import need_root
from tests.crash.test_event_disk import counters

EVENTS = int(os.environ.get("RUNTIMED_SOAK_EVENTS", "1000000"))
FUNCTIONS = int(os.environ.get("RUNTIMED_SOAK_FUNCTIONS", "1000"))
PATIENCE = 3600.0
KEPT = 1000
GROWTH_MB = 64
"""Of the dispatcher, whatever the backlog."""
EACH = 3
FLOOD = 50 * FUNCTIONS
FAILS = """
def handler(event, context):
    raise ValueError("always")
"""
WORKS = """
import time

def handler(event, context):
    time.sleep(event.get("seconds", 0))
    print("handled", time.time())
"""
SLOW = b'{"seconds": 0.02}'


def flood(node: Node, name: str, number: int, body: bytes) -> int:
    """So many events at least, by sixty-four callers over HTTP; how many it became."""
    with Compiled() as compiled:
        program = compiled.program("events")
        request = compiled.file("request", events.asynchronous(name, body))
        before = counters(node)["events_accepted"]
        while (accepted := counters(node)["events_accepted"] - before) < number:
            measure.load(program, "http", str(Path(node.run_dir) / "invoke.sock"), request, 64, 0.5)
        return accepted


@contextlib.contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """The private memory of a process, in MB, every half second."""
    found, over = [private_mb(pid)], threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            found.append(private_mb(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


@pytest.mark.soak
def test_a_function_that_always_fails() -> None:
    need_root()
    settings = {
        "RUNTIMED_EVENTS_RETRY_DELAY_MS": "1",
        "RUNTIMED_EVENTS_DEAD": str(KEPT),
        "RUNTIMED_EVENTS_SEGMENT_MB": "8",
    }
    with Node.start(settings) as node, Client(node.address, timeout=60) as client:
        client.deploy("fails", zipped(FAILS), runtime="python3.11", handler="app.handler", timeout=30)
        assert client.invoke("fails", {}).failed
        begun = time.monotonic()
        with watched(node.roles()["dispatch"]) as memory:
            accepted = flood(node, "fails", EVENTS, b"{}")
            took = time.monotonic() - begun
            await_true(lambda: counters(node).get("events_dead", 0) >= accepted, PATIENCE, "all to be given up")
        now, all_of_it = counters(node), time.monotonic() - begun
        print(f"{accepted} accepted within {took:.1f} s, all tried three times and given up within {all_of_it:.1f} s")
        print(f"the dispatcher's memory: {memory[0]:.0f} MB before, {max(memory):.0f} MB at most")
        assert max(memory) - memory[0] < GROWTH_MB
        assert (now["events_failed"], now["events_retried"]) == (3 * accepted, 2 * accepted)
        assert (now["events_dropped"], now["events_waiting"]) == (accepted - KEPT, 0)
        dead = client.list_events(ListEventsRequest(state=EventState.DEAD, max_items=1000)).events
        assert [event.approximate_invoke_count for event in dead] == [3] * KEPT
        assert client.cancel_events(CancelEventsRequest(state=EventState.DEAD)).changed == KEPT
        queue = Path(node.state_dir) / "queue"
        await_true(lambda: len(list(queue.glob("*.log"))) <= 3, 60, "the files of what is done with to go")
        assert client.invoke("fails", {}).error().error_type == "ValueError", "the node is not well"


@pytest.mark.soak
def test_a_thousand_functions_and_one_that_is_flooded() -> None:
    """Their events wait beside the flooded one's: how long is told, and that the flood does not go first."""
    need_root()
    with Node.start({"RUNTIMED_LIMITS_CONCURRENCY": "20"}) as node, Client(node.address, timeout=300) as client:
        names = [f"few-{n}" for n in range(FUNCTIONS - 1)]
        code = zipped(WORKS)

        def deploy(name: str) -> None:
            client.deploy(name, code, runtime="python3.11", handler="app.handler", timeout=30)

        begun = time.monotonic()
        with ThreadPoolExecutor(4) as some:
            list(some.map(deploy, ["many", *names]))
        print(f"{FUNCTIONS} functions deployed within {time.monotonic() - begun:.0f} s")
        client.pause_queue("many")
        flooded = flood(node, "many", FLOOD, SLOW)
        client.resume_queue("many")
        await_true(lambda: counters(node)["events_succeeded"] > 100, PATIENCE, "the flood")
        begun, sent = time.time(), dict[str, float]()
        for name in names:
            sent[name] = time.time()
            for _ in range(EACH):
                client.invoke_async(name, {})
        accepted = time.time()
        await_true(lambda: not left(client, names), PATIENCE, "the few events of each to be handled")
        print(f"{EACH} events of each of {len(names)} functions accepted within {accepted - begun:.1f} s")
        moments = {name: handled(client, name) for name in names}
        assert {name: len(found) for name, found in moments.items()} == dict.fromkeys(names, EACH)
        last = sorted(max(found) - sent[name] for name, found in moments.items())
        end = max(max(found) for found in moments.values())
        share = sum(moment <= end for moment in handled(client, "many")) / flooded
        middle, most = last[len(last) // 2], last[int(len(last) * 0.99)]
        print(
            f"a function's last event was handled {middle:.2f} s after its first was sent in the middle, {most:.2f} s "
            f"for 99 of 100, {last[-1]:.2f} s at most; of the flood's {flooded}, {share:.0%} were handled by then"
        )
        assert share < 1, "the flood went first"
        client.cancel_events(CancelEventsRequest(function_name="many"))


def left(client: Client, names: list[str]) -> bool:
    """Of the few."""
    waiting = {queue.function_name for queue in client.list_queues() if queue.waiting}
    return not waiting.isdisjoint(names)


def handled(client: Client, name: str) -> list[float]:
    lines = [event.message.split() for event in client.logs(name) if event.kind is LogKind.FUNCTION]
    return [float(line[1]) for line in lines if line[:1] == ["handled"]]
