"""What /metrics says: the node and its processes, and each function, from the dispatcher's counters page.

Read in a thread of the metrics listener; the loop is only asked for names and levels, the dispatcher for nothing.
Counters start at zero with the node and, a function's, with its deployment: Prometheus takes that for a restart. They
go on where they stood when the dispatcher is replaced, or dies; `counting_since_seconds` is when they were zero.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from runtimed.dispatch.counters import HISTOGRAMS, NODE, CounterPage, Slot, bucket_floor, buckets
from runtimed.dispatch.kept_slots import SlotReader
from runtimed.machines.pressure import Bound, Look
from runtimed.model import wire
from runtimed.model.runtime import SpareCounts
from runtimed.telemetry import exposition
from runtimed.telemetry.exposition import PREFIX, Bounds, family, label
from runtimed.telemetry.host import open_descriptors, own_processes

if TYPE_CHECKING:
    from runtimed.dispatch.control import Dispatcher
    from runtimed.invocation.pressure import PressureKeeper
    from runtimed.model.node import ProcessStatus
    from runtimed.sandbox.runtimes import Runtimes
    from runtimed.store.functions import FunctionStore

ANSWER_SECONDS = 10.0
"""How long the loop may take to say names and levels."""
FINE = 240  # buckets of the dispatcher's histograms (counters.h)
MIDDLES = [(bucket_floor(number) + bucket_floor(number + 1)) / 2 for number in range(FINE)]
SHORT = Bounds((0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1), MIDDLES)
DURATIONS = Bounds((0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 300), MIDDLES)
WAITS = Bounds((0.001, 0.01, 0.1, 1), ())
WAIT_COUNTERS = ("waits_1ms", "waits_10ms", "waits_100ms", "waits_1s", "waits_longer")
"""A slot's counters between the bounds of WAITS."""
INITS = Bounds((0.01, 0.1, 0.5, 1, 5, 10), MIDDLES)

LEVELS = frozenset(
    "calls_open invocations_in_flight waiting environments environments_idle environments_frozen payload_bytes "
    "connections arenas events_waiting events_full events_damaged_files environments_parked environments_provisioned "
    "provisioned_in_use".split()
)
"""Of the node's counters those that go down too."""
COUNTS: tuple[tuple[str, tuple[str, ...], float, str], ...] = (
    ("invocations_total", ("calls",), 1, "Invocations answered or refused, throttled ones included"),
    ("errors_total", ("function_errors", "failures"), 1, "Invocations that ended with an error of any kind"),
    ("throttles_total", ("throttles",), 1, "Invocations refused for a limit"),
    ("timeouts_total", ("timeouts",), 1, "Invocations over the function's timeout"),
    ("cold_starts_total", ("cold_starts",), 1, "First invocations of an environment"),
    ("provisioned_concurrency_invocations_total", ("provisioned",), 1, "Invocations by provisioned concurrency"),
    ("provisioned_concurrency_spillover_invocations_total", ("spillover",), 1, "Invocations beyond it"),
    ("queued_total", ("waited",), 1, "Invocations that waited for an environment"),
    ("billed_seconds_total", ("billed_ms",), 0.001, "Billed duration"),
    ("log_bytes_total", ("log_bytes",), 1, "Bytes of log lines"),
)
"""A function's counters: name, whose sum it is, factor, meaning."""


SLOT_LEVELS = (
    ("environments_parked", "environments_parked", "Idle environments made ahead of demand that have served nobody"),
    ("provisioned_concurrent_executions", "provisioned_in_use", "Provisioned environments that are at work"),
)
UTILIZATION = "Of the provisioned environments those that are at work, from 0 to 1"


class Levels(Struct, frozen=True, kw_only=True):
    """What the loop knows."""

    ready: bool
    page: CounterPage | None
    names: Mapping[bytes, str]
    demands: Mapping[int, wire.Demand]
    zygotes: list[tuple[str, int]]
    spares: list[tuple[str, SpareCounts]] = []
    queues: list[wire.QueueState] = []
    bound: Bound | None = None
    memory: Look | None = None


class Row(Struct):
    """One function, over its targets."""

    labels: str
    slots: list[Slot]
    calls: int


class MetricsReader:
    """`render` may be called from any thread but the loop's."""

    def __init__(
        self,
        *,
        build: str,
        functions: FunctionStore,
        dispatcher: Dispatcher,
        runtimes: Runtimes,
        most: int,
        pressure: PressureKeeper | None = None,
    ) -> None:
        """`most`: functions with series of their own, the setting metrics.functions."""
        self._build = build
        self._functions = functions
        self._dispatcher = dispatcher
        self._runtimes = runtimes
        self._most = most
        self._pressure = pressure
        self._slots = SlotReader()
        self._blocks = Blocks(self._slots.whole)
        self._loop = asyncio.get_running_loop()

    def render(self) -> bytes:
        """TimeoutError when the loop does not answer."""
        asked = asyncio.run_coroutine_threadsafe(self._levels(), self._loop)
        try:
            levels = asked.result(ANSWER_SECONDS)
        except TimeoutError:
            asked.cancel()
            raise
        slots: list[Slot] = []
        node: Mapping[str, int] = {}
        histograms: dict[str, bytes] = {}
        if levels.page is not None:
            try:
                node = levels.page.node()
                histograms = {name: levels.page.histogram(name) for name in HISTOGRAMS}
                slots = self._slots.read(levels.page)
            except ValueError:  # closed: the dispatcher has gone
                slots, node, histograms = [], {}, {}
        rows, left_out = choose(slots, levels.names, self._most)
        own = own_processes(levels.zygotes)
        head = generate_latest(_Families([*self._of_node(levels, node, left_out), *_of_processes(own)]))
        body = [
            *_node_histograms(histograms),
            *self._blocks.families(rows, levels.demands),
            *of_queues(levels),
        ]
        return head + "".join(body).encode()

    async def _levels(self) -> Levels:
        return Levels(
            ready=self._dispatcher.ready,
            page=self._dispatcher.counters,
            names=await self._functions.names(),
            demands=dict(self._dispatcher.demands.items()),
            zygotes=self._runtimes.zygotes(),
            spares=self._runtimes.spares(),
            queues=self._dispatcher.queues.values(),
            bound=None if self._pressure is None else self._pressure.bound,
            memory=None if self._pressure is None else self._pressure.seen,
        )

    def _of_node(self, levels: Levels, node: Mapping[str, int], left_out: int) -> Iterator[Metric]:
        info = GaugeMetricFamily(f"{PREFIX}build_info", "Which build this is; always 1", labels=["build"])
        info.add_metric([self._build], 1)
        yield info
        yield GaugeMetricFamily(f"{PREFIX}ready", "1: the dispatcher is connected and serves", value=int(levels.ready))
        yield GaugeMetricFamily(f"{PREFIX}functions", "Functions that exist", value=len(levels.names))
        yield GaugeMetricFamily(
            f"{PREFIX}functions_without_series",
            "Functions beyond metrics.functions: those invoked least have no series",
            value=left_out,
        )
        if node and levels.page is not None:
            yield GaugeMetricFamily(
                f"{PREFIX}counting_since_seconds",
                "When the dispatcher's counters were zero, since the epoch",
                value=levels.page.started_us / 1e6,
            )
        yield from _of_memory(levels)
        yield from _of_spares(levels)
        for name in NODE if node else ():
            told = f"{PREFIX}node_{name}"
            if name in LEVELS:
                yield GaugeMetricFamily(told, f"The dispatcher's level {name}", value=node[name])
            else:
                yield CounterMetricFamily(told, f"The dispatcher's counter {name}", value=node[name])


class _Families(list[Metric]):
    """What generate_latest takes for a registry."""

    def collect(self) -> Iterable[Metric]:
        return self


def _of_memory(levels: Levels) -> Iterator[Metric]:
    """As far as it was looked at."""
    if levels.bound is None or levels.memory is None:
        return
    yield GaugeMetricFamily(
        f"{PREFIX}memory_pressure", "0: memory is not short; 1: some; 2: full", value=int(levels.bound.level)
    )
    yield GaugeMetricFamily(
        f"{PREFIX}memory_available_ratio",
        "Of the memory of the machine, or of the control group that has least left",
        value=levels.memory.available,
    )
    yield GaugeMetricFamily(
        f"{PREFIX}environments_idle_limit",
        "Environments that may be idle for want of memory, provisioned ones apart; -1: any number",
        value=-1 if levels.bound.idle is None else levels.bound.idle,
    )


def _of_spares(levels: Levels) -> Iterator[Metric]:
    names = ["runtime"]
    ready = GaugeMetricFamily(f"{PREFIX}spares", "Sandboxes that wait for a function's code", labels=names)
    made = CounterMetricFamily(f"{PREFIX}spares_made_total", "Such sandboxes that were made", labels=names)
    taken = CounterMetricFamily(f"{PREFIX}spares_taken_total", "Of these that became environments", labels=names)
    failed = CounterMetricFamily(
        f"{PREFIX}spares_failed_total", "That could not be made, or ended before anybody took them", labels=names
    )
    for name, counts in levels.spares:
        ready.add_metric([name], counts.ready)
        made.add_metric([name], counts.made)
        taken.add_metric([name], counts.taken)
        failed.add_metric([name], counts.failed)
    yield from (ready, made, taken, failed)


def _of_processes(processes: list[ProcessStatus]) -> Iterator[Metric]:
    names = ["process", "pid"]
    memory = GaugeMetricFamily(f"{PREFIX}process_memory_bytes", "Proportional or resident memory", labels=names)
    cpu = CounterMetricFamily(f"{PREFIX}process_cpu_seconds", "CPU time of all threads", labels=names)
    files = GaugeMetricFamily(f"{PREFIX}process_open_fds", "Open file descriptors", labels=names)
    started = GaugeMetricFamily(f"{PREFIX}process_start_time_seconds", "Start, since the epoch", labels=names)
    for process in processes:
        labels = [process.name, str(process.pid)]
        memory.add_metric(labels, process.memory_bytes)
        cpu.add_metric(labels, process.cpu_ms / 1000)
        if process.started_at:
            started.add_metric(labels, process.started_at.timestamp())
        count = open_descriptors(process.pid)
        if count is not None:
            files.add_metric(labels, count)
    yield from (memory, cpu, files, started)


def _node_histograms(histograms: Mapping[str, bytes]) -> Iterator[str]:
    meanings = {
        "call_us": "From a call to its answer",
        "overhead_us": "The same without environment and queue",
        "wait_us": "In the waiting queue, of those that waited",
        "launch_us": "Launches of environments",
        "init_us": "Init phases",
        "duration_us": "Invocations in their environments",
    }
    for name, data in histograms.items():
        bounds = DURATIONS if name in ("init_us", "duration_us") else SHORT
        series = f"node_{name.removesuffix('_us')}_seconds"
        written = exposition.series(series, bounds)("", *bounds.spread(buckets(data)))
        yield exposition.histogram(series, meanings[name], [written])


def choose(slots: Sequence[Slot], names: Mapping[bytes, str], most: int) -> tuple[list[Row], int]:
    """The functions invoked most, by name, and how many have no place among them."""
    found: dict[bytes, Row] = {}
    for slot in slots:
        name = names.get(slot.function_uid)
        if name is None:
            continue
        row = found.get(slot.function_uid)
        if row is None:
            row = found[slot.function_uid] = Row(label("function", name), [], 0)
        row.slots.append(slot)
        row.calls += slot.counts["calls"]
    rows = list(found.values())
    if len(rows) > most:
        rows = heapq.nlargest(most, rows, key=lambda row: (row.calls, row.labels))
    rows.sort(key=lambda row: row.labels)
    return rows, len(found) - len(rows)


def of_queues(levels: Levels) -> Iterator[str]:
    """Of the functions that ever had an event since the dispatcher started."""
    known = {levels.names.get(bytes(queue.function_uid)): queue for queue in levels.queues}
    now_ms = time.time() * 1000
    told = [
        (
            label("function", name),
            known[name].depth,
            known[name].dead,
            max(0.0, now_ms - known[name].oldest_ms) / 1000 if known[name].oldest_ms else 0.0,
        )
        for name in sorted(filter(None, known))
    ]
    yield family("function_events_waiting", "gauge", "Events in its queue", [(row[0], row[1]) for row in told])
    yield family("function_events_dead", "gauge", "Events that were given up", [(row[0], row[2]) for row in told])
    meaning = "For how long the oldest of them has waited"
    yield family("function_events_oldest_seconds", "gauge", meaning, [(row[0], row[3]) for row in told])


LEVELS_OF_FUNCTIONS: tuple[tuple[str, str, Callable[[wire.Demand], int]], ...] = (
    ("concurrent_executions", "Invocations running", lambda demand: demand.busy),
    ("queued", "Invocations waiting for an environment", lambda demand: demand.waiting),
    ("environments", "Environments, idle ones included", lambda demand: demand.busy + demand.idle + demand.starting),
    ("environments_idle", "Environments that are idle", lambda demand: demand.idle),
    (
        "provisioned_concurrency_available",
        "Provisioned environments that are through their init phase",
        lambda demand: demand.provisioned,
    ),
)

Key = tuple[list[int], list[wire.Demand]]


class Blocks:
    """What is said of functions: a line or a few in each of some families. Most functions are not called between two
    scrapes: what was written of them is kept until a revision of their slots or a level changes."""

    def __init__(self, whole: Callable[[Slot], Slot]) -> None:
        """`whole`: reads the histograms of a slot that comes without them."""
        self._whole = whole
        self._kept: dict[str, tuple[Key, list[str]]] = {}

    def families(self, rows: Sequence[Row], demands: Mapping[int, wire.Demand]) -> Iterator[str]:
        """What is 0 is there too, but for histograms of functions that never ran."""
        kept, now = self._kept, {}
        for row in rows:
            its = [demands[slot.target] for slot in row.slots if slot.target in demands]
            key = [slot.revision for slot in row.slots], its
            before = kept.get(row.labels)
            if before is None or before[0] != key or 0 in key[0]:
                before = key, self._write(row, its)
            now[row.labels] = before
        self._kept = now
        blocks = [block for _, block in now.values()]
        for number, (name, kind, meaning) in enumerate(FAMILIES):
            text = "".join([block[number] for block in blocks])
            yield exposition.head(name, kind, meaning) + text if text else ""

    def _write(self, row: Row, demands: list[wire.Demand]) -> list[str]:
        row.slots = [slot if slot.whole else self._whole(slot) for slot in row.slots]
        values: list[float] = []
        for _, summed, factor, _ in COUNTS:
            value = sum([slot.counts[one] for slot in row.slots for one in summed])
            values.append(value if factor == 1 else factor * value)
        values += [sum(map(of, demands)) for _, _, of in LEVELS_OF_FUNCTIONS]
        values += [sum([slot.counts[counter] for slot in row.slots]) for _, counter, _ in SLOT_LEVELS]
        values.append(_utilization(row, demands))
        values.append(1024 * max(slot.counts["peak_kb"] for slot in row.slots))
        lines = [
            f"{PREFIX}{family[0]}{{{row.labels}}} {value}\n" for family, value in zip(FAMILIES, values, strict=False)
        ]
        return lines + [write(row) for _, _, write in HISTOGRAMS_OF_FUNCTIONS]


def _utilization(row: Row, demands: Sequence[wire.Demand]) -> float:
    there = sum([demand.provisioned for demand in demands])
    busy = sum([slot.counts["provisioned_in_use"] for slot in row.slots])
    return min(1.0, busy / there) if there else 0.0


def _durations(row: Row) -> str:
    counts = spread(DURATIONS, [slot.durations for slot in row.slots])
    return WRITE_DURATIONS(row.labels, *counts) if row.calls else ""


def _inits(row: Row) -> str:
    return WRITE_INITS(row.labels, *spread(INITS, [slot.inits for slot in row.slots])) if row.calls else ""


def _waits(row: Row) -> str:
    """Nothing when none of its invocations ever waited."""
    counts = [sum([slot.counts[name] for slot in row.slots]) for name in WAIT_COUNTERS]
    total = sum([slot.counts["wait_us"] for slot in row.slots])
    return WRITE_WAITS(row.labels, list(accumulate(counts)), total / 1e6) if any(counts) else ""


WRITE_DURATIONS = exposition.series("function_duration_seconds", DURATIONS)
WRITE_INITS = exposition.series("function_init_duration_seconds", INITS)
WRITE_WAITS = exposition.series("function_queue_wait_seconds", WAITS)
WAITED = "In the waiting queue, of those that an environment took from it"
HISTOGRAMS_OF_FUNCTIONS: tuple[tuple[str, str, Callable[[Row], str]], ...] = (
    ("function_duration_seconds", "Invocations in their environment", _durations),
    ("function_init_duration_seconds", "Init phases", _inits),
    ("function_queue_wait_seconds", WAITED, _waits),
)


FAMILIES: tuple[tuple[str, str, str], ...] = (
    *((f"function_{name}", "counter", meaning) for name, _, _, meaning in COUNTS),
    *((f"function_{name}", "gauge", meaning) for name, meaning, _ in LEVELS_OF_FUNCTIONS),
    *((f"function_{name}", "gauge", meaning) for name, _, meaning in SLOT_LEVELS),
    ("function_provisioned_concurrency_utilization", "gauge", UTILIZATION),
    ("function_memory_peak_bytes", "gauge", "The highest memory that an environment had"),
    *((name, "histogram", meaning) for name, meaning, _ in HISTOGRAMS_OF_FUNCTIONS),
)
"""Of functions, in the order in which a block has them: name, kind, meaning."""


def spread(bounds: Bounds, data: Sequence[bytes]) -> tuple[list[int], float]:
    """Of several histograms together. Most of a histogram is empty, so what is around its values is not looked at."""
    found = []
    for one in data:
        last = -(-len(one.rstrip(b"\0")) // 8)
        first = (len(one) - len(one.lstrip(b"\0"))) // 8
        if last:
            found.append(bounds.spread(buckets(one[first * 8 : last * 8]), first))
    if len(found) == 1:
        return found[0]
    sums = [sum(counts) for counts in zip(*(cumulative for cumulative, _ in found), strict=True)]
    return sums or [0] * len(bounds.texts), sum(total for _, total in found)
