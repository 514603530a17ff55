"""What a machine with many more cores would run into: the parts of the node that are one of a kind, each with the
processor time that it takes for a call (or a cold start, or a connection), hence how many there can be a second,
however many cores there are. Beside them what is divided over loops and environments.

Floor: an addition to a line of memory that two cores write, beside one to a line of one's own. A call makes none of the
first kind: loops keep tokens, memory for payloads, counters and logs apart, and draw on what is shared in batches.
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from bench import calls, http, measure
from bench.http import Served
from bench.loops import counters
from bench.measure import Report
from bench.processor import of_process, ran

SECONDS = 2.0
CONNECTIONS = 64
ACCEPTED = 2000
COLD = 32  # at a time
MEMORY_MB = 1769  # one core
LOOPS = 2
LOOPS_MAX = 64

Spent = dict[str, float]
"""Microseconds of processor time by part."""


def spent(served: Served) -> Spent:
    """By the parts that there is one of, and by those that there are many of."""
    roles = served.node.roles()
    found = {"first loop": 0.0, "loops": 0.0, "log writer": 0.0, "launcher": 0.0, "environments": 0.0}
    for task in pathlib.Path(f"/proc/{roles['dispatch']}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name == "log-writer":
            found["log writer"] += ran(task)
        elif int(task.name) == roles["dispatch"] or name.startswith("loop-"):
            found["loops"] += ran(task)
            found["first loop"] += ran(task) if int(task.name) == roles["dispatch"] else 0.0
    for process in served.node.processes():
        if process.pid not in roles.values():
            found["environments"] += of_process(process.pid)
    found["launcher"] = of_process(roles["launcher"])
    return found


def warm(program: str, served: Served, request: str) -> Callable[[], dict[str, float]]:
    page = counters(served.node.roles()["dispatch"])

    def side() -> dict[str, float]:
        before, counted = spent(served), page.node()["invocations"]
        samples = measure.load(program, "http", served.port, request, CONNECTIONS, SECONDS)
        after, done = spent(served), page.node()["invocations"] - counted
        return {
            "loops": (after["loops"] - before["loops"]) / done,
            "log writer": (after["log writer"] - before["log writer"]) / done,
            "environments": max(0.0, after["environments"] - before["environments"]) / done,
            "rate": measure.rate(samples, SECONDS),
        }

    return side


def accepting(served: Served) -> Callable[[], dict[str, float]]:
    """The first loop takes all connections, and hands most of them on."""

    def side() -> dict[str, float]:
        before = spent(served)["first loop"]
        for _ in range(ACCEPTED):
            with socket.create_connection(("127.0.0.1", int(served.port))):
                pass
        page = counters(served.node.roles()["dispatch"])
        measure.await_true(lambda: page.node()["connections"] == 0, 30, "the connections' end")
        return {"accept": (spent(served)["first loop"] - before) / ACCEPTED}

    return side


def starting(served: Served) -> Callable[[], dict[str, float]]:
    """Cold starts, all of a function that is new."""
    number = iter(range(1000))

    def side() -> dict[str, float]:
        name = f"cold-{next(number)}"
        calls.deploy(served.client, name, calls.WAVE, MEMORY_MB)
        before = spent(served)["launcher"]
        calls.wave(served.node, name, COLD, {"until": time.time() + 1})
        took = spent(served)["launcher"] - before
        served.client.delete_function(name)
        return {"launch": took / COLD}

    return side


def atomics(program: str) -> Callable[[], dict[str, float]]:
    def side() -> dict[str, float]:
        own, shared = map(float, subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout.split())
        return {"own line": own, "shared line": shared}

    return side


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(
            http.served({"RUNTIMED_DISPATCH_LOOPS": str(LOOPS), "RUNTIMED_DISPATCH_BUSY_PERCENT": "0"})
        )
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        request = compiled.file("request", http.post("hello", calls.EVENT, served.token))
        sides = {
            "call": warm(program, served, request),
            "accept": accepting(served),
            "cold start": starting(served),
            "atomics": atomics(compiled.program("atomics", "-pthread")),
        }
        results = measure.interleave(sides)
        environments = served.client.status().environments
    loop, writer, inside = (measure.median(results["call"], name) for name in ("loops", "log writer", "environments"))
    ceilings = {
        "calls, by the log writer": 1e6 / writer,
        f"calls, by {LOOPS_MAX} loops": LOOPS_MAX * 1e6 / loop,
        "connections, by the first loop": 1e6 / measure.median(results["accept"], "accept"),
        "cold starts, by the launcher": 1e6 / measure.median(results["cold start"], "launch"),
    }
    return Report(
        bench="limits",
        figures=measure.figures("", results["call"], {"loops": "us/call", "log writer": "us/call"})
        + measure.figures("", results["call"], {"environments": "us/call", "rate": "calls/s"})
        + measure.figures("", results["accept"], {"accept": "us each"})
        + measure.figures("", results["cold start"], {"launch": "us each"}),
        floor=measure.figures("", results["atomics"], {"own line": "ns", "shared line": "ns"}),
        ratio={
            "shared line / own line": measure.median(results["atomics"], "shared line")
            / measure.median(results["atomics"], "own line")
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="ceilings a second: "
        + "; ".join(f"{name} {value:,.0f}" for name, value in ceilings.items())
        + f". 64 cores, without the callers: {64e6 / (loop + writer + inside):,.0f} calls a second, "
        + f"{64 * loop / (loop + writer + inside):.0f} of them loops",
        summary={name.replace(",", "").replace(" ", "_"): value for name, value in ceilings.items()},
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
