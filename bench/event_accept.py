"""Events accepted a second, each on the disk before it is confirmed: HTTP with `X-Amz-Invocation-Type: Event`, beside
Redis Streams (`appendfsync always`), PostgreSQL (a commit an event) and SQLite (WAL, synchronous FULL, a row a commit)
on the same disk, by the same clients over unix sockets; SQLite has threads of its own process instead.

And the log alone, in groups of as many events, beside bare `fdatasync` of the same bytes in the same groups.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from bench import calls, events, http, measure, peers
from bench.measure import Compiled, Figure, Report

CLIENTS = (1, 16, 64, 256)
SIZES = {"256 B": 256, "64 KB": 65536}
PROMISED = (64, "256 B")
SECONDS = 0.75
SECONDS_ALONE = 0.5
MEMORY_MB = 128
Sides = dict[str, Callable[[], dict[str, float]]]


@contextlib.contextmanager
def folder() -> Iterator[pathlib.Path]:
    """Where nodes have theirs, so that all is on one disk. Others than root may pass through."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="runtimed-bench-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def timed(samples: Sequence[float]) -> dict[str, float]:
    return {**measure.latency(samples), "rate": measure.rate(samples, SECONDS)}


def alone(log: str, way: str, directory: pathlib.Path, group: int, size: int) -> dict[str, float]:
    """`way`: grouped or bare."""
    directory.mkdir()
    command = [log, way, str(directory), str(group), str(size), str(SECONDS_ALONE)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(directory)
    rate, written, p99 = map(float, done.stdout.split())
    return {"rate": rate, "p99": p99, "bytes": written}


class Stores:
    """All sides, running."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.compiled = stack.enter_context(Compiled())
        self.folder = stack.enter_context(folder())
        self.events = self.compiled.program("events")
        self.rows = peers.sqlite(self.compiled)
        self.log = events.log_program(self.compiled)
        served = stack.enter_context(http.served())
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        served.client.pause_queue("hello")  # accepting is measured: bench/event_drain.py does the rest
        self.socket = served.socket
        self.redis = stack.enter_context(peers.redis(self.folder / "redis"))
        self.postgres = stack.enter_context(peers.postgres(self.folder / "postgres"))
        self._number = 0

    def sides(self, clients: int, size: int) -> Sides:
        body = events.payload(size)

        def over(kind: str, address: str, request: bytes) -> dict[str, float]:
            path = self.compiled.file(kind, request)
            return timed(measure.load(self.events, kind, address, path, clients, SECONDS))

        def redis() -> dict[str, float]:
            found = over("redis", self.redis, peers.redis_add(body))
            peers.redis_forget(self.redis)
            return found

        def sqlite() -> dict[str, float]:
            self._number += 1
            place = self.folder / f"sqlite{self._number}"
            place.mkdir()
            command = [self.rows, str(place / "events.db"), self.compiled.file("row", body), str(clients), str(SECONDS)]
            found = timed(measure.floats(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            shutil.rmtree(place)
            return found

        return {
            "runtimed": functools.partial(over, "http", self.socket, events.asynchronous("hello", body)),
            "redis": redis,
            "postgres": functools.partial(over, "postgres", self.postgres, body),
            "sqlite": sqlite,
            "log": functools.partial(alone, self.log, "grouped", self.folder / "log", clients, size),
            "fdatasync": functools.partial(alone, self.log, "bare", self.folder / "bare", clients, size),
        }


def figures(found: dict[tuple[int, str], dict[str, list[dict[str, float]]]], sides: tuple[str, ...]) -> list[Figure]:
    rows = []
    for (clients, size), results in found.items():
        for side in sides:
            name = f"{side}, {clients} x {size}"
            rows += measure.figures(name, results[side], {"rate": "events/s", "p99": "us"})
    return rows


def run() -> Report:
    if lacking := peers.missing():
        raise SystemExit(f"event_accept {lacking}")
    found = {}
    with contextlib.ExitStack() as stack:
        stores = Stores(stack)
        for clients in CLIENTS:
            for name, size in SIZES.items():
                print(f"  {clients} clients, {name}:", file=sys.stderr)
                found[clients, name] = measure.interleave(stores.sides(clients, size))
    ratios = {
        f"{ours} / {theirs}, {clients} x {name}": measure.ratio(results, ours, theirs, "rate")
        for (clients, name), results in found.items()
        for ours, theirs in (
            ("runtimed", "redis"), ("runtimed", "postgres"), ("runtimed", "sqlite"), ("log", "fdatasync"),
        )
    }  # fmt: skip
    promised = found[PROMISED]
    return Report(
        bench="event_accept",
        figures=figures(found, ("runtimed", "log")),
        floor=figures(found, ("redis", "postgres", "sqlite", "fdatasync")),
        ratio=ratios,
        environments=0,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"clients on the same cores, over unix sockets; the summary is of {PROMISED[0]} clients and {PROMISED[1]}"
        ", of medians; ratio_fdatasync: the median over all numbers of clients and sizes",
        summary={
            "accepts_per_s": measure.median(promised["runtimed"], "rate"),
            "ratio_redis_always": measure.ratio(promised, "runtimed", "redis", "rate"),
            "ratio_postgres": measure.ratio(promised, "runtimed", "postgres", "rate"),
            "ratio_sqlite_full": measure.ratio(promised, "runtimed", "sqlite", "rate"),
            "ratio_fdatasync": statistics.median(
                measure.ratio(results, "log", "fdatasync", "rate") for results in found.values()
            ),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
