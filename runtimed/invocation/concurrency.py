"""Reserved and provisioned concurrency: kept, told to the dispatcher, and how far it is.

One change at a time, carried through also when its caller does not wait. The dispatcher launches and replaces what is
provisioned by itself; what there is of it comes with the demand that it reports.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from runtimed.machines import concurrency as rules
from runtimed.machines.concurrency import Share
from runtimed.model import errors
from runtimed.model.concurrency import ProvisionedConcurrency, ProvisionedConcurrencyStatus
from runtimed.model.shape import UNSET
from runtimed.store.concurrency import RESERVED, ConcurrencyStore, Setting

if TYPE_CHECKING:
    from runtimed.dispatch.control import Dispatcher

FAILURES = 3
"""Environments that cannot be made, one after the other, after which a version's provision has failed."""

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
    ) -> None:
        """`limit`: the account's concurrency; `least`: what stays unreserved of it, 0: Lambda's rule; `tell`: tells the
        dispatcher of a function's target and pool anew."""
        self._store = store
        self._dispatcher = dispatcher
        self._limit, self._least = limit, least
        self._tell = tell
        self._settings: dict[bytes, dict[str, Setting]] = {}
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

    def provision_of(self, uid: bytes) -> int:
        """Of all versions of a function."""
        return sum(setting.executions for setting in self._settings.get(uid, {}).values() if setting.qualifier)

    def executions(self, uid: bytes, qualifier: str) -> int:
        """Provisioned for one version of a function."""
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

    async def unprovision(self, name: str, qualifier: str) -> bool:
        return await self._carry_through(self._remove(name, qualifier))

    # ---- changes ---------------------------------------------------------------------------------------------

    async def _put(self, name: str, qualifier: str, executions: int) -> Setting:
        def check(uid: bytes, settings: list[Setting]) -> None:
            others = [one for one in settings if (one.uid, one.qualifier) != (uid, qualifier)]
            new = Setting(uid=uid, name=name, qualifier=qualifier, executions=executions, modified_ms=0)
            shares = _shares([*others, new])
            share = shares.pop(uid)
            try:
                rules.check(self._limit, share, shares.values(), self._least)
            except rules.Refusal as refusal:
                member = "ProvisionedConcurrentExecutions" if qualifier else "ReservedConcurrentExecutions"
                raise errors.InvalidParameterValue(f"{member}: {refusal}") from None

        async with self._changing:
            setting = await self._store.put(name, qualifier, executions, time.time_ns() // 1_000_000, check)
            if setting is None:
                raise errors.ResourceNotFound(f"Function not found: {name} was deleted meanwhile.")
            await self.load()
            await self._tell(setting.uid)
        return setting

    async def _remove(self, name: str, qualifier: str) -> bool:
        async with self._changing:
            found = next((one for one in await self._store.of(name) if one.qualifier == qualifier), None)
            if found is None:
                return False
            await self._store.remove(name, qualifier)
            await self.load()
            await self._tell(found.uid)
        return True

    async def _carry_through(self, change: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    # ---- how far it is ---------------------------------------------------------------------------------------

    def _described(self, setting: Setting, *, fresh: bool = False) -> ProvisionedConcurrency:
        demands = self._dispatcher.demands_of(setting.uid)
        ready = 0 if fresh else min(setting.executions, sum(demand.provisioned for demand in demands))
        failures = 0 if fresh else max((demand.provision_failures for demand in demands), default=0)
        status, reason = ProvisionedConcurrencyStatus.IN_PROGRESS, ""
        if ready == setting.executions:
            status = ProvisionedConcurrencyStatus.READY
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


def _shares(settings: Iterable[Setting]) -> dict[bytes, Share]:
    """By function."""
    found: dict[bytes, Share] = {}
    for one in settings:
        share = found.get(one.uid, Share())
        reserved = one.executions if one.qualifier == RESERVED else share.reserved
        provisioned = share.provisioned + (one.executions if one.qualifier else 0)
        found[one.uid] = Share(reserved=reserved, provisioned=provisioned)
    return found
