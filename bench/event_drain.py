"""Events handled a second by a warm function, out of a queue that never runs dry; and what that does to callers who
wait for answers of the same function meanwhile, whose calls come first.

Sides: the queue alone; the queue beside callers; events that are accepted, at the same time, by 64 clients over HTTP.
Floor: the callers alone.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

from bench import calls, events, http, measure
from bench.events import Queue
from bench.measure import Report

SECONDS = 2.0
CALLERS = 4
CLIENTS = 64
BACKLOG = 200_000
"""More than is handled in one run."""


class Bench:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.compiled = stack.enter_context(measure.Compiled())
        self.queue: Queue = stack.enter_context(events.queue())
        self.socket = self.queue.served.socket
        self.load = self.compiled.program("load")
        self.events = self.compiled.program("events")
        self.event = self.compiled.file("event", events.asynchronous("hello", calls.EVENT))
        self.call = self.compiled.file("call", http.post("hello", calls.EVENT))

    def accept(self, seconds: float) -> None:
        measure.load(self.events, "http", self.socket, self.event, CLIENTS, seconds)

    def call_it(self) -> dict[str, float]:
        return measure.latency(measure.load(self.load, "http", self.socket, self.call, CALLERS, SECONDS))

    def handled(self, meanwhile: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Events a second while that runs."""
        before, begun = self.queue.count("succeeded"), time.monotonic()
        found = meanwhile()
        return {**found, "rate": (self.queue.count("succeeded") - before) / (time.monotonic() - begun)}

    def drained(self, meanwhile: Callable[[], dict[str, float]]) -> dict[str, float]:
        self.queue.pause()
        while self.queue.waiting() < BACKLOG:
            self.accept(1.0)
        self.queue.resume()
        try:
            return self.handled(meanwhile)
        finally:
            self.queue.pause()

    def through(self) -> dict[str, float]:
        def accept() -> dict[str, float]:
            self.accept(SECONDS)
            return {}

        self.queue.resume()
        self.queue.await_empty()
        return self.handled(accept)

    def calm(self) -> dict[str, float]:
        self.queue.pause()
        measure.await_true(lambda: self.queue.running() == 0, 60, "the end of what runs")
        return self.call_it()


def _sleep() -> dict[str, float]:
    time.sleep(SECONDS)
    return {}


def run() -> Report:
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        results = measure.interleave(
            {
                "alone": lambda: bench.drained(_sleep),
                "beside calls": lambda: bench.drained(bench.call_it),
                "calls": bench.calm,
                "while accepted": bench.through,
            }
        )
        environments = bench.queue.served.client.status().environments
    rate = {"rate": "events/s"}
    return Report(
        bench="event_drain",
        figures=measure.figures("queue alone", results["alone"], rate)
        + measure.figures("queue while accepted", results["while accepted"], rate)
        + measure.figures("queue beside calls", results["beside calls"], rate)
        + measure.figures("calls beside queue", results["beside calls"], measure.LATENCY),
        floor=measure.figures("calls", results["calls"], measure.LATENCY),
        ratio={
            f"{name} of calls beside / alone": measure.ratio(results, "beside calls", "calls", name)
            for name in measure.LATENCY
        },
        environments=environments.idle + environments.busy,
        memory_mb=events.MEMORY_MB,
        cpu_mode="weight",
        note=f"{CALLERS} connections call; load on the same cores; the summary is of medians",
        summary={
            "events_per_s": measure.median(results["alone"], "rate"),
            "events_per_s_beside_calls": measure.median(results["beside calls"], "rate"),
            "calls_p99_us": measure.median(results["calls"], "p99"),
            "calls_p99_us_beside_events": measure.median(results["beside calls"], "p99"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
