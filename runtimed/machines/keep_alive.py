"""How long an idle environment is worth its memory, from the idle times that its function has shown. Pure.

An environment falls idle; some time later it is used again, or never. A *gap* is that time, as it would be if nothing
were ever ended: the dispatcher measures it at the function, not at its environments, so that a policy does not judge
itself by what it ended too early. `IdleTimes` keeps a function's gaps, newer ones weighing more; `windows` says in
which stretches of an idle time an environment should be there:

    idle since 0 |==== there ====|------ ended ------|==== there again ====|---- ended for good
                 0         windows[0].end    windows[1].start       windows[1].end

Each bin of idle time costs either its memory (for as long as the gap is likely to last into it) or the cold starts of
the gaps that are likely to end in it, and coming back costs a launch. The cheapest way through all bins is found
exactly, by dynamic programming; the result is the best that can be said when gaps are what they were.

The published policy nearest to this is the hybrid histogram (Shahrad et al., "Serverless in the Wild", USENIX ATC
2020), which takes fixed percentiles of the gaps in place of prices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

PER_OCTAVE = 8  # bins to a doubling: each is 9 % wide, so that a timer's period falls into one or two
FIRST_MS = 1_000.0  # nobody is ended sooner: bin 0 is all that is shorter
LAST_MS = FIRST_MS * 2**17  # 36 hours; what is longer is beyond prediction
BINS = 1 + 17 * PER_OCTAVE
EDGES = (0.0, *(FIRST_MS * 2 ** (number / PER_OCTAVE) for number in range(BINS)))
"""Bin n is [EDGES[n], EDGES[n + 1]) in milliseconds."""

PRIOR = 2.0
"""Observations that ignorance weighs: as many gaps in each octave as in any other. Two, so that a function's own third
gap outweighs it."""
MEMORY = 256.0
"""Observations after which one has lost about two thirds of its weight."""
AT_ONCE = 4 * int(MEMORY)
"""Gaps counted together that count in full; more say no more."""
KERNEL = (1 / 16, 2 / 16, 3 / 16, 4 / 16, 3 / 16, 2 / 16, 1 / 16)
"""An observation's share of its bin and of those around it: the next gap is a little shorter or longer. Narrower, and
what is left empty by chance ends environments; wider, and a timer is waited for too early."""


class Window(Struct, frozen=True):
    """Milliseconds of idle time during which an environment is there."""

    start: float
    end: float


class Prices(Struct, frozen=True, kw_only=True):
    """What is weighed, both in milliseconds of one idle environment."""

    cold_start_ms: float
    """How long an environment may sit idle to save one cold start."""
    launch_ms: float
    """The same for a launch ahead of demand."""


def bin_of(gap_ms: float) -> int:
    """Its number; BINS for what is beyond all bins."""
    if gap_ms < FIRST_MS:
        return 0
    return min(BINS, 1 + int(PER_OCTAVE * math.log2(gap_ms / FIRST_MS)))


class IdleTimes:
    """The gaps that a function has shown."""

    def __init__(self) -> None:
        self._weights = [0.0] * (BINS + 1)
        self._scale = 1.0
        self.seen = 0
        """Gaps, however old."""

    def add(self, gap_ms: float) -> None:
        """A gap that ended: an environment fell idle and was used again after this time."""
        self.add_counted({bin_of(gap_ms): 1})

    def add_counted(self, gaps: Mapping[int, int]) -> None:
        """As many at a time as were counted, by their bins: all of them weigh the same."""
        total = sum(gaps.values())
        self.seen += total
        # The newest weighs most because each weighs more than the one before it.
        self._scale *= (1 + 1 / MEMORY) ** min(total, AT_ONCE)
        if self._scale > 1e12:
            self._weights = [weight / self._scale for weight in self._weights]
            self._scale = 1.0
        each = self._scale * min(total, AT_ONCE) / max(total, 1)
        for number, count in gaps.items():
            if number in (0, BINS):  # neither has neighbours that are as wide
                self._weights[number] += each * count
                continue
            for at, share in enumerate(KERNEL, number - len(KERNEL) // 2):
                self._weights[min(max(at, 0), BINS)] += each * count * share

    def shares(self) -> list[float]:
        """The likelihood of each bin and of what is beyond them; the sum is 1."""
        each = PRIOR / (BINS + 1)
        total = sum(self._weights) / self._scale + PRIOR
        return [(weight / self._scale + each) / total for weight in self._weights]


def windows(shares: Sequence[float], prices: Prices, returns: int = 1) -> tuple[Window, ...]:
    """In which stretches of an idle time an environment should be there; the first begins at 0. It comes back at most
    `returns` times: who counts on a return that nobody makes ends too early.

    `shares` are likelihoods of the bins, BINS of them or the first few, and, last, of what is beyond. An environment
    that falls idle is there; it stays at least through bin 0."""
    bins = len(shares) - 1
    # Stages: there, gone, there again, gone, and so on. What the rest costs from the bin's start on, in each; after the
    # last bin: nothing.
    costs = [0.0] * (2 * (returns + 1))
    goes = [[False] * bins for _ in costs]
    lasts = shares[bins]  # likelihood of a gap that reaches the bin's end
    for number in reversed(range(bins)):
        ends, width = shares[number], EDGES[number + 1] - EDGES[number]
        idle, cold, back = width * (lasts + ends / 2), prices.cold_start_ms * ends, prices.launch_ms * lasts
        # Forward: the next stage's is still that of the bin's end.
        for stage, stays in enumerate(costs):
            if stage + 1 < len(costs) and (on := costs[stage + 1] + back * (stage % 2)) < stays:
                goes[stage][number], stays = True, on
            costs[stage] = stays + (cold if stage % 2 else idle)
        lasts += ends
    found: list[Window] = []
    stage, start = 0, 0.0
    for number in range(bins):
        edge = EDGES[number + 1]
        last = number == bins - 1 and stage % 2 == 0
        if not (goes[stage][number] or last):
            continue
        if stage % 2 == 0:
            found.append(Window(start, edge))
        stage, start = stage + 1, edge
    return tuple(found)


class _Rank:
    """The gaps of one kind, and what follows of them."""

    def __init__(self, prices: Prices, returns: int) -> None:
        self._prices, self._returns = prices, returns
        self._times = IdleTimes()
        self._due = 0
        self._windows: tuple[Window, ...] = ()

    @property
    def seen(self) -> int:
        return self._times.seen

    def observe_counted(self, gaps: Mapping[int, int]) -> None:
        self._times.add_counted(gaps)

    def windows(self) -> tuple[Window, ...]:
        """All there are, reckoned anew when there is an eighth more to know, and every 64 gaps."""
        if self._times.seen >= self._due:
            self._due = self._times.seen + max(1, min(64, self._times.seen // 8))
            self._windows = windows(self._times.shares(), self._prices, self._returns)
        return self._windows


class KeepAlive:
    """One function's: learns from each gap, and says what to do with an environment that falls idle now.

    The environment that falls idle when nothing of the function is at work any more is the *first*: the next invocation
    takes it. The *others* are for invocations that overlap, whose gaps are unlike its own: together they would say of
    either what is true of neither."""

    def __init__(self, prices: Prices) -> None:
        self._first = _Rank(prices, returns=1)
        self._others = _Rank(prices, returns=0)  # a node makes none of them ready again

    @property
    def seen(self) -> int:
        """Gaps, however old."""
        return self._first.seen + self._others.seen

    def observe(self, gap_ms: float, *, first: bool = True) -> None:
        self.observe_counted({bin_of(gap_ms): 1}, first=first)

    def observe_counted(self, gaps: Mapping[int, int], *, first: bool = True) -> None:
        """Those that were counted since the last time, by bins."""
        (self._first if first else self._others).observe_counted(gaps)

    def windows(self) -> tuple[Window, ...]:
        """The first one's."""
        return self._first.windows()

    def others(self) -> Window:
        """Of each of the others."""
        return self._others.windows()[0]


# ---- as a node does it -------------------------------------------------------------------------------------------

ENOUGH = 1
"""Gaps that must be known of a function before its own keep-alive takes the place of the setting's."""
COLD_START_RATIO = 2.4
"""An environment of the usual size may sit idle this many times the setting keep_alive_seconds to save one cold start:
at ten minutes what `bench.simulate` finds as good as the published policy on both axes."""
LAUNCH_RATIO = 0.035
"""The same for a launch ahead of demand."""
USUAL_MB = 170.0
"""The usual memory of a function's environment (median of the Azure trace of 2019); a larger one is worth less idle
time, in proportion, up to SIZES."""
SIZES = (0.25, 4.0)
LONGEST = 6
"""No environment is kept idle for longer than so many times the setting."""
PREWARM_LAST_MS = 36 * 3600 * 1000


class Times(Struct, frozen=True, kw_only=True):
    """What is done with a function's environments, in milliseconds."""

    keep: int | None = None
    """How long an idle one is kept that is used next; None, also of the others: as the setting says."""
    keep_others: int = 0
    """How long each of the others is."""
    prewarm: int = 0
    """After so long without any invocation one is made ready..."""
    prewarm_end: int = 0
    """...until then; 0: none is."""


def prices(setting_ms: float, memory_mb: float) -> Prices:
    """Of a function whose environments take so much memory; `setting_ms`: keep_alive_seconds."""
    least, most = SIZES
    usual = setting_ms / min(max(memory_mb / USUAL_MB, least), most)
    return Prices(cold_start_ms=usual * COLD_START_RATIO, launch_ms=usual * LAUNCH_RATIO)


def times(function: KeepAlive, setting_ms: float) -> Times:
    """Of the first one both windows: a node waits for one return, not for several. As long as nothing is known of the
    others, ignorance says how long they are kept: that is shorter than the setting."""
    if function.seen < ENOUGH:
        return Times()
    windows, longest = function.windows(), setting_ms * LONGEST
    keep, others = int(min(windows[0].end, longest)), int(min(function.others().end, longest))
    if len(windows) > 1 and windows[1].end <= PREWARM_LAST_MS:
        return Times(keep=keep, keep_others=others, prewarm=int(windows[1].start), prewarm_end=int(windows[1].end))
    return Times(keep=keep, keep_others=others)
