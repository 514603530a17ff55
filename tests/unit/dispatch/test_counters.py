"""The counters page: names in the header's order, histograms, and pages of other versions."""

from __future__ import annotations

import os
import re
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from runtimed.dispatch.counters import (
    HEAD,
    HISTOGRAMS,
    HISTOGRAMS_OFFSET,
    MAGIC,
    NODE,
    NODE_OFFSET,
    SLOT,
    CounterPage,
    Gaps,
    bucket_floor,
    buckets,
    quantile,
)

HEADER = Path(__file__).parents[3] / "native/dispatch/include/dispatch/counters.h"
BUCKETS, SLOTS, SLOT_SIZE, SLOTS_OFFSET = 240, 8, 4096, 16384
IDLE_SIZE, IDLE_BINS = 1152, 138


def names_in_header(macro: str) -> list[str]:
    body = re.search(
        rf"#define {macro}\(X\) (.*?)\n\n|#define {macro}\(X\) (.*?)/\* clang", HEADER.read_text(), re.DOTALL
    )
    assert body is not None
    return re.findall(r"X\((\w+)\)", body[0].partition("\n")[2])


def test_the_names_are_the_headers() -> None:
    assert list(NODE) == names_in_header("COUNTERS_NODE")
    assert list(HISTOGRAMS) == names_in_header("COUNTERS_NODE_HISTOGRAMS")
    assert list(SLOT) == names_in_header("COUNTERS_SLOT")


def page(
    n_node: int = len(NODE), version: int = 1, magic: int = MAGIC, regions: int = 0, loops: int = 0, kinds: int = 2
) -> bytearray:
    idle = SLOTS_OFFSET + SLOTS * SLOT_SIZE
    size = idle + SLOTS * IDLE_SIZE
    data = bytearray(size)
    HEAD.pack_into(
        data,
        0,
        magic,
        version,
        size,
        SLOTS,
        SLOT_SIZE,
        BUCKETS,
        n_node,
        len(HISTOGRAMS),
        len(SLOT),
        SLOTS_OFFSET,
        77,
        3,
        regions,
        0,
        loops,
        idle,
        IDLE_SIZE,
        IDLE_BINS,
        kinds,
    )
    struct.pack_into(f"<{n_node}Q", data, NODE_OFFSET, *range(100, 100 + n_node))
    return data


def opened(data: bytes) -> CounterPage:
    descriptor = os.memfd_create("counters", 0)
    os.write(descriptor, data)
    return CounterPage(descriptor)


def test_values_are_found() -> None:
    data = page()
    struct.pack_into("<Q", data, HISTOGRAMS_OFFSET + 5 * BUCKETS * 8 + 9 * 8, 10)  # duration_us: ten of 9 us
    struct.pack_into("<Q", data, SLOTS_OFFSET + 3 * SLOT_SIZE, 4711)
    struct.pack_into("<Q", data, SLOTS_OFFSET + 3 * SLOT_SIZE + 32 + 8, 5)
    counters = opened(data)
    assert counters.node() == {name: 100 + index for index, name in enumerate(NODE)}
    assert counters.quantile("duration_us", 500) == 9
    assert counters.quantile("call_us", 500) == 0
    slot = counters.target(4711)
    assert slot is not None
    assert slot["success"] == 5
    assert counters.target(4712) is None
    assert counters.started_us == 77
    [found] = counters.targets()
    assert (found.target, found.counts["success"]) == (4711, 5)
    counters.close()
    with pytest.raises(ValueError, match="closed"):
        list(counters.targets())


def test_nothing_is_read_above_the_highest_slot_ever_given() -> None:
    data = page()
    for slot in (3, 4):
        struct.pack_into("<Q16s", data, SLOTS_OFFSET + slot * SLOT_SIZE, 100 + slot, bytes([slot] * 16))
    counters = opened(data)
    assert [(slot.target, slot.function_uid) for slot in counters.targets()] == [(103, b"\3" * 16)]
    counters.close()


def test_the_regions_of_several_loops_are_added_up() -> None:
    first, second = page(regions=2), page(regions=2)
    struct.pack_into(
        "<Q", second, NODE_OFFSET + NODE.index("waiting") * 8, 2**64 - 3
    )  # a level that moved between them
    struct.pack_into("<2Q", first, HISTOGRAMS_OFFSET + 5 * BUCKETS * 8, 1, 2)
    struct.pack_into("<2Q", second, HISTOGRAMS_OFFSET + 5 * BUCKETS * 8, 10, 20)
    for region, slot, success, peak in ((first, 3, 5, 100), (second, 1, 7, 90)):
        at = SLOTS_OFFSET + slot * SLOT_SIZE
        struct.pack_into("<Q16s", region, at, 4711, b"\7" * 16)
        struct.pack_into("<Q", region, at + 32 + SLOT.index("success") * 8, success)
        struct.pack_into("<Q", region, at + 32 + SLOT.index("peak_kb") * 8, peak)
        struct.pack_into("<Q", region, at + 256, success)
    struct.pack_into("<Q", second, SLOTS_OFFSET + 2 * SLOT_SIZE, 4712)
    counters = opened(first + second)
    assert counters.loops == 2
    assert counters.node()["calls"] == 200
    assert counters.node()["waiting"] == 100 + NODE.index("waiting") - 3
    assert counters.loop(1)["waiting"] == 2**64 - 3
    assert buckets(counters.histogram("duration_us"))[:3] == (11, 22, 0)
    found = {slot.target: slot for slot in counters.targets()}
    assert sorted(found) == [4711, 4712]
    assert (found[4711].counts["success"], found[4711].counts["peak_kb"]) == (12, 100)
    assert buckets(found[4711].durations)[0] == 12
    counters.close()
    with pytest.raises(ValueError, match="counters page"):
        opened(first)


def test_pages_of_neighbouring_versions() -> None:
    fewer = opened(page(n_node=3))
    assert list(fewer.node().values())[:5] == [100, 101, 102, 0, 0]
    fewer.close()
    more = opened(page(n_node=len(NODE) + 10))
    assert len(more.node()) == len(NODE)
    more.close()
    for data in (page(version=2), page(magic=1), b"", page()[:2000]):
        with pytest.raises(ValueError, match="counters page"):
            opened(bytes(data))


def test_buckets_are_at_most_an_eighth_wide() -> None:
    floors = [bucket_floor(bucket) for bucket in range(BUCKETS)]
    assert floors[:10] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert floors[16:18] == [16, 18]
    for low, high in pairwise(floors[8:]):
        assert 0 < high - low <= low / 8


@pytest.mark.parametrize(("per_mille", "value"), [(1, 3), (500, 3), (990, 3), (991, 108)])
def test_quantiles(per_mille: int, value: int) -> None:
    counts = [0] * BUCKETS
    counts[3] = 99
    counts[8 + 8 * 3 + 5] = 1  # 104 to 111
    assert quantile(counts, per_mille) == value


@pytest.mark.parametrize("kinds", [0, 2])
def test_gaps_are_found(kinds: int) -> None:
    """Also in the page of a dispatcher that counted those of all ranks together."""
    data = page(kinds=kinds)
    struct.pack_into("<Q", data, SLOTS_OFFSET + SLOT_SIZE, 9)
    idle = SLOTS_OFFSET + SLOTS * SLOT_SIZE + IDLE_SIZE
    struct.pack_into("<Q3I", data, idle, 5, 0, 2, 3)
    struct.pack_into("<I", data, idle + 8 + 4 * (IDLE_BINS - 1), 7)
    struct.pack_into("<I", data, idle + 8 + 4 * (IDLE_BINS + 3), 8)
    opened_page = opened(bytes(data))
    others = {3: 8} if kinds else {}
    assert list(opened_page.gaps(0)) == [(9, Gaps(total=5, bins={1: 2, 2: 3, IDLE_BINS - 1: 7}, others=others))]
