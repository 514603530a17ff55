"""How many environments a target may have, and how long idle ones are kept. Pure.

Environments are granted ahead of demand: the launcher holds the grants, the dispatcher redeems them without asking. A
function's memory size is a ceiling; an idle environment takes about a megabyte (measured: 0.5 to 1.4), so that more is
promised than the machine has. What keeps that honest is the pressure (machines/pressure.py): while memory is short,
idle environments are kept for a shorter time, and those that are worth least end.

    RELAXED --Shortage--> TIGHT --Plenty--> RELAXED
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

TIGHT_DIVISOR = 20  # keep-alive under pressure: ten minutes become thirty seconds
ENVIRONMENT_MB = 2  # what an idle environment is reckoned at, where no number of them is given
ENVIRONMENTS_MAX = 10_000  # the launcher's own bound on a plan (native/launcher/plans.h)


class Budget(Struct, frozen=True, kw_only=True):
    """What the node promises, over all functions."""

    memory_mb: int
    """For environments, before overcommitment."""
    overcommit: float
    concurrency: int
    launches_per_second: int
    keep_alive_ms: int
    environments: int = 0
    """On the node at a time; 0: as many as the memory holds idle."""


class Grant(Struct, frozen=True, kw_only=True):
    """Of one target."""

    environments: int
    launches_per_second: int


class State(Enum):
    RELAXED = "relaxed"
    TIGHT = "tight"


class Event(Struct, frozen=True):
    """What was seen of the machine."""


class Plenty(Event, frozen=True):
    """There is no pressure."""


class Shortage(Event, frozen=True):
    """There is some, or full pressure."""


class Command(Struct, frozen=True):
    """What the performer must do."""


class KeepAlive(Command, frozen=True):
    """Tell every target this time."""

    milliseconds: int


TRANSITIONS: Mapping[tuple[State, type[Event]], State] = {
    (State.RELAXED, Plenty): State.RELAXED,
    (State.RELAXED, Shortage): State.TIGHT,
    (State.TIGHT, Shortage): State.TIGHT,
    (State.TIGHT, Plenty): State.RELAXED,
}


class Pools:
    """The node's."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.state = State.RELAXED

    def on(self, event: Event) -> tuple[Command, ...]:
        state = TRANSITIONS[self.state, type(event)]
        changed, self.state = state is not self.state, state
        return (KeepAlive(self.keep_alive_ms),) if changed else ()

    @property
    def keep_alive_ms(self) -> int:
        """Of idle environments, as things are."""
        return self.budget.keep_alive_ms // (TIGHT_DIVISOR if self.state is State.TIGHT else 1)

    @property
    def environments(self) -> int:
        """That there may be at a time, over all targets."""
        number = self.budget.environments or self.budget.memory_mb // ENVIRONMENT_MB
        return max(1, min(number, ENVIRONMENTS_MAX))

    def grant(self, memory_mb: int) -> Grant:
        """Of a target with this memory size: at least one, or it could never run."""
        promised = int(self.budget.memory_mb * self.budget.overcommit) // memory_mb
        return Grant(
            environments=max(1, min(promised, self.budget.concurrency, self.environments)),
            launches_per_second=self.budget.launches_per_second,
        )
