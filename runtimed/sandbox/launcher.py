"""The launcher's client: descriptor 3 of the control plane, for as long as it lives.

The launcher is the parent: when this connection ends the launcher is gone and so, soon, are we. It is told which
runtimes to keep zygotes of and what may be launched (`Mirror`), is asked for tasks (fixed programs of ours in a
jail), and hands over a socket to each new incarnation of the dispatcher.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from runtimed.link.connection import Connection, close_all
from runtimed.link.levels import Levels
from runtimed.link.mirror import Mirror, Unconnected
from runtimed.model import wire

GENERATION_LAST = (1 << 64) - 1  # of a deletion: nothing that was put can be newer; ids are not used again

_NO_SPARES = wire.Spares()


class Failed(Exception):
    """A plan or a runtime cannot be used; the text is the launcher's reason."""


class TaskEnd(Struct, frozen=True, kw_only=True):
    """How a task ended: `status` as wait(2) gives it; `step` and `error` when its jail could not be built."""

    status: int
    timed_out: bool
    oom: bool
    step: str
    error: int

    @property
    def succeeded(self) -> bool:
        return self.status == 0 and not (self.timed_out or self.oom or self.step)

    def explain(self) -> str:
        """A clause: what happened to it."""
        if self.step:
            return f"its sandbox could not be made ({self.step}: {os.strerror(self.error)})"
        if self.timed_out:
            return "it took too long"
        if self.oom:
            return "it ran out of memory"
        if os.WIFSIGNALED(self.status):
            return f"it was killed by signal {os.WTERMSIG(self.status)}"
        return f"it left with status {os.waitstatus_to_exitcode(self.status)}"


class RunningTask(Struct):
    """Started: two pipes that the caller reads to their end and closes, and how it ends. What comes out of them is
    not to be trusted."""

    output: int
    errors: int
    end: asyncio.Future[TaskEnd]


class _Pending(Struct):
    started: asyncio.Future[RunningTask]
    end: asyncio.Future[TaskEnd]


class Launcher:
    """`on_peer(socket, epoch)`: a new connection to the dispatcher. `on_lost(reason)`: the launcher is gone."""

    def __init__(
        self,
        sock: socket.socket,
        build: str,
        *,
        on_peer: Callable[[socket.socket, int], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self.node = wire.Node()
        self._build = build
        self._on_peer = on_peer
        self._on_lost = on_lost
        self._mirror = Mirror((wire.PutRuntime, wire.PutPlan))
        self._hello: asyncio.Future[wire.Hello] = asyncio.get_running_loop().create_future()
        self._plans: Levels[wire.PlanState] = Levels()
        self._runtimes: Levels[wire.RuntimeState] = Levels()
        self._spares: dict[int, wire.Spares] = {}
        self._tasks: dict[int, _Pending] = {}
        self._task_ids = 0
        self._deleting: set[asyncio.Task[None]] = set()
        self._connection = Connection(sock, self._message, self._closed)
        self._mirror.connect(self._connection)

    async def greet(self) -> None:
        """HELLO both ways. Failed when the launcher is of another build."""
        self._connection.send(wire.Hello(role=wire.Role.CONTROL, build=self._build))
        hello = await self._hello
        if hello.build != self._build:
            raise Failed(
                f"the launcher is of build {hello.build!r}, the control plane of {self._build!r}: restart runtimed"
            )

    def serving(self) -> None:
        """Tells that the node serves, which is told to whoever started it."""
        self._connection.send(wire.Serving())

    async def synchronise(self) -> None:
        """Tells all plans and runtimes. Plans of an earlier control plane that are not told again are retired."""
        for refused in await self._mirror.synchronise():
            raise Failed(f"the launcher refused its tables: {refused}")

    def close(self) -> None:
        self._connection.close()
        self._closed(None, told=False)

    # ---- plans and runtimes ----------------------------------------------------------------------------------

    def preload_plan(self, plan: int, message: wire.PutPlan) -> None:
        """Before `synchronise`."""
        self._mirror.preload(message, plan, 1)

    def preload_runtime(self, interpreter: int, name: str) -> None:
        """Before `synchronise`."""
        self._mirror.preload(wire.PutRuntime(name=name), interpreter, 1)

    async def put_plan(self, plan: int, message: wire.PutPlan, generation: int = 1) -> None:
        """Returns when environments of it can be launched. Raises Refused, or Failed with the launcher's reason."""
        await self._mirror.put(message, plan, generation)
        state = await self._plans.when(plan, _settled)
        if state.state == wire.Progress.FAILED:
            raise Failed(state.reason)

    async def plan_ready(self, plan: int) -> None:
        """When environments of it can be launched, whatever was in the way before."""
        await self._plans.when(plan, lambda state: state.state == wire.Progress.READY)

    def plan_state(self, plan: int) -> wire.PlanState | None:
        """The last that the launcher said of it."""
        return self._plans.get(plan)

    async def delete_plan(self, plan: int) -> None:
        await self._mirror.delete(wire.PutPlan, wire.DelPlan(), plan, GENERATION_LAST)
        if self._mirror.get(wire.PutPlan, plan) is None:  # else it was put again meanwhile
            self._plans.forget(plan)

    def delete_plan_soon(self, plan: int) -> None:
        """Without waiting for it. A plan that is not put again after a restart goes all the same."""
        if not self._connection.closed:
            task = asyncio.create_task(self.delete_plan(plan))
            self._deleting.add(task)
            task.add_done_callback(self._deleted)

    def _deleted(self, task: asyncio.Task[None]) -> None:
        self._deleting.discard(task)
        if not task.cancelled():
            task.exception()  # seen

    def runtime_state(self, interpreter: int) -> wire.RuntimeState | None:
        """The last that the launcher said of it."""
        return self._runtimes.get(interpreter)

    def spares(self, interpreter: int) -> wire.Spares:
        """The last that the launcher said of its parked sandboxes."""
        return self._spares.get(interpreter, _NO_SPARES)

    async def runtime_settled(self, interpreter: int) -> wire.RuntimeState:
        """When its zygotes are ready, or cannot be."""
        return await self._runtimes.when(interpreter, _settled)

    # ---- tasks -----------------------------------------------------------------------------------------------

    async def start_task(
        self, kind: wire.TaskKind, *, interpreter: int, staging: str = "", memory_mb: int, timeout_ms: int
    ) -> RunningTask:
        """Starts one of our programs in a jail. Raises Refused, Unconnected, Failed (its jail could not be made)."""
        loop = asyncio.get_running_loop()
        self._task_ids += 1
        task = self._task_ids
        pending = _Pending(loop.create_future(), loop.create_future())
        self._tasks[task] = pending
        try:
            await self._mirror.request(
                wire.Task(
                    kind=kind, interpreter=interpreter, staging=staging, memory_mb=memory_mb, timeout_ms=timeout_ms
                ),
                task,
            )
            outcomes: set[asyncio.Future[Any]] = {pending.started, pending.end}
            await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._tasks.pop(task, None)
            if pending.started.done() and not pending.started.cancelled() and not pending.started.exception():
                running = pending.started.result()
                close_all([running.output, running.errors])
            raise
        if pending.started.done():
            return pending.started.result()
        raise Failed(pending.end.result().explain())

    # ---- what comes in ---------------------------------------------------------------------------------------

    def _message(self, header: wire.Header, message: wire.Message, descriptors: list[int]) -> None:
        match message:
            case wire.Ack():
                self._mirror.acknowledged(message)
            case wire.Nack():
                self._mirror.refused(message)
            case wire.Hello() if not self._hello.done():
                self._hello.set_result(message)
            case wire.Beat():
                self._connection.send(message, seq=header.seq)
            case wire.Node():
                self.node = message
            case wire.PlanState():
                self._plans.set(header.object, message)
            case wire.RuntimeState():
                self._runtimes.set(header.object, message)
            case wire.Spares():
                self._spares[header.object] = message
            case wire.Peer(role=wire.Role.DISPATCH) if len(descriptors) == 1:
                self._on_peer(socket.socket(fileno=descriptors.pop()), message.peer_epoch)
            case wire.TaskStarted():
                self._started(header.object, descriptors)
            case wire.TaskDone():
                self._done(header.object, message)
        close_all(descriptors)

    def _started(self, task: int, descriptors: list[int]) -> None:
        pending = self._tasks.get(task)
        if pending is None or pending.started.done() or len(descriptors) != 2:
            return
        output, errors = descriptors
        descriptors.clear()
        pending.started.set_result(RunningTask(output, errors, pending.end))

    def _done(self, task: int, message: wire.TaskDone) -> None:
        pending = self._tasks.pop(task, None)
        if pending is not None and not pending.end.done():
            pending.end.set_result(
                TaskEnd(
                    status=message.status,
                    timed_out=bool(message.timed_out),
                    oom=bool(message.oom),
                    step=message.step,
                    error=message.error,
                )
            )

    def _closed(self, reason: Exception | None, *, told: bool = True) -> None:
        self._mirror.end()
        for pending in self._tasks.values():
            for future in (pending.started, pending.end):
                if not future.done():
                    future.set_exception(Unconnected())
                    future.exception()  # seen: nobody may be waiting
        self._tasks.clear()
        if not self._hello.done():
            self._hello.set_exception(Unconnected())
        self._plans.end(Unconnected())
        self._runtimes.end(Unconnected())
        if told:
            self._on_lost(reason)


def _settled(state: wire.PlanState | wire.RuntimeState) -> bool:
    return state.state != wire.Progress.PENDING
