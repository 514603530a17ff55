"""The kernel's own trace of a few processes: system calls and wake-ups with their times.

In an instance of tracefs of our own, which goes with the bench; nothing of the traced programs is changed. Tracing
costs each system call about a fifth of a microsecond. Needs root.
"""

from __future__ import annotations

import contextlib
import pathlib
import platform
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import NamedTuple

TRACEFS = pathlib.Path("/sys/kernel/tracing")
EVENTS = ("raw_syscalls/sys_enter", "raw_syscalls/sys_exit", "sched/sched_waking")
BUFFER_KB = 32768
"""Of each processor."""
CALLS = {
    "x86_64": {0: "read", 44: "send", 45: "receive", 46: "send", 47: "receive", 232: "wait", 281: "wait"},
    "aarch64": {63: "read", 206: "send", 207: "receive", 211: "send", 212: "receive", 22: "wait"},
}
"""By their numbers: read, sendto and sendmsg, recvfrom and recvmsg, epoll_wait and epoll_pwait."""
LINE = re.compile(
    r"-(\d+) +\[\d+\] \S+ +(\d+\.\d+): (?:sys_(enter|exit): NR (\d+) (?:\(|= (-?\d+))|sched_waking: .*? pid=(\d+) )"
)


class Event(NamedTuple):
    """A system call's begin or end, or a wake-up."""

    time_us: float
    pid: int
    """Who did it; of a wake-up, who is woken."""
    kind: str
    """`enter`, `exit` or `waking`."""
    call: str = ""
    """As in CALLS; empty for all others, and for wake-ups."""
    result: int = 0
    """Of an exit."""


@contextlib.contextmanager
def instance() -> Iterator[pathlib.Path]:
    """A directory of tracefs. SystemExit where there is none."""
    if not (TRACEFS / "events" / "raw_syscalls").is_dir():
        raise SystemExit(f"{TRACEFS} has no events of system calls: mount -t tracefs tracefs {TRACEFS}, as root")
    made = TRACEFS / "instances" / f"runtimed-{secrets.token_hex(4)}"
    made.mkdir()
    try:
        (made / "tracing_on").write_text("0")
        (made / "trace_clock").write_text("mono")
        (made / "buffer_size_kb").write_text(str(BUFFER_KB))
        yield made
    finally:
        with contextlib.suppress(OSError):
            (made / "tracing_on").write_text("0")
        made.rmdir()


@contextlib.contextmanager
def traced(made: pathlib.Path, pids: Iterable[int]) -> Iterator[None]:
    """Meanwhile what these threads do is recorded, in place of what was before."""
    (made / "set_event_pid").write_text(" ".join(map(str, pids)))
    (made / "trace").write_text("")
    for event in EVENTS:
        (made / "events" / event / "enable").write_text("1")
    (made / "tracing_on").write_text("1")
    try:
        yield
    finally:
        (made / "tracing_on").write_text("0")
        for event in EVENTS:
            (made / "events" / event / "enable").write_text("0")


def recorded(made: pathlib.Path) -> Iterator[Event]:
    """In the order of time."""
    names = CALLS[platform.machine()]
    with (made / "trace").open() as lines:
        for line in lines:
            found = LINE.search(line)
            if found is None:
                continue
            pid, time, kind, number, result, woken = found.groups()
            if woken is not None:
                yield Event(float(time) * 1e6, int(woken), "waking")
            else:
                yield Event(float(time) * 1e6, int(pid), kind, names.get(int(number), ""), int(result or 0))
