"""Keep-alive by idle times: the windows are the cheapest there are, and what is learnt is what was seen."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.machines.keep_alive import (
    BINS,
    EDGES,
    FIRST_MS,
    KERNEL,
    LAST_MS,
    PRIOR,
    IdleTimes,
    KeepAlive,
    Prices,
    Window,
    bin_of,
    windows,
)

MINUTE = 60_000.0
PRICES = Prices(cold_start_ms=10 * MINUTE, launch_ms=30_000)


def cost(there: list[bool], shares: list[float], prices: Prices) -> float:
    """What it costs to be there in some bins, reckoned gap by gap: a gap ends in the middle of its bin."""
    total = 0.0
    for ends, share in enumerate(shares):
        for number in range(min(ends + 1, len(there))):
            width = EDGES[number + 1] - EDGES[number]
            if there[number]:
                total += share * width * (0.5 if number == ends else 1.0)
                # Who comes back pays for it, whether or not it is waited for in this bin.
                total += share * prices.launch_ms * (number > 0 and not there[number - 1])
        if ends < len(there) and not there[ends]:
            total += share * prices.cold_start_ms
    return total


def bins_of(found: tuple[Window, ...], bins: int) -> list[bool]:
    return [any(w.start <= EDGES[n] and EDGES[n + 1] <= w.end for w in found) for n in range(bins)]


def comes_back(there: list[bool]) -> int:
    return sum(now and not before for before, now in itertools.pairwise(there))


@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=9).filter(any),
    st.floats(0, 1e5),
    st.floats(0, 1e4),
)
def test_no_other_windows_are_cheaper(weights: list[int], cold_start: float, launch: float) -> None:
    shares = [weight / sum(weights) for weight in weights]
    prices = Prices(cold_start_ms=cold_start, launch_ms=launch)
    bins = len(shares) - 1
    ways = [[True, *rest] for rest in itertools.product((False, True), repeat=bins - 1)]
    for returns in (0, 1, 2):
        best = min(cost(way, shares, prices) for way in ways if comes_back(way) <= returns)
        found = windows(shares, prices, returns)
        assert len(found) <= returns + 1
        assert cost(bins_of(found, bins), shares, prices) == pytest.approx(best, abs=1e-6)


@given(st.lists(st.floats(0, 2 * LAST_MS), max_size=40), st.floats(0, 1e9), st.floats(0, 1e6))
def test_windows_are_in_order_and_begin_at_once(gaps: list[float], cold_start: float, launch: float) -> None:
    times = IdleTimes()
    for gap in gaps:
        times.add(gap)
    assert sum(times.shares()) == pytest.approx(1)
    found = windows(times.shares(), Prices(cold_start_ms=cold_start, launch_ms=launch))
    edges = [edge for window in found for edge in (window.start, window.end)]
    assert edges[0] == 0
    assert edges == sorted(set(edges))
    assert set(edges) <= set(EDGES)


@pytest.mark.parametrize("number", range(BINS))
def test_every_edge_begins_its_bin(number: int) -> None:
    inside = EDGES[number] + (EDGES[number + 1] - EDGES[number]) / 2
    assert bin_of(inside) == number
    assert bin_of(math.nextafter(EDGES[number + 1], 0) * (1 - 1e-12)) == number
    assert bin_of(EDGES[number] * (1 + 1e-12)) == number
    assert EDGES[number + 1] - EDGES[number] <= max(FIRST_MS, EDGES[number] * 0.1)


def test_what_is_longest_is_beyond() -> None:
    assert bin_of(LAST_MS * 1.001) == bin_of(LAST_MS * 1e6) == BINS


def test_ignorance_keeps_for_a_while() -> None:
    (only,) = KeepAlive(PRICES).windows()
    assert 0.5 * MINUTE < only.end < 10 * MINUTE


def test_a_timer_is_waited_for_where_it_comes() -> None:
    """Every half hour: gone after a while, there again shortly before it is due, and not for long after it."""
    policy, rng = KeepAlive(PRICES), random.Random(1)
    for _ in range(50):
        policy.observe(30 * MINUTE + rng.gauss(0, 2_000))
    first, again = policy.windows()
    assert first.end < 2 * MINUTE
    assert 15 * MINUTE < again.start < 30 * MINUTE < again.end < 45 * MINUTE


def test_bursts_are_kept_through_and_no_longer() -> None:
    policy = KeepAlive(PRICES)
    for _ in range(100):
        policy.observe(5_000)
    assert 5_000 < policy.windows()[0].end < 2 * MINUTE


def test_the_others_are_kept_by_their_own_gaps_and_never_waited_for() -> None:
    policy, rng = KeepAlive(PRICES), random.Random(1)
    for _ in range(50):
        policy.observe(5_000)
        policy.observe(30 * MINUTE + rng.gauss(0, 2_000), first=False)
    [window] = policy.windows()
    assert window.end < 2 * MINUTE
    assert policy.others().end < 2 * MINUTE, "half an hour is too dear"
    for _ in range(200):
        policy.observe(5 * MINUTE, first=False)
    assert policy.windows() == (window,)
    assert 5 * MINUTE < policy.others().end < 10 * MINUTE


def test_a_large_environment_is_kept_for_a_shorter_time() -> None:
    small, large = KeepAlive(PRICES), KeepAlive(Prices(cold_start_ms=MINUTE, launch_ms=500))
    assert large.windows()[0].end < small.windows()[0].end


def test_old_gaps_are_forgotten() -> None:
    times = IdleTimes()
    for _ in range(1000):
        times.add(5_000)
    for _ in range(1000):
        times.add(500_000)
    shares = times.shares()
    assert shares[bin_of(5_000)] < 0.01
    assert shares[bin_of(500_000)] > 0.9 * max(KERNEL)


def test_very_many_gaps_keep_their_weights_apart() -> None:
    """Weights grow with each gap, and are brought down together before they lose digits."""
    times = IdleTimes()
    for number in range(20_000):
        times.add(5_000 if number % 2 else 500_000)
    shares = times.shares()
    assert shares[bin_of(5_000)] == pytest.approx(shares[bin_of(500_000)], rel=0.02)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0


def test_the_prior_fades() -> None:
    times = IdleTimes()
    assert times.shares() == [pytest.approx(1 / (BINS + 1))] * (BINS + 1)
    times.add(5_000)
    assert times.shares()[bin_of(5_000)] == pytest.approx((max(KERNEL) + PRIOR / (BINS + 1)) / (1 + PRIOR))
