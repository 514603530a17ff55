"""How many sandboxes a second come to life when many are wanted at once, on all cores.

A wave of calls whose handler stays until all have begun: each needs an environment of its own. The rate is their number
over the time from the first call sent to the last handler entered. Floor: as many interpreters as there are cores, each
forking itself into new namespaces, calling the handler once and reaping.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench import calls, measure
from bench.measure import Compiled, Report
from bench.node import Node
from runtimed.client import Client

MEMORY_MB = 128
WAVE = 300
STAY_SECONDS = (3.0, 9.0, 27.0)
SETTINGS = {
    "RUNTIMED_POOLS_KEEP_ALIVE": "fixed",
    "RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": "1",
    "RUNTIMED_POOLS_PARKED": "0",
    "RUNTIMED_POOLS_LAUNCHES_PER_SECOND": "10000",
    "RUNTIMED_POOLS_OVERCOMMIT": "100",
}


def created(node: Node, client: Client) -> dict[str, float]:
    """One wave, then the wait for its environments to go. On a slow machine the wave stays longer."""
    for stay in STAY_SECONDS:
        start = time.time()
        answers = calls.wave(node, "wave", WAVE, {"until": start + stay})
        last = max(float(str(answer.value)) for answer in answers)
        measure.await_true(lambda: client.status().environments.idle == 0, 60, "the end of idle environments")
        if last < start + stay:
            return {"rate": WAVE / (last - start)}
    raise RuntimeError(f"{WAVE} environments took longer than {STAY_SECONDS[-1]:g} s to begin")


def floor(compiled: Compiled, python: str) -> dict[str, float]:
    cores = len(os.sched_getaffinity(0))
    command = [python, "-I", "-S", str(measure.FLOORS / "zygote.py"), compiled.shared("fork"), "rate"]
    running = [subprocess.Popen([*command, str(WAVE)], stdout=subprocess.PIPE, text=True) for _ in range(cores)]
    seconds = [float(process.communicate()[0]) for process in running]
    return {"rate": cores * WAVE / max(seconds)}


def run() -> Report:
    with Compiled() as compiled, Node.start(SETTINGS) as node, Client(node.address) as client:
        python = calls.deploy(client, "wave", calls.WAVE, MEMORY_MB)
        results = measure.interleave(
            {"sandboxes": lambda: created(node, client), "forks": lambda: floor(compiled, python)}
        )
    return Report(
        bench="creation_rate",
        figures=measure.figures("sandboxes", results["sandboxes"], {"rate": "sandboxes/s"}),
        floor=measure.figures("forks", results["forks"], {"rate": "forks/s"}),
        ratio={"sandboxes / forks": measure.ratio(results, "sandboxes", "forks", "rate")},
        environments=WAVE,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="namespaces, cgroups, /tmp, code imported and the handler entered; net namespaces are not reused",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
