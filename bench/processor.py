"""Processor time, as the scheduler accounts for it: of threads, of processes, and of who answers calls in a bench."""

from __future__ import annotations

import os
import pathlib
import resource
from collections.abc import Callable, Iterable

from bench import measure, node
from bench.http import Served

Parts = Callable[[], dict[str, list[int]]]
"""Who takes part in answering a call: process ids by role. Asked anew each time, for environments come and go."""


def ran(task: pathlib.Path) -> float:
    """Microseconds that this thread has run; 0 when it has ended."""
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1000
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def of_process(pid: int) -> float:
    """Of all its threads."""
    try:
        return sum(ran(task) for task in pathlib.Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def of_node(served: Served) -> Parts:
    def parts() -> dict[str, list[int]]:
        roles = served.node.roles()
        others = [process.pid for process in served.node.processes() if process.pid not in roles.values()]
        return {"dispatcher": [roles["dispatch"]], "environments": others}

    return parts


def of_server(pid: int) -> Parts:
    """A floor that hands calls to its children."""

    def parts() -> dict[str, list[int]]:
        return {"dispatcher": [pid], "environments": list(children(pid))}

    return parts


def children(pid: int) -> Iterable[int]:
    return [child for child, (_, parent) in node.processes().items() if parent == pid]


def own_children() -> set[int]:
    return set(children(os.getpid()))


def split(parts: Parts, side: Callable[[], dict[str, float]], seconds: float) -> Callable[[], dict[str, float]]:
    """What a side found, and the processor time of a call by role; `client` is the load program's. Calls: the side's
    `rate`, over all of its time."""

    def measured() -> dict[str, float]:
        before = {role: {pid: of_process(pid) for pid in pids} for role, pids in parts().items()}
        client = _children_ran()
        found = side()
        client = _children_ran() - client
        calls = found["rate"] * seconds
        for role, pids in parts().items():
            spent = sum(max(0.0, of_process(pid) - before[role].get(pid, 0.0)) for pid in pids)
            found[role] = spent / calls
        found["client"] = client / calls
        return found

    return measured


def _children_ran() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6


UNITS = {**measure.LATENCY, "rate": "calls/s", "client": "us/call", "dispatcher": "us/call", "environments": "us/call"}
