"""Memory pressure: levels that do not swing, and a bound on idle environments that falls and comes back."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runtimed.machines.pressure import (
    FULL_ABOVE,
    FULL_BELOW,
    GROUPS_FULL,
    GROUPS_OVER,
    GROUPS_SOME,
    LEAST,
    SOME_ABOVE,
    SOME_BELOW,
    STALLS_BELOW,
    STALLS_FULL,
    Bound,
    Level,
    Look,
    Pressure,
)

MOST = 500
SHARES = st.floats(0, 1)
LOOKS = st.builds(
    Look, available=SHARES, some=SHARES, full=SHARES, groups=SHARES, idle=st.integers(min_value=0, max_value=600)
)
PLENTY = Look(available=0.9, idle=40)


def after(*looks: Look, most: int = MOST) -> Pressure:
    made = Pressure(most)
    for look in looks:
        made.on(look)
    return made


def test_with_enough_memory_nothing_is_bounded() -> None:
    assert after(*[PLENTY] * 100).bound == Bound(level=Level.NONE, idle=None)


def test_stalls_of_a_function_at_its_own_limit_are_its_own() -> None:
    looks = [Look(available=STALLS_BELOW, some=1.0, full=1.0, idle=40)] * 100
    assert after(*looks).bound == Bound(level=Level.NONE, idle=None)
    assert after(*[Look(available=STALLS_BELOW - 0.01, some=1.0, idle=40)] * 9).level is Level.SOME
    assert after(*[Look(available=STALLS_BELOW - 0.01, some=1.0, full=1.0, idle=40)] * 9).level is Level.FULL


def test_one_second_of_stalls_is_not_yet_pressure() -> None:
    once = Look(available=0.2, some=STALLS_FULL, full=STALLS_FULL, idle=40)
    assert after(once).level is Level.NONE
    assert after(*[Look(available=0.2, some=0.5, full=0.5, idle=40)] * 2).level is Level.FULL


def test_control_groups_count() -> None:
    assert after(Look(available=0.9, groups=GROUPS_SOME - 0.01, idle=40)).level is Level.NONE
    assert after(Look(available=0.9, groups=GROUPS_SOME, idle=40)).level is Level.SOME
    assert after(Look(available=0.9, groups=GROUPS_FULL, idle=40)).level is Level.FULL
    once = Look(available=0.9, groups=GROUPS_SOME, idle=40)
    assert after(once, Look(available=0.9, groups=GROUPS_OVER, idle=40)).level is Level.SOME
    assert after(once, Look(available=0.9, groups=GROUPS_OVER - 0.01, idle=40)).level is Level.NONE


def test_between_the_thresholds_nothing_changes() -> None:
    """Neither the level nor the bound, however long it takes."""
    for led_there, between in (
        (SOME_BELOW - 0.01, (SOME_BELOW, SOME_ABOVE - 0.01)),
        (FULL_BELOW - 0.01, (FULL_BELOW, FULL_ABOVE - 0.01)),
    ):
        pressure = after(Look(available=led_there, idle=40))
        before = pressure.bound
        for available in itertools.islice(itertools.cycle(between), 50):
            assert pressure.on(Look(available=available, idle=40)) == before
        # Coming from above the same readings are no pressure, or less.
        assert after(*[Look(available=available, idle=40) for available in between]).level < before.level


def test_the_bound_falls_to_the_least_and_stays() -> None:
    for available, looks in ((SOME_BELOW - 0.01, 40), (FULL_BELOW - 0.01, 8)):
        pressure, idle, seen = Pressure(MOST), 100, []
        for _ in range(looks):
            bound = pressure.on(Look(available=available, idle=idle)).idle
            assert bound is not None
            idle = min(idle, bound)  # as the dispatcher does
            seen.append(bound)
        assert seen == sorted(seen, reverse=True)
        assert seen[-1] == LEAST
        assert seen[0] == (88 if available > FULL_BELOW else 50)


def test_the_bound_comes_back_slowly_and_is_lifted() -> None:
    pressure = after(*[Look(available=0.01, idle=100)] * 20)
    seen = []
    while (bound := pressure.on(PLENTY).idle) is not None:
        seen.append(bound)
        assert len(seen) < 100
    assert seen == sorted(set(seen)) and seen[-1] < MOST
    assert len(seen) > 10  # seconds
    assert all(later <= max(earlier + 1, earlier * 5 // 4) for earlier, later in itertools.pairwise(seen))
    assert pressure.bound == Bound(level=Level.NONE, idle=None)


@given(st.lists(LOOKS, max_size=60), st.integers(min_value=1, max_value=MOST))
def test_any_sequence(looks: list[Look], most: int) -> None:
    pressure, before = Pressure(most), Bound(level=Level.NONE, idle=None)
    for look in looks:
        bound = pressure.on(look)
        if look.available < FULL_BELOW or look.groups >= GROUPS_FULL:
            assert bound.level is Level.FULL
        elif look.available < SOME_BELOW or look.groups >= GROUPS_SOME:
            assert bound.level >= Level.SOME
        if look.available >= STALLS_BELOW and look.groups < GROUPS_OVER:
            assert bound.level is Level.NONE
        if bound.idle is None:
            assert bound.level is Level.NONE
        elif bound.level is Level.NONE:
            assert before.idle is not None and LEAST <= before.idle < bound.idle < most
        else:
            assert bound.idle >= LEAST
            assert before.idle is None or bound.idle <= max(before.idle, LEAST)
        # Whoever has come to an end of the pressure is told of it in steps, never at once.
        if before.idle is not None and bound.idle is None:
            assert before.idle + max(1, before.idle // 4) >= most
        before = bound
    for _ in range(200):
        bound = pressure.on(PLENTY)
    assert bound == Bound(level=Level.NONE, idle=None)


@given(st.lists(LOOKS, min_size=1, max_size=40))
def test_less_memory_never_means_a_lower_level(looks: list[Look]) -> None:
    """The same story with a little less available at each look."""
    more, less = Pressure(MOST), Pressure(MOST)
    for look in looks:
        worse = Look(available=look.available / 2, some=look.some, full=look.full, groups=look.groups, idle=look.idle)
        assert less.on(worse).level >= more.on(look).level
