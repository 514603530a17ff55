"""What freezing idle environments costs and saves, by the grace (`pools.freeze_after_ms`): the next call after a time
in which nobody asked, and the processor time that a function's own process, left running, takes meanwhile.

Calls come one after the other, each so long after the last answer: sooner than some graces, later than others. Floor: a
node that freezes nothing (0).
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable

from bench import calls, measure, processor
from bench.measure import Compiled, Figure, Report
from bench.node import Node
from runtimed.client import Client

GRACES_MS = (0, 1, 5, 10, 20, 50, 100, 200)
GAPS_MS = (5, 30, 150)
SECONDS = 1.5
RUNS = 2
MEMORY_MB = 128
SPINNING = """
import os

if os.fork() == 0:
    while True:
        pass

def handler(event, context):
    return {"hello": event.get("name", "you")}
"""


def ran(node: Node) -> float:
    """Microseconds of processor time of all environments, and of what they are made from."""
    roles = node.roles().values()
    return sum(processor.of_process(process.pid) for process in node.processes() if process.pid not in roles)


def side(compiled: Compiled, grace_ms: int) -> dict[str, float]:
    """A node of its own with that grace: the median of calls after each gap, and the spinning function's share of a
    processor."""
    program, found = compiled.program("load"), {}
    with Node.start({"RUNTIMED_POOLS_FREEZE_AFTER_MS": str(grace_ms)}) as node, Client(node.address) as client:
        address = calls.dispatch_socket(node)
        for name, source in (("hello", calls.HELLO), ("spinning", SPINNING)):
            calls.deploy(client, name, source, MEMORY_MB)
            request = compiled.file(f"{name}.request", calls.request(name))
            for gap in GAPS_MS:
                before, since = ran(node), time.monotonic()
                samples = measure.load(program, "call", address, request, 1, SECONDS, gap)
                if name == "hello":
                    found[f"p50 {gap}"] = measure.percentile(samples, 0.5)
                else:
                    found[f"share {gap}"] = (ran(node) - before) / (time.monotonic() - since) / 1e6
    return found


def run() -> Report:
    with Compiled() as compiled:
        sides: dict[str, Callable[[], dict[str, float]]] = {
            str(grace): functools.partial(side, compiled, grace) for grace in GRACES_MS
        }
        results = measure.interleave(sides, RUNS)
    units = {f"p50 {gap}": "us" for gap in GAPS_MS} | {f"share {gap}": "of a core" for gap in GAPS_MS}
    figures: list[Figure] = []
    for grace in GRACES_MS[1:]:
        figures += measure.figures(f"{grace} ms:", results[str(grace)], units)
    return Report(
        bench="freezer",
        figures=figures,
        floor=measure.figures("never:", results["0"], units),
        ratio={
            f"p50 after {gap} ms, grace {grace} ms / never": measure.ratio(results, str(grace), "0", f"p50 {gap}")
            for grace in GRACES_MS[1:]
            for gap in GAPS_MS
        },
        environments=1,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="p50 and share N: calls N ms after the last answer",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
