"""Parked environments: as many as came together lately, none for who sleeps, and never more than there is room for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtimed.machines.parking import INTERVALS, SLOW_INIT_US, Interval, Parking, shares

INTERVAL = st.builds(Interval, calls=st.integers(0, 50), first_uses=st.integers(0, 50))


def parked(*uses: int, calls: int = 1, init_us: int = 0, most: int = 100) -> int:
    parking = Parking()
    for number in uses:
        parking.observe(Interval(calls=calls, first_uses=number))
    return parking.wanted(init_us=init_us, most=most)


def test_a_first_call_is_not_growth() -> None:
    assert parked(1, 0, 0) == 0
    assert parked(1, init_us=SLOW_INIT_US) == 1


def test_as_many_as_came_together() -> None:
    assert parked(3, 0, 0, 1) == 3
    assert parked(1, 1) == 1
    assert parked(40, most=16) == 16


def test_none_for_who_sleeps() -> None:
    assert parked() == 0
    assert parked(5, *[0] * INTERVALS, calls=0, init_us=SLOW_INIT_US) == 0
    assert parked(0, 0, calls=0, init_us=SLOW_INIT_US) == 0


@given(st.lists(INTERVAL, max_size=40), st.integers(0, 100_000), st.integers(0, 40))
def test_bounded_by_what_was_seen_lately(seen: list[Interval], init_us: int, most: int) -> None:
    parking = Parking()
    for interval in seen:
        parking.observe(interval)
    wanted = parking.wanted(init_us=init_us, most=most)
    recent = seen[-INTERVALS:]
    assert 0 <= wanted <= most
    assert wanted <= max([1, *(interval.first_uses for interval in recent)])
    if not any(interval.calls + interval.first_uses for interval in recent):
        assert wanted == 0


@given(st.lists(INTERVAL, max_size=20), INTERVAL, st.integers(1, 20))
def test_more_demand_never_parks_fewer(seen: list[Interval], last: Interval, more: int) -> None:
    def after(interval: Interval) -> int:
        parking = Parking()
        for one in [*seen, interval]:
            parking.observe(one)
        return parking.wanted(init_us=0, most=1000)

    grown = Interval(calls=last.calls + more, first_uses=last.first_uses + more)
    assert after(grown) >= after(last)


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(-5, 400))
def test_shares_are_fair_and_use_what_there_is(wanted: list[int], room: int) -> None:
    given_ = shares(wanted, room)
    assert all(0 <= got <= want for got, want in zip(given_, wanted, strict=True))
    assert sum(given_) == min(sum(wanted), max(room, 0))
    # Who did not get all that it wanted has as much as anybody, but for one that could not be divided.
    short = [got for got, want in zip(given_, wanted, strict=True) if got < want]
    if short:
        assert min(short) >= max(given_) - 1
