"""Slots read again and again: what stands still is not read, and what has changed always is."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from runtimed.dispatch.counters import HEAD, MAGIC, SLOT, CounterPage, Slot
from runtimed.dispatch.kept_slots import SlotReader

BUCKETS, SLOTS, SLOT_SIZE, OFFSET = 240, 6, 4096, 16384
LENGTH = OFFSET + SLOTS * SLOT_SIZE
DURATIONS = 256


class Page(NamedTuple):
    """A counters page to write in, and its reader's."""

    descriptor: int
    page: CounterPage
    regions: int

    def put(self, region: int, place: int, target: int, calls: int, durations: int = 0) -> None:
        """`durations`: how many are in its first bucket."""
        at = region * LENGTH + OFFSET + place * SLOT_SIZE
        counts = [calls if name == "calls" else 0 for name in SLOT]
        os.pwrite(self.descriptor, struct.pack("<Q16s", target, b"f%d" % target), at)
        os.pwrite(self.descriptor, struct.pack(f"<{len(SLOT)}Q", *counts), at + 32)
        os.pwrite(self.descriptor, struct.pack("<Q", durations), at + DURATIONS)


@pytest.fixture(params=[1, 3], ids=["one region", "three regions"])
def made(request: pytest.FixtureRequest) -> Iterator[Page]:
    regions: int = request.param
    descriptor = os.memfd_create("counters")
    try:
        os.ftruncate(descriptor, LENGTH * regions)
        for region in range(regions):
            head = (MAGIC, 1, LENGTH, SLOTS, SLOT_SIZE, BUCKETS, 1, 1, len(SLOT), OFFSET, 7, SLOTS - 1, regions, 0, 0)
            os.pwrite(descriptor, HEAD.pack(*head, 0, 0, 0, 0), region * LENGTH)
        page = CounterPage(os.dup(descriptor))
        yield Page(descriptor, page, regions)
        page.close()
    finally:
        os.close(descriptor)


def durations(slot: Slot) -> int:
    return int.from_bytes(slot.durations[:8], "little")


def test_what_stands_still_is_known_by_its_revision(made: Page) -> None:
    reader = SlotReader()
    for region in range(made.regions):
        made.put(region, 1, 9, calls=1)
    first, second = (reader.read(made.page)[0] for _ in range(2))
    assert (first.whole, second.whole) == (True, True)
    assert first.revision != second.revision
    for _ in range(3):
        assert reader.read(made.page)[0] == reader.read(made.page)[0]
        (still,) = reader.read(made.page)
        assert (still.whole, still.durations, still.revision) == (False, b"", second.revision)
        assert still.counts["calls"] == made.regions
    made.put(0, 1, 9, calls=2)
    (moved,) = reader.read(made.page)
    assert moved.whole and moved.counts["calls"] == made.regions + 1
    assert moved.revision > second.revision


def test_a_duration_that_comes_after_its_call_is_seen(made: Page) -> None:
    """The dispatcher counts first."""
    reader = SlotReader()
    made.put(0, 2, 5, calls=1)
    assert durations(reader.read(made.page)[0]) == 0
    made.put(0, 2, 5, calls=1, durations=1)
    (second,) = reader.read(made.page)
    assert durations(second) == 1
    (third,) = reader.read(made.page)
    assert not third.whole and third.revision == second.revision
    assert durations(reader.whole(third)) == 1


def test_a_place_that_was_given_to_another_is_that_others(made: Page) -> None:
    reader = SlotReader()
    made.put(0, 1, 5, calls=4)
    for _ in range(3):
        reader.read(made.page)
    made.put(0, 1, 6, calls=4)
    (slot,) = reader.read(made.page)
    assert (slot.target, slot.function_uid.rstrip(b"\0"), slot.whole) == (6, b"f6", True)
    made.put(0, 1, 0, calls=0)
    assert reader.read(made.page) == []


def test_it_says_what_reading_all_says(made: Page) -> None:
    """Whatever is called in whichever order: counts, and the histograms of what has a new revision."""
    rng = random.Random(made.regions)
    reader, kept = SlotReader(), dict[int, tuple[int, int]]()
    calls = {(region, place): 0 for region in range(made.regions) for place in range(1, SLOTS)}
    for _ in range(300):
        for _ in range(rng.choice((0, 0, 1, 3))):
            region, place = rng.choice(list(calls))
            calls[region, place] += 1
            made.put(region, place, place, calls[region, place], calls[region, place])
        expected = {slot.target: slot for slot in made.page.targets()}
        found = {slot.target: slot for slot in reader.read(made.page)}
        assert {number: slot.counts for number, slot in found.items()} == {
            number: slot.counts for number, slot in expected.items()
        }
        for number, slot in found.items():
            whole = slot if slot.whole else reader.whole(slot)
            assert (whole.durations, whole.inits) == (expected[number].durations, expected[number].inits)
            if slot.revision == kept.get(number, (0, 0))[0]:
                assert durations(whole) == kept[number][1]
            kept[number] = slot.revision, durations(whole)


def test_another_page_is_read_from_the_start(made: Page) -> None:
    reader = SlotReader()
    made.put(0, 1, 5, calls=4)
    for _ in range(3):
        (before,) = reader.read(made.page)
    other = CounterPage(os.dup(made.descriptor))
    try:
        (slot,) = reader.read(other)
        assert slot.whole and slot.revision != before.revision
    finally:
        other.close()
