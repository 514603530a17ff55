"""Invocations a second over HTTP, 64 connections on loopback TCP with a key, the load on the same cores; and
how much processor time a call takes, by who takes it.

Floors: the same path without policy (HTTP, epoll, seqpacket, CPython, no sandbox), with as many interpreters as serve
it best, and with as many as the node had environments, one for each connection; a bare epoll HTTP server. With
`--caller wrk` or `h2load` other people's programs call all of them; what our own caller finds stands beside it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from bench import callers, calls, http, measure, processor
from bench.callers import CALLERS, Plan
from bench.measure import Compiled, Report

SECONDS = 3.0
CONNECTIONS = 64
INTERPRETERS = 4  # of the floor
MEMORY_MB = 1769  # one core


def relay(stack: contextlib.ExitStack, compiled: Compiled, python: str, interpreters: int) -> tuple[str, int]:
    """The path without policy; its port and process."""
    before = processor.own_children()
    port = stack.enter_context(
        measure.server(
            compiled.program("relay"), "http", str(interpreters), python, "-I", "-S",
            str(measure.FLOORS / "echo.py"), http.WITHOUT_POLICY.hex(), "0",
        )
    )  # fmt: skip
    (pid,) = processor.own_children() - before
    return port, pid


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
        few, few_pid = relay(stack, compiled, python, INTERPRETERS)
        many, many_pid = relay(stack, compiled, python, CONNECTIONS)
        sides = {
            "http": processor.split(processor.of_node(served), measured(served.port, request), SECONDS),
            "relay": processor.split(processor.of_server(few_pid), measured(few, request), SECONDS),
            "relay of as many": processor.split(processor.of_server(many_pid), measured(many, request), SECONDS),
            "epoll": measured(bare, http.HELLO),
        }
        if caller != "own":
            sides["own"] = measured(served.port, request, "own")
        results = measure.interleave(sides)
        environments = served.client.status().environments
    rates = {**measure.LATENCY, "rate": "calls/s"}
    return Report(
        bench="throughput",
        figures=measure.figures("http" if caller == "own" else f"http, {caller}", results["http"], processor.UNITS)
        + (measure.figures("http, our own caller", results["own"], rates) if "own" in results else []),
        floor=measure.figures("path without policy", results["relay"], processor.UNITS)
        + measure.figures(f"the same, {CONNECTIONS} interpreters", results["relay of as many"], processor.UNITS)
        + measure.figures("epoll http", results["epoll"], rates),
        ratio={
            "rate / path without policy rate": measure.ratio(results, "http", "relay", "rate"),
            f"the same, {CONNECTIONS} interpreters": measure.ratio(results, "http", "relay of as many", "rate"),
            "rate / epoll http rate": measure.ratio(results, "http", "epoll", "rate"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"called by {caller} on the same cores; {CONNECTIONS} connections; logging on; the summary is of medians",
        summary={
            "invokes_per_s": measure.median(results["http"], "rate"),
            "floor_per_s": measure.median(results["relay"], "rate"),
            "floor_of_as_many_per_s": measure.median(results["relay of as many"], "rate"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
