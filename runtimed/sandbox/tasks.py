"""Runs a task to its end and reads what it printed, in a thread: pipes of a jail, whose contents may be anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from msgspec import Struct

from runtimed.model import wire
from runtimed.sandbox.launcher import Launcher, RunningTask, TaskEnd

READ_BYTES = 1 << 18
ERRORS_KEPT = 4096  # of standard error, from its beginning

Feed = Callable[[bytes], bool]


class TaskOutcome(Struct, frozen=True, kw_only=True):
    """`complaint`: the beginning of its standard error. `refused`: the reader had enough."""

    end: TaskEnd
    complaint: str
    refused: bool


async def run_task(
    launcher: Launcher,
    kind: wire.TaskKind,
    feed: Feed,
    *,
    interpreter: int,
    staging: str = "",
    memory_mb: int,
    timeout_ms: int,
) -> TaskOutcome:
    """`feed(bytes)` gets standard output piece by piece in a thread; once it returns False the rest is thrown away."""
    running = await launcher.start_task(
        kind, interpreter=interpreter, staging=staging, memory_mb=memory_mb, timeout_ms=timeout_ms
    )
    # Both threads end with the task, which the launcher ends at its time-out: they are waited for even when we are
    # cancelled, because they own the descriptors and call `feed`.
    reading = asyncio.gather(
        asyncio.to_thread(_read, running.output, feed), asyncio.to_thread(_read_errors, running.errors)
    )
    return await asyncio.shield(_finish(running, reading))


async def _finish(running: RunningTask, reading: asyncio.Future[tuple[bool, str]]) -> TaskOutcome:
    accepted, complaint = await reading
    return TaskOutcome(end=await running.end, complaint=complaint, refused=not accepted)


def _read(descriptor: int, feed: Feed) -> bool:
    os.set_blocking(descriptor, True)
    accepted = True
    try:
        while piece := os.read(descriptor, READ_BYTES):
            accepted = accepted and feed(piece)
    finally:
        os.close(descriptor)
    return accepted


def _read_errors(descriptor: int) -> str:
    kept = bytearray()

    def keep(piece: bytes) -> bool:
        kept.extend(piece[: ERRORS_KEPT - len(kept)])
        return True

    _read(descriptor, keep)
    return kept.decode("utf-8", "replace").strip()
