"""Invocations a second over HTTP, 64 connections on loopback TCP with a key, the load on the same cores.

Floors: the same path without policy (HTTP, epoll, seqpacket, CPython, no sandbox); a bare epoll HTTP server.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from bench import calls, http, measure
from bench.measure import Report

SECONDS = 3.0
CONNECTIONS = 64
ENVIRONMENTS = 4  # interpreters of the floor
MEMORY_MB = 1769  # one core
UNITS = {**measure.LATENCY, "rate": "calls/s"}


def measured(program: str, address: str, request: str) -> Callable[[], dict[str, float]]:
    def side() -> dict[str, float]:
        samples = measure.load(program, "http", address, request, CONNECTIONS, SECONDS)
        return {**measure.latency(samples), "rate": measure.rate(samples, SECONDS)}

    return side


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(http.served())
        python = calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        bare = stack.enter_context(measure.server(compiled.program("hello")))
        request = http.post("hello", calls.EVENT, served.token)
        relay = stack.enter_context(
            measure.server(
                compiled.program("relay"), "http", str(ENVIRONMENTS), python, "-I", "-S",
                str(measure.FLOORS / "echo.py"), http.WITHOUT_POLICY.hex(), str(len(request) - len(calls.EVENT)),
            )
        )  # fmt: skip
        request_file = compiled.file("post", request)
        results = measure.interleave(
            {
                "http": measured(program, served.port, request_file),
                "relay": measured(program, relay, request_file),
                "epoll": measured(program, bare, compiled.file("get", http.HELLO)),
            }
        )
        environments = served.client.status().environments
    return Report(
        bench="throughput",
        figures=measure.figures("http", results["http"], UNITS),
        floor=measure.figures("path without policy", results["relay"], UNITS)
        + measure.figures("epoll http", results["epoll"], UNITS),
        ratio={
            "rate / path without policy rate": measure.ratio(results, "http", "relay", "rate"),
            "rate / epoll http rate": measure.ratio(results, "http", "epoll", "rate"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"client on the same cores; {CONNECTIONS} connections; logging on; the summary is of medians",
        summary={
            "invokes_per_s": measure.median(results["http"], "rate"),
            "floor_per_s": measure.median(results["relay"], "rate"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
