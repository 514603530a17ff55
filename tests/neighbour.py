"""A well-behaved function beside a hostile one: are its answers right, and what does it wait for them?

Runs are interleaved (a no-op control, then the abuse, again and again on the same node), so that the machine's moods
fall on both sides alike. Nothing is asserted about the figures: machines are shared. Answers must be right and come.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable

import msgspec

from bench.calls import zipped
from bench.node import Node
from runtimed.client import Client

SOURCE = """
import json

def handler(event, context):
    return {"sum": sum(event["numbers"]), "for": event["call"]}
"""
PATIENCE = 60.0  # seconds that a call may take before the node counts as stalled


class Latency(msgspec.Struct, frozen=True):
    """Of some calls, in milliseconds."""

    p50: float
    p99: float
    worst: float
    calls: int

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p99:.1f}"


def latency(seconds: list[float]) -> Latency:
    """Of durations in seconds; at least two."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return Latency(cuts[49] * 1000, cuts[98] * 1000, max(seconds) * 1000, len(seconds))


class Neighbour:
    """A function of its own on a node, called one call after the other."""

    def __init__(self, node: Node, name: str = "neighbour", runtime: str = "python3.11") -> None:
        self.client = Client(node.address, timeout=PATIENCE)
        self.name = name
        self._numbers = itertools.count()
        self.client.deploy(name, zipped(SOURCE), runtime=runtime, handler="app.handler", memory_size=128, timeout=20)
        for _ in range(20):
            self.call()

    def close(self) -> None:
        self.client.close()

    def call(self) -> float:
        """One call; its duration in seconds. AssertionError when the answer is not the right one."""
        number = next(self._numbers)
        began = time.monotonic()
        value = self.client.invoke(self.name, {"numbers": [number, 1, 2], "call": number}, timeout=PATIENCE).value
        took = time.monotonic() - began
        assert value == {"sum": number + 3, "for": number}, f"the neighbour was answered wrongly: {value}"
        return took

    def beside(self, deed: Callable[[], object], calls: int = 20) -> list[float]:
        """Calls while `deed` runs in another thread, until it has ended and at least `calls` were made. What the
        deed raises is raised here."""
        failures: list[BaseException] = []

        def perform() -> None:
            try:
                deed()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=perform)
        thread.start()
        took = []
        try:
            while thread.is_alive() or len(took) < calls:
                took.append(self.call())
        finally:
            thread.join()
        if failures:
            raise failures[0]
        return took

    def compare(
        self,
        control: Callable[[], object],
        abuse: Callable[[], object],
        rounds: int = 3,
        prepare: Callable[[], object] = lambda: None,
    ) -> tuple[Latency, Latency]:
        """Latencies beside the no-op control and beside the abuse, interleaved. Both take about as long, by the
        caller's arrangement: half a second to two is enough. `prepare` goes before each round."""
        calm: list[float] = []
        storm: list[float] = []
        for _ in range(rounds):
            prepare()
            calm += self.beside(control)
            storm += self.beside(abuse)
        return latency(calm), latency(storm)
