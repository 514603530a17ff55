"""Idle times as the dispatcher counts them, beside those that the simulator replays: the same of any invocations."""

from __future__ import annotations

import ctypes
import heapq
import subprocess
from array import array
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.policies import Fixed
from bench.simulate import Tally, replay
from bench.traces.trace import Function
from runtimed.machines.keep_alive import BINS, EDGES, bin_of

NATIVE = Path(__file__).resolve().parents[2] / "native"
CLOSE = 2.0**-15
"""The dispatcher reckons with 16 binary places: so near to a bin's edge it may find the next one."""
SLOT_BINS = 138
"""IDLE_BINS in counters.h: all bins, and what is beyond."""


class Counts(ctypes.Structure):
    """struct counters_idle."""

    _fields_ = [
        ("gaps", ctypes.c_uint64),
        ("bins", ctypes.c_uint32 * SLOT_BINS),
        ("others", ctypes.c_uint32 * SLOT_BINS),
        ("padding", ctypes.c_uint8 * 40),
    ]


class Times(ctypes.Structure):
    """struct idle_times."""

    _fields_ = [
        ("level", ctypes.c_uint32),
        ("ranks", ctypes.c_uint32),
        ("since_us", ctypes.c_void_p),
        ("counts", ctypes.POINTER(Counts)),
    ]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """native/dispatch/idle_times.c by itself."""
    library = tmp_path_factory.mktemp("native") / "idle_times.so"
    include = [f"-I{path}" for path in sorted(NATIVE.glob("*/include"))]
    source = NATIVE / "dispatch" / "idle_times.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", *include, "-o", library, source], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.idle_bin.argtypes, loaded.idle_bin.restype = [ctypes.c_uint64], ctypes.c_uint
    for name in ("idle_rise", "idle_fall"):
        getattr(loaded, name).argtypes = [ctypes.POINTER(Times), ctypes.c_uint64]
        getattr(loaded, name).restype = None
    return loaded


class Seen(Fixed):
    """A policy that only looks."""

    def __init__(self) -> None:
        super().__init__(1)
        self.gaps: dict[bool, list[float]] = {True: [], False: []}

    def observe(self, gap_ms: float, alone: bool = True) -> None:
        self.gaps[alone].append(gap_ms)


def test_the_bins_are_the_same(native: ctypes.CDLL) -> None:
    assert SLOT_BINS == BINS + 1
    rng = Random(1)
    gaps = [rng.randrange(2 ** rng.randrange(1, 45)) for _ in range(20_000)]
    gaps += [round(edge * 1000 * factor) for edge in EDGES[1:] for factor in (1 - CLOSE, 1 + CLOSE)]
    different = [gap / 1000 for gap in gaps if native.idle_bin(gap) != bin_of(gap / 1000)]
    assert [gap for gap in different if min(abs(gap / edge - 1) for edge in EDGES[1:]) >= CLOSE] == []
    assert len(different) < 20


CALLS = st.lists(
    st.tuples(st.one_of(st.integers(0, 3000), st.integers(0, 10_000_000)), st.integers(0, 200_000)),
    min_size=1,
    max_size=120,
)


@given(CALLS)
def test_the_gaps_are_the_same(native: ctypes.CDLL, calls: list[tuple[int, int]]) -> None:
    """Of invocations that come so many milliseconds after each other and last so many."""
    arrivals, at = array("d"), 0
    for pause, _ in calls:
        at += pause
        arrivals.append(at)
    durations = array("d", [lasts for _, lasts in calls])
    seen = Seen()
    replay(Function("f", 100.0, arrivals, durations), [Tally(seen)], at + 1e9)

    counts = Counts()
    times = Times(counts=ctypes.pointer(counts))
    ends: list[float] = []
    base = 1_000_000  # no dispatcher's clock is at 0
    for arrival, lasts in zip(arrivals, durations, strict=True):
        while ends and ends[0] <= arrival:
            native.idle_fall(times, base + int(heapq.heappop(ends)) * 1000)
        native.idle_rise(times, base + int(arrival) * 1000)
        heapq.heappush(ends, arrival + lasts)
    native.idle_times_done(ctypes.byref(times))
    for alone, bins in ((True, counts.bins), (False, counts.others)):
        found = {number: count for number, count in enumerate(bins) if count}
        assert found == Counter(native.idle_bin(round(gap * 1000)) for gap in seen.gaps[alone])
    assert counts.gaps == sum(counts.bins) + sum(counts.others)
