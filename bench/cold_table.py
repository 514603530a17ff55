"""Where the time of one cold start goes: the kernel's times of each step, from the client's call to its answer.

Calls to the dispatcher's socket, each of which finds no environment (keep-alive 0): client, dispatcher, launcher,
zygotes and the environments that these fork are traced, system calls, wake-ups and page faults, which makes all of it
longer; what the same calls take without stands below. Steps are means over the calls around the median, from the 30th
to the 70th percentile of the whole. A step is named after who is on the way to the answer; what runs beside it on the
other processor (limits, the launcher's own books, the environment before) is not shown, but takes its time where there
is no processor free for it.
"""

from __future__ import annotations

import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bench import calls, cold_start, measure, tracing
from bench.cold_start import Bench
from bench.measure import Report
from bench.node import PROC, Node

SECONDS = 2.0  # of a run without a trace
TRACED_SECONDS = 1.5
FEWEST = 40
RUNS = 3
EVENTS = ("raw_syscalls/sys_enter", "raw_syscalls/sys_exit", "sched/sched_waking", "sched/sched_process_fork")
FAULTS = "exceptions/page_fault_user"
"""Of x86 alone."""
CALLS = {
    "x86_64": {0: "read", 3: "close", 7: "poll", 44: "send", 45: "receive", 46: "send", 47: "receive", 165: "mount",
               232: "wait", 257: "open", 281: "wait", 308: "setns", 317: "seccomp", 429: "move_mount", 435: "clone",
               436: "close_range"},
    "aarch64": {63: "read", 57: "close", 73: "poll", 206: "send", 211: "send", 207: "receive", 212: "receive",
                40: "mount", 22: "wait", 56: "open", 268: "setns", 277: "seccomp", 429: "move_mount", 435: "clone",
                436: "close_range"},
}  # fmt: skip
LINE = re.compile(
    r"-(\d+) +\[\d+\] \S+ +(\d+\.\d+): (?:sys_(enter|exit): NR (\d+) (?:\(|= (-?\d+))"
    r"|sched_(waking): .*? pid=(\d+) |sched_process_(fork): .*child_pid=(\d+)|(page_fault)_user)"
)


class Event(NamedTuple):
    time_us: float
    pid: int
    """Who did it."""
    kind: str
    """`enter`, `exit`, `waking`, `fork`, `fault`."""
    call: str = ""
    result: int = 0
    other: int = 0
    """Who is woken, or was forked."""


def recorded(made: pathlib.Path) -> Iterator[Event]:
    """In the order of time."""
    names = CALLS[platform.machine()]
    with (made / "trace").open() as lines:
        for line in lines:
            found = LINE.search(line)
            if found is None:
                continue
            pid, time_text, kind, number, result, waking, woken, fork, child, fault = found.groups()
            at = float(time_text) * 1e6
            if kind is not None:
                yield Event(at, int(pid), kind, names.get(int(number), ""), int(result or 0))
            elif waking is not None:
                yield Event(at, int(pid), "waking", other=int(woken))
            elif fork is not None:
                yield Event(at, int(pid), "fork", other=int(child))
            elif fault is not None:
                yield Event(at, int(pid), "fault")


class Awaited(NamedTuple):
    """What ends a step, which is named after it."""

    step: str
    who: str
    kind: str
    call: str = ""
    nth: int = 1


# In this order; an event that is not awaited yet is passed over.
STEPS = (
    Awaited("client writes, dispatcher wakes", "dispatcher", "exit", "wait"),
    Awaited("dispatcher reads, admits, asks the launcher", "dispatcher", "enter", "send"),
    Awaited("launcher wakes", "launcher", "exit", "wait"),
    Awaited("launcher: /tmp and package at hand, asks the zygote", "launcher", "enter", "send"),
    Awaited("zygote wakes", "zygote", "exit", "receive"),
    Awaited("zygote enters the environment's namespaces", "zygote", "enter", "clone"),
    Awaited("clone", "zygote", "fork"),
    Awaited("environment runs", "environment", "exit", "clone"),
    Awaited("begins, until /proc", "environment", "enter", "mount"),
    Awaited("mounts: /proc, masks, /tmp, code", "environment", "exit", "move_mount", 2),
    Awaited("descriptors", "environment", "exit", "close_range"),
    Awaited("identity, capabilities, limits, landlock", "environment", "enter", "seccomp"),
    Awaited("seccomp filter", "environment", "exit", "seccomp"),
    Awaited("interpreter after the fork, until it reads", "environment", "enter", "receive"),
    Awaited("START is there", "environment", "exit", "receive"),
    Awaited("becomes the function's: variables, context", "environment", "enter", "open"),
    Awaited("code: read, run", "environment", "enter", "send"),
    Awaited("dispatcher: INIT_DONE, INVOKE", "environment", "exit", "receive"),
    Awaited("first event: handler and its runtime", "environment", "enter", "send"),
    Awaited("answer: dispatcher, client", "client", "exit", "receive"),
)
# The same where a spare is at hand: nobody is forked behind the request. The environment is whoever reads START.
SPARE_STEPS = (
    *STEPS[:3],
    Awaited("launcher: package at hand", "launcher", "enter", "setns"),
    Awaited("package into the spare, LAUNCHED", "launcher", "enter", "send"),
    Awaited("dispatcher wakes", "dispatcher", "exit", "wait"),
    Awaited("START", "dispatcher", "enter", "send"),
    Awaited("environment wakes", "spare", "exit", "receive"),
    *STEPS[-5:],
)
ZYGOTE = "zygote.py"


def names(steps: Sequence[Awaited]) -> list[str]:
    return [f"{number:2} {one.step}" for number, one in enumerate(steps, 1)]


class Steps:
    """Finds cold starts in a trace, and how long each of their steps took, in microseconds."""

    def __init__(
        self, client: int, dispatcher: int, launcher: int, zygotes: Iterable[int], steps: Sequence[Awaited] = STEPS
    ) -> None:
        self._steps = steps
        self._who = {client: "client", dispatcher: "dispatcher", launcher: "launcher"}
        self._who |= dict.fromkeys(zygotes, "zygote")
        self._client = client
        self._begin(0.0)

    def _begin(self, at: float) -> None:
        self._points = [at]
        self._seen = 0
        self._environment = 0
        self._faults = 0

    def of(self, events: Iterable[Event]) -> Iterator[tuple[list[float], int]]:
        """With the number of page faults in the environment."""
        for event in events:
            if event.pid == self._client and (event.kind, event.call) == ("enter", "send"):
                self._begin(event.time_us)
            elif event.kind == "fault":
                self._faults += event.pid == self._environment
            elif self._points[0]:
                self._take(event)
                if len(self._points) > len(self._steps):
                    yield [b - a for a, b in zip(self._points, self._points[1:], strict=False)], self._faults
                    self._begin(0.0)

    def _take(self, event: Event) -> None:
        awaited = self._steps[len(self._points) - 1]
        who = "environment" if event.pid == self._environment else self._who.get(event.pid, "")
        if awaited.who == "spare" and not who:
            who = "spare"
        if (who, event.kind, event.call) != (awaited.who, awaited.kind, awaited.call):
            return
        if event.kind == "exit" and event.result < (1 if event.call in ("wait", "receive") else 0):
            return
        self._seen += 1
        if self._seen < awaited.nth:
            return
        self._seen = 0
        if event.kind == "fork":
            self._environment = event.other
        elif who == "spare":
            self._environment = event.pid
        self._points.append(event.time_us)


def means(found: list[tuple[list[float], int]], steps: Sequence[Awaited]) -> dict[str, float]:
    """Of each step, over the calls around the median."""
    if len(found) < FEWEST // 2:
        raise RuntimeError(f"only {len(found)} whole cold starts in the trace")
    found.sort(key=lambda one: sum(one[0]))
    middle = found[len(found) * 3 // 10 : len(found) * 7 // 10]
    columns = zip(*(one[0] for one in middle), strict=True)
    return {
        **dict(zip(names(steps), map(statistics.fmean, columns), strict=True)),
        "the whole, traced": statistics.fmean(sum(one[0]) for one in middle),
        "page faults of the environment": statistics.fmean(one[1] for one in middle),
    }


def zygotes(node: Node) -> list[int]:
    return [process.pid for process in node.processes() if ZYGOTE in process.command and process.name != "spare"]


def collect(
    made: pathlib.Path, one: Bench, node: Node, request: str, gap_ms: int, steps: Sequence[Awaited]
) -> list[tuple[list[float], int]]:
    roles, forkers = node.roles(), zygotes(node)
    threads = [int(entry.name) for entry in (PROC / str(roles["dispatch"]) / "task").iterdir()]
    events = [*EVENTS, *([FAULTS] if (made / "events" / FAULTS).is_dir() else [])]
    command = [one.program, "call", one.socket, request, "1", str(TRACED_SECONDS + 1), str(gap_ms)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        try:
            (made / "set_event_pid").write_text(" ".join(map(str, [client.pid, roles["launcher"], *forkers, *threads])))
            (made / "trace").write_text("")
            for event in events:
                (made / "events" / event / "enable").write_text("1")
            (made / "tracing_on").write_text("1")
            time.sleep(TRACED_SECONDS)
        finally:
            (made / "tracing_on").write_text("0")
            for event in events:
                (made / "events" / event / "enable").write_text("0")
            client.kill()
    return list(Steps(client.pid, roles["dispatch"], roles["launcher"], forkers, steps).of(recorded(made)))


def measured(spares: int, steps: Sequence[Awaited]) -> list[dict[str, float]]:
    with tracing.instance() as made, cold_start.bench(spares) as one:
        (made / "options" / "event-fork").write_text("1")  # whom they fork is traced too
        calls.deploy(one.client, "hello", calls.HELLO, cold_start.MEMORY_MB)
        request = one.compiled.file("hello", calls.request("hello"))
        plain = one.side("hello", cold_start.HOT_GAP_MS)

        def side() -> dict[str, float]:
            untraced = plain()["p50"]
            found: list[tuple[list[float], int]] = []
            for _ in range(8):
                found += collect(made, one, one.node, request, cold_start.HOT_GAP_MS, steps)
                if len(found) >= FEWEST:
                    break
            return {**means(found, steps), "p50, not traced": untraced}

        return measure.interleave({"cold start": side}, RUNS)["cold start"]


def run() -> Report:
    results = {"spare": measured(cold_start.SPARES, SPARE_STEPS), "forked": measured(0, STEPS)}

    def units(runs: list[dict[str, float]]) -> dict[str, str]:
        return {name: "" if "faults" in name else "us" for name in runs[0]}

    return Report(
        bench="cold_table",
        figures=[figure for name, runs in results.items() for figure in measure.figures(name, runs, units(runs))],
        floor=[],
        ratio={},
        environments=1,
        memory_mb=cold_start.MEMORY_MB,
        cpu_mode="weight",
        note="hello, a call every ten milliseconds\n\n"
        + "\n\n".join(table(name, runs) for name, runs in results.items()),
        summary={f"{name}_p50_us": measure.median(runs, "p50, not traced") for name, runs in results.items()},
    )


def table(side: str, runs: list[dict[str, float]]) -> str:
    """For the README: medians of the runs."""
    rows = [f"| {name} | {measure.median(runs, name):.0f} |" for name in runs[0]]
    return "\n".join([f"| us | {side} |", "|---|---|", *rows])


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
