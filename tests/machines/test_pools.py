"""The pools' machine: grants within the budget, and keep-alive that follows the pressure without swinging."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from runtimed.machines.pools import (
    ENVIRONMENTS_MAX,
    TIGHT_DIVISOR,
    TRANSITIONS,
    Budget,
    KeepAlive,
    Plenty,
    Pools,
    Shortage,
    State,
)

BUDGET = Budget(memory_mb=1000, overcommit=4.0, concurrency=1000, launches_per_second=7, keep_alive_ms=600_000)


@pytest.mark.parametrize(("memory", "environments"), [(128, 31), (4000, 1), (10_240, 1), (1, 500)])
def test_grants(memory: int, environments: int) -> None:
    grant = Pools(BUDGET).grant(memory)
    assert (grant.environments, grant.launches_per_second) == (environments, 7)


def test_environments_of_the_node() -> None:
    """What is given; else what the memory holds; in both cases a target is granted no more."""
    assert Pools(BUDGET).environments == 500
    few = Pools(msgspec.structs.replace(BUDGET, environments=12))
    assert few.environments == few.grant(128).environments == 12
    assert Pools(msgspec.structs.replace(BUDGET, memory_mb=1)).environments == 1


def test_a_grant_is_never_above_the_launchers_bound() -> None:
    budget = Budget(memory_mb=10**9, overcommit=100.0, concurrency=10**6, launches_per_second=1, keep_alive_ms=1)
    assert Pools(budget).grant(128).environments == ENVIRONMENTS_MAX


def test_every_sequence_of_pressure() -> None:
    """The time told last is always the one that holds, and nothing is told twice."""
    for events in itertools.product((Plenty(), Shortage()), repeat=8):
        pools, told = Pools(BUDGET), BUDGET.keep_alive_ms
        for event in events:
            for command in pools.on(event):
                assert isinstance(command, KeepAlive)
                assert command.milliseconds != told
                told = command.milliseconds
            tight = isinstance(event, Shortage)
            assert pools.state is (State.TIGHT if tight else State.RELAXED)
            assert told == pools.keep_alive_ms == 600_000 // (TIGHT_DIVISOR if tight else 1)
    assert len(TRANSITIONS) == len(State) * 2
