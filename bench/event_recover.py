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

from bench import events, measure
from bench.events import Queue
from bench.measure import Figure, Report
from bench.node import await_true

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

    def million_killed(self) -> dict[str, float]:
        self.fill(MILLION - self.queue.waiting())
        return self.killed()

    def succeeded(self) -> int:
        """0: the dispatcher has not come back."""
        try:
            return self.queue.count("succeeded")
        except (RuntimeError, OSError):
            return 0

    def killed(self) -> dict[str, float]:
        """Seconds from the dispatcher's end until its successor has handled an event, as the counters say, which go on
        from one to the other; and the part of it that reading the log took, as it says itself."""
        self.queue.resume()
        before = self.queue.count("succeeded")
        await_true(lambda: self.queue.count("succeeded") > before, PATIENCE, "events that are handled")
        pid, said = self.dispatcher(), len(self.node.log.read_text(errors="replace"))
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: self.succeeded() == 0, PATIENCE, "the dispatcher's end")
        await_true(lambda: self.succeeded() > 0, PATIENCE, "another dispatcher")
        first = self.succeeded()
        await_true(lambda: self.succeeded() > first, PATIENCE, "an invocation")
        first_s = time.monotonic() - begun
        self.queue.pause()
        told = re.findall(r"read in (\d+) ms", self.node.log.read_text(errors="replace")[said:])
        return {"first": first_s, "read": int(told[-1]) / 1000 if told else 0.0}


def run() -> Report:
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        bench.queue.pause()
        results = measure.interleave({"killed": bench.million_killed})["killed"]
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
        note=f"about {MILLION:,} events waited at each kill; the summary is of medians",
        summary={
            "first_invocation_s": measure.median(results, "first"),
            "read_s_per_million": measure.median(results, "read"),
            "growth_mb": grown,
            "memory_events": MANY,
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
