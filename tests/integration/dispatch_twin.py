"""What the dispatcher decides about numbers, once more in Python: the oracle of its tests.

Written from the rules, not from the C: concurrency as Lambda counts it, the bounds of a target, the start rule.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

UNSET = 0xFFFFFFFF


@dataclass
class Function:
    reserved: int = UNSET
    in_use: int = 0


@dataclass
class Target:
    function: Function
    max_environments: int
    max_waiting: int
    environments: int = 0  # all that live
    idle: list[int] = field(default_factory=list)  # most recently used last
    waiting: list[int] = field(default_factory=list)
    busy: dict[int, int] = field(default_factory=dict)  # call → environment


@dataclass(frozen=True)
class Refused:
    reason: str


@dataclass(frozen=True)
class Assigned:
    environment: int


@dataclass(frozen=True)
class Waits:
    pass


Decision = Refused | Assigned | Waits


@dataclass
class Node:
    """Of one node: an account's limit, functions with and without a reservation."""

    limit: int
    functions: list[Function] = dataclasses.field(default_factory=list)

    def unreserved(self) -> int:
        """What functions without a reservation may use together."""
        reserved = sum(f.reserved for f in self.functions if f.reserved != UNSET)
        return max(0, self.limit - reserved)

    def unreserved_in_use(self) -> int:
        return sum(f.in_use for f in self.functions if f.reserved == UNSET)

    def call(self, target: Target, call: int) -> Decision:
        function = target.function
        if function.reserved != UNSET:
            if function.in_use >= function.reserved:
                return Refused("ReservedFunctionConcurrentInvocationLimitExceeded")
        elif self.unreserved_in_use() >= self.unreserved():
            return Refused("ConcurrentInvocationLimitExceeded")
        if len(target.waiting) + len(target.busy) >= target.max_environments + target.max_waiting:
            return Refused("ConcurrentInvocationLimitExceeded")
        function.in_use += 1
        if target.idle:
            environment = target.idle.pop()
            target.busy[call] = environment
            return Assigned(environment)
        target.waiting.append(call)
        return Waits()

    def ready(self, target: Target, environment: int) -> int | None:
        """An environment is through its init: the call that it takes from the queue."""
        return self._free(target, environment)

    def done(self, target: Target, call: int) -> int | None:
        """The environment of a call is ready again: the call that it takes from the queue."""
        target.function.in_use -= 1
        return self._free(target, target.busy.pop(call))

    def _free(self, target: Target, environment: int) -> int | None:
        if not target.waiting:
            target.idle.append(environment)
            return None
        call = target.waiting.pop(0)
        target.busy[call] = environment
        return call


def launches(*, waiting: int, ripe: int, starting: int, established: int, live: int, most: int) -> int:
    """The start rule: one for each that waits and has none coming, as far as there is room. While an environment is at
    work, that may free up, only those count who waited long enough."""
    demand = ripe if established else waiting
    return max(0, min(demand - starting, most - live))
