"""Makes aliases, moves them and takes them away: in the store, then at the dispatcher, also when the caller goes away
meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from msgspec import UNSET

from runtimed.deployment.deployer import Deployer
from runtimed.deployment.routes import Routes
from runtimed.deployment.shield import Shield
from runtimed.machines.deployment import State
from runtimed.model.alias import (
    AliasConfiguration,
    AliasRoutingConfiguration,
    CreateAliasRequest,
    UpdateAliasRequest,
)
from runtimed.model.arn import LATEST, Identity
from runtimed.model.shape import UnsetType
from runtimed.model.version import number_of
from runtimed.store.aliases import Alias, AliasStore, Change
from runtimed.store.versions import VersionStore


class AliasDeployer:
    """The performer behind the operations on aliases."""

    def __init__(
        self,
        identity: Identity,
        aliases: AliasStore,
        versions: VersionStore,
        routes: Routes,
        deployer: Deployer,
        moving: Callable[[str, str, str], AbstractAsyncContextManager[None]],
    ) -> None:
        """`moving`: what is around a function's alias' way to another version."""
        self._moving = moving
        self._identity = identity
        self._aliases = aliases
        self._versions = versions
        self._routes = routes
        self._deployer = deployer
        self._shield = Shield()

    async def create(self, request: CreateAliasRequest) -> AliasConfiguration:
        change = Change(
            version=request.function_version,
            alternate=_alternate(request.routing_config) or (),
            description=request.description,
        )
        await self._ready(request.function_name, change)
        return await self._shield.run(
            self._told(self._aliases.create(request.function_name, request.name, change, _now_ms()))
        )

    async def update(self, request: UpdateAliasRequest) -> AliasConfiguration:
        change = Change(
            version=None if request.function_version is UNSET else request.function_version,
            alternate=_alternate(request.routing_config),
            description=None if request.description is UNSET else request.description,
        )
        revision = None if request.revision_id is UNSET else request.revision_id
        name = request.function_name
        ready = await self._ready(name, change)
        await self._aliases.check(name, request.name, change, revision)  # before anything is waited for

        async def move() -> AliasConfiguration:
            around = self._moving(name, request.name, change.version or "") if ready else nullcontext()
            async with around:
                return await self._told(self._aliases.change(name, request.name, change, revision, _now_ms()))

        return await self._shield.run(move())

    async def get(self, name: str, alias: str) -> AliasConfiguration:
        found = await self._aliases.find(name, alias)
        if found is None:
            raise self._aliases.missing(name, alias)
        return self._shown(found)

    async def page(self, name: str, after: str, limit: int, version: str) -> list[AliasConfiguration]:
        return [self._shown(alias) for alias in await self._aliases.page(name, after, limit, version)]

    async def delete(self, name: str, alias: str) -> None:
        async def remove() -> None:
            removed = await self._aliases.remove(name, alias)
            if removed is not None:
                await self._routes.forget_alias(removed)
                await self._deployer.changes.tell(removed.uid)

        await self._shield.run(remove())

    async def _ready(self, name: str, change: Change) -> bool:
        """Versions that were published a moment ago are on their way. Whether the alias can move to another one."""
        numbers = [change.version or "", *[one for one in (change.alternate or ()) if isinstance(one, str)]]
        found = [await self._versions.find(name, number) for number in map(number_of, numbers) if number]
        await self._deployer.settled(version for version in found if version is not None)
        if change.version is None or change.version == LATEST:
            return change.version == LATEST
        main = await self._versions.find(name, number_of(change.version))
        return main is not None and main.state is State.ACTIVE

    async def _told(self, stored: Awaitable[Alias]) -> AliasConfiguration:
        alias = await stored
        try:
            await self._routes.alias(alias.id)
        finally:
            await self._deployer.changes.tell(alias.uid)
        return self._shown(alias)

    def _shown(self, alias: Alias) -> AliasConfiguration:
        weights = {} if alias.alternate is None else {alias.alternate: alias.weight}
        return AliasConfiguration(
            alias_arn=self._identity.function_arn(alias.name, alias.alias),
            name=alias.alias,
            function_version=alias.version,
            description=alias.description,
            routing_config=AliasRoutingConfiguration(additional_version_weights=weights) if weights else UNSET,
            revision_id=alias.revision_id,
        )


def _alternate(routing: AliasRoutingConfiguration | UnsetType) -> tuple[str, float] | tuple[()] | None:
    if routing is UNSET:
        return None
    return next(iter(routing.additional_version_weights.items()), ())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
