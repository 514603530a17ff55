"""How many environments of a function are kept ready for invocations that find none idle. Pure.

An invocation that takes an environment which has served nobody yet is a *first use*: a cold start, or one that a
parked environment turned into a warm one. First uses come when a function is called by more at once than ever lately;
how many came together is how many would have been needed. A function whose first uses are few, since its invocations
find the environments that the former ones left, has none parked; nor has one that nobody calls.

    asleep    nobody called it for INTERVALS intervals: none
    steady    fewer than TWO_OR_MORE first uses in that time: none, or one if it takes long to start
    growing   as many as first uses came in the worst interval
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

INTERVALS = 12
"""That are remembered: a minute, at five seconds each."""
TWO_OR_MORE = 2
"""First uses that make a function grow: a single one is any function's first call."""
SLOW_INIT_US = 20_000
"""An init phase of so long is worth an environment as long as a function is called: many times what it takes to fork
one (measured: about a millisecond)."""


class Interval(Struct, frozen=True, kw_only=True):
    """What a function did between two looks."""

    calls: int
    first_uses: int


class Parking:
    """One function's."""

    def __init__(self) -> None:
        self._seen: deque[Interval] = deque(maxlen=INTERVALS)

    @property
    def asleep(self) -> bool:
        """Nobody called it lately."""
        return not any(interval.calls or interval.first_uses for interval in self._seen)

    def observe(self, interval: Interval) -> None:
        self._seen.append(interval)

    def wanted(self, *, init_us: int, most: int) -> int:
        """So many parked ones; `init_us`: how long its init phase takes; `most`: of one function."""
        if self.asleep:
            return 0
        floor = int(init_us >= SLOW_INIT_US)
        uses = [interval.first_uses for interval in self._seen]
        growing = max(uses) if sum(uses) >= TWO_OR_MORE else 0
        return min(max(floor, growing), most)


def shares(wanted: Iterable[int], room: int) -> list[int]:
    """What of it there is room for: everybody gets the same, and who wants less leaves the rest to the others."""
    wants = list(wanted)
    given = [0] * len(wants)
    left, open_ = max(0, room), [number for number, want in enumerate(wants) if want > 0]
    while open_ and left > 0:
        each = left // len(open_)
        if each == 0:
            for number in open_[:left]:
                given[number] += 1
            break
        for number in open_:
            more = min(each, wants[number] - given[number])
            given[number] += more
            left -= more
        open_ = [number for number in open_ if given[number] < wants[number]]
    return given
