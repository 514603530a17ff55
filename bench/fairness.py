"""A neighbour's calls with and without a flood on another function, interleaved: one connection calls `quiet`, alone,
and while 64 connections call `flooded` as fast as they are answered. Loopback TCP with a key, load on the same cores.

Floor: the neighbour alone, in the same run. The ratio is what others' floods cost it; processor time is shared by
weights, so on few cores it is not one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable

from bench import calls, http, measure
from bench.measure import Report

SECONDS = 2.0
CONNECTIONS = 64
MEMORY_MB = 1769  # one core


def alone(program: str, port: str, quiet: str) -> Callable[[], dict[str, float]]:
    return lambda: measure.latency(measure.load(program, "http", port, quiet, 1, SECONDS))


def beside(program: str, port: str, quiet: str, flooded: str) -> Callable[[], dict[str, float]]:
    def side() -> dict[str, float]:
        # The flood begins before the neighbour's calls and outlasts them.
        flood = threading.Thread(
            target=measure.load, args=(program, "http", port, flooded, CONNECTIONS, SECONDS * 1.5), daemon=True
        )
        flood.start()
        try:
            return measure.latency(measure.load(program, "http", port, quiet, 1, SECONDS))
        finally:
            flood.join()

    return side


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(http.served())
        requests = {}
        for name in ("quiet", "flooded"):
            calls.deploy(served.client, name, calls.HELLO, MEMORY_MB)
            requests[name] = compiled.file(name, http.post(name, calls.EVENT, served.token))
        results = measure.interleave(
            {
                "beside": beside(program, served.port, requests["quiet"], requests["flooded"]),
                "alone": alone(program, served.port, requests["quiet"]),
            }
        )
        environments = served.client.status().environments
    return Report(
        bench="fairness",
        figures=measure.figures("beside a flood", results["beside"], measure.LATENCY),
        floor=measure.figures("alone", results["alone"], measure.LATENCY),
        ratio={f"{name} beside / alone": measure.ratio(results, "beside", "alone", name) for name in measure.LATENCY},
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"a flood of {CONNECTIONS} connections on another function, load on the same cores; logging on",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
