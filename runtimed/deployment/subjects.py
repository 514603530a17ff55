"""What is rolled out: a function, or a published version of one. Both walk through the same machine; they differ in the
rows that keep its state, in the routes that lead to them, and in what goes with them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct

from runtimed.deployment.routes import Routes
from runtimed.deployment.steps import Steps
from runtimed.machines.deployment import Record, State
from runtimed.store.functions import Function, FunctionStore
from runtimed.store.versions import Version, VersionStore

log = logging.getLogger(__name__)


async def _nothing(uid: bytes) -> None:
    """For who keeps nothing for versions or aliases."""


class Parts(Struct, frozen=True, kw_only=True):
    """What the two work on."""

    functions: FunctionStore
    versions: VersionStore
    steps: Steps
    routes: Routes


class Changes:
    """Who else hears of versions and aliases."""

    def __init__(self) -> None:
        self.heard: Callable[[bytes], Awaitable[None]] = _nothing
        """Told a function's uid after one of its versions or aliases was made, moved or deleted."""

    async def tell(self, uid: bytes) -> None:
        try:
            await self.heard(uid)
        except Exception:
            log.exception("what depends on versions and aliases was not told of a change")


class OfFunction:
    """A function and its $LATEST."""

    def __init__(self, function: Function, parts: Parts) -> None:
        self.row = function.id
        self.name = function.name
        self._function = function
        self._parts = parts

    async def record(self, record: Record) -> None:
        await self._parts.functions.record(
            self.row, record.state, record.serving, record.next, record.reason, record.code
        )

    async def route(self, target: int) -> None:
        await self._parts.routes.latest(self._function, target)

    async def forget(self, target: int) -> None:
        await self._parts.functions.forget_target(target)

    async def retire(self, targets: tuple[int, ...]) -> None:
        """With all that belongs to the function."""
        parts = self._parts
        versions = await parts.versions.of_function(self.row)
        await parts.routes.forget_function(self._function, versions)
        for target in (*targets, *(version.target for version in versions)):
            await parts.steps.withdraw(target)
        await parts.functions.forget(self.row)


class OfVersion:
    """A published version."""

    def __init__(self, version: Version, parts: Parts, changes: Changes) -> None:
        self.row = version.id
        self.name = f"{version.name}:{version.number}"
        self.function = version.function
        self._version = version
        self._parts = parts
        self._changes = changes

    async def record(self, record: Record) -> None:
        await self._parts.versions.record(self.row, record.state, record.reason, record.code)
        if record.state is State.ACTIVE:
            await self._changes.tell(self._version.uid)

    async def route(self, target: int) -> None:
        await self._parts.routes.version(self._version)

    async def forget(self, target: int) -> None:
        """A version has one target, which goes with it."""

    async def retire(self, targets: tuple[int, ...]) -> None:
        await self._parts.routes.forget_version(self._version)
        for target in targets:
            await self._parts.routes.leave(target)
            await self._parts.steps.withdraw(target)
        await self._parts.versions.forget(self._version)
        await self._changes.tell(self._version.uid)
