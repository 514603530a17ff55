"""Makes functions and changes them: receives code, keeps targets, and runs the rollouts that `machines.deployment`
decides.

Each function under change has one rollout, which runs the machine's commands in order. A step (prepare, grant,
teach, route) may take long and is the last of its batch; it is what a deletion interrupts. Everything else is short
and is always run to its end, so that what the machine thinks happened did happen. What a caller began is never lost
with the caller: storing the change and starting its rollout are shielded together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from runtimed.deployment.receive import Receiver
from runtimed.deployment.steps import NO_ROOM, NO_RUNTIME, StepError, Steps
from runtimed.link.mirror import Unconnected
from runtimed.machines import deployment as machine
from runtimed.model import errors
from runtimed.model.function import (
    CreateFunctionRequest,
    FunctionConfiguration,
    UpdateFunctionCodeRequest,
    UpdateFunctionConfigurationRequest,
)
from runtimed.store.functions import Function, FunctionStore
from runtimed.store.targets import Definition

T = TypeVar("T")
AGAIN_SECONDS, AGAIN_SECONDS_MAX = 5.0, 300.0  # until a function that failed is tried again; doubled each time
RETRY_SECONDS = 1.0  # before the store is tried again for something that must be kept

log = logging.getLogger(__name__)

STEPS = (machine.Prepare, machine.Grant, machine.Teach, machine.Route)


class Attempt(msgspec.Struct, frozen=True):
    """The next one for a function that failed, and what it waited for."""

    due: float
    pause: float


class _Rollout:
    """One function's, while something is under way."""

    def __init__(self, function: Function, state: machine.Deployment) -> None:
        self.function = function
        self.machine = state
        self.task: asyncio.Task[None] | None = None
        self.step: asyncio.Task[machine.Event | None] | None = None
        self.deleting = False


class Deployer:
    """The performer behind create, update and delete."""

    def __init__(self, functions: FunctionStore, receiver: Receiver, steps: Steps) -> None:
        self._functions = functions
        self._receiver = receiver
        self._steps = steps
        self._rollouts: dict[int, _Rollout] = {}
        self._attempts: dict[int, Attempt] = {}
        self._shielded: set[asyncio.Future[Any]] = set()

    # ---- operations ------------------------------------------------------------------------------------------

    async def create(self, request: CreateFunctionRequest, code: AsyncIterator[bytes]) -> FunctionConfiguration:
        async with self._receiver.receive(code, request.upload_sha256) as package:
            definition = Definition(
                runtime=request.runtime,
                handler=request.handler,
                description=request.description,
                timeout=request.timeout,
                memory_size=request.memory_size,
                storage_size=request.ephemeral_storage.size,
                logging=request.logging_config,
                zip_sha256=package.sha256,
                zip_size=package.size,
                snap_start=request.snap_start,
            )

            async def store() -> None:
                async with self._receiver.keeping(package):
                    function = await self._functions.create(
                        request.function_name, definition, request.environment.variables, _now_ms()
                    )
                if function.next is not None:
                    self._start(_Rollout(function, machine.Deployment()), machine.Begin(function.next))

            await self._shield(store())
        return await self._shown(request.function_name)

    async def update_code(
        self, request: UpdateFunctionCodeRequest, code: AsyncIterator[bytes]
    ) -> FunctionConfiguration:
        async with self._receiver.receive(code, request.upload_sha256) as package:

            def change(was: Definition, variables: dict[str, str]) -> tuple[Definition, dict[str, str]]:
                new = msgspec.structs.replace(was, zip_sha256=package.sha256, zip_size=package.size)
                return new, variables

            async def store() -> None:
                async with self._receiver.keeping(package):
                    changed = await self._functions.change(
                        request.function_name, _given(request.revision_id), change, _now_ms()
                    )
                self._changed(*changed)

            await self._shield(store())
        return await self._shown(request.function_name)

    async def update_configuration(self, request: UpdateFunctionConfigurationRequest) -> FunctionConfiguration:
        def change(was: Definition, variables: dict[str, str]) -> tuple[Definition, dict[str, str]]:
            new = {
                "runtime": request.runtime,
                "handler": request.handler,
                "description": request.description,
                "timeout": request.timeout,
                "memory_size": request.memory_size,
                "storage_size": UNSET if request.ephemeral_storage is UNSET else request.ephemeral_storage.size,
                "logging": request.logging_config,
                "snap_start": request.snap_start,
            }
            given = {name: value for name, value in new.items() if value is not UNSET}
            variables = variables if request.environment is UNSET else request.environment.variables
            return msgspec.structs.replace(was, **given), variables

        async def store() -> None:
            self._changed(
                *await self._functions.change(request.function_name, _given(request.revision_id), change, _now_ms())
            )

        await self._shield(store())
        return await self._shown(request.function_name)

    async def delete(self, name: str) -> None:
        function = await self._functions.find(name)
        if function is None:
            raise errors.ResourceNotFound(f"Function not found: {name}")
        await self._shield(self._delete(function))

    # ---- start and stop --------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """At start: goes on with what a crash or a stop interrupted. Launcher and dispatcher were told what is
        wanted."""
        await self._functions.forget_strays()
        for function in await self._functions.all():
            state, commands = machine.recovered(function.state, function.serving, function.next)
            if commands:
                self._drive(_Rollout(function, state), commands)

    async def try_again(self, now: float) -> None:
        """Functions that could not be made for want of a runtime or of room begin anew, each less and less often."""
        failed = await self._functions.failed((NO_RUNTIME, NO_ROOM))
        self._attempts = {f.id: self._attempts.get(f.id, Attempt(now + AGAIN_SECONDS, AGAIN_SECONDS)) for f in failed}
        for function in failed:
            attempt = self._attempts[function.id]
            if attempt.due > now or not await self._shield(self._begin_again(function)):
                continue
            pause = min(attempt.pause * 2, AGAIN_SECONDS_MAX)
            self._attempts[function.id] = Attempt(now + pause, pause)

    async def _begin_again(self, function: Function) -> bool:
        if not await self._functions.begin_again(function):
            return False
        state, _ = machine.recovered(function.state, function.serving, function.next)
        self._start(_Rollout(function, state), machine.Again())
        return True

    async def settle(self) -> None:
        """Until nothing is under way."""
        while tasks := [rollout.task for rollout in self._rollouts.values() if rollout.task is not None]:
            await asyncio.wait(tasks)

    async def stop(self) -> None:
        """Interrupts all rollouts: they begin again with the next start."""
        tasks = [rollout.task for rollout in self._rollouts.values() if rollout.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- rollouts --------------------------------------------------------------------------------------------

    def _changed(self, before: Function, after: Function) -> None:
        state, _ = machine.recovered(before.state, before.serving, before.next)
        if after.next is not None:
            self._start(_Rollout(after, state), machine.Begin(after.next))

    def _start(self, rollout: _Rollout, event: machine.Event) -> None:
        self._drive(rollout, rollout.machine.on(event))

    def _drive(self, rollout: _Rollout, commands: tuple[machine.Command, ...]) -> None:
        self._rollouts[rollout.function.id] = rollout
        rollout.task = asyncio.create_task(self._run(rollout, commands), name=f"rollout of {rollout.function.name}")

    async def _delete(self, function: Function) -> None:
        rollout = self._rollouts.get(function.id)
        if rollout is None:
            state, _ = machine.recovered(function.state, function.serving, function.next)
            rollout = _Rollout(function, state)
        elif rollout.task is not None:
            rollout.deleting = True
            if rollout.step is not None:
                rollout.step.cancel()
            await asyncio.wait({rollout.task})
            rollout.deleting = False
        if rollout.machine.state in (machine.State.DELETING, machine.State.GONE):
            return  # by another caller, who has just finished
        self._start(rollout, machine.Delete())
        if rollout.task is not None:
            await rollout.task

    async def _run(self, rollout: _Rollout, commands: tuple[machine.Command, ...]) -> None:
        waiting = deque(commands)
        try:
            while waiting:
                command = waiting.popleft()
                if isinstance(command, STEPS):
                    event = await self._step(rollout, command)
                else:
                    event = await self._apply(rollout, command)
                if rollout.deleting and not waiting:
                    return
                if event is not None:
                    waiting.extend(rollout.machine.on(event))
        finally:
            if self._rollouts.get(rollout.function.id) is rollout:
                del self._rollouts[rollout.function.id]

    async def _step(self, rollout: _Rollout, command: machine.Command) -> machine.Event | None:
        """Runs one step. None when a deletion interrupted it."""
        if rollout.deleting:
            return None
        step = rollout.step = asyncio.create_task(self._take(rollout, command))
        try:
            return await step
        except asyncio.CancelledError:
            if step.cancelled():
                return None
            step.cancel()
            raise
        finally:
            rollout.step = None

    async def _take(self, rollout: _Rollout, command: machine.Command) -> machine.Event | None:
        try:
            match command:
                case machine.Prepare(target):
                    await self._steps.prepare(target)
                    return machine.Prepared()
                case machine.Grant(target):
                    await self._steps.grant(target)
                    return machine.Granted()
                case machine.Teach(target):
                    await self._steps.teach(target)
                    return machine.Taught()
                case machine.Route(target):
                    await self._steps.route(rollout.function, target)
                    return machine.Routed()
            raise TypeError(f"{command} is no step")
        except Unconnected:
            return None  # the launcher is gone, and so are we: the rollout begins again with the next start
        except StepError as error:
            return machine.StepFailed(str(error), error.code)
        except Exception:
            log.exception("%s: %s failed", rollout.function.name, command)
            return machine.StepFailed("Something failed on the node's side; its log says what.", "InternalError")

    async def _apply(self, rollout: _Rollout, command: machine.Command) -> machine.Event | None:
        """Runs a command that has to succeed: again and again, should the store be unable to keep it (a full disk)."""
        while True:
            try:
                return await self._apply_once(rollout.function, command)
            except Exception:
                log.exception("%s: %s failed and will be repeated", rollout.function.name, command)
                await asyncio.sleep(RETRY_SECONDS)

    async def _apply_once(self, function: Function, command: machine.Command) -> machine.Event | None:
        match command:
            case machine.Record(state, serving, following, reason, code):
                await self._functions.record(function.id, state, serving, following, reason, code)
                if reason:
                    log.warning("%s: %s", function.name, reason)
            case machine.Withdraw(target):
                await self._steps.withdraw(target)
            case machine.Forget(target):
                await self._functions.forget_target(target)
            case machine.Retire(targets):
                await self._steps.unroute(function)
                for target in targets:
                    await self._steps.withdraw(target)
                await self._functions.forget(function.id)
                return machine.Retired()
            case _:
                raise TypeError(f"{command} is not known")
        return None

    # ---- parts -----------------------------------------------------------------------------------------------

    async def _shown(self, name: str) -> FunctionConfiguration:
        shown = await self._functions.get(name)
        if shown is None:
            raise errors.ResourceNotFound(f"Function not found: {name} was deleted meanwhile")
        return shown

    async def _shield(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        self._shielded.add(task)
        task.add_done_callback(self._shielded_done)
        return await asyncio.shield(task)

    def _shielded_done(self, task: asyncio.Future[Any]) -> None:
        self._shielded.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may be gone


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _given(value: object) -> str | None:
    return value if isinstance(value, str) else None
