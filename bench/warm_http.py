"""Warm invocations over HTTP on one connection that is kept: over loopback TCP with a key, and over the unix socket.

Floor: a bare epoll HTTP server, over the same loopback.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from bench import calls, http, measure
from bench.measure import Report

SECONDS = 1.5
PARTS = 5  # of a run, each placed anew: whether both ends share a core decides about a round trip
MEMORY_MB = 1769  # one core


def measured(program: str, address: str, request: str) -> Callable[[], dict[str, float]]:
    def side() -> dict[str, float]:
        parts = [
            measure.latency(measure.load(program, "http", address, request, 1, SECONDS / PARTS)) for _ in range(PARTS)
        ]
        return {name: measure.median(parts, name) for name in measure.LATENCY}

    return side


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(http.served())
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        floor = stack.enter_context(measure.server(compiled.program("hello")))
        with_key = compiled.file("tcp", http.post("hello", calls.EVENT, served.token))
        without = compiled.file("unix", http.post("hello", calls.EVENT))
        results = measure.interleave(
            {
                "tcp": measured(program, served.port, with_key),
                "unix": measured(program, served.socket, without),
                "epoll": measured(program, floor, compiled.file("hello-request", http.HELLO)),
            }
        )
        environments = served.client.status().environments
    return Report(
        bench="warm_http",
        figures=measure.figures("tcp", results["tcp"], measure.LATENCY)
        + measure.figures("unix", results["unix"], measure.LATENCY),
        floor=measure.figures("epoll http", results["epoll"], measure.LATENCY),
        ratio={
            "tcp p50 / epoll http p50": measure.ratio(results, "tcp", "epoll", "p50"),
            "unix p50 / epoll http p50": measure.ratio(results, "unix", "epoll", "p50"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="client on the same cores; over TCP with a key; logging on; the summary is of TCP, of medians",
        summary={
            "p50_us": measure.median(results["tcp"], "p50"),
            "p99_us": measure.median(results["tcp"], "p99"),
            "floor_p50_us": measure.median(results["epoll"], "p50"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
