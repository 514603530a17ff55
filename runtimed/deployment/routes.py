"""Where the dispatcher finds a function, its versions and its aliases: one route each.

    object of the route       leads to
    functions.id              the function's name and $LATEST: the target that serves
    2^62 | versions.id        its name and a number: the version's target
    2^61 | aliases.id         its name and an alias: a version's target, and by weight another's; or $LATEST's

What an alias leads to is read, and told, under a lock: whoever comes later knows what is newer, and has the higher
generation. It is told again when a target that it leads to becomes known, or $LATEST's is another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from runtimed.deployment.shield import until_done
from runtimed.deployment.steps import StepError
from runtimed.dispatch.control import Dispatcher
from runtimed.link.mirror import Refused
from runtimed.model import errors, wire
from runtimed.model.arn import LATEST
from runtimed.store.aliases import Alias, AliasStore, Lead
from runtimed.store.functions import Function, FunctionStore
from runtimed.store.versions import Version

log = logging.getLogger(__name__)

VERSION = 1 << 62
ALIAS = 1 << 61
WEIGHT = 1 << 16
"""Of an alternate that gets everything."""


class Routes:
    """All routes; put and taken away."""

    def __init__(self, functions: FunctionStore, aliases: AliasStore, dispatcher: Dispatcher) -> None:
        self._functions = functions
        self._aliases = aliases
        self._dispatcher = dispatcher
        self._lock = asyncio.Lock()

    # ---- rollouts --------------------------------------------------------------------------------------------

    async def latest(self, function: Function, target: int) -> None:
        """$LATEST and the aliases that follow it: `target` from now on. Raises StepError."""
        generation = await self._functions.next_generation(function.uid)
        if generation is None:
            raise StepError("The function is gone.", "InternalError")
        former = self._dispatcher.route(function.id)
        try:
            await self._dispatcher.put(latest_route(function, target), function.id, generation)
        except Refused as error:
            raise StepError(f"The dispatcher refused the function: {error}.", "InternalError") from None
        await self._naming(function.id, LATEST)
        if former is not None:
            await until_done(f"{function.name}: telling aliases", partial(self.leave, former.target))

    async def version(self, version: Version) -> None:
        """And the aliases that lead to it. Raises StepError."""
        try:
            await self._dispatcher.put(version_route(version), VERSION | version.id, 1)
        except Refused as error:
            raise StepError(f"The dispatcher refused the version: {error}.", "InternalError") from None
        await self._naming(version.function, str(version.number))

    async def forget_function(self, function: Function, versions: Iterable[Version]) -> None:
        async with self._lock:
            for alias in await self._aliases.of_function(function.id):
                await self._dispatcher.delete_route(ALIAS | alias.id)
        for version in versions:
            await self._dispatcher.delete_route(VERSION | version.id)
        await self._dispatcher.delete_route(function.id)

    async def forget_version(self, version: Version) -> None:
        await self._dispatcher.delete_route(VERSION | version.id)

    # ---- aliases ---------------------------------------------------------------------------------------------

    async def alias(self, alias: int) -> None:
        """As its row has it, which is kept already: also when the store fails meanwhile. Returns when invocations go
        there. Raises ServiceUnavailable."""
        refused = await until_done(f"telling alias {alias}", partial(self._follow, alias))
        if refused is not None:
            raise errors.ServiceUnavailable(f"The dispatcher refused the alias: {refused}.")

    async def forget_alias(self, alias: Alias) -> None:
        """Whose row is gone."""
        async with self._lock:
            await self._dispatcher.delete_route(ALIAS | alias.id)

    async def leave(self, target: int) -> None:
        """One that is about to be withdrawn: aliases whose rows lead elsewhere, and of which the dispatcher has not
        heard yet, are told first."""
        async with self._lock:
            for number, route in self._dispatcher.routes().items():
                if number & ALIAS and target in (route.target, route.alternate):
                    try:
                        await self._tell(number & ~ALIAS)
                    except Refused as error:
                        log.error("%s:%s leads to what goes: %s", route.name, route.qualifier, error)

    async def _naming(self, function: int, version: str) -> None:
        """Invocations reach the version already: nothing that fails here may fail the rollout, which would take the
        target away."""
        what = f"telling the aliases of version {version}"
        for alias in await until_done(what, partial(self._aliases.naming, function, version)):
            refused = await until_done(what, partial(self._follow, alias.id))
            if refused is not None:
                log.error("%s:%s leads where it led before: %s", alias.name, alias.alias, refused)

    async def _follow(self, alias: int) -> Refused | None:
        """One alias, as its row has it; what the dispatcher has against it."""
        async with self._lock:
            try:
                await self._tell(alias)
            except Refused as error:
                return error
        return None

    async def _tell(self, alias: int) -> None:
        lead = await self._aliases.lead_again(alias)
        if lead is None:
            return
        latest = self._dispatcher.route(lead.alias.function)
        route = alias_route(lead, 0 if latest is None else latest.target, self._dispatcher.knows)
        if route is not None:
            await self._dispatcher.put(route, ALIAS | alias, lead.alias.generation)


def latest_route(function: Function, target: int) -> wire.PutRoute:
    return wire.PutRoute(name=function.name, qualifier=LATEST, target=target)


def version_route(version: Version) -> wire.PutRoute:
    return wire.PutRoute(name=version.name, qualifier=str(version.number), target=version.target)


def alias_route(lead: Lead, latest: int, known: Callable[[int], bool]) -> wire.PutRoute | None:
    """None: the dispatcher does not know the target yet. `latest`: $LATEST's target; 0: none serves. `known`: to the
    dispatcher, by a target's number."""
    target = latest if lead.alias.version == LATEST else lead.target
    if not target or not known(target):
        return None
    route = wire.PutRoute(name=lead.alias.name, qualifier=lead.alias.alias, target=target)
    if lead.alternate is None or not known(lead.alternate):
        return route
    weight = round(lead.alias.weight * WEIGHT)
    return wire.PutRoute(
        name=route.name, qualifier=route.qualifier, target=target, alternate=lead.alternate, alternate_weight=weight
    )
