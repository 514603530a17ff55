"""What launcher and dispatcher are told of functions, versions and aliases when the control plane starts: what the
store says should be. A few queries, however many there are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from runtimed.deployment.routes import ALIAS, VERSION, alias_route, latest_route, version_route
from runtimed.deployment.steps import Steps
from runtimed.deployment.subjects import Parts
from runtimed.dispatch.control import Dispatcher
from runtimed.machines.deployment import State
from runtimed.model import wire
from runtimed.sandbox.launcher import Launcher
from runtimed.store.aliases import AliasStore
from runtimed.store.packages import CodeStore
from runtimed.store.targets import Target

T = TypeVar("T")

log = logging.getLogger(__name__)


class Beginning:
    """Once, before launcher and dispatcher are synchronised."""

    def __init__(
        self,
        *,
        parts: Parts,
        aliases: AliasStore,
        code: CodeStore,
        launcher: Launcher,
        dispatcher: Dispatcher,
        interpreter: Callable[[str], int | None],
        pool: Callable[[wire.PutTarget], wire.PutPool],
    ) -> None:
        """`interpreter`: as for Steps; `pool`: of a target."""
        self._functions = parts.functions
        self._versions = parts.versions
        self._steps: Steps = parts.steps
        self._aliases = aliases
        self._code = code
        self._launcher = launcher
        self._dispatcher = dispatcher
        self._interpreter = interpreter
        self._pool = pool

    async def without_code(self) -> None:
        """What serves and whose unpacked code is gone from the disk is rolled out again, from its package; without that
        it fails, and says so. The others are not concerned."""
        for function, target in self._missing(await self._functions.served()):
            if function.state is not State.DELETING:
                following = function.next if function.next is not None else target
                await self._functions.record(function.id, State.PREPARING, None, following, "", "")
        for version, _ in self._missing(await self._versions.served()):
            await self._versions.record(version.id, State.PREPARING, "", "")

    def _missing(self, served: Iterable[tuple[T, Target]]) -> Iterable[tuple[T, int]]:
        trees: dict[str, bool] = {}
        for one, target in served:
            if target.package not in trees:
                trees[target.package] = self._code.has_tree(target.package)
            if not trees[target.package]:
                where = self._code.tree_path(target.package)
                log.error("%s:%s: its unpacked code is missing: %s", target.name, target.definition.version, where)
                yield one, target.id

    async def preload(self) -> None:
        """Plans, targets with their pools, and routes."""
        await self._functions.new_generations()
        await self._aliases.new_generations()
        served = await self._functions.served()
        generations = {function.id: function.generation for function in await self._functions.all()}
        for function, target in served:
            self._target(target, function.generation)
            self._dispatcher.preload(latest_route(function, target.id), function.id, function.generation)
        for version, target in await self._versions.served():
            self._target(target, generations[version.function])
            self._dispatcher.preload(version_route(version), VERSION | version.id, 1)
        latest = {function.id: target.id for function, target in served}
        for lead in await self._aliases.leads():
            route = alias_route(lead, latest.get(lead.alias.function, 0), self._dispatcher.knows)
            if route is not None:
                self._dispatcher.preload(route, ALIAS | lead.alias.id, lead.alias.generation)

    def _target(self, target: Target, generation: int) -> None:
        runtime = target.definition.runtime
        if self._interpreter(runtime) is None:
            log.warning("%s needs %s, which is not on this node any more", target.name, runtime)
        else:
            self._launcher.preload_plan(target.id, self._steps.plan(target))
        put = self._steps.target(target)
        self._dispatcher.preload(put, target.id, generation)
        self._dispatcher.preload(self._pool(put), target.id, 1)
