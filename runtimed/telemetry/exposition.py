"""Prometheus' text format (version 0.0.4), for metrics with thousands of series.

prometheus-client writes what the node says of itself; a sample costs it some microseconds, and 10,000 functions have
300,000. Here a family is written line by line from numbers at hand. Tests read it with prometheus-client's parser.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import mul

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "runtimed_"


def head(name: str, kind: str, help: str) -> str:
    """The two lines before a family's samples. `kind`: counter, gauge or histogram."""
    return f"# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n"


def family(name: str, kind: str, help: str, samples: Iterable[tuple[str, float]]) -> str:
    """`samples`: labels as `labels` writes them, and the value. No samples: nothing."""
    lines = [f"{PREFIX}{name}{{{labels}}} {value}" for labels, value in samples]
    return f"{head(name, kind, help)}{chr(10).join(lines)}\n" if lines else ""


def label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


class Bounds:
    """The upper bounds of a histogram's buckets in seconds, and how the dispatcher's finer ones, in microseconds, fall
    into them: a fine one counts to where its middle lies."""

    def __init__(self, seconds: Sequence[float], middles_us: Sequence[float]) -> None:
        """`middles_us`: of the fine buckets, ascending."""
        self.texts = [*(f"{bound:g}" for bound in seconds), "+Inf"]
        self._middles = [middle / 1e6 for middle in middles_us]
        self._ends = [bisect_right(self._middles, bound) for bound in seconds] + [len(self._middles)]

    def spread(self, counts: Sequence[int], first: int = 0) -> tuple[list[int], float]:
        """Cumulative counts and the sum of values in seconds, to the width of a fine bucket. `first`: the number of the
        fine bucket that `counts` begins with."""
        cumulative, seen, start = [], 0, 0
        for end in self._ends:
            if end - first > start:
                seen += sum(counts[start : end - first])
                start = end - first
            cumulative.append(seen)
        return cumulative, sum(map(mul, counts, self._middles[first : first + len(counts)]))


def series(name: str, bounds: Bounds) -> Callable[[str, list[int], float], str]:
    """Writes one series of a histogram, of its labels, cumulative counts and sum."""
    full = f"{PREFIX}{name}"
    ends = "".join(f'{full}_bucket{{%sle="{text}"}} %d\n' for text in bounds.texts)
    # One formatting for all lines of a series is what makes ten thousand of them bearable.
    form = f"{ends}{full}_sum%s %.6g\n{full}_count%s %d\n"
    width = 2 * len(bounds.texts)

    def write(labels: str, cumulative: list[int], total: float) -> str:
        values: list[object] = [f"{labels}," if labels else ""] * width
        values[1::2] = cumulative
        tail = f"{{{labels}}}" if labels else ""
        return form % (*values, tail, total, tail, cumulative[-1])

    return write


def histogram(name: str, help: str, written: Iterable[str]) -> str:
    """A histogram's family, of what `series` wrote. No series: nothing."""
    text = "".join(written)
    return head(name, "histogram", help) + text if text else ""
