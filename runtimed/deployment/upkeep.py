"""What goes on in the background: memory pressure, and packages that nothing refers to any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from runtimed.deployment.receive import Receiver
from runtimed.machines.pools import KeepAlive, Pools, classify
from runtimed.store.functions import FunctionStore
from runtimed.store.packages import CodeStore
from runtimed.telemetry.host import available_share

LOOK_SECONDS = 5.0
SWEEP_SECONDS = 300.0
KEPT_SECONDS = 1800.0  # beyond the longest invocation (900 s): environments of a former target still run from its tree

log = logging.getLogger(__name__)


async def watch_memory(pools: Pools, apply: Callable[[KeepAlive], Awaitable[None]]) -> None:
    """Looks at the machine's memory and tells the pools' machine, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        event = classify(available_share())
        for command in pools.on(event) if event is not None else ():
            if isinstance(command, KeepAlive):
                log.warning("idle environments are now kept for %d s", command.milliseconds // 1000)
                await apply(command)


class Sweeper:
    """Removes packages once they were unreferenced for KEPT_SECONDS. After a restart the time begins anew."""

    def __init__(
        self,
        functions: FunctionStore,
        code: CodeStore,
        receiver: Receiver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._functions = functions
        self._code = code
        self._receiver = receiver
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sweep()
            except OSError as error:
                log.warning("unreferenced packages could not be removed: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> int:
        """One round; how many packages went."""
        removed = 0
        async with self._receiver.lock:
            zips, trees = await self._functions.packages_in_use()
            have_zips, have_trees = await asyncio.to_thread(self._code.contents)
            idle = {("zip", name) for name in have_zips - zips} | {("tree", name) for name in have_trees - trees}
            now = self._clock()
            self._since = {item: self._since.get(item, now) for item in idle}
            for kind, name in [item for item, since in self._since.items() if now - since >= KEPT_SECONDS]:
                await asyncio.to_thread(self._code.remove_zip if kind == "zip" else self._code.remove_tree, name)
                del self._since[kind, name]
                removed += 1
        return removed
