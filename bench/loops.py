"""One loop of the dispatcher beside two: what an invocation costs it, by thread, and how many there are a second.

Nodes that differ in `dispatch.loops` and in how connections come to them, asked in turn over loopback TCP: with two
loops, packed on one as long as that is enough, and half on each whether or not it is needed. Processor time is that of
the dispatcher's threads alone, as the scheduler accounts for it. Turns: how often a loop looks for what has happened.
Floor: a bare epoll HTTP server.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable

from bench import calls, http, measure
from bench.measure import Report
from runtimed.dispatch.counters import CounterPage

SECONDS = 3.0
CONNECTIONS = 64
MEMORY_MB = 1769  # one core
SIDES = {
    "one loop": {"RUNTIMED_DISPATCH_LOOPS": "1"},
    "two loops": {"RUNTIMED_DISPATCH_LOOPS": "2"},
    "two loops, half on each": {"RUNTIMED_DISPATCH_LOOPS": "2", "RUNTIMED_DISPATCH_BUSY_PERCENT": "0"},
}
UNITS = {
    **measure.LATENCY,
    "rate": "calls/s",
    "cpu": "us/call",
    "loops": "us/call",
    "log writer": "us/call",
    "turns": "per call",
    "moved": "connections",
}


def processor_time(pid: int) -> dict[str, float]:
    """Microseconds that each kind of thread has run: `loops`, `log writer`, and `cpu`, all of them."""
    spent = {"loops": 0.0, "log writer": 0.0, "cpu": 0.0}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name, ran = (task / "comm").read_text().strip(), int((task / "schedstat").read_text().split()[0]) / 1000
        spent["log writer" if name == "log-writer" else "loops"] += ran
        spent["cpu"] += ran
    return spent


def counters(pid: int) -> CounterPage:
    """The dispatcher's own page, by its descriptor."""
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if "runtimed-counters" in os.readlink(link):
            return CounterPage(os.open(link, os.O_RDONLY))
    raise RuntimeError(f"the dispatcher (process {pid}) has no counters")


def measured(program: str, served: http.Served, request: str, connections: int) -> Callable[[], dict[str, float]]:
    pid = served.node.roles()["dispatch"]
    page = counters(pid)

    def side() -> dict[str, float]:
        spent, counted = processor_time(pid), page.node()
        samples = measure.load(program, "http", served.port, request, connections, SECONDS)
        more, after = processor_time(pid), page.node()
        done = after["invocations"] - counted["invocations"]
        found = {name: (more[name] - spent[name]) / done for name in spent}
        found["turns"] = (after["loop_turns"] - counted["loop_turns"]) / done
        found["moved"] = float(after["connections_moved"] - counted["connections_moved"])
        return {**measure.latency(samples), "rate": measure.rate(samples, SECONDS), **found}

    return side


def bare(program: str, address: str, request: str) -> Callable[[], dict[str, float]]:
    def side() -> dict[str, float]:
        samples = measure.load(program, "http", address, request, CONNECTIONS, SECONDS)
        return {**measure.latency(samples), "rate": measure.rate(samples, SECONDS)}

    return side


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        sides: dict[str, Callable[[], dict[str, float]]] = {}
        for name, settings in SIDES.items():
            served = stack.enter_context(http.served(settings))
            calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
            request = compiled.file(name, http.post("hello", calls.EVENT, served.token))
            for connections in (CONNECTIONS, 1):
                sides[f"{name}, {connections}"] = measured(program, served, request, connections)
        floor = stack.enter_context(measure.server(compiled.program("hello")))
        sides["floor"] = bare(program, floor, compiled.file("get", http.HELLO))
        results = measure.interleave(sides)
        environments = served.client.status().environments
    one, two, both = (f"{name}, {CONNECTIONS}" for name in SIDES)
    return Report(
        bench="loops",
        figures=[figure for name in sides if name != "floor" for figure in measure.figures(name, results[name], UNITS)],
        floor=measure.figures("epoll http", results["floor"], {**measure.LATENCY, "rate": "calls/s"}),
        ratio={
            f"cpu per call, two loops / one, {CONNECTIONS} connections": measure.ratio(results, two, one, "cpu"),
            "the same, half of them on each": measure.ratio(results, both, one, "cpu"),
            "the same, 1 connection": measure.ratio(results, "two loops, 1", "one loop, 1", "cpu"),
            f"rate, two loops / one, {CONNECTIONS} connections": measure.ratio(results, two, one, "rate"),
            "rate, one loop / epoll http": measure.ratio(results, one, "floor", "rate"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"client on the same cores; {CONNECTIONS} connections, and 1; logging on; the summary is of medians",
        summary={
            "one_cpu_us": measure.median(results[one], "cpu"),
            "two_cpu_us": measure.median(results[two], "cpu"),
            "half_each_cpu_us": measure.median(results[both], "cpu"),
            "one_per_s": measure.median(results[one], "rate"),
            "two_per_s": measure.median(results[two], "rate"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
