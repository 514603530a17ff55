"""A thousand functions with events, ten of each, while one more has fifty thousand that wait: how long from sending an
event until its function begins with it. Callers over the unix socket, load on the same cores, logging on.

Places for events are few (CONCURRENCY), and an event of the flood takes one for PAUSE_S, so that the flood would have
them all for a minute. Floor: the same events without the flood. RUNTIMED_BENCH_FUNCTIONS says how many functions.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable

import msgspec

from bench import calls, events, http, measure
from bench.measure import Report
from bench.node import await_true
from bench.populate import names, populate
from runtimed.client import Client
from runtimed.model.log import LogKind
from runtimed.model.queue import CancelEventsRequest

FUNCTIONS = int(os.environ.get("RUNTIMED_BENCH_FUNCTIONS", "1000"))
EACH = 10
FLOOD = 50_000
PAUSE_S = 0.02
CONCURRENCY = 20
"""limits.concurrency; a tenth of it is for callers who wait."""
SENDERS = 4
READERS = 4
CLIENTS = 64
PATIENCE = 600.0
MEMORY_MB = 128  # as they are deployed
UNITS = {"p50": "ms", "p99": "ms", "most": "ms"}
SOURCE = f"""
import time

def handler(event, context):
    if "sent" in event:
        print("took", event["side"], time.time() - event["sent"])
    else:
        time.sleep({PAUSE_S})
"""


class Bench:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.compiled = stack.enter_context(measure.Compiled())
        self.program = self.compiled.program("events")
        self.served = stack.enter_context(http.served({"RUNTIMED_LIMITS_CONCURRENCY": str(CONCURRENCY)}))
        populate(self.served, FUNCTIONS + 1, SOURCE)
        self.flooded, *self.few = names(FUNCTIONS + 1)
        self.request = self.compiled.file("flood", events.asynchronous(self.flooded, calls.EVENT))
        self.runs = 0

    def waiting(self) -> dict[str, int]:
        """Of each function that has any."""
        return {queue.function_name: queue.waiting for queue in self.served.client.list_queues() if queue.waiting}

    def send(self, mine: list[str], side: str) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.served.socket)
            for name in mine:
                for _ in range(EACH):
                    body = msgspec.json.encode({"side": side, "sent": time.time()})
                    connection.sendall(events.asynchronous(name, body))
                    answer = b""
                    while not answer.endswith(b"\r\n\r\n"):
                        answer += connection.recv(4096)
                    if not answer.startswith(b"HTTP/1.1 202 "):
                        raise RuntimeError(f"{name}: {answer!r}")

    def took(self, mine: list[str], side: str) -> list[float]:
        """Milliseconds of each of their events."""
        found = []
        with Client(self.served.node.address, timeout=PATIENCE) as client:
            for name in mine:
                lines = [event.message.split() for event in client.logs(name) if event.kind is LogKind.FUNCTION]
                found += [float(words[2]) * 1000 for words in lines if words[:2] == ["took", side]]
        return found

    def timed(self, side: str) -> dict[str, float]:
        side, self.runs = f"{side}-{self.runs}", self.runs + 1
        with concurrent.futures.ThreadPoolExecutor(max(SENDERS, READERS)) as threads:
            for done in [threads.submit(self.send, self.few[i::SENDERS], side) for i in range(SENDERS)]:
                done.result()
            await_true(lambda: not self.waiting().keys() - {self.flooded}, PATIENCE, "the few events of each function")
            parts = [threads.submit(self.took, self.few[i::READERS], side) for i in range(READERS)]
            found = [ms for part in parts for ms in part.result()]
        if len(found) != EACH * len(self.few):
            raise RuntimeError(f"{len(found)} of {EACH * len(self.few)} events were handled")
        return {**measure.latency(found), "most": max(found)}

    def beside(self) -> dict[str, float]:
        client = self.served.client
        client.pause_queue(self.flooded)
        while self.waiting().get(self.flooded, 0) < FLOOD:
            measure.load(self.program, "http", self.served.socket, self.request, CLIENTS, 0.5)
        client.resume_queue(self.flooded)
        before = self.waiting()[self.flooded]
        try:
            found = self.timed("beside")
            left = self.waiting().get(self.flooded, 0)
        finally:
            client.cancel_events(CancelEventsRequest(function_name=self.flooded))
        if left == 0:
            raise RuntimeError("the flood was over before the others' events: nothing was measured beside it")
        await_true(lambda: not self.waiting(), PATIENCE, "the flood's end")
        return {**found, "of the flood": (before - left) / before}

    def alone(self) -> dict[str, float]:
        return self.timed("alone")


def run() -> Report:
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        sides: dict[str, Callable[[], dict[str, float]]] = {"alone": bench.alone, "beside": bench.beside}
        results = measure.interleave(sides)
        environments = bench.served.client.status().environments
    return Report(
        bench="event_fairness",
        figures=measure.figures("beside a flood", results["beside"], UNITS),
        floor=measure.figures("alone", results["alone"], UNITS),
        ratio={f"{name} beside / alone": measure.ratio(results, "beside", "alone", name) for name in UNITS},
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"{EACH} events of each of {FUNCTIONS} functions, {SENDERS} senders; a flood of {FLOOD} events of "
        f"{PAUSE_S * 1000:g} ms on another function, of which {measure.median(results['beside'], 'of the flood'):.0%} "
        f"were handled meanwhile; {CONCURRENCY - CONCURRENCY // 10} places for events",
        summary={
            f"{name}_ms{side}": measure.median(results[which], name)
            for which, side in (("beside", "_beside_flood"), ("alone", "_alone"))
            for name in ("p50", "p99")
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
