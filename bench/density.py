"""Memory of an idle environment after one call, of a thousand: proportional set size, and what the kernel holds for it;
and what warm calls of another function take beside them.

Floors: children of a bare interpreter, forked into new namespaces, after one call; the same warm calls on the node
while nothing else is there.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import sys
import time

from bench import calls, measure
from bench.measure import Compiled, Report
from bench.node import Node, processes
from runtimed.client import Client

MEMORY_MB = 128
ENVIRONMENTS = 1000
RUNS = 3
STAY_SECONDS = 10.0
KEEP_SECONDS = 30
WARM_SECONDS = 2.0
KERNEL = ("Slab", "KernelStack", "PageTables", "Percpu", "SecPageTables")
UNITS = {"PSS": "KiB", "kernel": "KiB"}
HELLO_MB = 1769  # one core


def kernel_kib() -> int:
    text = pathlib.Path("/proc/meminfo").read_text()
    return sum(int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE) if name in KERNEL)


def settled_kernel_kib() -> int:
    """Once what earlier runs left to the kernel to free has been freed: no change of 100 KiB within half a second."""
    last = kernel_kib()
    for _ in range(40):
        time.sleep(0.5)
        now = kernel_kib()
        if abs(now - last) < 100:
            break
        last = now
    return kernel_kib()


def pss_kib(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total


def warm(compiled: Compiled, node: Node) -> dict[str, float]:
    request = compiled.file("call", calls.request("hello"))
    return measure.latency(
        measure.load(compiled.program("load"), "call", calls.dispatch_socket(node), request, 1, WARM_SECONDS)
    )


def environments(compiled: Compiled, node: Node, client: Client) -> dict[str, float]:
    """A wave of calls; what is there afterwards and was not before, per environment."""
    alone = warm(compiled, node)
    before = {process.pid for process in node.processes()}
    kernel = settled_kernel_kib()
    calls.wave(node, "wave", ENVIRONMENTS, {"until": time.time() + STAY_SECONDS})
    idle = client.status().environments.idle
    if idle < ENVIRONMENTS:
        raise RuntimeError(f"only {idle} environments for {ENVIRONMENTS} calls at once: too slow a machine")
    beside = warm(compiled, node)
    after = [process.pid for process in node.processes() if process.pid not in before]
    result = {"PSS": pss_kib(after) / ENVIRONMENTS, "kernel": (kernel_kib() - kernel) / ENVIRONMENTS}
    measure.await_true(
        lambda: client.status().environments.idle == 0, 60 + KEEP_SECONDS, "the end of idle environments"
    )
    return {**result, **beside, **{f"{name} alone": value for name, value in alone.items()}}


def floor(compiled: Compiled, python: str) -> dict[str, float]:
    command = [python, "-I", "-S", str(measure.FLOORS / "zygote.py"), compiled.shared("fork"), "hold"]
    kernel = settled_kernel_kib()
    with subprocess.Popen(
        [*command, str(ENVIRONMENTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        children = [pid for pid, (_, parent) in processes().items() if parent == process.pid]
        result = {"PSS": pss_kib(children) / ENVIRONMENTS, "kernel": (kernel_kib() - kernel) / ENVIRONMENTS}
        process.communicate("\n")
    return result


def run() -> Report:
    settings = {
        "RUNTIMED_POOLS_KEEP_ALIVE": "fixed",
        "RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": str(KEEP_SECONDS),
        "RUNTIMED_POOLS_LAUNCHES_PER_SECOND": "10000",
        "RUNTIMED_POOLS_PARKED": "0",
        "RUNTIMED_POOLS_OVERCOMMIT": "100",
    }
    with Compiled() as compiled, Node.start(settings) as node, Client(node.address) as client:
        python = calls.deploy(client, "wave", calls.WAVE, MEMORY_MB)
        calls.deploy(client, "hello", calls.HELLO, HELLO_MB)
        results = measure.interleave(
            {"environments": lambda: environments(compiled, node, client), "forks": lambda: floor(compiled, python)},
            RUNS,
        )
    return Report(
        bench="density",
        figures=measure.figures("environment", results["environments"], UNITS)
        + measure.figures("warm call beside", results["environments"], measure.LATENCY),
        floor=measure.figures("forked child", results["forks"], UNITS)
        + measure.figures("warm call", results["environments"], {f"{name} alone": "us" for name in measure.LATENCY}),
        ratio={
            "PSS / child's PSS": measure.ratio(results, "environments", "forks", "PSS"),
            "p99 beside / alone": measure.median(results["environments"], "p99")
            / measure.median(results["environments"], "p99 alone"),
        },
        environments=ENVIRONMENTS,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="three runs; with the anchor processes of the environments and of the namespaces made ahead meanwhile",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
