"""Cold starts: from the request to the first response of an environment that did not exist before.

Idle environments are not kept (keep-alive 0), so that each call finds none. Floor: a bare interpreter that forks into
new namespaces and calls the handler once. Back to back: each call right after the last answer, while the environment
before it is still being taken down; hot: with a breath in between; idle: after a longer pause.
"""

from __future__ import annotations

import subprocess
import sys

from bench import calls, measure
from bench.measure import Compiled, Report
from bench.node import Node
from runtimed.client import Client

MEMORY_MB = 128
SECONDS = 2.0
HOT_GAP_MS = 10
IDLE_GAP_MS = 100
IDLE_CALLS = 25
FLOOR_CALLS = 200
COLD_SHARE = 0.98  # of the calls that must have been cold for the figures to mean anything


def floor(compiled: Compiled, python: str, count: int, gap_ms: int) -> list[float]:
    command = [python, "-I", "-S", str(measure.FLOORS / "zygote.py"), compiled.shared("fork"), "first"]
    done = subprocess.run([*command, str(count), str(gap_ms)], stdout=subprocess.PIPE, text=True, check=True)
    samples = [float(line) for line in done.stdout.split()]
    return samples[len(samples) // 5 :]


def cold(program: str, client: Client, socket: str, request: str, gap_ms: int) -> dict[str, float]:
    """Latencies of calls of which each must have been a cold start."""
    seconds = max(SECONDS, IDLE_CALLS * (gap_ms + 5) / 1000)
    before = client.status().invocations
    samples = measure.load(program, "call", socket, request, 1, seconds, gap_ms)
    after = client.status().invocations
    if after.cold_starts - before.cold_starts < COLD_SHARE * (after.total - before.total):
        raise RuntimeError(
            f"only {after.cold_starts - before.cold_starts} of {after.total - before.total} calls were cold starts"
        )
    return measure.latency(samples)


def run() -> Report:
    settings = {"RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": "0", "RUNTIMED_POOLS_LAUNCHES_PER_SECOND": "10000"}
    with Compiled() as compiled, Node.start(settings) as node, Client(node.address) as client:
        python = calls.deploy(client, "hello", calls.HELLO, MEMORY_MB)
        program = compiled.program("load")
        request = compiled.file("call", calls.request("hello"))
        socket = calls.dispatch_socket(node)
        results = measure.interleave(
            {
                "hot": lambda: cold(program, client, socket, request, HOT_GAP_MS),
                "fork": lambda: measure.latency(floor(compiled, python, FLOOR_CALLS, HOT_GAP_MS)),
                "back to back": lambda: cold(program, client, socket, request, 0),
                "fork back to back": lambda: measure.latency(floor(compiled, python, FLOOR_CALLS, 0)),
                "idle": lambda: cold(program, client, socket, request, IDLE_GAP_MS),
                "idle fork": lambda: measure.latency(floor(compiled, python, IDLE_CALLS, IDLE_GAP_MS)),
            }
        )
    return Report(
        bench="cold_start",
        figures=measure.figures("hot", results["hot"], measure.LATENCY)
        + measure.figures("back to back", results["back to back"], measure.LATENCY)
        + measure.figures(f"after {IDLE_GAP_MS} ms", results["idle"], measure.LATENCY),
        floor=measure.figures("fork hot", results["fork"], measure.LATENCY)
        + measure.figures("fork back to back", results["fork back to back"], measure.LATENCY)
        + measure.figures(f"fork after {IDLE_GAP_MS} ms", results["idle fork"], measure.LATENCY),
        ratio={
            "hot p50 / fork p50": measure.ratio(results, "hot", "fork", "p50"),
            "back to back p50 / fork back to back p50": measure.ratio(
                results, "back to back", "fork back to back", "p50"
            ),
            "idle p50 / idle fork p50": measure.ratio(results, "idle", "idle fork", "p50"),
        },
        environments=1,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="hello handler, code imported in the environment; each environment ends after its call",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
