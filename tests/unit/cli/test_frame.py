"""What `runtimectl top` shows, for terminals of many sizes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from runtimed.cli import frame, output, top
from runtimed.model.node import (
    EnvironmentCounts,
    FunctionStatistics,
    HostStatus,
    InvocationCounts,
    ProcessStatus,
    Statistics,
    StatisticsOrder,
)

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
STARTED = NOW - timedelta(hours=3)


def statistics(functions: int = 3, **changes: object) -> Statistics:
    made = Statistics(
        time=NOW,
        interval_ms=2000,
        ready=True,
        host=HostStatus(cpus=2, cpu_percent=12.5, memory_total_bytes=8 << 30, memory_available_bytes=6 << 30),
        processes=[
            ProcessStatus(name="runtimed", pid=10, memory_bytes=1 << 24, cpu_ms=500, started_at=STARTED),
            ProcessStatus(name="zygote python3.11", pid=11, memory_bytes=1 << 23),
            ProcessStatus(name="zygote python3.12", pid=12, memory_bytes=1 << 23),
        ],
        environments=EnvironmentCounts(busy=1, idle=4, frozen=3),
        invocations=InvocationCounts(total=300, latency_p50_us=70),
        functions=[
            FunctionStatistics(
                function_name=f"function-with-a-long-name-{n}",
                invocations=300 - n,
                errors=4,
                duration_p50_us=1234,
                memory_size=128,
                memory_peak_bytes=20 << 20,
                environments=EnvironmentCounts(idle=3, parked=4, provisioned=5, provisioned_in_use=2),
            )
            for n in range(functions)
        ],
        functions_total=functions,
    )
    return replace(made, **changes)


def test_rates_are_by_the_second() -> None:
    heading, first, *_ = frame.rows(statistics(), None, "invocations")
    assert heading.split()[:5] == ["NAME", "INV/s*", "RUN", "WAIT", "ERR/s"]
    assert first.split()[:5] == ["function-with-a-long-name-0", "150", "0", "0", "2.0"]
    assert "1.23 ms" in first
    assert "20/128 MB" in first
    shown = dict(zip(heading.split(), first.split(), strict=False))
    assert (shown["IDLE"], shown["PARKED"], shown["PROV"]) == ("3", "4", "2/5")


def test_the_header_tells_processes_with_uptime_and_cpu() -> None:
    before = statistics()
    after = replace(before, processes=[replace(before.processes[0], cpu_ms=1500), *before.processes[1:]])
    text = "\n".join(frame.header(after, before))
    assert "up 3 h" in text
    assert "CPU 50 %" in text  # one second of two
    assert "2 zygotes" in text
    assert "4 idle (3 frozen)" in text
    assert "NOT READY" in "\n".join(frame.header(replace(after, ready=False), None))


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 120, 300])
@pytest.mark.parametrize("height", [3, 10, 24, 60])
def test_a_screen_fits_its_terminal(width: int, height: int) -> None:
    for functions in (0, 1, 500):
        lines = frame.screen(statistics(functions), None, "p99", width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
    if height >= 10 and width >= 20:
        assert "more functions" in lines[-1]


def test_narrow_terminals_lose_the_least_interesting_columns() -> None:
    assert "FROZEN" in frame.rows(statistics(), 200)[0]
    assert "FROZEN" not in frame.rows(statistics(), 80)[0]
    narrow = frame.rows(statistics(), 30)
    assert narrow[0].split() == ["NAME", "INV/s", "ERR/s"]
    assert narrow[1].startswith("function-wi")


def test_environments_in_words() -> None:
    assert output.environments(EnvironmentCounts(busy=1)) == "1 busy, 0 idle, 0 starting"
    some = EnvironmentCounts(busy=2, idle=9, frozen=3, parked=4, provisioned=5, provisioned_in_use=2)
    said = "2 busy, 9 idle (3 frozen, 4 parked), 0 starting; 5 provisioned, 2 of them in use"
    assert output.environments(some) == said


def test_names_cannot_steer_the_terminal() -> None:
    bad = replace(statistics().functions[0], function_name="a\x1b[2Jb")
    assert "\x1b" not in "".join(frame.rows(replace(statistics(), functions=[bad]), None))


def test_orders_and_keys() -> None:
    assert tuple(frame.ORDERS) == top.SORTS
    assert set(frame.ORDERS.values()) == set(StatisticsOrder)
    assert set(frame.KEYS.values()) == set(frame.ORDERS)
    assert {column.orders for column in frame.COLUMNS} - {""} == set(frame.ORDERS) - {"name"}
