"""Makes functions and their versions, and changes them: receives code, keeps targets, and begins the rollouts that
`machines.deployment` decides (rollouts.py runs them).

What a caller began is never lost with the caller: storing the change and starting its rollout are shielded together.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable

import msgspec
from msgspec import UNSET

from runtimed.deployment.receive import Receiver
from runtimed.deployment.rollouts import Rollout, Rollouts, Subject
from runtimed.deployment.shield import Shield
from runtimed.deployment.steps import NO_ROOM, NO_RUNTIME
from runtimed.deployment.subjects import Changes, OfFunction, OfVersion, Parts
from runtimed.machines import deployment as machine
from runtimed.model import errors
from runtimed.model.function import (
    CreateFunctionRequest,
    FunctionConfiguration,
    SnapshotChoice,
    UpdateFunctionCodeRequest,
    UpdateFunctionConfigurationRequest,
)
from runtimed.model.version import PublishVersionRequest
from runtimed.store.functions import Function
from runtimed.store.qualifiers import check_snap_start
from runtimed.store.targets import Definition
from runtimed.store.versions import Version, Wish

AGAIN_SECONDS, AGAIN_SECONDS_MAX = 5.0, 300.0  # until a function that failed is tried again; doubled each time
PUBLISH_SECONDS = 5.0  # that a caller waits for a version to become Active: there is little to do for it


class Attempt(msgspec.Struct, frozen=True):
    """The next one for a function that failed, and what it waited for."""

    due: float
    pause: float


class Deployer:
    """The performer behind create, publish, update and delete."""

    def __init__(self, parts: Parts, receiver: Receiver) -> None:
        self._parts = parts
        self._functions = parts.functions
        self._versions = parts.versions
        self._receiver = receiver
        self.rollouts = Rollouts(parts.steps)
        self.changes = Changes()
        self._attempts: dict[tuple[type, int], Attempt] = {}
        self._shield = Shield()

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
                snapshot=SnapshotChoice.NODE if request.snapshot is UNSET else request.snapshot,
            )

            published = _Published()

            async def store() -> None:
                async with self._receiver.keeping(package):
                    function = await self._functions.create(
                        request.function_name,
                        definition,
                        request.environment.variables,
                        _now_ms(),
                        self._versions.along(Wish(), _now_ms(), published.set) if request.publish else None,
                    )
                if function.next is not None:
                    first = Rollout(OfFunction(function, self._parts), machine.Deployment())
                    self.rollouts.start(first, machine.Begin(function.next))
                self._follow(function, published)

            await self._shield.run(store())
        return await self._shown(request.function_name, published.version)

    async def update_code(
        self, request: UpdateFunctionCodeRequest, code: AsyncIterator[bytes]
    ) -> FunctionConfiguration:
        async with self._receiver.receive(code, request.upload_sha256) as package:

            def change(was: Definition, variables: dict[str, str]) -> tuple[Definition, dict[str, str]]:
                new = msgspec.structs.replace(was, zip_sha256=package.sha256, zip_size=package.size)
                return new, variables

            published = _Published()

            async def store() -> None:
                async with self._receiver.keeping(package):
                    before, after = await self._functions.change(
                        request.function_name,
                        _given(request.revision_id),
                        change,
                        _now_ms(),
                        self._versions.along(Wish(), _now_ms(), published.set) if request.publish else None,
                    )
                self._changed(before, after)
                self._follow(after, published)

            await self._shield.run(store())
        return await self._shown(request.function_name, published.version)

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
                "snapshot": request.snapshot,
            }
            given = {name: value for name, value in new.items() if value is not UNSET}
            variables = variables if request.environment is UNSET else request.environment.variables
            return msgspec.structs.replace(was, **given), variables

        def check(c: sqlite3.Connection, target: int) -> None:
            if request.snap_start is not UNSET:
                check_snap_start(c, c.execute("SELECT function FROM targets WHERE id = ?", (target,)).fetchone()[0])

        async def store() -> None:
            given = _given(request.revision_id)
            self._changed(*await self._functions.change(request.function_name, given, change, _now_ms(), check))

        await self._shield.run(store())
        return await self._shown(request.function_name)

    async def publish(self, request: PublishVersionRequest) -> FunctionConfiguration:
        wish = Wish(
            description=_given(request.description),
            code_sha256=_given(request.code_sha256),
            revision_id=_given(request.revision_id),
        )

        async def store() -> Version:
            version, new = await self._versions.publish(request.function_name, wish, _now_ms())
            if new:
                self._roll_out(version)
            return version

        version = await self._shield.run(store())
        await self.settled([version])
        return await self._shown(version.name, version)

    async def delete(self, name: str) -> None:
        function = await self._functions.find(name)
        if function is None:
            raise errors.ResourceNotFound(f"Function not found: {name}")
        state, _ = machine.recovered(function.state, function.serving, function.next)
        await self._shield.run(self.rollouts.delete(Rollout(OfFunction(function, self._parts), state)))

    async def delete_version(self, name: str, number: int) -> None:
        async def delete() -> None:
            version = await self._versions.condemn(name, number)
            state, _ = machine.recovered(version.state, version.serving, version.next)
            await self.rollouts.delete(Rollout(self._subject(version), state))

        await self._shield.run(delete())

    async def settled(self, versions: Iterable[Version]) -> None:
        """Until these are Active or Failed, or PUBLISH_SECONDS have passed."""
        await self.rollouts.settled([self._subject(version) for version in versions], PUBLISH_SECONDS)

    # ---- start and stop --------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """At start: goes on with what a crash or a stop interrupted. Launcher and dispatcher were told what is
        wanted. What a caller has begun before this came to it is under way already."""
        await self._functions.forget_strays()
        functions = {function.id: function for function in await self._functions.all()}
        for function in functions.values():
            state, commands = machine.recovered(function.state, function.serving, function.next)
            subject = OfFunction(function, self._parts)
            if commands and self.rollouts.task(subject) is None:
                self.rollouts.drive(Rollout(subject, state), commands)
        for version in await self._versions.all():
            if (whose := functions.get(version.function)) is None or whose.state is machine.State.DELETING:
                continue  # goes with it
            state, commands = machine.recovered(version.state, version.serving, version.next)
            if commands and self.rollouts.task(self._subject(version)) is None:
                after = self.rollouts.task(OfFunction(whose, self._parts))
                self.rollouts.drive(Rollout(self._subject(version), state, after), commands)

    async def try_again(self, now: float) -> None:
        """What could not be made for want of a runtime or of room begins anew, each less and less often."""
        codes = (NO_RUNTIME, NO_ROOM)
        failed: dict[tuple[type, int], Function | Version] = {}
        failed |= {(Function, function.id): function for function in await self._functions.failed(codes)}
        failed |= {(Version, version.id): version for version in await self._versions.failed(codes)}
        self._attempts = {key: self._attempts.get(key, Attempt(now + AGAIN_SECONDS, AGAIN_SECONDS)) for key in failed}
        for key, one in failed.items():
            attempt = self._attempts[key]
            if attempt.due > now or not await self._shield.run(self._begin_again(one)):
                continue
            pause = min(attempt.pause * 2, AGAIN_SECONDS_MAX)
            self._attempts[key] = Attempt(now + pause, pause)

    async def _begin_again(self, one: Function | Version) -> bool:
        subject: Subject
        if isinstance(one, Version):
            begun, subject = await self._versions.begin_again(one), self._subject(one)
        else:
            begun, subject = await self._functions.begin_again(one), OfFunction(one, self._parts)
        if begun:
            state, _ = machine.recovered(one.state, one.serving, one.next)
            self.rollouts.start(Rollout(subject, state), machine.Again())
        return begun

    async def settle(self) -> None:
        """Until nothing is under way."""
        await self.rollouts.settle()

    async def stop(self) -> None:
        """Interrupts all rollouts: they begin again with the next start."""
        await self.rollouts.stop()

    # ---- parts -----------------------------------------------------------------------------------------------

    def _changed(self, before: Function, after: Function) -> None:
        state, _ = machine.recovered(before.state, before.serving, before.next)
        if after.next is not None:
            self.rollouts.start(Rollout(OfFunction(after, self._parts), state), machine.Begin(after.next))

    def _follow(self, function: Function, published: _Published) -> None:
        """A version that was published with the function's new target, once that one is in its place."""
        if published.version is not None and published.new:
            self._roll_out(published.version, self.rollouts.task(OfFunction(function, self._parts)))

    def _roll_out(self, version: Version, after: asyncio.Task[None] | None = None) -> None:
        rollout = Rollout(self._subject(version), machine.Deployment(), after)
        self.rollouts.start(rollout, machine.Begin(version.target))

    def _subject(self, version: Version) -> OfVersion:
        return OfVersion(version, self._parts, self.changes)

    async def _shown(self, name: str, version: Version | None = None) -> FunctionConfiguration:
        if version is None:
            shown = await self._functions.get(name)
        else:
            shown = await self._versions.get(name, version.number)
        if shown is None:
            raise errors.ResourceNotFound(f"Function not found: {name} was deleted meanwhile")
        return shown


class _Published:
    """What came of publishing along with a change."""

    version: Version | None = None
    new = False

    def set(self, version: Version, new: bool) -> None:
        self.version, self.new = version, new


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _given(value: object) -> str | None:
    return value if isinstance(value, str) else None
