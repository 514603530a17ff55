"""A full node: twenty functions on four environments, each called by one caller, again as soon as it is answered. They
take turns at the environments; the figures are what comes of it, and for how long a call waits at worst.

Floor: four of the functions, each with an environment of its own, by callers of the same kind.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time
from collections.abc import Callable, Sequence

from bench import calls, http, measure
from bench.http import Served
from bench.loops import counters
from bench.measure import Report

FUNCTIONS = 20
ENVIRONMENTS = 4
SECONDS = 3.0
MEMORY_MB = 1769  # one core
UNITS = {"rate": "calls/s", "p50": "us", "p99": "us", "longest": "us", "launches": "per 1,000 calls"}


class Caller:
    """One connection, always with one call open."""

    def __init__(self, path: str, name: str) -> None:
        self._request = http.post(name, calls.EVENT)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._at = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def call(self) -> None:
        self._at = time.monotonic()
        self._socket.sendall(self._request)

    def answered(self) -> float:
        """After so many microseconds. Answers are short: each comes at once."""
        answer = self._socket.recv(65536)
        took = (time.monotonic() - self._at) * 1e6
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not an answer of the function: {answer[:200]!r}")
        return took

    def close(self) -> None:
        self._socket.close()


def flood(path: str, names: Sequence[str]) -> list[list[float]]:
    """What each function's calls took, in microseconds; one that is never answered has taken all the time."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        took: list[list[float]] = [[] for _ in names]
        for number, name in enumerate(names):
            caller = stack.enter_context(contextlib.closing(Caller(path, name)))
            selector.register(caller, selectors.EVENT_READ, number)
            caller.call()
        end = time.monotonic() + SECONDS
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                caller = key.fileobj  # type: ignore[assignment]  # it is what was registered
                took[key.data].append(caller.answered())
                caller.call()
    return [one or [SECONDS * 1e6] for one in took]


def side(served: Served, names: Sequence[str]) -> Callable[[], dict[str, float]]:
    page = counters(served.node.roles()["dispatch"])

    def run() -> dict[str, float]:
        before = page.node()
        took = flood(served.socket, names)
        after = page.node()
        everything = [us for one in took for us in one]
        done = after["invocations"] - before["invocations"]
        return {
            "rate": len(everything) / SECONDS,
            "p50": measure.percentile(everything, 0.5),
            "p99": measure.percentile(everything, 0.99),
            "longest": max(everything),
            "launches": (after["launches"] - before["launches"]) / max(1, done) * 1000,
        }

    return run


def run() -> Report:
    names = [f"turn-{number}" for number in range(FUNCTIONS)]
    settings = {"RUNTIMED_POOLS_ENVIRONMENTS": str(ENVIRONMENTS), "RUNTIMED_POOLS_PARKED": "0"}
    with http.served(settings) as served:
        for name in names:
            calls.deploy(served.client, name, calls.HELLO, MEMORY_MB)
        results = measure.interleave({"turns": side(served, names), "alone": side(served, names[:ENVIRONMENTS])})
    return Report(
        bench="turns",
        figures=measure.figures(f"{FUNCTIONS} functions on {ENVIRONMENTS} environments", results["turns"], UNITS),
        floor=measure.figures(f"{ENVIRONMENTS} functions on as many", results["alone"], UNITS),
        ratio={f"{name}, in turns / alone": measure.ratio(results, "turns", "alone", name) for name in ("rate", "p50")},
        environments=ENVIRONMENTS,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="callers on the same cores, in one Python process; logging on",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
