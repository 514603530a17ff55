"""Where the time of one warm call goes: the kernel's times of each step, from the client's write to its read.

One connection over loopback TCP with a key. Floor: the same steps of the path without policy (relay.c, CPython). Both
are traced (bench/tracing.py), which makes a call some microseconds longer; what it takes without stands below. Steps
are means over the calls around the median, from the 30th to the 70th percentile of the whole.
"""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from bench import calls, http, measure, tracing
from bench.measure import Report
from bench.node import processes
from bench.tracing import Event

SECONDS = 1.0  # of a run without a trace
WARM_SECONDS = 0.4  # before the trace
TRACED_SECONDS = 0.3  # at a time, until there are enough calls
MOST_SECONDS = 20.0
FEWEST = 1000
MEMORY_MB = 1769  # one core
STEPS = (
    "client writes, TCP delivers",
    "dispatcher wakes",
    "reads the request",
    "parses, checks key, routes, admits, logs START",
    "writes to the environment",
    "environment wakes, reads",
    "handler and its runtime",
    "environment writes",
    "dispatcher wakes",
    "reads the result",
    "finds the caller, counts, writes the head",
    "answers, TCP delivers",
    "client wakes, reads",
)
NAMES = [f"{number:2} {step}" for number, step in enumerate(STEPS, 1)]


# What is awaited, by the number of points in time that a call has so far: whose, and what. Exits are of calls that
# brought something, and have the wake-up before them as a point of its own.
AWAITED = {
    1: ("front", "exit", "wait"),
    3: ("front", "enter", "send"),
    4: ("environment", "exit", "receive"),
    6: ("environment", "enter", "send"),
    7: ("front", "exit", "wait"),
    9: ("front", "enter", "send"),
    10: ("client", "exit", "receive"),
}
POINTS = 12


class Steps:
    """Finds calls in a trace, and how long each of their steps took, in microseconds."""

    def __init__(self, client: int, front: int) -> None:
        self._client, self._front = client, front
        self._begin([])

    def _begin(self, points: list[float]) -> None:
        self._points = points
        self._woken: dict[int, float] = {}
        self._reading = 0.0
        self._read = {3: 0.0, 9: 0.0}  # after so many points

    def of(self, events: Iterable[Event]) -> Iterator[list[float]]:
        for event in events:
            if event.kind == "waking":
                self._woken[event.pid] = event.time_us
            elif event.pid == self._client and (event.kind, event.call) == ("enter", "send"):
                self._begin([event.time_us])
            else:
                self._take(event)
                if len(self._points) == POINTS:
                    yield self._steps()
                    self._begin([])

    def _take(self, event: Event) -> None:
        who = {self._client: "client", self._front: "front"}.get(event.pid, "environment")
        at = len(self._points)
        if who == "front" and event.call == "receive" and at in self._read:
            if event.kind == "enter":
                self._reading = event.time_us
            elif self._reading:
                self._read[at] += event.time_us - self._reading
        if (who, event.kind, event.call) != AWAITED.get(at) or (event.kind == "exit" and event.result <= 0):
            return
        if event.kind == "exit":  # who spun was not woken
            woken = self._woken.get(event.pid, 0.0)
            self._points.append(woken if woken > self._points[-1] else event.time_us)
        self._points.append(event.time_us)

    def _steps(self) -> list[float]:
        p, (request, result) = self._points, self._read.values()
        return [
            p[1] - p[0], p[2] - p[1], request, p[3] - p[2] - request, p[4] - p[3], p[5] - p[4], p[6] - p[5],
            p[7] - p[6], p[8] - p[7], result, p[9] - p[8] - result, p[10] - p[9], p[11] - p[10],
        ]  # fmt: skip


def means(found: list[list[float]]) -> dict[str, float]:
    """Of each step, over the calls around the median."""
    if len(found) < 10:
        raise RuntimeError(f"only {len(found)} whole calls in the trace")
    found.sort(key=sum)
    middle = found[len(found) * 3 // 10 : len(found) * 7 // 10]
    steps = dict(zip(NAMES, map(statistics.fmean, zip(*middle, strict=True)), strict=True))
    return {**steps, "the whole, traced": statistics.fmean(map(sum, middle))}


def measured(
    made: pathlib.Path, program: str, address: str, request: str, front: int, others: Callable[[], list[int]]
) -> Callable[[], dict[str, float]]:
    """`others`: the environments, or what stands for them."""

    def side() -> dict[str, float]:
        plain = measure.load(program, "http", address, request, 1, SECONDS)  # makes an environment, too
        pids = [front, *others()]
        found: list[list[float]] = []
        begun = time.monotonic()
        with subprocess.Popen(
            [program, "http", address, request, "1", str(MOST_SECONDS), "0"], stdout=subprocess.DEVNULL
        ) as client:
            try:
                time.sleep(WARM_SECONDS)
                while len(found) < FEWEST and time.monotonic() - begun < MOST_SECONDS / 2:
                    with tracing.traced(made, [client.pid, *pids]):
                        time.sleep(TRACED_SECONDS)
                    found += Steps(client.pid, front).of(tracing.recorded(made))
            finally:
                client.kill()
        return {**means(found), "p50, not traced": measure.latency(plain)["p50"]}

    return side


def below(parent: int) -> list[int]:
    return [pid for pid, (_, above) in processes().items() if above == parent]


def run() -> Report:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(tracing.instance())
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(http.served())
        python = calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        request = http.post("hello", calls.EVENT, served.token)
        relay = stack.enter_context(
            measure.server(
                compiled.program("relay"), "http", "1", python, "-I", "-S", str(measure.FLOORS / "echo.py"),
                http.WITHOUT_POLICY.hex(), "0",
            )
        )  # fmt: skip
        relay_pid = next(
            pid for pid, (process, _) in processes().items() if process.command.startswith(compiled.program("relay"))
        )
        node = served.node
        others = {node.roles()["launcher"], node.roles()["control"], node.roles()["dispatch"]}
        file = compiled.file("post", request)
        results = measure.interleave(
            {
                "call": measured(made, program, served.port, file, node.roles()["dispatch"],
                                 lambda: [process.pid for process in node.processes() if process.pid not in others]),
                "relay": measured(made, program, relay, file, relay_pid, lambda: below(relay_pid)),
            }
        )  # fmt: skip
        environments = served.client.status().environments
    units = dict.fromkeys(results["call"][0], "us")
    return Report(
        bench="warm_table",
        figures=measure.figures("call", results["call"], units),
        floor=measure.figures("path without policy", results["relay"], units),
        ratio={"p50 / path without policy p50": measure.ratio(results, "call", "relay", "p50, not traced")},
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="client on the same cores; over TCP with a key; logging on\n\n" + table(results),
        summary={"p50_us": measure.median(results["call"], "p50, not traced")},
    )


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """For the README: medians of the runs."""
    rows = [
        f"| {name} | {measure.median(results['call'], name):.1f} | {measure.median(results['relay'], name):.1f} |"
        for name in results["call"][0]
    ]
    return "\n".join(["| us | call | path without policy |", "|---|---|---|", *rows])


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
