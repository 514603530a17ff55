"""Invocations a second over HTTP, 64 connections on loopback TCP with a key, the load on the same cores.

Floors: the same path without policy (HTTP, epoll, seqpacket, CPython, no sandbox); a bare epoll HTTP server. With
`--caller wrk` or `h2load` other people's programs call all three; what our own caller finds stands beside it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from bench import callers, calls, http, measure
from bench.callers import CALLERS, Plan
from bench.measure import Report

SECONDS = 3.0
CONNECTIONS = 64
ENVIRONMENTS = 4  # interpreters of the floor
MEMORY_MB = 1769  # one core
UNITS = {**measure.LATENCY, "rate": "calls/s"}


def run(caller: str = "own") -> Report:
    if missing := callers.missing(caller):
        raise SystemExit(missing)

    def measured(port: str, request: bytes, by: str = caller) -> Callable[[], dict[str, float]]:
        return lambda: CALLERS[by](compiled, Plan(port, request, CONNECTIONS, SECONDS))

    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        served = stack.enter_context(http.served())
        python = calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        bare = stack.enter_context(measure.server(compiled.program("hello")))
        request = http.post("hello", calls.EVENT, served.token)
        relay = stack.enter_context(
            measure.server(
                compiled.program("relay"), "http", str(ENVIRONMENTS), python, "-I", "-S",
                str(measure.FLOORS / "echo.py"), http.WITHOUT_POLICY.hex(), "0",
            )
        )  # fmt: skip
        sides = {
            "http": measured(served.port, request),
            "relay": measured(relay, request),
            "epoll": measured(bare, http.HELLO),
        }
        if caller != "own":
            sides["own"] = measured(served.port, request, "own")
        results = measure.interleave(sides)
        environments = served.client.status().environments
    return Report(
        bench="throughput",
        figures=measure.figures("http" if caller == "own" else f"http, {caller}", results["http"], UNITS)
        + (measure.figures("http, our own caller", results["own"], UNITS) if "own" in results else []),
        floor=measure.figures("path without policy", results["relay"], UNITS)
        + measure.figures("epoll http", results["epoll"], UNITS),
        ratio={
            "rate / path without policy rate": measure.ratio(results, "http", "relay", "rate"),
            "rate / epoll http rate": measure.ratio(results, "http", "epoll", "rate"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"called by {caller} on the same cores; {CONNECTIONS} connections; logging on; the summary is of medians",
        summary={
            "invokes_per_s": measure.median(results["http"], "rate"),
            "floor_per_s": measure.median(results["relay"], "rate"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
