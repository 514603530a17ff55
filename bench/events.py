"""What the benches of asynchronous invocation share: a node with a function, its queue, and how far it is."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

from bench import calls, http
from bench.http import Served
from bench.measure import Compiled
from bench.node import ROOT, await_true, free_address

MEMORY_MB = 1769  # one core


class Queue(NamedTuple):
    """Of the function hello, on a node of its own."""

    served: Served
    metrics: str
    """Where they are scraped."""

    def count(self, what: str) -> int:
        """A counter of the node: `attempts`, `succeeded`, `accepted`, ..."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=60) as answer:
            body = answer.read().decode()
        found = re.search(rf"^runtimed_node_events_{what}_total (\S+)$", body, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"no counter {what} of events in /metrics")
        return int(float(found[1]))

    def waiting(self) -> int:
        return sum(queue.waiting for queue in self.served.client.list_queues("hello"))

    def running(self) -> int:
        return sum(queue.running for queue in self.served.client.list_queues("hello"))

    def pause(self) -> None:
        self.served.client.pause_queue("hello")

    def resume(self) -> None:
        self.served.client.resume_queue("hello")

    def await_empty(self, seconds: float = 120) -> None:
        await_true(lambda: self.waiting() == 0, seconds, "the queue's end")

    @property
    def uid(self) -> str:
        """The function's, as the event log knows it, in hexadecimal."""
        path = self.served.node.state_dir / "runtimed.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            (uid,) = database.execute("SELECT uid FROM functions WHERE name = 'hello'").fetchone()
        return bytes(uid).hex()

    @property
    def log(self) -> pathlib.Path:
        """The event log's directory."""
        return self.served.node.state_dir / "queue"


@contextlib.contextmanager
def queue() -> Iterator[Queue]:
    """A node with a function that is warm."""
    metrics = free_address()
    with http.served({"RUNTIMED_METRICS_LISTEN": metrics}) as served:
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        served.client.invoke("hello", {})
        yield Queue(served, metrics)


def payload(size: int) -> bytes:
    return b'{"name": "%s"}' % (b"x" * (size - 12))


def asynchronous(name: str, body: bytes) -> bytes:
    """A request for an asynchronous invocation."""
    return http.post(name, body).replace(b"\r\nHost:", b"\r\nX-Amz-Invocation-Type: Event\r\nHost:", 1)


def log_program(compiled: Compiled) -> str:
    """The log by itself: floors/event_log.c with the library's own files."""
    native = ROOT / "native"
    sources = [*sorted((native / "queue").glob("*.c")), native / "base" / "crc32c.c"]
    include = [f"-I{native / folder / 'include'}" for folder in ("queue", "base")]
    return compiled.program("event_log", *include, *map(str, sources), "-lpthread")
