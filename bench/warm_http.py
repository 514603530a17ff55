"""Warm invocations over HTTP on one connection that is kept: over loopback TCP with a key, and over the unix socket.

Floor: a bare epoll HTTP server, over the same loopback.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import NamedTuple

from bench import calls, http, measure
from bench.measure import Report

SECONDS = 1.5
PARTS = 5  # of a run, each placed anew: whether both ends share a core decides about a round trip
MEMORY_MB = 1769  # one core


class Protocol(NamedTuple):
    """What the two benches of warm invocations differ in."""

    name: str
    """To the load program."""
    call: Callable[[str, bytes, str], bytes]
    """Of a function's name, an event and a token, which may be empty: the bytes of an invocation."""
    floor: str
    """The floor's program."""
    floor_name: str
    floor_call: bytes


def measured(program: str, protocol: str, address: str, request: str) -> Callable[[], dict[str, float]]:
    def side() -> dict[str, float]:
        parts = [
            measure.latency(measure.load(program, protocol, address, request, 1, SECONDS / PARTS)) for _ in range(PARTS)
        ]
        return {name: measure.median(parts, name) for name in measure.LATENCY}

    return side


def compare(bench: str, protocol: Protocol) -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(http.served())
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        floor = stack.enter_context(measure.server(compiled.program(protocol.floor)))
        with_key = compiled.file("tcp", protocol.call("hello", calls.EVENT, served.token))
        without = compiled.file("unix", protocol.call("hello", calls.EVENT, ""))
        bare = compiled.file("floor", protocol.floor_call)
        results = measure.interleave(
            {
                "tcp": measured(program, protocol.name, served.port, with_key),
                "unix": measured(program, protocol.name, served.socket, without),
                "bare": measured(program, protocol.name, floor, bare),
            }
        )
        environments = served.client.status().environments
    return Report(
        bench=bench,
        figures=measure.figures("tcp", results["tcp"], measure.LATENCY)
        + measure.figures("unix", results["unix"], measure.LATENCY),
        floor=measure.figures(protocol.floor_name, results["bare"], measure.LATENCY),
        ratio={
            f"tcp p50 / {protocol.floor_name} p50": measure.ratio(results, "tcp", "bare", "p50"),
            f"unix p50 / {protocol.floor_name} p50": measure.ratio(results, "unix", "bare", "p50"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="client on the same cores; over TCP with a key; logging on; the summary is of TCP, of medians",
        summary={
            "p50_us": measure.median(results["tcp"], "p50"),
            "p99_us": measure.median(results["tcp"], "p99"),
            "floor_p50_us": measure.median(results["bare"], "p50"),
        },
    )


def run() -> Report:
    return compare("warm_http", Protocol("http", http.post, "hello", "epoll http", http.HELLO))


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
