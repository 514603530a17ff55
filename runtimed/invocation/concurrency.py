"""Reserved and provisioned concurrency: kept, told to the dispatcher, and how far it is.

One change at a time, carried through also when its caller does not wait. The dispatcher launches and replaces what is
provisioned by itself; what there is of it comes with the demand that it reports. What is provisioned under an alias is
the version's that the alias names: an alias that moves takes it along, and moves when the new version's environments
are ready, or when that took PATIENCE seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from runtimed.machines import concurrency as rules
from runtimed.machines.concurrency import Share
from runtimed.model import errors
from runtimed.model.arn import LATEST
from runtimed.model.concurrency import ProvisionedConcurrency, ProvisionedConcurrencyStatus
from runtimed.model.shape import UNSET
from runtimed.store.concurrency import RESERVED, ConcurrencyStore, Setting
from runtimed.store.qualifiers import Meant

if TYPE_CHECKING:
    from runtimed.dispatch.control import Dispatcher

FAILURES = 3
"""Environments that cannot be made, one after the other, after which a version's provision has failed."""
PATIENCE = 10.0
"""Seconds that an alias waits for the environments of the version that it moves to: its caller waits, too."""
LOOK_SECONDS = 0.05

T = TypeVar("T")

log = logging.getLogger(__name__)


class ConcurrencyKeeper:
    """`load` before the dispatcher is told anything."""

    def __init__(
        self,
        store: ConcurrencyStore,
        dispatcher: Dispatcher,
        *,
        limit: int,
        least: int = 0,
        tell: Callable[[bytes], Awaitable[None]],
        tell_pools: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        """`limit`: the account's concurrency; `least`: what stays unreserved of it, 0: Lambda's rule; `tell`: tells the
        dispatcher of a function's targets and pools anew, `tell_pools`: of the pools only, which is less."""
        self._store = store
        self._dispatcher = dispatcher
        self._limit, self._least = limit, least
        self._tell = tell
        self._tell_pools = tell if tell_pools is None else tell_pools
        self._settings: dict[bytes, dict[str, Setting]] = {}
        self._ahead: Counter[tuple[bytes, str, str]] = Counter()
        """Aliases' ways to a version that are under way, by the function's uid, that version and the alias."""
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load(self) -> None:
        """What is kept, anew: what belonged to functions that were deleted is forgotten."""
        found: dict[bytes, dict[str, Setting]] = {}
        for setting in await self._store.all():
            found.setdefault(setting.uid, {})[setting.qualifier] = setting
        self._settings = found

    # ---- what is set -----------------------------------------------------------------------------------------

    def reservation_of(self, uid: bytes) -> int | None:
        """Of a function; None: it has none, which is not 0."""
        setting = self._settings.get(uid, {}).get(RESERVED)
        return None if setting is None else setting.executions

    def provision_of(self, uid: bytes, version: str) -> int:
        """Of one version of a function, under its number and the aliases that name it, now or soon. One that has moved
        there while its way still counts is counted once."""
        return sum(
            one.executions
            for one in self._settings.get(uid, {}).values()
            if one.qualifier and (one.version == version or self._ahead[uid, version, one.qualifier])
        )

    def executions(self, uid: bytes, qualifier: str) -> int:
        """Provisioned under one qualifier of a function."""
        setting = self._settings.get(uid, {}).get(qualifier)
        return 0 if setting is None else setting.executions

    async def unreserved(self) -> int:
        """Of the account's concurrency, for functions that have none of their own."""
        return rules.unreserved(self._limit, _shares(await self._store.all()).values())

    # ---- operations ------------------------------------------------------------------------------------------

    async def reserve(self, name: str, executions: int) -> None:
        await self._carry_through(self._put(name, RESERVED, executions))

    async def reserved(self, name: str) -> int | None:
        return next((one.executions for one in await self._store.of(name) if one.qualifier == RESERVED), None)

    async def unreserve(self, name: str) -> None:
        await self._carry_through(self._remove(name, RESERVED))

    async def provision(self, name: str, qualifier: str, executions: int) -> ProvisionedConcurrency:
        return self._described(await self._carry_through(self._put(name, qualifier, executions)), fresh=True)

    async def provisioned(self, name: str) -> dict[str, ProvisionedConcurrency]:
        return {one.qualifier: self._described(one) for one in await self._store.of(name) if one.qualifier}

    async def provisioned_for(self, name: str, qualifier: str) -> ProvisionedConcurrency | None:
        await self._store.meant(name, qualifier)
        return (await self.provisioned(name)).get(qualifier)

    async def unprovision(self, name: str, qualifier: str) -> bool:
        await self._store.meant(name, qualifier)
        return await self._carry_through(self._remove(name, qualifier))

    # ---- changes ---------------------------------------------------------------------------------------------

    async def _put(self, name: str, qualifier: str, executions: int) -> Setting:
        def check(uid: bytes, found: Meant, settings: list[Setting]) -> None:
            others = [one for one in settings if (one.uid, one.qualifier) != (uid, qualifier)]
            if qualifier:
                check_meant(name, qualifier, found)
                _check_alone(qualifier, found.version, [one for one in others if one.uid == uid and one.qualifier])
            new = Setting(
                uid=uid, name=name, qualifier=qualifier, version=found.version, executions=executions, modified_ms=0
            )
            shares = _shares([*others, new])
            share = shares.pop(uid)
            try:
                rules.check(self._limit, share, shares.values(), self._least)
            except rules.Refusal as refusal:
                member = "ProvisionedConcurrentExecutions" if qualifier else "ReservedConcurrentExecutions"
                raise errors.InvalidParameterValue(f"{member}: {refusal}") from None

        async with self._changing:
            setting = await self._store.put(name, qualifier, executions, time.time_ns() // 1_000_000, check)
            await self.load()
            await (self._tell_pools if qualifier else self._tell)(setting.uid)
        return setting

    async def _remove(self, name: str, qualifier: str) -> bool:
        async with self._changing:
            found = next((one for one in await self._store.of(name) if one.qualifier == qualifier), None)
            if found is None:
                return False
            await self._store.remove(name, qualifier)
            await self.load()
            await (self._tell_pools if qualifier else self._tell)(found.uid)
        return True

    async def _carry_through(self, change: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    # ---- aliases ---------------------------------------------------------------------------------------------

    async def qualifiers_changed(self, uid: bytes) -> None:
        """A function's versions and aliases came, went, or mean something else."""
        async with self._changing:
            await self.load()
            await self._tell_pools(uid)

    @asynccontextmanager
    async def moving(self, name: str, alias: str, version: str) -> AsyncIterator[None]:
        """Around an alias' way to another version. What is provisioned under it is there of that version, too, when
        this begins, and of the former one until it ends."""
        found = next((one for one in await self._store.of(name) if one.qualifier == alias), None)
        if found is None or found.version == version or not self._dispatcher.targets_of(found.uid, version):
            yield  # nothing to wait for; or the version is missing, which is for others to say
            return
        key = found.uid, version, alias
        self._ahead[key] += 1
        try:
            await self._await_ready(found.uid, version)
            yield
        finally:
            self._ahead[key] -= 1
            if not self._ahead[key]:
                del self._ahead[key]
            await self.qualifiers_changed(found.uid)

    async def _await_ready(self, uid: bytes, version: str) -> None:
        """Or until it is known that it cannot be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._tell_pools(uid)
                while True:
                    demands = self._dispatcher.demands_of(uid, version)
                    if sum(demand.provisioned for demand in demands) >= self.provision_of(uid, version):
                        return
                    if any(demand.provision_failures >= FAILURES for demand in demands):
                        return
                    await asyncio.sleep(LOOK_SECONDS)

    # ---- how far it is ---------------------------------------------------------------------------------------

    def _described(self, setting: Setting, *, fresh: bool = False) -> ProvisionedConcurrency:
        demands = self._dispatcher.demands_of(setting.uid, setting.version)
        there = sum(demand.provisioned for demand in demands)
        # What several aliases of one version have is the first one's, then the second one's.
        settings = self._settings.get(setting.uid, {}).values()
        before = sum(
            one.executions
            for one in settings
            if one.version == setting.version and one.qualifier and one.qualifier < setting.qualifier
        )
        ready = 0 if fresh else max(0, min(setting.executions, there - before))
        failures = 0 if fresh else max((demand.provision_failures for demand in demands), default=0)
        status, reason = ProvisionedConcurrencyStatus.IN_PROGRESS, ""
        if ready == setting.executions:
            status = ProvisionedConcurrencyStatus.READY
        elif setting.failed is not None:
            status = ProvisionedConcurrencyStatus.FAILED
            reason = f"Version {setting.version} could not be made: {setting.failed or 'its state is Failed'}"
        elif failures >= FAILURES:
            status = ProvisionedConcurrencyStatus.FAILED
            reason = (
                f"FUNCTION_ERROR_INIT_FAILURE: {failures} environments in a row could not be initialized. "
                f"`runtimectl logs {setting.name}` shows why; it is tried again."
            )
        return ProvisionedConcurrency(
            requested_provisioned_concurrent_executions=setting.executions,
            available_provisioned_concurrent_executions=ready,
            allocated_provisioned_concurrent_executions=ready,
            status=status,
            status_reason=reason or UNSET,
            last_modified=setting.last_modified,
        )


def check_meant(name: str, qualifier: str, found: Meant) -> None:
    """Raises InvalidParameterValue where Lambda provisions nothing: for an alias with weights, and where SnapStart is
    on, whose environments are copies. Raises ResourceConflict for a published version that could not be made; $LATEST
    may work with its next update."""
    if found.failed is not None and found.version != LATEST:
        raise errors.ResourceConflict(
            f"The operation cannot be performed at this time: version {found.version} of {name} is Failed: "
            f"{found.failed or 'it could not be made'}. Publish another one, or try again if it becomes Active."
        )
    if found.alternate:
        raise errors.InvalidParameterValue(
            f"Qualifier: an alias with weights can not be used with provisioned concurrency; {name}:{qualifier} leads "
            f"to {found.version} and {found.alternate}. Provision for these versions, or take the weights away."
        )
    if found.snap_start:
        raise errors.InvalidParameterValue(
            f"Provisioned concurrency is not supported where SnapStart is on, as it is for {name}:{qualifier}. "
            "Turn that off (`runtimectl deploy` with --no-snap-start), or leave it at that."
        )


def _check_alone(qualifier: str, version: str, others: list[Setting]) -> None:
    """A version has it under its number or under aliases, not both."""
    for one in others:
        if one.version == version and (one.qualifier == version or qualifier == version):
            raise errors.InvalidParameterValue(
                f"Qualifier: concurrency is provisioned for version {version} already, as {one.qualifier}: it cannot "
                f"be as {qualifier} too. Change that, or take it away first."
            )


def _shares(settings: Iterable[Setting]) -> dict[bytes, Share]:
    """By function."""
    found: dict[bytes, Share] = {}
    for one in settings:
        share = found.get(one.uid, Share())
        reserved = one.executions if one.qualifier == RESERVED else share.reserved
        provisioned = share.provisioned + (one.executions if one.qualifier else 0)
        found[one.uid] = Share(reserved=reserved, provisioned=provisioned)
    return found
