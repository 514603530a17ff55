"""A day of a trace under keep-alive policies: the share of cold starts against the memory kept idle.

What a policy does changes no arrival and no duration, so that the idle times of a function's environments are the same
under all of them (the most recently used one is taken first): each is found once and judged by every policy. Cold is an
invocation that finds no environment there: more at once than ever before, or a gap that ends outside the policy's
windows. Memory is that of environments that are there and idle. A policy knows only gaps that ended before.

Floor: none; the peers are fixed keep-alives of 1, 10 and 20 minutes, and the hybrid histogram as published.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.policies import Fixed, Hybrid, Policy, ours
from bench.traces import generate, trace
from bench.traces.trace import Function
from runtimed.machines.keep_alive import Window

FUNCTIONS = 2000
KEEP_ALIVE_SECONDS = 600.0  # pools.keep_alive_seconds

POLICIES: dict[str, Callable[[float], Policy]] = {
    "fixed 1 min": lambda _: Fixed(1),
    "fixed 10 min": lambda _: Fixed(10),
    "fixed 20 min": lambda _: Fixed(20),
    "hybrid histogram": lambda _: Hybrid(),
    "ours": ours(KEEP_ALIVE_SECONDS),
}


class Outcome(NamedTuple):
    """Of one policy over a trace."""

    policy: str
    invocations: int
    cold: int
    idle_mb_hours: float
    launches: int
    cold_share_by_function: list[float]
    """Sorted."""

    @property
    def cold_share(self) -> float:
        return self.cold / max(1, self.invocations)

    def of_functions(self, share: float) -> float:
        """The cold-start share that this share of functions does not exceed."""
        found = self.cold_share_by_function
        return found[min(len(found) - 1, int(share * len(found)))]


def there(windows: Sequence[Window], gap_ms: float) -> float:
    """Milliseconds of the gap during which the environment was there."""
    total = 0.0
    for window in windows:
        if window.start >= gap_ms:
            break
        total += min(gap_ms, window.end) - window.start
    return total


def warm(windows: Sequence[Window], gap_ms: float) -> bool:
    return any(window.start <= gap_ms < window.end for window in windows)


class Tally:
    """One policy at work on one function."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.cold = self.launches = 0
        self.idle_ms = 0.0

    def ended(self, windows: Sequence[Window], gap_ms: float, used: bool, alone: bool = True) -> None:
        """A gap is over: with an invocation, or with the trace. `alone`: nothing was at work when it began."""
        self.idle_ms += there(windows, gap_ms)
        self.launches += sum(0 < window.start < gap_ms for window in windows)
        if used:
            self.cold += not warm(windows, gap_ms)
            self.policy.observe(gap_ms, alone)


def replay(function: Function, tallies: Sequence[Tally], end_ms: float) -> None:
    """Every gap of one function, judged by all."""
    if function.arrivals:
        end_ms = max(end_ms, function.arrivals[-1])
    busy: list[float] = []
    idle: list[tuple[float, list[Sequence[Window]]]] = []

    def release(until_ms: float) -> None:
        while busy and busy[0] <= until_ms:
            since = heapq.heappop(busy)
            idle.append((since, [tally.policy.windows(not busy) for tally in tallies]))

    for arrival, duration in zip(function.arrivals, function.durations, strict=True):
        release(arrival)
        if idle:
            since, windows = idle.pop()
            for tally, kept in zip(tallies, windows, strict=True):
                tally.ended(kept, arrival - since, used=True, alone=not busy)
        else:
            for tally in tallies:
                tally.cold += 1
        heapq.heappush(busy, arrival + duration)
    release(end_ms)
    for since, windows in idle:
        for tally, kept in zip(tallies, windows, strict=True):
            tally.ended(kept, end_ms - since, used=False)


def simulate(
    functions: Iterable[Function], policies: dict[str, Callable[[float], Policy]], end_ms: float
) -> list[Outcome]:
    """`functions` may be an iterator: none is kept. The trace lasts until `end_ms`, or until its last invocation."""
    invocations = 0
    cold, memory, launches = (dict.fromkeys(policies, 0.0) for _ in range(3))
    shares: dict[str, list[float]] = {name: [] for name in policies}
    for function in functions:
        tallies = [Tally(make(function.memory_mb)) for make in policies.values()]
        replay(function, tallies, end_ms)
        invocations += len(function.arrivals)
        for name, tally in zip(policies, tallies, strict=True):
            cold[name] += tally.cold
            launches[name] += tally.launches
            memory[name] += tally.idle_ms / 3_600_000 * function.memory_mb
            shares[name].append(tally.cold / len(function.arrivals))
    return [
        Outcome(name, invocations, int(cold[name]), memory[name], int(launches[name]), sorted(shares[name]))
        for name in policies
    ]


def table(outcomes: Sequence[Outcome]) -> str:
    """For reading; memory beside that of ten minutes fixed."""
    usual = _usual(outcomes)
    width = max(18, *(len(one.policy) + 2 for one in outcomes))
    lines = [f"{'policy':<{width}}{'cold':>9}{'median function':>18}{'idle memory':>13}{'launched ahead':>16}"]
    lines += [
        f"{one.policy:<{width}}{one.cold_share:>9.3%}{one.of_functions(0.5):>18.2%}"
        f"{one.idle_mb_hours / usual:>12.3f}x{one.launches:>16,}"
        for one in outcomes
    ]
    return "\n".join(lines)


def _usual(outcomes: Sequence[Outcome]) -> float:
    return next((one.idle_mb_hours for one in outcomes if one.policy == "fixed 10 min"), 0.0) or 1.0


class Beside(NamedTuple):
    """Where the curve that the settings of our policy make passes a peer; None: it does not come so far."""

    peer: str
    memory_at_its_cold_share: float | None
    """As a multiple of the peer's."""
    cold_share_at_its_memory: float | None


def beside(curve: Sequence[Outcome], peer: Outcome) -> Beside:
    """Between two settings of the curve a straight line."""
    points = sorted((one.idle_mb_hours, one.cold_share) for one in curve)
    memory = _crossing([(cold, memory) for memory, cold in points], peer.cold_share)
    return Beside(
        peer.policy,
        None if memory is None else memory / (peer.idle_mb_hours or 1.0),
        _crossing(points, peer.idle_mb_hours),
    )


def _crossing(points: Sequence[tuple[float, float]], at: float) -> float | None:
    for (from_x, from_y), (to_x, to_y) in itertools.pairwise(points):
        if min(from_x, to_x) <= at <= max(from_x, to_x):
            return from_y if from_x == to_x else from_y + (to_y - from_y) * (at - from_x) / (to_x - from_x)
    return None


# ---- as it is run ------------------------------------------------------------------------------------------------


class Progress:
    """On standard error: on a terminal one line that changes, elsewhere one every ten seconds."""

    def __init__(self, policies: int) -> None:
        self._began = self._told = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._policies = policies
        self.functions = self.invocations = 0

    def over(self, functions: Iterable[Function]) -> Iterator[Function]:
        for function in functions:
            yield function
            self.functions += 1
            self.invocations += len(function.arrivals)
            now = time.monotonic()
            if now - self._told >= (0.5 if self._terminal else 10):
                self._told = now
                print(self, end="\r" if self._terminal else "\n", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        took = time.monotonic() - self._began
        return (
            f"{self.functions:,} functions, {self.invocations:,} invocations under {self._policies} policies "
            f"in {took:.0f} s"
        )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise ValueError
    return value


_positive.__name__, _seconds.__name__ = "whole number above 0", "number of seconds, at most a day"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulate",
        description=__doc__.split("\n\nFloor")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Without a trace functions are drawn from the distributions of the Azure Functions trace of 2019. A\n"
        "day of a thousand functions takes some minutes. Results go to standard output, all else to standard error.",
    )
    parser.add_argument("--functions", type=_positive, metavar="COUNT",
                        help=f"draw so many (default {FUNCTIONS:,}), or take the trace's first so many")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn; default 1")
    parser.add_argument("--draws", type=_positive, default=1, metavar="COUNT",
                        help="replay so many draws, of this seed and those after it, and tell the sum")  # fmt: skip
    parser.add_argument("--azure-2019", type=Path, metavar="INVOCATIONS",
                        help="a day in the layout of 2019; seconds within a minute are drawn")  # fmt: skip
    parser.add_argument("--durations", type=Path, metavar="FILE", help="its file of durations; else a second each")
    parser.add_argument("--memory", type=Path, metavar="FILE", help="its file of memory; else 170 MB each")
    parser.add_argument("--busiest", type=_positive, default=trace.BUSIEST, metavar="COUNT",
                        help="leave out its functions with more invocations, which are hardly ever cold; "
                        f"default {trace.BUSIEST:,}")  # fmt: skip
    parser.add_argument("--azure-2021", type=Path, metavar="FILE", help="a file in the layout of 2021")
    parser.add_argument("--keep-alive-seconds", type=_seconds, nargs="+", default=[KEEP_ALIVE_SECONDS], metavar="N",
                        help="the setting of our policy, by which it weighs cold starts against memory; several "
                        "make a curve, compared with its peers at the same cold starts and memory")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, the table elsewhere")
    return parser


def _functions(chosen: argparse.Namespace) -> Iterator[Function]:
    for seed in range(chosen.seed, chosen.seed + chosen.draws):
        if chosen.azure_2021:
            found: Iterable[Function] = trace.azure_2021(chosen.azure_2021)
        elif chosen.azure_2019:
            rng = random.Random(seed)
            found = trace.azure_2019(chosen.azure_2019, chosen.durations, chosen.memory, rng, chosen.busiest)
        else:
            found = generate.day(chosen.functions or FUNCTIONS, seed)
        yield from itertools.islice(found, chosen.functions)


def _check(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    if chosen.azure_2019 and chosen.azure_2021:
        parser.error("--azure-2019 and --azure-2021 exclude each other: one trace at a time")
    if (chosen.durations or chosen.memory) and not chosen.azure_2019:
        parser.error("--durations and --memory belong to a day in the layout of 2019: name it with --azure-2019")
    if chosen.azure_2021 and chosen.draws > 1:
        parser.error("--draws: nothing is drawn of a file in the layout of 2021")


def main() -> int:
    parser = _parser()
    chosen = parser.parse_args()
    _check(parser, chosen)
    ours_by_setting = {f"ours, {setting:g} s": ours(setting) for setting in chosen.keep_alive_seconds}
    policies = {name: make for name, make in POLICIES.items() if name != "ours"} | ours_by_setting
    progress = Progress(len(policies))
    try:
        outcomes = simulate(progress.over(_functions(chosen)), policies, generate.DAY_MS)
    except (OSError, trace.TraceError) as error:
        parser.error(str(error))
    if outcomes[0].invocations == 0:
        parser.error("there is no invocation in this trace")
    print(progress, file=sys.stderr)
    curve = [one for one in outcomes if one.policy in ours_by_setting]
    passed = [beside(curve, one) for one in outcomes if one.policy not in ours_by_setting]
    out = sys.stderr if chosen.json else sys.stdout
    print(table(outcomes), file=out)
    for one in passed if len(curve) > 1 else ():
        print(_told(one), file=out)
    if chosen.json:
        print(json.dumps({"functions": progress.functions, "invocations": outcomes[0].invocations, "policies": [
            {"policy": one.policy, "cold_share": one.cold_share, "launches": one.launches,
             "cold_share_of_median_function": one.of_functions(0.5), "idle_mb_hours": one.idle_mb_hours}
            for one in outcomes
        ], "beside": [one._asdict() for one in passed]}))  # fmt: skip
    return 0


def _told(one: Beside) -> str:
    memory = "-" if one.memory_at_its_cold_share is None else f"{one.memory_at_its_cold_share:.3f}x its memory"
    cold = "-" if one.cold_share_at_its_memory is None else f"{one.cold_share_at_its_memory:.3%} cold"
    return f"beside {one.peer}: at its cold starts {memory}; at its memory {cold}"


if __name__ == "__main__":
    sys.exit(main())
