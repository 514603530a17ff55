"""Draws a day of functions that behave like those of the Azure Functions trace of 2019.

`azure_2019.csv` holds quantiles of its published distributions (invocations a day, coefficient of variation of the
times between arrivals, duration, memory), as tabulated by ServerlessBench (test case 11) from the Azure Public Dataset,
CC-BY 4.0. The four are drawn independently, for nothing is published about how they go together. What that would
make absurd is bounded: no function has more than BUSIEST invocations (those are never cold) nor, on average, more
than CROWD of them at once.
"""

from __future__ import annotations

import csv
import random
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from bench.traces.trace import Function

DAY_MS = 86_400_000.0
BUSIEST = 20_000
CROWD = 10.0
PUNCTUAL = 0.05  # a coefficient of variation below this is a timer's
JITTER_MS = 2_000.0  # of a timer


class Quantiles:
    """The inverse of a distribution, between tabulated points a straight line."""

    def __init__(self, shares: list[float], values: list[float]) -> None:
        self._shares, self._values = shares, values

    def draw(self, rng: random.Random) -> float:
        share = rng.random()
        above = min(bisect_right(self._shares, share), len(self._shares) - 1)
        low, high = self._shares[above - 1], self._shares[above]
        part = (share - low) / (high - low)
        return self._values[above - 1] + part * (self._values[above] - self._values[above - 1])


def distributions() -> dict[str, Quantiles]:
    """By the column's name in azure_2019.csv."""
    with (Path(__file__).parent / "azure_2019.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    columns = dict(zip(head, ([float(value) for value in column] for column in zip(*rows, strict=True)), strict=True))
    shares = columns.pop("share")
    return {name: Quantiles(shares, values) for name, values in columns.items()}


def between(mean_ms: float, variation: float, rng: random.Random) -> Iterator[float]:
    """Times from one arrival to the next, with that mean and coefficient of variation, without end.

    Below 1 an Erlang-like gamma; above it bursts: a hyperexponential with balanced means."""
    if variation <= 1:
        shape = 1 / max(variation, PUNCTUAL) ** 2
        while True:
            yield rng.gammavariate(shape, mean_ms / shape)
    squared = variation**2
    often = (1 + ((squared - 1) / (squared + 1)) ** 0.5) / 2
    while True:
        share = often if rng.random() < often else 1 - often
        yield rng.expovariate(2 * share / mean_ms)


def arrivals(count: float, variation: float, rng: random.Random) -> array[float]:
    """A day's, of a function with so many on average: of a timer at its period, else by chance."""
    mean = DAY_MS / count
    found = array("d")
    if variation < PUNCTUAL:
        at = rng.random() * mean
        while at < DAY_MS:
            found.append(max(0.0, at + rng.gauss(0, min(JITTER_MS, mean / 10))))
            at += mean
        return array("d", sorted(found))
    # It was there before the day began.
    at = -rng.random() * mean
    for gap in between(mean, variation, rng):
        at += gap
        if at >= DAY_MS or len(found) > 4 * BUSIEST:
            return found
        if at >= 0:
            found.append(at)
    raise AssertionError("times between arrivals do not end")


def day(functions: int, seed: int) -> Iterator[Function]:
    """So many functions that were invoked at least once; the same for the same seed."""
    rng = random.Random(seed)
    drawn = distributions()
    made = 0
    while made < functions:
        count = min(BUSIEST, max(1.0, drawn["invocations_a_day"].draw(rng)))
        came = arrivals(count, drawn["interarrival_cv"].draw(rng), rng)
        lasts = min(drawn["duration_ms"].draw(rng), CROWD * DAY_MS / count)
        memory = max(64.0, drawn["memory_mb"].draw(rng))
        if not came:
            continue
        made += 1
        durations = array("d", (lasts * rng.lognormvariate(0, 0.3) for _ in came))
        yield Function(f"drawn-{made}", memory, came, durations)
