"""The other ends of the control plane's connections: a launcher and a dispatcher that keep tables and answer as told.

They speak the real protocol over real sockets. `held` is what a peer knows now, `heard` every message it got, in order.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from runtimed.link.connection import Connection
from runtimed.model import wire

BUILD = "test"
DELETES: dict[type[wire.Message], type[wire.Message]] = {
    wire.DelPlan: wire.PutPlan,
    wire.DelTarget: wire.PutTarget,
    wire.DelRoute: wire.PutRoute,
    wire.DelPrincipal: wire.PutPrincipal,
}


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Peer:
    """Acknowledges everything, unless `refuse` names a field for a message or `silent` is set."""

    role = wire.Role.DISPATCH

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[tuple[wire.Header, wire.Message]] = []
        self.held: dict[tuple[type[wire.Message], int], wire.Message] = {}
        self.unswept: set[tuple[type[wire.Message], int]] = set()
        self.syncs = 0
        self.silent = False
        self.refuse: Callable[[wire.Message], str] = lambda message: ""
        self.unanswered = 0
        self.closed = asyncio.Event()
        self.connection = Connection(sock, self.message, lambda reason: self.closed.set())

    def message(self, header: wire.Header, message: wire.Message, descriptors: list[int]) -> None:
        self.heard.append((header, message))
        if isinstance(message, wire.Hello):
            self.connection.send(wire.Hello(role=self.role, build=BUILD))
            return
        if not header.seq:
            return
        self.unanswered += 1
        if self.silent:
            return
        if field := self.refuse(message):
            self.connection.send(wire.Nack(refused=header.seq, error=22, field=field, reason="not wanted"))
        else:
            self.keep(header, message)
        self.acknowledge(header.seq)

    def acknowledge(self, seq: int) -> None:
        self.unanswered = 0
        self.connection.send(wire.Ack(acknowledged=seq))

    def keep(self, header: wire.Header, message: wire.Message) -> None:
        kind = type(message)
        if kind is wire.SyncBegin:
            self.unswept = set(self.held)
        elif kind is wire.SyncEnd:
            for key in self.unswept:
                del self.held[key]
            self.syncs += 1
        elif kind in DELETES:
            self.held.pop((DELETES[kind], header.object), None)
        elif kind.__name__.startswith("Put"):
            self.held[kind, header.object] = message
            self.unswept.discard((kind, header.object))

    def objects(self, kind: type[wire.Message]) -> set[int]:
        return {key for held, key in self.held if held is kind}

    def kinds(self) -> list[str]:
        return [type(message).__name__ for _, message in self.heard]


class LauncherPeer(Peer):
    """Plans become ready at once (`plan_state`), tasks print `output` and end with `task_end`."""

    role = wire.Role.LAUNCHER

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.plan_state = wire.PlanState(state=wire.Progress.READY)
        self.output: Callable[[wire.Task], bytes] = lambda task: b""
        self.errors = b""
        self.task_end = wire.TaskDone()

    def keep(self, header: wire.Header, message: wire.Message) -> None:
        super().keep(header, message)
        if isinstance(message, wire.PutPlan):
            self.connection.send(self.plan_state, object=header.object)
        if isinstance(message, wire.Task):
            self.run(header.object, message)

    def run(self, task: int, message: wire.Task) -> None:
        if self.task_end.step:
            self.connection.send(self.task_end, object=task)
            return
        ends = [os.pipe(), os.pipe()]
        # A thread's worth of output may not fit into a pipe: whoever reads makes room.
        writing = asyncio.gather(
            asyncio.to_thread(_write, ends[0][1], self.output(message)),
            asyncio.to_thread(_write, ends[1][1], self.errors),
        )
        descriptors = [read for read, _ in ends]
        socket.send_fds(self.connection._sock, [wire.encode(wire.TaskStarted(), object=task)], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        writing.add_done_callback(lambda _: self.connection.send(self.task_end, object=task))


def _write(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(descriptor)


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Awaits the condition, turn by turn of the loop."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
