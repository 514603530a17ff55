"""The control plane killed every two seconds while 64 connections invoke a warm function over HTTP: what fails, and
what it costs the others.

Floor: the same without kills, interleaved. The load ends at the first answer that is not 200 and at the first
connection that closes: such a run counts as failed, and its figures are left out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from bench import calls, http, measure
from bench.measure import Report
from bench.node import Node

CONNECTIONS = 64
SECONDS = 8.0
EVERY = 2.0
MEMORY_MB = 128
UNITS = {**measure.LATENCY, "rate": "/s"}


class Killer:
    """Kills the control plane every two seconds, from the first on, between start and stop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            pid = self._node.roles().get("control")
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1


class Tally:
    """Over all runs."""

    def __init__(self) -> None:
        self.invocations = self.kills = self.failed = 0


def measured(
    program: str, address: str, request: str, node: Node | None, tally: Tally
) -> Callable[[], dict[str, float]]:
    """`node`: whose control plane is killed meanwhile."""

    def side() -> dict[str, float]:
        while True:
            with contextlib.ExitStack() as stack:
                killer = stack.enter_context(Killer(node)) if node is not None else None
                try:
                    samples = measure.load(program, "http", address, request, CONNECTIONS, SECONDS)
                except subprocess.CalledProcessError:
                    tally.failed += 1
                    if tally.failed > measure.RUNS:
                        raise
                    continue
            tally.kills += killer.kills if killer is not None else 0
            tally.invocations += len(samples) if killer is not None else 0
            return {**measure.latency(samples), "rate": measure.rate(samples, SECONDS)}

    return side


def run() -> Report:
    tally = Tally()
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(http.served())
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        request = compiled.file("request", http.post("hello", calls.EVENT))
        measure.load(program, "http", served.socket, request, CONNECTIONS, 2.0)  # its environments are there then
        results = measure.interleave(
            {
                "kills": measured(program, served.socket, request, served.node, tally),
                "calm": measured(program, served.socket, request, None, tally),
            }
        )
    return Report(
        bench="restart",
        figures=measure.figures("kills", results["kills"], UNITS),
        floor=measure.figures("calm", results["calm"], UNITS),
        ratio={
            "p50 with kills / without": measure.ratio(results, "kills", "calm", "p50"),
            "p99 with kills / without": measure.ratio(results, "kills", "calm", "p99"),
        },
        environments=CONNECTIONS,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"{tally.invocations:,} invocations beside {tally.kills} kills; runs with a failed call: {tally.failed}",
        summary={"failed": tally.failed, "invocations": tally.invocations, "kills": tally.kills},
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
