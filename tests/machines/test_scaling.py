"""Target tracking: every sequence of periods walked to a depth, and what holds of all loads."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.machines.scaling import (
    BELOW,
    TRANSITIONS,
    Bounds,
    Cooldowns,
    Level,
    Measured,
    Periods,
    Policy,
    Scale,
    State,
    Tracking,
    utilisation,
)

MINUTE = 60_000
WIDE = Bounds(1, 1000)
AT_ONCE = Periods(1, 1)


def tracking(policy: Policy, bounds: Bounds = WIDE, periods: Periods = AT_ONCE) -> Tracking:
    return Tracking(policy, bounds, periods, Cooldowns())


class Run:
    """A function under load, a minute at a time; what is asked for is there at once."""

    def __init__(self, machine: Tracking, capacity: int) -> None:
        self.machine, self.capacity, self.now = machine, capacity, 1_000_000
        self.changes: list[tuple[int, int, bool]] = []

    def minute(self, busy: float) -> tuple[Scale, ...]:
        self.now += MINUTE
        commands = self.machine.on(Measured(now_ms=self.now, busy=busy, ready=self.capacity), self.capacity)
        for command in commands:
            self.changes.append((self.now, command.capacity, command.out))
            self.capacity = command.capacity
        return commands


def test_the_table_is_complete() -> None:
    assert set(TRANSITIONS) == set(itertools.product(State, Level))


@pytest.mark.parametrize("high", [1, 2, 3])
@pytest.mark.parametrize("low", [1, 3, 4])
def test_every_sequence_of_periods(high: int, low: int) -> None:
    """Ten environments; one period is above the target, within, or below. Counted again from the end of the row."""
    loads = {Level.ABOVE: 9.0, Level.WITHIN: 6.8, Level.BELOW: 3.0}
    for levels in itertools.product(Level, repeat=6):
        machine = tracking(Policy(target=0.7), periods=Periods(high, low))
        for number, level in enumerate(levels, 1):
            commands = machine.on(Measured(now_ms=number * MINUTE, busy=loads[level], ready=10), 10)
            row = len(list(itertools.takewhile(lambda one, level=level: one is level, reversed(levels[:number]))))  # type: ignore[misc]
            if level is Level.ABOVE and row >= high:
                assert commands == (Scale(capacity=13, utilisation=0.9, out=True),)
            elif level is Level.BELOW and row >= low:
                assert commands == (Scale(capacity=5, utilisation=0.3, out=False),)
            else:
                assert commands == ()


LOADS = st.lists(st.floats(0, 60), min_size=1, max_size=60)
POLICIES = st.builds(
    Policy,
    target=st.floats(0.1, 0.9),
    out_seconds=st.integers(0, 600),
    in_seconds=st.integers(0, 600),
    scale_in=st.booleans(),
)
BOUNDS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: Bounds(min(pair), max(pair)))


@given(POLICIES, BOUNDS, LOADS, st.integers(0, 40), st.integers(1, 3), st.integers(1, 4))
def test_what_holds_of_all_loads(
    policy: Policy, bounds: Bounds, loads: list[float], capacity: int, high: int, low: int
) -> None:
    run = Run(tracking(policy, bounds, Periods(high, low)), bounds.clamp(capacity))
    last_in = None
    for busy in loads:
        before = run.capacity
        for command in run.minute(busy):
            assert bounds.least <= command.capacity <= bounds.most
            assert command.capacity != before
            assert (command.capacity > before) == command.out
            if command.out:
                last_in = None
                continue
            assert policy.scale_in
            assert last_in is None or run.now - last_in >= policy.in_seconds * 1000
            # Not so few that what is at work now would be above the target.
            assert command.capacity == bounds.least or busy <= command.capacity * policy.target + 1e-6
            last_in = run.now


@given(st.floats(0.1, 0.9), st.floats(0, 100), st.integers(1, 40))
def test_a_steady_load_comes_to_rest_at_the_target(target: float, busy: float, capacity: int) -> None:
    run = Run(tracking(Policy(target=target)), capacity)
    for _ in range(80):
        run.minute(busy)
    settled = run.capacity
    for _ in range(40):
        run.minute(busy)
    assert run.capacity == settled
    least = math.ceil(busy / target - 1e-9)
    assert settled >= min(max(1, least), 1000)
    # No more than are within a tenth of the target, or one more than that for whole numbers.
    assert settled <= max(1, busy / (target * BELOW) + 1)


@given(st.floats(0.1, 0.9), LOADS, st.integers(1, 3600))
def test_in_a_cooldown_there_are_no_more_than_the_first_capacity_explains(
    target: float, loads: list[float], seconds: int
) -> None:
    run = Run(tracking(Policy(target=target, out_seconds=seconds, scale_in=False)), 4)
    began, basis = None, 4
    for busy in loads:
        before = run.capacity
        for _ in run.minute(busy):
            if began is None or run.now - began >= seconds * 1000:
                began, basis = run.now, before
            assert run.capacity <= math.ceil(basis / target)


def test_scaling_out_ends_the_cooldown_of_scaling_in() -> None:
    run = Run(tracking(Policy(target=0.5, in_seconds=600)), 10)
    assert run.minute(2)[0].capacity == 4
    assert run.minute(1) == ()
    assert run.minute(4)[0].capacity == 8
    assert run.minute(1)[0].capacity == 2


def test_what_was_remembered_holds_for_the_next_one() -> None:
    """As after a restart: cooldowns are handed on."""
    run = Run(tracking(Policy(target=0.5, out_seconds=600)), 4)
    assert run.minute(4)[0].capacity == 8
    other = Tracking(Policy(target=0.5, out_seconds=600), WIDE, Periods(1, 1), run.machine.cooldowns)
    assert other.on(Measured(now_ms=run.now + MINUTE, busy=8, ready=8), 8) == ()
    assert other.on(Measured(now_ms=run.now + 11 * MINUTE, busy=8, ready=8), 8)[0].capacity == 16


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    machine = Tracking(Policy(target=0.5, out_seconds=600), WIDE, Periods(1, 1), Cooldowns(out_ms=10**12, before=4))
    assert machine.on(Measured(now_ms=5 * 10**11, busy=8, ready=8), 8)[0].capacity == 16


def test_utilisation() -> None:
    assert utilisation(Measured(now_ms=0, busy=3, ready=4), 4) == 0.75
    assert utilisation(Measured(now_ms=0, busy=9, ready=4), 4) == 1.0
    assert utilisation(Measured(now_ms=0, busy=0, ready=0), 0) == 0.0
    assert utilisation(Measured(now_ms=0, busy=2, ready=0), 0) == math.inf
    assert utilisation(Measured(now_ms=0, busy=2, ready=0), 4) is None, "none of them is there yet"
    machine = tracking(Policy(target=0.5), Bounds(0, 10))
    assert machine.on(Measured(now_ms=MINUTE, busy=2, ready=0), 0)[0].capacity == 4


def test_bounds_that_a_scheduled_action_changes() -> None:
    assert Bounds(1, 10).changed(5, None) == Bounds(5, 10)
    assert Bounds(1, 10).changed(20, None) == Bounds(20, 20)
    assert Bounds(5, 10).changed(None, 2) == Bounds(2, 2)
    assert Bounds(5, 10).changed(None, 8) == Bounds(5, 8)
    assert Bounds(5, 10).changed(0, 1) == Bounds(0, 1)
    assert Bounds(5, 10).changed(None, None) == Bounds(5, 10)
    assert [Bounds(2, 4).clamp(n) for n in (0, 3, 9)] == [2, 3, 4]
