"""A stage for asynchronous invocation: the real dispatcher with an event log, the test as all others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    FUNCTION,
    PROGRAM,
    ROUTE,
    Control,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    target,
)

EVENT = int(wire.CallFlags.EVENT)
RULE = wire.PutAsync(retries=2, base_delay_ms=1, max_age_ms=3_600_000, chain_max=16, dead_max=100)
ZEROS = bytes(16)


class EventStage(Stage):
    """A dispatcher with an event log, whose directory is its last descriptor."""

    def __init__(self, directory: Path, events: Path, **environment: str) -> None:
        self.events = events
        super().__init__(directory, **{"RUNTIMED_EVENTS_SEGMENT_MB": "8", **environment})

    def _spawn(self, launcher: socket.socket, environment: dict[str, str]) -> int:
        opened = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.logs, self.events)]
        sockets = [sock.fileno() for sock in (launcher, self._listener, self._http, self._tcp)]
        low = (*sockets[:2], opened[0], *sockets[2:], opened[1])
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in low]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high, 3)]
        try:
            return os.posix_spawn(PROGRAM, [PROGRAM.name], {**os.environ, **environment}, file_actions=actions)
        finally:
            for fd in (*high, *opened):
                os.close(fd)


@contextlib.contextmanager
def staged(directory: Path, events: Path, **environment: str) -> Iterator[Stage]:
    """A dispatcher whose event log lies in `events`."""
    directory.mkdir(exist_ok=True)
    events.mkdir(exist_ok=True)
    stage = EventStage(directory, events, **environment)
    try:
        yield stage
    finally:
        stage.close()


def kill(stage: Stage) -> None:
    """As the kernel does when memory is short; the stage is of no further use."""
    os.kill(stage.pid, signal.SIGKILL)
    os.waitpid(stage.pid, 0)
    stage.pid = 0


@contextlib.contextmanager
def stage_with(directory: Path, **rule: Any) -> Iterator[tuple[Stage, Control]]:
    """A dispatcher with an event log, function `f`, and a rule for all functions."""
    with staged(directory, events=directory / "queue") as stage:
        yield stage, prepare(stage, **rule)


def prepare(stage: Stage, rule: dict[str, Any] | None = None, **changes: Any) -> Control:
    control = stage.control()
    control.greet()
    fields = {name: getattr(RULE, name) for name in RULE.__struct_fields__} | (rule or {})
    control.synchronise((1, target(**changes)), (1, ROUTE), (1, wire.PutAsync(**fields)))
    return control


def accept(invoker: Invoker, payload: bytes = b'{"n":1}', **fields: Any) -> bytes:
    """The id of an accepted event."""
    answer, body = invoker.answer(invoker.call(payload, flags=EVENT, **fields))
    assert (answer.status, answer.outcome, body) == (202, wire.Outcome.SUCCESS, b""), answer
    assert any(answer.request_id)
    return bytes(answer.request_id)


def counted(control: Control, name: str) -> int:
    page = counters(control)
    try:
        return page.node()[name]
    finally:
        page.close()


def await_count(control: Control, name: str, value: int) -> None:
    page = counters(control)
    try:
        await_true(lambda: page.node()[name] == value, f"{name} to be {value}, it is {page.node()[name]}")
    finally:
        page.close()


def queue_state(control: Control, accepts: Callable[[wire.QueueState], bool]) -> wire.QueueState:
    while True:
        _, state = control.level(wire.QueueState)
        if accepts(state):
            return state


def operate(control: Control, what: wire.QueueOperation, **fields: Any) -> tuple[list[wire.QueueEvent], wire.QueueDone]:
    """One page."""
    fields = {"function_uid": FUNCTION, "limit": 100, **fields}
    control.put(wire.QueueOp(operation=what, **fields), 77, 0)
    events: list[wire.QueueEvent] = []
    while True:
        header, message = control.next()
        if isinstance(message, wire.QueueEvent):
            assert header.object == 77
            events.append(message)
        elif isinstance(message, wire.QueueDone):
            return events, message


def fail(environment: Environment, times: int) -> list[bytes]:
    seen = []
    for _ in range(times):
        invoke, _ = environment.invoke()
        environment.result(invoke.id, b'{"errorType":"E"}', error="E")
        seen.append(bytes(invoke.id))
    return seen
