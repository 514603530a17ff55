"""How many idle environments the node can afford as its memory gets short. Pure.

Memory is looked at every second. Short of it are the machine or a control group that the node lies in; each says so
by what is left of it, or by how long processes stood still for it (PSI). Stalls count only where little is left: a
function at its own limit stalls as well, and ending others' environments would not help it. And control groups are
counted, those that are dying included: the kernel has numbers for 65,535 that have memory.

    NONE --short--> SOME --very short--> FULL         and back, where there is clearly more than what led there

Under pressure there is a bound on idle environments, which falls with each look, an eighth of what is idle at a time
(SOME) or half of it (FULL), and never below LEAST. Without pressure it rises again, slowly, until it is beyond what the
node may have, and is lifted. Between the thresholds nothing changes. Which environments end is the dispatcher's choice:
those that are worth least, and never provisioned ones.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

FULL_BELOW, FULL_ABOVE = 0.05, 0.08
"""Of the memory left: below the first pressure is full, from the second on it is not any more."""
SOME_BELOW, SOME_ABOVE = 0.10, 0.20
"""The same for some."""
STALLS_BELOW = 0.30
"""With more memory left than this, stalls are somebody's own."""
STALLS_SOME, STALLS_FULL = 0.10, 0.10
"""Of the time: some processes stood still, or all did."""
STALLS_OVER = 0.05
"""Fewer than that: over."""
GROUPS_SOME, GROUPS_FULL, GROUPS_OVER = 0.75, 0.90, 0.60
"""Of the control groups that the kernel has numbers for."""
SMOOTHING = 0.5
"""What the last second's stalls weigh beside those before."""
LEAST = 1
"""Idle environments that may always stay: the one used last is a cold start saved for almost nothing."""


class Level(IntEnum):
    NONE = 0
    SOME = 1
    FULL = 2


class Look(Struct, frozen=True, kw_only=True):
    """What was seen. Shares from 0 to 1."""

    available: float
    """Of the memory: the least of the machine's and the control groups'."""
    some: float = 0.0
    """Of the time since the last look: in which some process stood still for memory."""
    full: float = 0.0
    """The same: in which all that wanted to run did."""
    groups: float = 0.0
    """Of the control groups that there can be."""
    idle: int = 0
    """Environments, provisioned ones apart."""


class Bound(Struct, frozen=True, kw_only=True):
    """What the dispatcher is told."""

    level: Level
    idle: int | None
    """Environments that may be idle; None: any number."""


class Pressure:
    """The node's. `most`: environments that it may have."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.level = Level.NONE
        self.idle: int | None = None
        self._some = self._full = 0.0

    def on(self, look: Look) -> Bound:
        """The next second begins."""
        self._some += SMOOTHING * (look.some - self._some)
        self._full += SMOOTHING * (look.full - self._full)
        self.level = self._next(look)
        if self.level is Level.NONE:
            self._relax()
        elif self._worst(look) >= self.level:
            self._cut(look.idle)
        return self.bound

    @property
    def bound(self) -> Bound:
        return Bound(level=self.level, idle=self.idle)

    # ---- parts -----------------------------------------------------------------------------------------------

    def _worst(self, look: Look) -> Level:
        """What it would begin with."""
        stalls = look.available < STALLS_BELOW
        if look.available < FULL_BELOW or (stalls and self._full >= STALLS_FULL) or look.groups >= GROUPS_FULL:
            return Level.FULL
        if look.available < SOME_BELOW or (stalls and self._some >= STALLS_SOME) or look.groups >= GROUPS_SOME:
            return Level.SOME
        return Level.NONE

    def _next(self, look: Look) -> Level:
        worst = self._worst(look)
        if worst >= self.level:
            return worst
        stalls = look.available < STALLS_BELOW
        if self.level is Level.FULL and (
            look.available < FULL_ABOVE or (stalls and self._full >= STALLS_OVER) or look.groups >= GROUPS_FULL
        ):
            return Level.FULL
        if look.available < SOME_ABOVE or (stalls and self._some >= STALLS_OVER) or look.groups >= GROUPS_OVER:
            return Level.SOME
        return Level.NONE

    def _cut(self, idle: int) -> None:
        now = idle if self.idle is None else min(self.idle, idle)
        less = max(1, now // 8) if self.level is Level.SOME else (now + 1) // 2
        self.idle = max(LEAST, now - less)

    def _relax(self) -> None:
        if self.idle is None:
            return
        self.idle += max(1, self.idle // 4)
        if self.idle >= self.most:
            self.idle = None
