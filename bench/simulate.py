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
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
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


def simulate(functions: Iterable[Function], policies: dict[str, Callable[[float], Policy]], end_ms: float
             ) -> list[Outcome]:  # fmt: skip
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
    usual = next((one.idle_mb_hours for one in outcomes if one.policy == "fixed 10 min"), 0.0) or 1.0
    lines = [f"{'policy':<18}{'cold':>9}{'median function':>18}{'idle memory':>13}{'launched ahead':>16}"]
    lines += [
        f"{one.policy:<18}{one.cold_share:>9.3%}{one.of_functions(0.5):>18.2%}"
        f"{one.idle_mb_hours / usual:>12.3f}x{one.launches:>16,}"
        for one in outcomes
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--functions", type=int, default=FUNCTIONS, help="drawn, when no trace is given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--azure-2019", type=Path, metavar="INVOCATIONS", help="a day in the layout of 2019")
    parser.add_argument("--durations", type=Path, help="its file of durations")
    parser.add_argument("--memory", type=Path, help="its file of memory")
    parser.add_argument("--azure-2021", type=Path, metavar="FILE", help="a file in the layout of 2021")
    parser.add_argument("--keep-alive-seconds", type=float, nargs="+", default=[KEEP_ALIVE_SECONDS],
                        help="the setting; a cold start is worth 3.5 times as much")  # fmt: skip
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    try:
        if chosen.azure_2021:
            functions: Iterable[Function] = trace.azure_2021(chosen.azure_2021)
        elif chosen.azure_2019:
            rng = random.Random(chosen.seed)
            functions = trace.azure_2019(chosen.azure_2019, chosen.durations, chosen.memory, rng)
        else:
            functions = generate.day(chosen.functions, chosen.seed)
    except (OSError, trace.TraceError) as error:
        parser.error(str(error))
    policies = {name: make for name, make in POLICIES.items() if name != "ours"}
    policies |= {f"ours, {setting:g} s": ours(setting) for setting in chosen.keep_alive_seconds}
    began = time.monotonic()
    outcomes = simulate(functions, policies, generate.DAY_MS)
    print(table(outcomes), file=sys.stderr if chosen.json else sys.stdout)
    print(f"{outcomes[0].invocations:,} invocations in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if chosen.json:
        print(json.dumps([{"policy": one.policy, "cold_share": one.cold_share, "launches": one.launches,
                           "cold_share_of_median_function": one.of_functions(0.5), "idle_mb_hours": one.idle_mb_hours}
                          for one in outcomes]))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
