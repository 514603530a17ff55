"""The demo: a node in temporary directories, real functions deployed and invoked as a newcomer would, a clean end.

Deploys through the command line (which installs each function's requirements), invokes through the SDK.
"""

from __future__ import annotations

import concurrent.futures
import sys
import time
import traceback
from typing import NamedTuple

from bench.node import Node
from runtimed.client import Client
from runtimed.client.result import Result
from tests.functions.catalogue import CATALOGUE, Function

WARM_CALLS = 5
HEAD = (
    f"{'function':<13}{'deploy':>9}{'first call':>12}{'its init':>11}{'warm call':>11}{'in handler':>12}  what it did"
)


class Row(NamedTuple):
    """Timings of one function, in milliseconds; `problem` when its answer was not the expected one."""

    function: Function
    deploy: float = 0
    first: float = 0
    init: float = 0
    warm: float = 0
    handler: float = 0
    problem: str = ""


def milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def deploy(node: Node, function: Function) -> float:
    """One `runtimectl deploy`; returns how long it took."""
    start = time.perf_counter()
    done = node.runtimectl(
        "deploy", function.name, function.path, "--handler", function.handler,
        "--memory", str(function.memory), "--timeout", str(function.timeout), seconds=600,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"runtimectl deploy {function.name}: {done.stderr.strip()}")
    return (time.perf_counter() - start) * 1000


def call(client: Client, function: Function) -> tuple[Result, float]:
    start = time.perf_counter()
    result = client.invoke(function.name, function.event)
    took = (time.perf_counter() - start) * 1000
    function.check(result.value)
    return result, took


def try_function(client: Client, function: Function, deployed: float) -> Row:
    """The first call and the fastest of some warm ones."""
    try:
        first, first_took = call(client, function)
        warm, warm_took = min((call(client, function) for _ in range(WARM_CALLS)), key=lambda made: made[1])
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Row(function, deployed, problem=f"WRONG: {type(error).__name__}: {error or where.line}")
    return Row(
        function, deployed, first_took, first.response.init_duration_us / 1000, warm_took,
        warm.response.duration_us / 1000,
    )  # fmt: skip


def show(row: Row) -> None:
    times = (row.deploy, row.first, row.init, row.warm, row.handler)
    widths = (9, 12, 11, 11, 12)
    cells = "".join(f"{milliseconds(value):>{width}}" for value, width in zip(times, widths, strict=True))
    print(f"{row.function.name:<13}{cells}  {row.problem or row.function.says}", flush=True)


def demonstrate(node: Node) -> list[Row]:
    """Deploys everything, two at a time as pip is slow, then calls one function after the other."""
    rows = []
    with Client(node.address) as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
        deploying = [(function, pool.submit(deploy, node, function)) for function in CATALOGUE]
        print(f"deploying {len(CATALOGUE)} functions over gRPC and invoking them in sandboxes:\n\n{HEAD}", flush=True)
        for function, future in deploying:
            row = try_function(client, function, future.result())
            rows.append(row)
            show(row)
        status = client.status()
        print(
            f"\n{status.invocations.total} invocations, {status.invocations.cold_starts} cold starts, "
            f"{status.environments.idle} environments idle, runtimes: "
            + ", ".join(sorted({runtime.name for runtime in status.runtimes}))
        )
        tail = client.invoke("counter", {}, log_tail=True).log_tail
        print("\nthe log of the last call:\n  " + tail.strip().replace("\n", "\n  "))
    return rows


def main() -> int:
    begin = time.perf_counter()
    print("starting a node in temporary directories ...", flush=True)
    node = Node.start()
    print(f"it answers at {node.address} after {(time.perf_counter() - begin) * 1000:.0f} ms")
    try:
        rows = demonstrate(node)
    finally:
        left = node.stop()
    print(f"\nstopped; {'nothing is left' if not left else 'left over:'}")
    for line in left:
        print(f"  {line}")
    wrong = [row for row in rows if row.problem]
    print(f"{len(rows) - len(wrong)} of {len(rows)} functions answered as expected, "
          f"{time.perf_counter() - begin:.1f} s in all")  # fmt: skip
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
