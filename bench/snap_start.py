"""SnapStart: from the request to the first response of a new environment of a function that imports boto3 and makes a
client, restored from a snapshot or initialised as usual.

As in `cold_start` idle environments are not kept, so each call finds none. Floor: a bare interpreter that has imported
the same and forks into new namespaces, its child calling the handler once.
"""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile

from bench import calls, measure
from bench.cold_start import HOT_GAP_MS, IDLE_CALLS, IDLE_GAP_MS, cold
from bench.measure import Compiled, Report
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.function import SnapStart, SnapStartApplyOn, SnapStartOptimizationStatus

MEMORY_MB = 256
FLOOR_CALLS = 100
PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
SOURCE = """
import boto3

client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")

def handler(event, context):
    return {"hello": event.get("name", "you")}
"""


def package(directory: pathlib.Path) -> None:
    """boto3 as it is installed beside the benches, and a handler."""
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise RuntimeError(f"{name} is missing: ./dev setup installs it")
        origin = pathlib.Path(found.origin)
        if origin.name == "__init__.py":
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(origin.parent, directory / name, ignore=ignored)
        else:
            shutil.copy(origin, directory)
    (directory / "app.py").write_text(SOURCE)


def floor(compiled: Compiled, directory: pathlib.Path, count: int, gap_ms: int) -> list[float]:
    command = [sys.executable, "-I", "-S", str(measure.FLOORS / "zygote.py"), compiled.shared("fork"), "first"]
    command += [str(count), str(gap_ms), str(directory)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    samples = [float(line) for line in done.stdout.split()]
    return samples[len(samples) // 5 :]


def deploy(client: Client, name: str, directory: pathlib.Path, apply_on: SnapStartApplyOn) -> None:
    """With SnapStart: until there is a snapshot."""
    runtime = f"python3.{sys.version_info.minor}"
    snap_start = SnapStart(apply_on=apply_on)
    client.deploy(
        name,
        directory,
        runtime=runtime,
        handler="app.handler",
        memory_size=MEMORY_MB,
        timeout=60,
        snap_start=snap_start,
    )
    client.invoke(name, {})
    if apply_on is not SnapStartApplyOn.NONE:
        on = SnapStartOptimizationStatus.ON
        await_true(lambda: client.get_function(name).snap_start.optimization_status is on, 60, "a snapshot")


def run() -> Report:
    settings = {
        "RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": "0",
        "RUNTIMED_POOLS_PARKED": "0",
        "RUNTIMED_POOLS_LAUNCHES_PER_SECOND": "10000",
    }
    with (
        Compiled() as compiled,
        tempfile.TemporaryDirectory(prefix="runtimed-bench-") as made,
        Node.start(settings) as node,
        Client(node.address) as client,
    ):
        directory = pathlib.Path(made)
        package(directory)
        deploy(client, "restored", directory, SnapStartApplyOn.PUBLISHED_VERSIONS)
        deploy(client, "initialised", directory, SnapStartApplyOn.NONE)
        program, socket = compiled.program("load"), calls.dispatch_socket(node)
        restored = compiled.file("restored", calls.request("restored"))
        initialised = compiled.file("initialised", calls.request("initialised"))
        results = measure.interleave(
            {
                "restored": lambda: cold(program, client, socket, restored, HOT_GAP_MS),
                "fork": lambda: measure.latency(floor(compiled, directory, FLOOR_CALLS, HOT_GAP_MS)),
                "initialised": lambda: cold(program, client, socket, initialised, HOT_GAP_MS),
                "idle": lambda: cold(program, client, socket, restored, IDLE_GAP_MS),
                "idle fork": lambda: measure.latency(floor(compiled, directory, IDLE_CALLS, IDLE_GAP_MS)),
            }
        )
    return Report(
        bench="snap_start",
        figures=measure.figures("restored", results["restored"], measure.LATENCY)
        + measure.figures("initialised", results["initialised"], measure.LATENCY)
        + measure.figures(f"restored after {IDLE_GAP_MS} ms", results["idle"], measure.LATENCY),
        floor=measure.figures("fork", results["fork"], measure.LATENCY)
        + measure.figures(f"fork after {IDLE_GAP_MS} ms", results["idle fork"], measure.LATENCY),
        ratio={
            "restored p50 / fork p50": measure.ratio(results, "restored", "fork", "p50"),
            "restored p50 / initialised p50": measure.ratio(results, "restored", "initialised", "p50"),
            "idle p50 / idle fork p50": measure.ratio(results, "idle", "idle fork", "p50"),
        },
        environments=1,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="boto3 imported and a client made at init; each environment ends after its call",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
