"""What functions did between two looks: differences by target, summed by function, ordered and cut."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from runtimed.dispatch.counters import SLOT, Slot
from runtimed.invocation.statistics import KEYS, Look, interval_ms, rank
from runtimed.model import wire
from runtimed.model.node import GetStatisticsRequest, StatisticsOrder
from runtimed.store.functions import Label

START = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C = (bytes([n] * 16) for n in (1, 2, 3))
LABELS = {A: Label(uid=A, name="a", memory_mb=128), B: Label(uid=B, name="b", memory_mb=256)}
BUCKETS = 240


def slot(target: int, uid: bytes, durations: dict[int, int] | None = None, **counts: int) -> Slot:
    """`durations`: how often, by microseconds below 8."""
    spread = [0] * BUCKETS
    for value, times in (durations or {}).items():
        spread[value] = times
    return Slot(
        target=target,
        function_uid=uid,
        counts=dict.fromkeys(SLOT, 0) | counts,
        durations=struct.pack(f"<{BUCKETS}Q", *spread),
    )


def look(*slots: Slot, seconds: int = 0, started_us: int = 7) -> Look:
    return Look(
        time=START + timedelta(seconds=seconds),
        cpu=(0, 0),
        started_us=started_us,
        slots={slot.target: slot for slot in slots},
    )


def ranked(before: Look, after: Look, demands: dict[int, wire.Demand] | None = None, **request: Any) -> list[Any]:
    return rank(before, after, demands or {}, LABELS, GetStatisticsRequest(**request))[0]


def test_differences_of_counts_and_durations() -> None:
    before = look(slot(1, A, {1: 100}, calls=100, function_errors=3, failures=1, peak_kb=10))
    after = look(slot(1, A, {1: 100, 5: 10}, calls=110, function_errors=5, failures=2, peak_kb=20, timeouts=1))
    [row] = ranked(before, after)
    assert (row.function_name, row.invocations, row.errors, row.timeouts) == ("a", 10, 3, 1)
    assert (row.duration_p50_us, row.duration_p99_us) == (5, 5)
    assert (row.memory_size, row.memory_peak_bytes) == (128, 20 * 1024)
    [row] = ranked(after, after)
    assert (row.invocations, row.duration_p50_us, row.memory_peak_bytes) == (0, 0, 20 * 1024)


def test_targets_of_one_function_are_summed() -> None:
    ahead = {"environments_parked": 5, "provisioned_in_use": 6}
    before = look(slot(1, A, {1: 10}, calls=10))
    after = look(
        slot(1, A, {1: 12}, calls=12, **ahead),
        slot(9, A, {7: 3}, calls=3, environments_frozen=1, **ahead),
        slot(4, C, calls=5),
    )
    demands = {
        1: wire.Demand(waiting=1, busy=2, idle=3, starting=4, provisioned=6),
        9: wire.Demand(waiting=10, busy=20, idle=30, starting=40, provisioned=7),
        77: wire.Demand(busy=1),
    }
    [row] = ranked(before, after, demands)
    assert (row.invocations, row.duration_p50_us) == (5, 7)
    assert (row.waiting, row.in_flight) == (11, 22)
    there = row.environments
    assert (there.starting, there.idle, there.busy, there.frozen) == (44, 33, 22, 1)
    assert (there.parked, there.provisioned, there.provisioned_in_use) == (10, 13, 12)


def test_a_dispatcher_that_was_restarted_counts_from_zero() -> None:
    before = look(slot(1, A, {1: 500}, calls=500))
    [row] = ranked(before, look(slot(1, A, {1: 2}, calls=2), started_us=8))
    assert row.invocations == 2
    [row] = ranked(Look(time=START, cpu=(0, 0)), before)
    assert row.invocations == 500
    assert rank(before, Look(time=START, cpu=(0, 0)), {}, LABELS, GetStatisticsRequest()) == ([], 0)


def test_order_and_limit() -> None:
    labels = {bytes([n] * 16): Label(uid=bytes([n] * 16), name=f"f{n:03}", memory_mb=128) for n in range(200)}
    after = look(*(slot(n + 1, bytes([n] * 16), calls=n, throttles=200 - n) for n in range(200)))
    first, total = rank(look(), after, {}, labels, GetStatisticsRequest(max_items=2))
    assert ([row.function_name for row in first], total) == (["f199", "f198"], 200)
    request = GetStatisticsRequest(max_items=2, order=StatisticsOrder.THROTTLES)
    assert [row.function_name for row in rank(look(), after, {}, labels, request)[0]] == ["f000", "f001"]
    request = GetStatisticsRequest(max_items=2, order=StatisticsOrder.NAME)
    assert [row.function_name for row in rank(look(), after, {}, labels, request)[0]] == ["f000", "f001"]
    request = GetStatisticsRequest(function_name="f007")
    assert [row.invocations for row in rank(look(), after, {}, labels, request)[0]] == [7]


@pytest.mark.parametrize("order", StatisticsOrder)
def test_every_order_has_a_key(order: StatisticsOrder) -> None:
    assert order in KEYS
    assert len(ranked(look(), look(slot(1, A, calls=1), slot(2, B)), order=order)) == 2


def test_intervals_do_not_follow_the_wall_clock() -> None:
    """Set back by an hour between two looks, two seconds remain two seconds."""
    before, after = look(seconds=3600), look(seconds=2)
    assert interval_ms(replace(before, at=10.0), replace(after, at=12.0)) == 2000
