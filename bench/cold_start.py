"""Cold starts: from the request to the first response of an environment that did not serve before, by tier.

    zygote     of a spare where one is at hand, else forked from the zygote; the function's code is imported in it
    template   restored from a snapshot (SnapStart)
    parked     started and initialised before the request; frozen when nobody asks for 100 ms
    Node.js    its environments are executed, from nothing; or parked

Idle environments are not kept (keep-alive 0), so that each call finds none; of a parked one the function ends its
environment behind its answer, so that each call finds another. Floors: a bare interpreter that forks into new
namespaces and calls the handler once; peers (cold_peers.py), which make a process from nothing. Back to back: each call
right after the last answer, while the environment before it is still being taken down; hot: with a breath in between;
idle: after a longer pause.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from bench import calls, cold_peers, measure
from bench.measure import Compiled, Figure, Report
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.function import SnapStart, SnapStartApplyOn, SnapStartOptimizationStatus

MEMORY_MB = 128
PACKAGE_MB = 512
SECONDS = 2.0
SPARES = 4
HOT_GAP_MS = 10
IDLE_GAP_MS = 100
PARKED_GAP_MS = 100  # in which a parked one leaves and is replaced
PARKED = 4
IDLE_CALLS = 25
FLOOR_CALLS = 200
COLD_SHARE = 0.98  # of the calls that must have been cold for the figures to mean anything
RUNS = 3  # of what imports packages
SNAPSHOT_SECONDS = 120
# Ends its environment behind its answer, by what costs next to nothing: a thread would be dearer than all the rest.
LEAVING = """
import signal

def handler(event, context):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return {"hello": event.get("name", "you")}
"""
NODE = "exports.handler = async (event) => ({hello: event.name || 'you'});\n"
NODE_LEAVING = """
exports.handler = async (event) => {
  setTimeout(() => process.exit(0), 50);
  return {hello: event.name || 'you'};
};
"""

Side = Callable[[], dict[str, float]]


def floor(compiled: Compiled, python: str, count: int, gap_ms: int) -> list[float]:
    command = [python, "-I", "-S", str(measure.FLOORS / "zygote.py"), compiled.shared("fork"), "first"]
    done = subprocess.run([*command, str(count), str(gap_ms)], stdout=subprocess.PIPE, text=True, check=True)
    samples = [float(line) for line in done.stdout.split()]
    return samples[len(samples) // 5 :]


def cold(program: str, client: Client, socket: str, request: str, gap_ms: int) -> dict[str, float]:
    """Latencies of calls of which each must have been the first of its environment."""
    seconds = max(SECONDS, IDLE_CALLS * (gap_ms + 5) / 1000)
    before = client.status().invocations
    samples = measure.load(program, "call", socket, request, 1, seconds, gap_ms)
    after = client.status().invocations
    if after.cold_starts - before.cold_starts < COLD_SHARE * (after.total - before.total):
        raise RuntimeError(
            f"only {after.cold_starts - before.cold_starts} of {after.total - before.total} calls were cold starts"
        )
    return measure.latency(samples)


class Bench:
    """A node, and what calls it."""

    def __init__(self, compiled: Compiled, node: Node, client: Client) -> None:
        self.compiled, self.node, self.client = compiled, node, client
        self.program, self.socket = compiled.program("load"), calls.dispatch_socket(node)

    def side(self, name: str, gap_ms: int) -> Side:
        request = self.compiled.file(name, calls.request(name))
        return lambda: cold(self.program, self.client, self.socket, request, gap_ms)

    def deploy_package(self, name: str, package: str, snap: bool) -> None:
        with tempfile.TemporaryDirectory(prefix="runtimed-bench-") as made:
            cold_peers.package(package, pathlib.Path(made))
            apply_on = SnapStartApplyOn.PUBLISHED_VERSIONS if snap else SnapStartApplyOn.NONE
            self.client.deploy(
                name,
                pathlib.Path(made),
                runtime=f"python3.{sys.version_info.minor}",
                handler="app.handler",
                memory_size=PACKAGE_MB,
                timeout=60,
                snap_start=SnapStart(apply_on=apply_on),
            )
        self.client.invoke(name, {})
        if snap:
            on = SnapStartOptimizationStatus.ON
            await_true(
                lambda: self.client.get_function(name).snap_start.optimization_status is on,
                SNAPSHOT_SECONDS,
                f"a snapshot of {name}",
            )

    def park(self, name: str) -> Side:
        self.client.provision(name, PARKED)
        side = self.side(name, PARKED_GAP_MS)

        def run() -> dict[str, float]:
            await_true(lambda: self.client.status().environments.idle >= PARKED, 60, "parked environments")
            return side()

        return run


@contextlib.contextmanager
def bench(spares: int = SPARES) -> Iterator[Bench]:
    settings = {
        "RUNTIMED_POOLS_SPARES": str(spares),
        "RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": "0",
        "RUNTIMED_POOLS_PARKED": "0",
        "RUNTIMED_POOLS_LAUNCHES_PER_SECOND": "10000",
    }
    with Compiled() as compiled, Node.start(settings) as node, Client(node.address) as client:
        yield Bench(compiled, node, client)


def node_runtime(client: Client) -> str:
    """The name of one; empty where the machine has no Node.js."""
    return next((runtime.name for runtime in client.runtimes() if runtime.name.startswith("nodejs")), "")


def deploy_node(client: Client, name: str, source: str, runtime: str) -> None:
    with tempfile.TemporaryDirectory(prefix="runtimed-bench-") as made:
        (pathlib.Path(made) / "index.js").write_text(source)
        client.deploy(
            name, pathlib.Path(made), runtime=runtime, handler="index.handler", memory_size=MEMORY_MB, timeout=60
        )


def measured(one: Bench) -> tuple[dict[str, list[dict[str, float]]], list[str]]:
    """All sides with their runs; what could not be measured, with the reason."""
    python = calls.deploy(one.client, "hello", calls.HELLO, MEMORY_MB)
    results = measure.interleave(
        {
            "hot": one.side("hello", HOT_GAP_MS),
            "fork": lambda: measure.latency(floor(one.compiled, python, FLOOR_CALLS, HOT_GAP_MS)),
            "back to back": one.side("hello", 0),
            "fork back to back": lambda: measure.latency(floor(one.compiled, python, FLOOR_CALLS, 0)),
            "idle": one.side("hello", IDLE_GAP_MS),
            "idle fork": lambda: measure.latency(floor(one.compiled, python, IDLE_CALLS, IDLE_GAP_MS)),
        }
    )
    sides, missing, kept = cold_peers.peers(python)
    with kept:
        for package in cold_peers.packages():
            for tier, snap in (("zygote", False), ("template", True)):
                one.deploy_package(f"{package}-{tier}", package, snap)
                sides[f"{tier}, {package}"] = one.side(f"{package}-{tier}", HOT_GAP_MS)
        runtime = node_runtime(one.client)
        if runtime:
            deploy_node(one.client, "node-hello", NODE, runtime)
            sides["Node.js"] = one.side("node-hello", HOT_GAP_MS)
        else:
            missing.append("Node.js: not on this machine")
        results |= measure.interleave(sides, RUNS)
    for name, label in (("parked", "parked"), ("node-parked", "parked, Node.js")):
        if label == "parked":
            calls.deploy(one.client, name, LEAVING, MEMORY_MB)
        elif runtime:
            deploy_node(one.client, name, NODE_LEAVING, runtime)
        else:
            continue
        results |= measure.interleave({label: one.park(name)}, RUNS)
        one.client.unprovision(name)
    return results, missing


FLOORS = {"fork": "fork hot", "fork back to back": "fork back to back", "idle fork": f"fork after {IDLE_GAP_MS} ms"}
OURS = {"idle": f"after {IDLE_GAP_MS} ms"}
SUMMARY = {"parked": "parked", "hot": "zygote", "template, boto3": "template_boto3"}


def run() -> Report:
    with bench() as one:
        results, missing = measured(one)

    def is_peer(name: str) -> bool:
        return name in FLOORS or "python3" in name

    figures: list[Figure] = []
    floors: list[Figure] = []
    for name, runs in results.items():
        label = FLOORS.get(name, OURS.get(name, name))
        (floors if is_peer(name) else figures).extend(measure.figures(label, runs, measure.LATENCY))
    ratio = {
        "hot p50 / fork p50": measure.ratio(results, "hot", "fork", "p50"),
        "back to back p50 / fork back to back p50": measure.ratio(results, "back to back", "fork back to back", "p50"),
        "idle p50 / idle fork p50": measure.ratio(results, "idle", "idle fork", "p50"),
    }
    for package in cold_peers.packages():
        for tier in ("zygote", "template"):
            ratio[f"{tier}, {package} / python3, {package}"] = measure.ratio(
                results, f"{tier}, {package}", f"python3, {package}", "p50"
            )
    summary = {}
    for name, runs in results.items():
        key = SUMMARY.get(name, name).replace(", ", "_").replace(" ", "_").replace(".", "").lower()
        summary[f"{key}_p50_ms"] = round(measure.median({name: runs}[name], "p50") / 1000, 3)
    return Report(
        bench="cold_start",
        figures=figures,
        floor=floors,
        ratio=ratio,
        environments=1,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="; ".join(["hello handler, code imported in the environment; packages with 512 MB", *missing]),
        summary=summary,
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
