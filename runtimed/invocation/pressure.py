"""Memory pressure, as the node acts on it: looked at every second, told to the dispatcher, which ends environments.

What to do is `machines.pressure`'s; which environments end is the dispatcher's choice. While there is pressure, idle
environments are kept for a shorter time besides, and none is parked (`machines.pools`). A dispatcher or a control
plane that starts anew begins without pressure, and hears of it within a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from runtimed.link.mirror import Refused, Unconnected
from runtimed.machines.pools import KeepAlive, Plenty, Pools, Shortage
from runtimed.machines.pressure import Bound, Level, Look, Pressure
from runtimed.model import wire
from runtimed.telemetry.memory import GROUPS_MOST, MemoryReader, Reading

if TYPE_CHECKING:
    from runtimed.dispatch.control import Dispatcher

LOOK_SECONDS = 1.0
ANY_NUMBER = 0xFFFFFFFF

log = logging.getLogger(__name__)


class PressureKeeper:
    """`look` is what `run` repeats."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        pools: Pools,
        memory: MemoryReader,
        apply: Callable[[KeepAlive], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`apply`: tells every function the new keep-alive."""
        self._dispatcher = dispatcher
        self._pools = pools
        self._memory = memory
        self._apply = apply
        self._clock = clock
        self._machine = Pressure(pools.environments)
        self._told: Bound = self._machine.bound
        self._last: tuple[float, Reading] | None = None
        self.seen: Look | None = None
        """The last look; None: none yet."""

    @property
    def bound(self) -> Bound:
        """As things are."""
        return self._machine.bound

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                log.exception("the node's memory could not be looked at; trying again")

    async def look(self) -> None:
        """Reads, decides, tells."""
        reading, now = await asyncio.to_thread(self._memory.read), self._clock()
        self.seen = look = _look(reading, now, self._last, self._idle())
        self._last = now, reading
        before = self._machine.level
        bound = self._machine.on(look)
        if bound.level is not before:
            _report(bound, look, reading)
        if bound != self._told or bound.level is not Level.NONE:
            await self._tell(bound)
        for command in self._pools.on(Plenty() if bound.level is Level.NONE else Shortage()):
            if isinstance(command, KeepAlive):
                await self._apply(command)

    async def _tell(self, bound: Bound) -> None:
        """Under pressure again and again: what was likely to be used a moment ago may not be any more."""
        idle = ANY_NUMBER if bound.idle is None else bound.idle
        level = bound.level
        if level is Level.NONE and bound.idle is not None:
            level = Level.SOME  # it is over; the bound rises
        try:
            await self._dispatcher.put(wire.PutPressure(level=int(level), idle=idle), 0, 1)
        except Refused as error:
            log.warning("the dispatcher does not hear of the memory: %s", error)
        except Unconnected:
            return
        self._told = bound

    def _idle(self) -> int:
        """Environments, provisioned ones apart, over all functions."""
        page = self._dispatcher.counters
        if page is None:
            return 0
        try:
            node = page.node()
        except ValueError:  # closed: the dispatcher has gone
            return 0
        idle = node["environments_idle"] - (node["environments_provisioned"] - node["provisioned_in_use"])
        return max(0, idle)


def _look(reading: Reading, now: float, last: tuple[float, Reading] | None, idle: int) -> Look:
    """`last`: when and what was read before."""
    some = full = 0.0
    if last is not None and now > last[0]:
        microseconds = (now - last[0]) * 1e6
        some = min(1.0, max(0.0, (reading.some_us - last[1].some_us) / microseconds))
        full = min(1.0, max(0.0, (reading.full_us - last[1].full_us) / microseconds))
    groups = min(1.0, reading.groups / GROUPS_MOST)
    return Look(available=reading.available, some=some, full=full, groups=groups, idle=idle)


def _report(bound: Bound, look: Look, reading: Reading) -> None:
    """On each change of the level, not on each look."""
    if bound.level is Level.NONE:
        log.info("memory is not short any more: %.0f %% of it is available", 100 * look.available)
        return
    log.warning(
        "memory is %s: %.0f %% of %d MB is available, processes stood still for it %.0f %% of the time, %d control "
        "groups; of %d idle environments %d stay",
        "short" if bound.level is Level.SOME else "very short",
        100 * look.available,
        reading.limit_bytes >> 20,
        100 * look.some,
        reading.groups,
        look.idle,
        look.idle if bound.idle is None else min(bound.idle, look.idle),
    )
