"""What `runtimectl top` shows, as lines of text: pure, for a terminal of any size.

Counts are shown by the second. On a narrow terminal the columns of least interest are left out, then names are cut.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from runtimed.cli import output
from runtimed.model.node import StatisticsOrder

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtimed.model.node import EnvironmentCounts, FunctionStatistics, ProcessStatus, Statistics

NAME_NARROWEST = 12
"""Columns that names keep before another column is left out."""

ORDERS = {
    "invocations": StatisticsOrder.INVOCATIONS,
    "errors": StatisticsOrder.ERRORS,
    "throttles": StatisticsOrder.THROTTLES,
    "cold": StatisticsOrder.COLD_STARTS,
    "running": StatisticsOrder.IN_FLIGHT,
    "waiting": StatisticsOrder.WAITING,
    "environments": StatisticsOrder.ENVIRONMENTS,
    "p50": StatisticsOrder.DURATION_P50,
    "p99": StatisticsOrder.DURATION_P99,
    "memory": StatisticsOrder.MEMORY,
    "name": StatisticsOrder.NAME,
}
"""By the word for --sort."""
KEYS = {
    "i": "invocations",
    "e": "errors",
    "t": "throttles",
    "c": "cold",
    "r": "running",
    "w": "waiting",
    "v": "environments",
    "5": "p50",
    "9": "p99",
    "m": "memory",
    "n": "name",
}
"""By the key that is typed."""


class Column(NamedTuple):
    heading: str
    orders: str
    """The word for --sort that orders by it."""
    interest: int
    """The least interesting ones go first where there is no room."""
    text: Callable[[FunctionStatistics, float], str]


def _rate(count: int, seconds: float) -> str:
    value = count / seconds if seconds else 0.0
    return "0" if not count else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _provisioned(there: EnvironmentCounts) -> str:
    """Those in use, and all."""
    return f"{there.provisioned_in_use}/{there.provisioned}" if there.provisioned else "0"


COLUMNS = (
    Column("INV/s", "invocations", 99, lambda row, s: _rate(row.invocations, s)),
    Column("RUN", "running", 90, lambda row, s: str(row.in_flight)),
    Column("WAIT", "waiting", 70, lambda row, s: str(row.waiting)),
    Column("ERR/s", "errors", 95, lambda row, s: _rate(row.errors, s)),
    Column("THR/s", "throttles", 60, lambda row, s: _rate(row.throttles, s)),
    Column("COLD/s", "cold", 65, lambda row, s: _rate(row.cold_starts, s)),
    Column("BUSY", "", 20, lambda row, s: str(row.environments.busy)),
    Column("IDLE", "environments", 55, lambda row, s: str(row.environments.idle)),
    Column("START", "", 30, lambda row, s: str(row.environments.starting)),
    Column("FROZEN", "", 25, lambda row, s: str(row.environments.frozen)),
    Column("PARKED", "", 22, lambda row, s: str(row.environments.parked)),
    Column("PROV", "", 24, lambda row, s: _provisioned(row.environments)),
    Column("P50", "p50", 80, lambda row, s: output.milliseconds(row.duration_p50_us)),
    Column("P99", "p99", 85, lambda row, s: output.milliseconds(row.duration_p99_us)),
    Column("MEMORY", "memory", 50, lambda row, s: f"{row.memory_peak_bytes / (1 << 20):.0f}/{row.memory_size} MB"),
)


def screen(told: Statistics, before: Statistics | None, sort: str, width: int, height: int) -> list[str]:
    """All lines of a screen of this size. The table's heading is the second line after the header's."""
    head = header(told, before)
    room = height - len(head) - 3
    body = rows(told, width, sort)
    lines = [*head, "", *body[: max(1, room + 1)]]
    lines = [output.cut(line, width) for line in lines][: max(1, height - 1)]
    hidden = told.functions_total - max(0, min(len(body) - 1, room))
    keys = f"q quit  sort: {' '.join(f'{key} {word}' for key, word in KEYS.items())}"
    more = f"{hidden} more functions  " if hidden > 0 else ""
    return [*lines, *[""] * (height - 1 - len(lines)), output.cut(more + keys, width)]


def header(told: Statistics, before: Statistics | None) -> list[str]:
    """The node: machine, invocations, environments, processes. `before`: the former interval, for CPU by process."""
    seconds = told.interval_ms / 1000
    host, calls, there = told.host, told.invocations, told.environments
    used = host.memory_total_bytes - host.memory_available_bytes
    state = "" if told.ready else "  NOT READY: the data plane is not connected"
    machine = [
        f"CPU {host.cpu_percent:.0f} % of {host.cpus}",
        f"memory {output.size(used)} of {output.size(host.memory_total_bytes)}",
        f"disk {output.size(host.disk_free_bytes)} free",
    ]
    did = [
        f"invocations {_rate(calls.total, seconds)}/s",
        f"running {calls.in_flight}",
        f"waiting {calls.waiting}",
        f"errors {_rate(calls.function_errors, seconds)}/s",
        f"throttles {_rate(calls.throttles, seconds)}/s",
        f"cold {_rate(calls.cold_starts, seconds)}/s",
        f"p50 {output.milliseconds(calls.latency_p50_us)}",
        f"p99 {output.milliseconds(calls.latency_p99_us)}",
    ]
    return [
        f"runtimed  {told.time.astimezone():%H:%M:%S}  over {seconds:.1f} s{state}",
        "   ".join(machine),
        "   ".join(did),
        f"environments {output.environments(there)}",
        *_processes(told, before),
    ]


def _processes(told: Statistics, before: Statistics | None) -> list[str]:
    """A line each, zygotes together."""
    earlier = {process.pid: process for process in before.processes} if before else {}
    own = [process for process in told.processes if not process.name.startswith("zygote ")]
    zygotes = [process for process in told.processes if process.name.startswith("zygote ")]
    lines = [_process(process.name, [process], told, earlier) for process in own]
    return lines + (
        [_process(f"{len(zygotes)} zygote{'s' if len(zygotes) > 1 else ''}", zygotes, told, earlier)] if zygotes else []
    )


def _process(name: str, processes: list[ProcessStatus], told: Statistics, earlier: dict[int, ProcessStatus]) -> str:
    memory = sum(process.memory_bytes for process in processes)
    spent = sum(p.cpu_ms - earlier[p.pid].cpu_ms for p in processes if p.pid in earlier)
    cpu = f"{100 * spent / told.interval_ms:.0f} %" if earlier and told.interval_ms else "-"
    started = [process.started_at for process in processes if isinstance(process.started_at, datetime)]
    up = output.span((told.time - min(started)).total_seconds()) if started else "-"
    pid = f"pid {processes[0].pid}" if len(processes) == 1 else ""
    return f"  {name:<18} {pid:<12} up {up:<14} CPU {cpu:<6} {output.size(memory):>9}".rstrip()


def rows(told: Statistics, width: int | None, sort: str = "") -> list[str]:
    """The table: its heading, then a line for each function. `width` None: as wide as it gets."""
    seconds = told.interval_ms / 1000
    cells = {
        column: [column.heading + ("*" if sort and column.orders == sort else "")]
        + [column.text(row, seconds) for row in told.functions]
        for column in COLUMNS
    }
    names = ["NAME" + ("*" if sort == "name" else ""), *(output.clean(row.function_name) for row in told.functions)]
    longest, shown = max(map(len, names)), list(COLUMNS)
    if width is not None:
        sizes = {column: 2 + max(map(len, texts)) for column, texts in cells.items()}
        while shown and sum(sizes[column] for column in shown) + min(longest, NAME_NARROWEST) > width:
            shown.remove(min(shown, key=lambda column: column.interest))
        longest = max(1, min(longest, width - sum(sizes[column] for column in shown)))
    lines = []
    for index, name in enumerate(names):
        parts = [output.cut(name, longest).ljust(longest)]
        parts += [cells[column][index].rjust(max(map(len, cells[column]))) for column in shown]
        lines.append("  ".join(parts).rstrip())
    return lines
