"""The dispatcher killed with a million events waiting: how long until it invokes again; and with ten million, what they
take of its memory.

The backlog is written by the log's own library (floors/event_log.c) while the node stands still: events of 64 bytes.
RUNTIMED_BENCH_EVENTS: how many in the second part.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

from bench import events, measure
from bench.events import Queue
from bench.measure import Figure, Report
from bench.node import await_true
from runtimed.model.log import LogEvent

MILLION = 1_000_000
MANY = int(os.environ.get("RUNTIMED_BENCH_EVENTS", "10000000"))
SIZE = 64
PATIENCE = 120.0


def private_mb(pid: int) -> float:
    """Memory that is the process's own, in MB."""
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(n) for n in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", rollup, re.MULTILINE)) / 1024


class Bench:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.compiled = stack.enter_context(measure.Compiled())
        self.program = events.log_program(self.compiled)
        self.queue: Queue = stack.enter_context(events.queue())
        self.node = self.queue.served.node

    def dispatcher(self) -> int:
        return self.node.roles().get("dispatch", 0)

    def fill(self, count: int) -> None:
        """The node stops, has so many events more, and starts again; its queue is paused."""
        uid, name = self.queue.uid, "hello"
        self.node.launcher.send_signal(signal.SIGTERM)
        self.node.launcher.wait(PATIENCE)
        command = [self.program, "fill", str(self.queue.log), str(count), str(SIZE), f"{name}={uid}"]
        subprocess.run(command, check=True)
        owner = self.queue.log.stat()
        for path in self.queue.log.iterdir():
            os.chown(path, owner.st_uid, owner.st_gid)
        self.node.start_again(PATIENCE)
        self.await_waiting(count)

    def await_waiting(self, least: int) -> None:
        await_true(lambda: self.queue.waiting() >= least, PATIENCE, f"{least} waiting events")

    def killed(self) -> dict[str, float]:
        """Seconds from the dispatcher's end to the first line of its successor's first invocation; the part of it that
        reading the log took, as it says itself."""
        self.queue.served.client.invoke("hello", {})
        self.queue.resume()
        pid, said = self.dispatcher(), len(self.node.log.read_text(errors="replace"))
        begun = datetime.now(UTC)
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: self.dispatcher() not in (0, pid), PATIENCE, "another dispatcher")
        # The one that was killed invoked until then: what is another environment's is its successor's.
        first: list[datetime] = []

        def invoked() -> bool:
            streams = {e.log_stream for e in self._logs(begun - timedelta(seconds=5), begun)}
            first[:] = [e.time for e in self._logs(begun, None) if e.log_stream not in streams][:1]
            return bool(first)

        await_true(invoked, PATIENCE, "an invocation")
        self.queue.pause()
        told = re.findall(r"read in (\d+) ms", self.node.log.read_text(errors="replace")[said:])
        return {"first": (first[0] - begun).total_seconds(), "read": int(told[-1]) / 1000 if told else 0.0}

    def _logs(self, since: datetime, until: datetime | None) -> list[LogEvent]:
        return list(self.queue.served.client.logs("hello", since=since, until=until))


def run() -> Report:
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        bench.queue.pause()
        bench.fill(MILLION)
        results = measure.interleave({"killed": bench.killed})["killed"]
        left = bench.queue.waiting()
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        bench.queue.pause()
        bench.fill(0)  # the same steps, so that only the events differ
        empty = private_mb(bench.dispatcher())
        bench.fill(MANY)
        time.sleep(2.0)
        grown = private_mb(bench.dispatcher()) - empty
        told = re.findall(r"read in (\d+) ms", bench.node.log.read_text(errors="replace"))
        read_s = int(told[-1]) / 1000
    return Report(
        bench="event_recover",
        figures=[
            *measure.figures("a million", results, {"first": "s", "read": "s"}),
            Figure(f"{MANY:,} read", "s", read_s, read_s),
            Figure(f"{MANY:,} memory", "MB", grown, grown),
        ],
        floor=[],
        ratio={},
        environments=1,
        memory_mb=events.MEMORY_MB,
        cpu_mode="weight",
        note=f"{MILLION:,} events waited at the first kill, {left:,} after the last; the summary is of medians",
        summary={
            "first_invocation_s": measure.median(results, "first"),
            "read_s_per_million": measure.median(results, "read"),
            "memory_mb": grown,
            "memory_events": MANY,
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
