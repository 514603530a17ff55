"""What is kept of each target's environments: for how long, how many ahead of demand. Looked at every few seconds.

The dispatcher counts how long environments are idle before they are used again, and how many first uses there are;
`machines.keep_alive` and `machines.parking` make of that when environments should be there and how many are parked; the
dispatcher is told when that has changed, and does the rest by itself. A pool is that of one version of a function: what
is called often keeps no environments of a version that is not. What was learnt of $LATEST stays with it over changes
of its code; all of it is lost with this process, and the dispatcher's counts are then read anew. Nothing is known of a
version before its first call, and nothing after it has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from runtimed.dispatch.counters import CounterPage, Gaps, Slot, buckets, quantile
from runtimed.link.mirror import Refused, Unconnected
from runtimed.machines.keep_alive import KeepAlive, Times, prices, times
from runtimed.machines.parking import Interval, Parking, shares
from runtimed.machines.pools import Pools, State
from runtimed.model import wire
from runtimed.model.arn import LATEST

if TYPE_CHECKING:
    from runtimed.dispatch.control import Dispatcher

OWN = 0xFFFFFFFF
"""In PUT_POOL: the target's own keep-alive."""
LOOK_SECONDS = 5.0
PARKED_SHARE = 8
"""One part in so many of the environments that the node may have may be parked."""

log = logging.getLogger(__name__)


class Rule(Struct, frozen=True, kw_only=True):
    """Settings."""

    keep_alive_ms: int
    observed: bool
    """Keep-alive follows what was observed; else it is the setting's for all."""
    parked: int
    """Of one function, at most."""


Version = tuple[bytes, str]
"""A function's uid, and $LATEST or a number."""


def version_of(target: wire.PutTarget) -> Version:
    """Which one a target is of. What is no version's is $LATEST's."""
    return target.function_uid, target.function_version or LATEST


class _Pool(Struct):
    """What is known of a version's."""

    keep_alive: KeepAlive
    parking: Parking = field(default_factory=Parking)
    calls: int = 0
    first_uses: int = 0
    init_us: int = 0


class _Seen(Struct):
    """What the page said of a target when it was last looked at."""

    gaps: Mapping[int, int] = {}
    others: Mapping[int, int] = {}
    calls: int = 0
    first_uses: int = 0


class PoolKeeper:
    """`look` is what `run` repeats."""

    def __init__(
        self, dispatcher: Dispatcher, pools: Pools, rule: Rule, provisioned: Callable[[bytes, str], int]
    ) -> None:
        """`provisioned`: of a version, by its function's uid and its number."""
        self._dispatcher = dispatcher
        self._pools = pools
        self._rule = rule
        self._provisioned = provisioned
        self._known: dict[Version, _Pool] = {}
        self._seen: dict[int, _Seen] = {}
        self._page: CounterPage | None = None
        self._parked: dict[Version, int] = {}

    @property
    def known(self) -> int:
        """Versions of which something was learnt."""
        return len(self._known)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                log.exception("the pools could not be sized; trying again")

    async def look(self) -> None:
        """Reads what was counted, and tells what has changed by it."""
        page = self._dispatcher.counters
        targets = self._dispatcher.targets()
        if page is not None:
            try:
                gaps, slots = await asyncio.to_thread(_read, page)
            except ValueError:
                return  # closed: the dispatcher has gone
            self._learn(page, targets, gaps, slots)
        self._park(targets)
        for number, target in targets.items():
            await self.tell(number, target)
        self._forget(targets)

    async def tell(self, number: int, target: wire.PutTarget) -> None:
        """When this returns, the dispatcher keeps the target's pool as it should be, unless it does not know it."""
        wanted = self.pool(target)
        if wanted == self._dispatcher.pool(number):
            return
        try:
            await self._dispatcher.put_pool(wanted, number)
        except Refused as error:
            log.warning("the pool of %s is as before: %s", target.function_name, error)
        except Unconnected:
            pass

    async def tell_function(self, uid: bytes) -> None:
        """All targets of a function."""
        for number, target in self._dispatcher.targets().items():
            if target.function_uid == uid:
                await self.tell(number, target)

    def pool(self, target: wire.PutTarget) -> wire.PutPool:
        """As it should be now."""
        version = version_of(target)
        found = self._times(version)
        return wire.PutPool(
            provisioned=self._provisioned(*version),
            parked=self._parked.get(version, 0),
            keep_alive_ms=OWN if found.keep is None else found.keep,
            keep_others_ms=found.keep_others,
            prewarm_ms=found.prewarm,
            prewarm_end_ms=found.prewarm_end,
        )

    # ---- parts -----------------------------------------------------------------------------------------------

    def _times(self, version: Version) -> Times:
        pool = self._known.get(version)
        rule = self._rule
        if pool is None or not rule.observed:
            return Times()
        found = times(pool.keep_alive, rule.keep_alive_ms)
        if found.keep is None or self._pools.state is not State.TIGHT:
            return found
        most = self._pools.keep_alive_ms
        return Times(keep=min(found.keep, most), keep_others=min(found.keep_others, most))

    def _learn(
        self,
        page: CounterPage,
        targets: Mapping[int, wire.PutTarget],
        gaps: Mapping[int, Gaps],
        slots: Mapping[int, Slot],
    ) -> None:
        fresh = page is not self._page
        if fresh:  # gaps from zero; the other counts go on where another dispatcher's stood
            self._page, self._seen = page, {}
        activity: dict[Version, tuple[int, int]] = {}
        for number, target in targets.items():
            slot = slots.get(number)
            if slot is None:
                continue
            version = version_of(target)
            pool = self._known.get(version)
            if pool is None:
                if not slot.counts["calls"]:
                    continue
                worth = prices(self._rule.keep_alive_ms, slot.counts["peak_kb"] / 1024)
                pool = self._known[version] = _Pool(KeepAlive(worth))
            seen = self._seen.setdefault(number, _Seen())
            if number in gaps:
                found = gaps[number]
                for first, now, before in ((True, found.bins, seen.gaps), (False, found.others, seen.others)):
                    if new := _more(now, before):
                        pool.keep_alive.observe_counted(new, first=first)
                seen.gaps, seen.others = found.bins, found.others
            calls, uses = slot.counts["calls"], slot.counts["cold_starts"]
            if fresh:
                seen.calls, seen.first_uses = calls, uses
            done = activity.get(version, (0, 0))
            activity[version] = (done[0] + calls - seen.calls, done[1] + uses - seen.first_uses)
            seen.calls, seen.first_uses = calls, uses
            pool.init_us = quantile(buckets(slot.inits), 500) or pool.init_us
        for version, pool in self._known.items():
            calls, uses = activity.get(version, (0, 0))
            pool.parking.observe(Interval(calls=calls, first_uses=uses))

    def _park(self, targets: Mapping[int, wire.PutTarget]) -> None:
        """How many each gets of what may be parked."""
        present = {version_of(target) for target in targets.values()}
        room = 0 if self._pools.state is State.TIGHT else self._pools.environments // PARKED_SHARE
        wanted = {
            version: pool.parking.wanted(init_us=pool.init_us, most=self._rule.parked)
            for version, pool in self._known.items()
            if version in present and not pool.parking.asleep
        }
        self._parked = dict(zip(wanted, shares(wanted.values(), room), strict=True))

    def _forget(self, targets: Mapping[int, wire.PutTarget]) -> None:
        present = {version_of(target) for target in targets.values()}
        self._known = {version: pool for version, pool in self._known.items() if version in present}
        self._seen = {number: seen for number, seen in self._seen.items() if number in targets}


def _more(now: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    """What was counted since. Modulo 2^32."""
    new = {at: (count - before.get(at, 0)) % 2**32 for at, count in now.items()}
    return {at: count for at, count in new.items() if count}


def _read(page: CounterPage) -> tuple[dict[int, Gaps], dict[int, Slot]]:
    """Of all loops together."""
    gaps: dict[int, Gaps] = {}
    for region in range(page.loops):
        for target, found in page.gaps(region):
            gaps[target] = gaps[target] + found if target in gaps else found
    return gaps, {slot.target: slot for slot in page.targets()}
