"""What the benches share: interleaved runs, percentiles, the floors' compiled programs, and the report."""

from __future__ import annotations

import array
import contextlib
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import psutil

from bench.node import ROOT
from bench.node import await_true as await_true

HERE = pathlib.Path(__file__).resolve().parent
FLOORS = HERE / "floors"
RUNS = 5


class Figure(NamedTuple):
    """One measured quantity: its best run and the median of all runs."""

    name: str
    unit: str
    best: float
    median: float


class Report(NamedTuple):
    """What a bench says: our figures, the floor's, and the ratios that the promises speak of."""

    bench: str
    figures: list[Figure]
    floor: list[Figure]
    ratio: dict[str, float]
    environments: int
    memory_mb: int
    cpu_mode: str
    note: str = ""
    summary: Mapping[str, float] = MappingProxyType({})
    """What a promise names, beside the rest in the JSON."""


def machine() -> dict[str, Any]:
    """The machine as far as it decides about figures."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": psutil.virtual_memory().total >> 20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which that share of all lies."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def interleave(sides: dict[str, Callable[[], dict[str, float]]], runs: int = RUNS) -> dict[str, list[dict[str, float]]]:
    """Runs every side once, then every side again: what the machine does meanwhile meets all of them alike."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for run in range(runs):
        for name, side in sides.items():
            results[name].append(side())
            print(f"  run {run + 1}/{runs} {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in results[name][-1].items()),
                  file=sys.stderr)  # fmt: skip
    return results


def figures(side: str, results: list[dict[str, float]], units: dict[str, str]) -> list[Figure]:
    """Best and median over the runs; of rates (`.../s`) the best is the highest."""
    found = []
    for name, unit in units.items():
        values = [run[name] for run in results]
        best = max(values) if unit.endswith("/s") else min(values)
        found.append(Figure(f"{side} {name}", unit, best, statistics.median(values)))
    return found


def median(results: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in results)


def ratio(results: dict[str, list[dict[str, float]]], side: str, floor: str, name: str) -> float:
    """Of the medians."""
    return median(results[side], name) / median(results[floor], name)


def latency(samples: Sequence[float]) -> dict[str, float]:
    return {"p50": percentile(samples, 0.50), "p99": percentile(samples, 0.99)}


LATENCY = {"p50": "us", "p99": "us"}


class Compiled:
    """The floors, compiled into a directory that goes with the bench."""

    def __init__(self) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="runtimed-bench-"))

    def program(self, name: str, *flags: str) -> str:
        """Compiles floors/NAME.c once; returns the path."""
        path = self.directory / name
        if not path.exists():
            command = ["cc", "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", *flags, str(FLOORS / f"{name}.c")]
            subprocess.run([*command, "-o", str(path)], check=True)
        return str(path)

    def shared(self, name: str) -> str:
        return self.program(name, "-shared", "-fPIC")

    def file(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def __enter__(self) -> Compiled:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.directory.iterdir():
            path.unlink()
        self.directory.rmdir()


@contextlib.contextmanager
def server(*command: str) -> Iterator[str]:
    """A floor's server; yields the line it prints when it is ready."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            if not line:
                raise RuntimeError(f"{command[0]} did not start")
            yield line
        finally:
            process.kill()


@contextlib.contextmanager
def bare_grpc(directory: pathlib.Path) -> Iterator[str]:
    """The gRPC floor; yields its address."""
    path = directory / "grpc.sock"
    with server(sys.executable, str(FLOORS / "grpc_hello.py"), str(path)):
        yield f"unix:{path}"


def load(
    program: str, kind: str, address: str, request: str, connections: int, seconds: float, gap_ms: int = 0
) -> array.array[float]:
    """Round trips in microseconds, as the load program measured them."""
    command = [program, kind, address, request, str(connections), str(seconds), str(gap_ms)]
    return floats(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def floats(data: bytes) -> array.array[float]:
    """Samples as the floors' programs write them."""
    samples = array.array("f")
    samples.frombytes(data)
    return samples


def rate(samples: Sequence[float], seconds: float) -> float:
    """Round trips a second; the load leaves its first fifth out."""
    return len(samples) / (seconds * 0.8)


def show(report: Report, as_json: bool) -> None:
    """A table on standard error for people; with --json one object as the last line of standard output."""
    described = machine()
    out = sys.stderr if as_json else sys.stdout
    print(
        f"\n{report.bench}: {described['cpu']}, {described['cores']} cores, {described['memory_mb']} MB, "
        f"kernel {described['kernel']}, load {described['load']}; {report.environments} environments of "
        f"{report.memory_mb} MB, cpu {report.cpu_mode}; best and median of {RUNS} interleaved runs",
        file=out,
    )
    for title, rows in (("runtimed", report.figures), ("floor", report.floor)):
        for row in rows:
            print(f"  {title:9} {row.name:44} {row.best:12.2f} {row.median:12.2f} {row.unit}", file=out)
    for name, value in report.ratio.items():
        print(f"  ratio     {name:44} {value:25.2f}", file=out)
    if report.note:
        print(f"  {report.note}", file=out)
    if as_json:
        record = {
            "bench": report.bench,
            "machine": described,
            "environments": report.environments,
            "memory_mb": report.memory_mb,
            "cpu_mode": report.cpu_mode,
            "figures": {row.name: row._asdict() for row in report.figures},
            "floor": {row.name: row._asdict() for row in report.floor},
            "ratio": report.ratio,
            "note": report.note,
            **report.summary,
        }
        print(msgspec.json.encode(record).decode(), flush=True)
