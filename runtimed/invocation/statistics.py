"""What the node and its functions did: differences between two looks at the dispatcher's counters page.

A look copies the counters out of shared memory, in a thread; the dispatcher is not asked. Counters belong to targets:
what a function shows is the sum of its targets. A target that is new since the last look counts from zero, one that was
retired is left out, and after a restart of the dispatcher everything counts from zero.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtimed.dispatch.control import Dispatcher
from runtimed.dispatch.counters import CounterPage, Slot, buckets, quantile
from runtimed.model import wire
from runtimed.model.node import (
    EnvironmentCounts,
    FunctionStatistics,
    GetStatisticsRequest,
    HostStatus,
    InvocationCounts,
    ProcessStatus,
    Statistics,
    StatisticsOrder,
    WatchStatisticsRequest,
)
from runtimed.sandbox.runtimes import Runtimes
from runtimed.store.functions import FunctionStore, Label
from runtimed.telemetry.host import cpu_seconds, host_status, own_processes

FIRST_SECONDS = 0.5
"""The first interval of a watch: who looks wants to see something soon."""
LABELS_SECONDS = 5.0
"""How long names and memory sizes are kept; a function that is not among them makes them be read again."""

NONE: Mapping[str, int] = {}


class Look(Struct, frozen=True, kw_only=True):
    """The counters at one moment."""

    time: datetime
    """For people."""
    at: float = 0.0
    """The same in seconds of the monotonic clock, for differences: the other one may be set meanwhile."""
    cpu: tuple[float, float]
    started_us: int = 0
    """Since when the dispatcher counts, since the epoch; 0: there is none."""
    node: Mapping[str, int] = NONE
    latencies: bytes = b""
    slots: Mapping[int, Slot] = {}


class Counted(Struct, frozen=True):
    """The node's counts."""

    environments: EnvironmentCounts
    invocations: InvocationCounts


class StatisticsReader:
    """Reads only."""

    def __init__(self, *, state: Path, functions: FunctionStore, dispatcher: Dispatcher, runtimes: Runtimes) -> None:
        self._state = state
        self._functions = functions
        self._dispatcher = dispatcher
        self._runtimes = runtimes
        self._labels: dict[bytes, Label] = {}
        self._labels_until = 0.0

    async def get(self, request: GetStatisticsRequest) -> Statistics:
        after = await asyncio.to_thread(look, self._dispatcher.counters)
        started = datetime.fromtimestamp(after.started_us / 1e6, UTC) if after.started_us else after.time
        ran = max(0.0, (after.time - started).total_seconds())
        before = Look(time=started, at=after.at - ran, cpu=after.cpu)
        return await self._between(before, after, request)

    async def watch(self, request: WatchStatisticsRequest) -> AsyncGenerator[Statistics, None]:
        loop = asyncio.get_running_loop()
        wanted = GetStatisticsRequest(
            function_name=request.function_name, order=request.order, max_items=request.max_items
        )
        interval = request.interval_ms / 1000
        before = await asyncio.to_thread(look, self._dispatcher.counters)
        due = loop.time() + min(interval, FIRST_SECONDS)
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + interval, loop.time())  # late ones are left out, not made up for
            after = await asyncio.to_thread(look, self._dispatcher.counters)
            yield await self._between(before, after, wanted)
            before = after

    async def _between(self, before: Look, after: Look, request: GetStatisticsRequest) -> Statistics:
        host, processes = await asyncio.to_thread(self._machine)
        labels = await self._names(after)
        demands = dict(self._dispatcher.demands.items())
        rows, total = await asyncio.to_thread(rank, before, after, demands, labels, request)
        busy, whole = (now - then for now, then in zip(after.cpu, before.cpu, strict=True))
        if whole > 0:
            host = _with_cpu(host, 100 * busy / whole)
        counts = counted(self._dispatcher, before, after)
        return Statistics(
            time=after.time,
            interval_ms=interval_ms(before, after),
            ready=self._dispatcher.ready,
            host=host,
            processes=processes,
            environments=counts.environments,
            invocations=counts.invocations,
            functions=rows,
            functions_total=total,
        )

    def _machine(self) -> tuple[HostStatus, list[ProcessStatus]]:
        return host_status(self._state), own_processes(self._runtimes.zygotes())

    async def _names(self, after: Look) -> Mapping[bytes, Label]:
        now = asyncio.get_running_loop().time()
        if now > self._labels_until or any(slot.function_uid not in self._labels for slot in after.slots.values()):
            self._labels = {label.uid: label for label in await self._functions.labels()}
            self._labels_until = now + LABELS_SECONDS
        return self._labels


def interval_ms(before: Look, after: Look) -> int:
    """By the clock that nobody sets."""
    return int((after.at - before.at) * 1000)


def look(page: CounterPage | None) -> Look:
    """At the page now; an empty look when there is none, or when it goes away meanwhile."""
    now, at, cpu = datetime.now(UTC), time.monotonic(), cpu_seconds()
    if page is None:
        return Look(time=now, at=at, cpu=cpu)
    try:
        return Look(
            time=now,
            at=at,
            cpu=cpu,
            started_us=page.started_us,
            node=page.node(),
            latencies=page.histogram("call_us"),
            slots={slot.target: slot for slot in page.targets()},
        )
    except ValueError:  # closed: the dispatcher has gone
        return Look(time=now, at=at, cpu=cpu)


def counted(dispatcher: Dispatcher, before: Look | None = None, after: Look | None = None) -> Counted:
    """The node's own, since the dispatcher's start or since `before`."""
    census = dispatcher.census()
    if after is None:
        page = dispatcher.counters
        now, latencies = (page.node(), page.histogram("call_us")) if page is not None else (NONE, b"")
    else:
        now, latencies = after.node, after.latencies
    then = before if before is not None and after is not None and before.started_us == after.started_us else None
    since = then.node if then else NONE

    def grown(*names: str) -> int:
        return sum(now.get(name, 0) - since.get(name, 0) for name in names)

    spread = _difference(latencies, then.latencies if then else b"")
    return Counted(
        EnvironmentCounts(
            starting=census.starting,
            idle=census.idle,
            busy=census.busy,
            frozen=now.get("environments_frozen", 0),
            parked=now.get("environments_parked", 0),
            provisioned=now.get("environments_provisioned", 0),
            provisioned_in_use=now.get("provisioned_in_use", 0),
        ),
        InvocationCounts(
            total=grown("invocations"),
            function_errors=grown("answers_function_error"),
            throttles=grown("throttled_account", "throttled_function", "throttled_target"),
            cold_starts=grown("cold_starts"),
            in_flight=now.get("invocations_in_flight", 0),
            waiting=now.get("waiting", census.waiting),
            latency_p50_us=quantile(spread, 500),
            latency_p99_us=quantile(spread, 990),
        ),
    )


def rank(
    before: Look,
    after: Look,
    demands: Mapping[int, wire.Demand],
    labels: Mapping[bytes, Label],
    request: GetStatisticsRequest,
) -> tuple[list[FunctionStatistics], int]:
    """The functions asked for, the first of the order, and how many there were."""
    since = before.slots if before.started_us == after.started_us else {}
    slots: dict[bytes, list[Slot]] = {}
    for slot in after.slots.values():
        label = labels.get(slot.function_uid)
        if label is not None and request.function_name in ("", label.name):
            slots.setdefault(slot.function_uid, []).append(slot)
    rows = [_row(labels[uid], its, since, demands) for uid, its in slots.items()]
    key = KEYS[request.order]
    first = heapq.nsmallest(request.max_items, rows, key=lambda row: (key(row), row.function_name))
    return first, len(rows)


KEYS = {
    StatisticsOrder.INVOCATIONS: lambda row: -row.invocations,
    StatisticsOrder.ERRORS: lambda row: -row.errors,
    StatisticsOrder.THROTTLES: lambda row: -row.throttles,
    StatisticsOrder.COLD_STARTS: lambda row: -row.cold_starts,
    StatisticsOrder.IN_FLIGHT: lambda row: -row.in_flight,
    StatisticsOrder.WAITING: lambda row: -row.waiting,
    StatisticsOrder.ENVIRONMENTS: lambda row: (
        -(row.environments.starting + row.environments.idle + row.environments.busy)
    ),
    StatisticsOrder.DURATION_P50: lambda row: -row.duration_p50_us,
    StatisticsOrder.DURATION_P99: lambda row: -row.duration_p99_us,
    StatisticsOrder.MEMORY: lambda row: -row.memory_peak_bytes,
    StatisticsOrder.NAME: lambda row: 0,
}


def _row(
    label: Label, slots: list[Slot], since: Mapping[int, Slot], demands: Mapping[int, wire.Demand]
) -> FunctionStatistics:
    """One function, from its targets."""
    grown = dict.fromkeys(slots[0].counts, 0)
    durations: list[int] = []
    for slot in slots:
        earlier = since.get(slot.target)
        if earlier is not None and earlier.counts == slot.counts:
            continue
        for name, count in slot.counts.items():
            grown[name] += count - (earlier.counts[name] if earlier else 0)
        spread = _difference(slot.durations, earlier.durations if earlier else b"")
        durations = [a + b for a, b in zip(durations, spread, strict=True)] if durations else spread
    told = [demands[slot.target] for slot in slots if slot.target in demands]
    return FunctionStatistics(
        function_name=label.name,
        invocations=grown["calls"],
        errors=grown["function_errors"] + grown["failures"],
        timeouts=grown["timeouts"],
        throttles=grown["throttles"],
        cold_starts=grown["cold_starts"],
        in_flight=sum(demand.busy for demand in told),
        waiting=sum(demand.waiting for demand in told),
        environments=EnvironmentCounts(
            starting=sum(demand.starting for demand in told),
            idle=sum(demand.idle for demand in told),
            busy=sum(demand.busy for demand in told),
            frozen=sum(slot.counts["environments_frozen"] for slot in slots),
            parked=sum(slot.counts["environments_parked"] for slot in slots),
            provisioned=sum(demand.provisioned for demand in told),
            provisioned_in_use=sum(slot.counts["provisioned_in_use"] for slot in slots),
        ),
        duration_p50_us=quantile(durations, 500),
        duration_p99_us=quantile(durations, 990),
        memory_size=label.memory_mb,
        memory_peak_bytes=max(slot.counts["peak_kb"] for slot in slots) * 1024,
        request_bytes=grown["request_bytes"],
        response_bytes=grown["response_bytes"],
        billed_ms=grown["billed_ms"],
        log_bytes=grown["log_bytes"],
    )


def _difference(now: bytes, then: bytes) -> list[int]:
    """Of two histograms; the earlier one may be empty."""
    counts = buckets(now)
    return [a - b for a, b in zip(counts, buckets(then), strict=True)] if then else list(counts)


def _with_cpu(host: HostStatus, percent: float) -> HostStatus:
    return replace(host, cpu_percent=round(min(100.0, max(0.0, percent)), 1))
