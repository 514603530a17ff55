"""Keep-alive policies that `bench.simulate` compares: what is done with an environment that falls idle.

`Ours` is what a node does: runtimed.machines.keep_alive, as invocation/pools.py uses it. `Hybrid` is the hybrid
histogram as published (Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, section 4.2): idle times of a
function in bins of a minute, over four hours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from runtimed.machines.keep_alive import KeepAlive, Window, prices, times

MINUTE_MS = 60_000.0


class Policy(Protocol):
    """Of one function."""

    def observe(self, gap_ms: float, alone: bool = True) -> None:
        """An idle time ended with an invocation. `alone`: nothing of the function was at work when it began."""

    def windows(self, alone: bool = True) -> Sequence[Window]:
        """When an environment that falls idle now is there. `alone`: nothing of the function is at work any more."""


class Fixed:
    """Kept for so long, whatever the function does."""

    def __init__(self, minutes: float) -> None:
        self._windows = (Window(0.0, minutes * MINUTE_MS),)

    def observe(self, gap_ms: float, alone: bool = True) -> None:
        pass

    def windows(self, alone: bool = True) -> Sequence[Window]:
        return self._windows


class Hybrid:
    """The published one. Where it forecasts by ARIMA (most idle times beyond the histogram), the mean of the last
    ones stands in for the forecast, with the same margin of 15 % on either side."""

    RANGE = 240  # minutes: bins of the histogram
    HEAD, TAIL = 0.05, 0.99
    MARGIN = 0.10
    REPRESENTATIVE = 2.0  # coefficient of variation of the bins' counts, from which on the histogram is believed
    BEYOND = 0.5  # share of idle times out of bounds, from which on they are forecast
    FORECAST_MARGIN = 0.15
    LAST = 5

    def __init__(self) -> None:
        self._bins = [0] * self.RANGE
        self._inside = self._squares = self._outside = 0
        self._last: list[float] = []
        self._windows: tuple[Window, ...] = (Window(0.0, self.RANGE * MINUTE_MS),)
        self._stale = False

    def observe(self, gap_ms: float, alone: bool = True) -> None:
        number = int(gap_ms // MINUTE_MS)
        self._last = [*self._last[1 - self.LAST :], gap_ms]
        self._stale = True
        if number >= self.RANGE:
            self._outside += 1
            return
        self._inside += 1
        self._squares += 2 * self._bins[number] + 1
        self._bins[number] += 1

    def windows(self, alone: bool = True) -> Sequence[Window]:
        if self._stale:
            self._stale = False
            self._windows = (self._decide(),)
        return self._windows

    def _decide(self) -> Window:
        if self._outside > self.BEYOND * (self._inside + self._outside):
            expected = sum(self._last) / len(self._last)
            return Window(expected * (1 - self.FORECAST_MARGIN), expected * (1 + self.FORECAST_MARGIN))
        mean = self._inside / self.RANGE
        spread = max(0.0, self._squares / self.RANGE - mean**2) ** 0.5
        if not mean or spread / mean < self.REPRESENTATIVE:
            return Window(0.0, self.RANGE * MINUTE_MS)
        head = self._percentile(self.HEAD)
        tail = self._percentile(self.TAIL) + 1
        start = head * MINUTE_MS * (1 - self.MARGIN) if head else 0.0
        return Window(start, tail * MINUTE_MS * (1 + self.MARGIN))

    def _percentile(self, share: float) -> int:
        """The bin that it falls into."""
        left = share * self._inside
        for number, count in enumerate(self._bins):
            left -= count
            if left <= 0 and count:
                return number
        return self.RANGE - 1


class Ours:
    """A node's, with a setting keep_alive_seconds, for a function whose environments take so much memory.

    What the dispatcher does with it is in native/dispatch/ahead.c: every idle environment is kept for a while, and one
    is made ready again, counted from the function's last invocation."""

    def __init__(self, keep_alive_seconds: float, memory_mb: float) -> None:
        self._setting_ms = keep_alive_seconds * 1000
        self._function = KeepAlive(prices(self._setting_ms, memory_mb))
        self._seen = 0
        self._windows: dict[bool, Sequence[Window]] = dict.fromkeys((True, False), (Window(0.0, self._setting_ms),))

    def observe(self, gap_ms: float, alone: bool = True) -> None:
        self._function.observe(gap_ms, first=alone)

    def windows(self, alone: bool = True) -> Sequence[Window]:
        if self._function.seen != self._seen:
            self._seen = self._function.seen
            self._windows = self._decide()
        return self._windows[alone]

    def _decide(self) -> dict[bool, Sequence[Window]]:
        """Once a gap is known it has a keep-alive of its own."""
        found = times(self._function, self._setting_ms)
        first = [Window(0.0, found.keep or self._setting_ms)]
        if found.prewarm_end:
            first.append(Window(found.prewarm, found.prewarm_end))
        return {True: first, False: [Window(0.0, found.keep_others or first[0].end)]}


def ours(keep_alive_seconds: float) -> Callable[[float], Policy]:
    """By the memory of an environment in megabytes."""
    return partial(Ours, keep_alive_seconds)
