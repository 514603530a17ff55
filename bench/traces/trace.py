"""What a trace is, and the readers of published layouts.

Azure Functions 2019 (Azure Public Dataset, CC-BY 4.0): three files of one day. `invocations`: HashOwner, HashApp,
HashFunction, Trigger, then invocations in each of 1,440 minutes. `durations`: by HashFunction, Average in milliseconds.
`memory`: AverageAllocatedMb, by application; some excerpts have it by function.
Azure Functions 2021: one file; app, func, end_timestamp and duration in seconds.
"""

from __future__ import annotations

import csv
import random
import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

DEFAULT_MB = 170.0  # the median application of 2019 (Shahrad et al., ATC 2020, section 3.4)
DEFAULT_MS = 1000.0
BUSIEST = 200_000
"""Invocations a day, of a function that a reader keeps in memory: more than two a second are hardly ever cold."""
MINUTE_MS = 60_000.0

csv.field_size_limit(1 << 20)


class Function(NamedTuple):
    """One function's invocations in order of arrival; times and durations in milliseconds from the trace's start."""

    name: str
    memory_mb: float
    arrivals: array[float]
    durations: array[float]


class TraceError(ValueError):
    """A file that is not in the layout it is said to have; says which line and why."""


def _rows(path: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            missing = set(needed) - set(rows.fieldnames or ())
            if missing:
                missed = ", ".join(sorted(missing))
                raise TraceError(f"{path}: no column {missed}; is it in the layout that was asked for?")
            for row in rows:
                if None in row or None in row.values():
                    raise TraceError(f"{path}, line {rows.line_num}: other columns than the head's")
                yield rows.line_num, row
        except UnicodeDecodeError:
            raise TraceError(f"{path}: not a text file; is it packed? Unpack it first") from None
        except csv.Error as error:
            raise TraceError(f"{path}, line {rows.line_num}: {error}") from None


def _number(path: Path, line: int, row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = -1.0
    if not 0 <= value < sys.float_info.max:
        raise TraceError(f"{path}, line {line}: {column} is {row[column]!r}, not a number of zero or more")
    return value


def azure_2021(path: Path) -> list[Function]:
    """Functions of a file in the 2021 layout. It knows no memory: every function has DEFAULT_MB."""
    calls: dict[str, list[tuple[float, float]]] = {}
    for line, row in _rows(path, ("app", "func", "end_timestamp", "duration")):
        lasted = _number(path, line, row, "duration") * 1000
        ended = _number(path, line, row, "end_timestamp") * 1000
        calls.setdefault(row["app"] + "/" + row["func"], []).append((max(0.0, ended - lasted), lasted))
    return [
        Function(name, DEFAULT_MB, array("d", [at for at, _ in sorted(made)]), array("d", [d for _, d in sorted(made)]))
        for name, made in calls.items()
    ]


def _by_name(path: Path | None, column: str, keys: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    """A column's numbers by function where the file has functions, else by application."""
    if path is None:
        return {}
    found = {}
    for line, row in _rows(path, (*keys, column)):
        found[(*(row[key] for key in keys), row.get("HashFunction", ""))] = _number(path, line, row, column)
    return found


def azure_2019(
    invocations: Path, durations: Path | None, memory: Path | None, rng: random.Random, busiest: int = BUSIEST
) -> Iterator[Function]:
    """Functions of one day in the 2019 layout that were invoked, up to `busiest` times; within their minute invocations
    are spread evenly at random."""
    lasts = _by_name(durations, "Average", ("HashOwner", "HashApp"))
    takes = _by_name(memory, "AverageAllocatedMb", ("HashOwner", "HashApp"))
    for line, row in _rows(invocations, ("HashOwner", "HashApp", "HashFunction", "1")):
        app, name = (row["HashOwner"], row["HashApp"]), row["HashFunction"]
        counts = [int(_number(invocations, line, row, str(n))) if str(n) in row else 0 for n in range(1, 1441)]
        if not 0 < sum(counts) <= busiest:
            continue
        arrivals = array("d")
        for minute, count in enumerate(counts):
            arrivals.extend(sorted((minute + rng.random()) * MINUTE_MS for _ in range(count)))
        each = lasts.get((*app, name), DEFAULT_MS)
        megabytes = takes.get((*app, name), takes.get((*app, ""), DEFAULT_MB))
        yield Function(name, megabytes, arrivals, array("d", [each]) * len(arrivals))
