"""How much provisioned concurrency a function has between a least and a most: target tracking. Pure.

The rules are Application Auto Scaling's for LambdaProvisionedConcurrencyUtilization (its user guide, "How target
tracking scaling works", "Define cooldown periods"; Lambda developer guide, "Managing provisioned concurrency with
Application Auto Scaling"). Once a period the utilisation is known: the mean share of provisioned environments that were
at work.

    STEADY ──above the target──> RISING ──`high` periods in a row──> scale out, and again with each period above
       └─below 90 % of it──────> FALLING ──`low` periods in a row──> scale in, and again with each period below

to as many as would have had the target's utilisation, rounded up, within the bounds.

Cooldowns: for `out_seconds` after scaling out the next one is reckoned from what there was before, so that what was
added counts: it happens only when it is larger. For `in_seconds` after scaling in there is no other scaling in; scaling
out ends that time.

Two departures. A period in which nothing was invoked counts as one of utilisation 0 (there, no data are no reason to
scale in). And where nothing is provisioned, whatever is at work counts as above the target.
"""

from __future__ import annotations

import math
from enum import Enum

from msgspec import Struct

BELOW = 0.9
"""Of the target: what is lower is a reason to scale in."""
SLACK = 1e-9
"""Of rounding: a capacity that is so little above a whole number is that number."""


class State(Enum):
    STEADY = "steady"
    RISING = "rising"
    FALLING = "falling"


class Level(Enum):
    """Of one period's utilisation."""

    ABOVE = "above"
    WITHIN = "within"
    BELOW = "below"


TRANSITIONS: dict[tuple[State, Level], State] = {
    (State.STEADY, Level.ABOVE): State.RISING,
    (State.STEADY, Level.WITHIN): State.STEADY,
    (State.STEADY, Level.BELOW): State.FALLING,
    (State.RISING, Level.ABOVE): State.RISING,
    (State.RISING, Level.WITHIN): State.STEADY,
    (State.RISING, Level.BELOW): State.FALLING,
    (State.FALLING, Level.ABOVE): State.RISING,
    (State.FALLING, Level.WITHIN): State.STEADY,
    (State.FALLING, Level.BELOW): State.FALLING,
}


class Bounds(Struct, frozen=True):
    """Of capacity, that is environments provisioned."""

    least: int
    most: int

    def clamp(self, capacity: int) -> int:
        return max(self.least, min(self.most, capacity))

    def changed(self, least: int | None, most: int | None) -> Bounds:
        """As a scheduled action changes them: it may give one, and the other one gives way."""
        if least is None:
            new = self.most if most is None else most
            return Bounds(min(self.least, new), new)
        return Bounds(least, max(least, self.most) if most is None else most)


class Policy(Struct, frozen=True, kw_only=True):
    """Target tracking."""

    target: float
    """Of utilisation, as a share."""
    out_seconds: int = 0
    in_seconds: int = 0
    """Cooldowns; 0 is Application Auto Scaling's default for Lambda."""
    scale_in: bool = True


class Periods(Struct, frozen=True):
    """How many in a row are a reason. Application Auto Scaling's alarms have three and fifteen, of a minute each."""

    high: int = 3
    low: int = 15


class Cooldowns(Struct, frozen=True, kw_only=True):
    """What must be remembered of former scaling; times are in milliseconds since the epoch, 0: never."""

    out_ms: int = 0
    before: int = 0
    """Capacity from which that one scaled out."""
    in_ms: int = 0


class Measured(Struct, frozen=True, kw_only=True):
    """Event: a period is over. Means over it."""

    now_ms: int
    busy: float
    """Environments at work."""
    ready: float
    """Provisioned ones that were there."""


class Scale(Struct, frozen=True, kw_only=True):
    """Command: have so many provisioned."""

    capacity: int
    utilisation: float
    """That was the reason."""
    out: bool


class Tracking:
    """One version's. What it is told of `capacity` is what was asked for last, be there as many or not."""

    def __init__(self, policy: Policy, bounds: Bounds, periods: Periods, cooldowns: Cooldowns) -> None:
        self.state = State.STEADY
        self.cooldowns = cooldowns
        self._policy, self._bounds, self._periods = policy, bounds, periods
        self._row = 0

    def on(self, event: Measured, capacity: int) -> tuple[Scale, ...]:
        used = utilisation(event, capacity)
        if used is None:
            return ()  # none of them is there yet: nothing is known
        level = self._level(used)
        following = TRANSITIONS[self.state, level]
        self._row = self._row + 1 if following is self.state else 1
        self.state = following
        if following is State.RISING and self._row >= self._periods.high:
            return self._out(event, capacity, used)
        if following is State.FALLING and self._row >= self._periods.low:
            return self._in(event, capacity, used)
        return ()

    def _level(self, used: float) -> Level:
        if used > self._policy.target + SLACK:
            return Level.ABOVE
        return Level.BELOW if used < self._policy.target * BELOW - SLACK else Level.WITHIN

    def _out(self, event: Measured, capacity: int, used: float) -> tuple[Scale, ...]:
        cooldowns = self.cooldowns
        cooling = _cooling(event.now_ms, cooldowns.out_ms, self._policy.out_seconds)
        basis = min(cooldowns.before, capacity) if cooling else capacity
        wanted = self._bounds.clamp(self._wanted(basis, event, used))
        if wanted <= capacity:
            return ()
        if not cooling:
            cooldowns = Cooldowns(out_ms=event.now_ms, before=capacity)
        self.cooldowns = Cooldowns(out_ms=cooldowns.out_ms, before=cooldowns.before)
        return (Scale(capacity=wanted, utilisation=used, out=True),)

    def _in(self, event: Measured, capacity: int, used: float) -> tuple[Scale, ...]:
        if not self._policy.scale_in or _cooling(event.now_ms, self.cooldowns.in_ms, self._policy.in_seconds):
            return ()
        wanted = self._bounds.clamp(self._wanted(capacity, event, used))
        if wanted >= capacity:
            return ()
        before = self.cooldowns
        self.cooldowns = Cooldowns(out_ms=before.out_ms, before=before.before, in_ms=event.now_ms)
        return (Scale(capacity=wanted, utilisation=used, out=False),)

    def _wanted(self, basis: int, event: Measured, used: float) -> int:
        busy = basis * used if basis > 0 else event.busy
        return math.ceil(busy / self._policy.target - SLACK)


def _cooling(now_ms: int, since_ms: int, seconds: int) -> bool:
    """A clock that was set back makes no cooldown longer than it is."""
    return since_ms > 0 and 0 <= now_ms - since_ms < seconds * 1000


def utilisation(event: Measured, capacity: int) -> float | None:
    """Provisioned environments are used before others, so that as many of them are at work as can be."""
    if capacity == 0:
        return math.inf if event.busy > 0 else 0.0
    return min(event.busy / event.ready, 1.0) if event.ready > 0 else None
