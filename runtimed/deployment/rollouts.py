"""Runs rollouts: what `machines.deployment` decides of each function and each published version that is under way.

Each has one rollout, which runs the machine's commands in order. A step (prepare, grant, teach, route) may take long
and is the last of its batch; it is what a deletion interrupts. Everything else is short and is always run to its end,
so that what the machine thinks happened did happen.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from functools import partial

from runtimed.deployment.shield import until_done
from runtimed.deployment.steps import StepError, Steps
from runtimed.deployment.subjects import OfFunction, OfVersion
from runtimed.link.mirror import Unconnected
from runtimed.machines import deployment as machine

log = logging.getLogger(__name__)

STEPS = (machine.Prepare, machine.Grant, machine.Teach, machine.Route)

Subject = OfFunction | OfVersion
Key = tuple[type, int]


class Rollout:
    """Of one function or version, while something is under way."""

    def __init__(self, subject: Subject, state: machine.Deployment, after: asyncio.Task[None] | None = None) -> None:
        """`after`: of the same package, which then lies in the code store."""
        self.subject = subject
        self.machine = state
        self.after = after
        self.task: asyncio.Task[None] | None = None
        self.step: asyncio.Task[machine.Event | None] | None = None
        self.deleting = False


def key_of(subject: Subject) -> Key:
    return type(subject), subject.row


class Rollouts:
    """All that are under way."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._rollouts: dict[Key, Rollout] = {}

    def task(self, subject: Subject) -> asyncio.Task[None] | None:
        """What is under way of it."""
        rollout = self._rollouts.get(key_of(subject))
        return None if rollout is None else rollout.task

    def start(self, rollout: Rollout, event: machine.Event) -> None:
        self.drive(rollout, rollout.machine.on(event))

    def drive(self, rollout: Rollout, commands: tuple[machine.Command, ...]) -> None:
        self._rollouts[key_of(rollout.subject)] = rollout
        rollout.task = asyncio.create_task(self._run(rollout, commands), name=f"rollout of {rollout.subject.name}")

    async def delete(self, fresh: Rollout) -> None:
        """Whatever is under way of the subject; `fresh`: when that is nothing. Returns when it is gone."""
        rollout = self._rollouts.get(key_of(fresh.subject), fresh)
        await self._interrupt(rollout)
        if rollout.machine.state in (machine.State.DELETING, machine.State.GONE):
            return  # by another caller, who has just finished
        self.start(rollout, machine.Delete())
        if rollout.task is not None:
            await rollout.task

    async def interrupt_versions(self, function: int) -> None:
        """Of a function that is being deleted: nothing is under way of its versions any more."""
        for rollout in list(self._rollouts.values()):
            if isinstance(rollout.subject, OfVersion) and rollout.subject.function == function:
                await self._interrupt(rollout)

    async def settle(self) -> None:
        """Until nothing is under way."""
        while tasks := self._tasks():
            await asyncio.wait(tasks)

    async def settled(self, subjects: Iterable[Subject], seconds: float) -> None:
        """Until nothing is under way of these, or the time is over."""
        tasks = [task for subject in subjects if (task := self.task(subject)) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def stop(self) -> None:
        """Interrupts all: they begin again with the next start."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- parts -----------------------------------------------------------------------------------------------

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [rollout.task for rollout in self._rollouts.values() if rollout.task is not None]

    async def _interrupt(self, rollout: Rollout) -> None:
        if rollout.task is None or rollout.task.done():
            return
        rollout.deleting = True
        if rollout.step is not None:
            rollout.step.cancel()
        await asyncio.wait({rollout.task})
        rollout.deleting = False

    async def _run(self, rollout: Rollout, commands: tuple[machine.Command, ...]) -> None:
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
            if self._rollouts.get(key_of(rollout.subject)) is rollout:
                del self._rollouts[key_of(rollout.subject)]

    async def _step(self, rollout: Rollout, command: machine.Command) -> machine.Event | None:
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

    async def _take(self, rollout: Rollout, command: machine.Command) -> machine.Event | None:
        try:
            match command:
                case machine.Prepare(target):
                    if rollout.after is not None:
                        await asyncio.wait({rollout.after})
                    await self._steps.prepare(target)
                    return machine.Prepared()
                case machine.Grant(target):
                    await self._steps.grant(target)
                    return machine.Granted()
                case machine.Teach(target):
                    await self._steps.teach(target)
                    return machine.Taught()
                case machine.Route(target):
                    await rollout.subject.route(target)
                    return machine.Routed()
            raise TypeError(f"{command} is no step")
        except Unconnected:
            return None  # the launcher is gone, and so are we: the rollout begins again with the next start
        except StepError as error:
            return machine.StepFailed(str(error), error.code)
        except Exception:
            log.exception("%s: %s failed", rollout.subject.name, command)
            return machine.StepFailed("Something failed on the node's side; its log says what.", "InternalError")

    async def _apply(self, rollout: Rollout, command: machine.Command) -> machine.Event | None:
        """Runs a command that has to succeed."""
        subject = rollout.subject
        return await until_done(f"{subject.name}: {command}", partial(self._apply_once, subject, command))

    async def _apply_once(self, subject: Subject, command: machine.Command) -> machine.Event | None:
        match command:
            case machine.Record():
                await subject.record(command)
                if command.reason:
                    log.warning("%s: %s", subject.name, command.reason)
            case machine.Withdraw(target):
                await self._steps.withdraw(target)
            case machine.Forget(target):
                await subject.forget(target)
            case machine.Retire(targets):
                if isinstance(subject, OfFunction):
                    await self.interrupt_versions(subject.row)
                await subject.retire(targets)
                return machine.Retired()
            case _:
                raise TypeError(f"{command} is not known")
        return None
