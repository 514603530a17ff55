"""What a real node counts of its functions, through the API."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from bench.node import Node
from runtimed.client import ApiError, AsyncClient, Client
from runtimed.model.node import FunctionStatistics

CODE = """
def handler(event, context):
    if event.get("fail"):
        raise ValueError("asked to")
    if event.get("exit"):
        import os
        os._exit(3)
    return event
"""


@pytest.fixture
def counted(node: Node, tmp_path: Path) -> Client:
    """A client, and a function of which nothing is counted yet."""
    (tmp_path / "app.py").write_text(CODE)
    with Client(node.address) as client:
        client.deploy("tallied", tmp_path / "app.py", handler="app.handler")
        yield client
        client.delete_function("tallied")


def seen(client: Client, **given: object) -> FunctionStatistics:
    [row] = client.statistics("tallied", **given).functions  # type: ignore[arg-type]
    return row


def test_counts_of_a_function(counted: Client) -> None:
    row = seen(counted)
    assert (row.invocations, row.errors, row.cold_starts, row.memory_size) == (0, 0, 0, 128)
    for event in ({}, {}, {"fail": True}, {"exit": True}):
        counted.invoke("tallied", event)
    row = seen(counted, order="Errors")
    assert (row.invocations, row.errors, row.timeouts, row.throttles) == (4, 2, 0, 0)
    assert row.cold_starts >= 1
    assert 0 < row.duration_p50_us <= row.duration_p99_us
    assert row.memory_peak_bytes > 1 << 20
    assert row.request_bytes > 0
    told = counted.statistics()
    assert told.ready
    assert told.functions_total >= 1
    assert told.interval_ms > 0
    assert told.invocations.total >= 4
    assert {"runtimed", "runtimed-launcher", "runtimed-dispatch"} <= {process.name for process in told.processes}
    assert all(process.started_at <= told.time for process in told.processes)


def test_a_watch_tells_what_happened_meanwhile(node: Node, counted: Client) -> None:
    counted.invoke("tallied", {})
    found = counted.watch_statistics("tallied", interval=0.25)
    next(found)
    for _ in range(3):
        counted.invoke("tallied", {})
    rows = [row for told in itertools.islice(found, 4) for row in told.functions]
    assert sum(row.invocations for row in rows) == 3
    told = json.loads(node.runtimectl("top", "--once", "--json", "--interval", "0.75").stdout)
    assert told["IntervalMs"] > 0  # the next look is on time also where this one was late
    assert "tallied" in [function["FunctionName"] for function in told["Functions"]]
    idle = rows[-1].environments
    assert (idle.idle, idle.busy, rows[-1].in_flight) == (1, 0, 0)
    found.close()  # type: ignore[attr-defined]


async def test_watching_asynchronously(counted: Client) -> None:
    async with AsyncClient(counted.address.target) as client:
        found = client.watch_statistics(order="Name", limit=1, interval=0.25)
        async for told in found:
            assert len(told.functions) == 1
            assert 0 <= told.host.cpu_percent <= 100
            break
        await found.aclose()
        assert (await client.statistics("no-such-function")).functions == []


def test_requests_out_of_bounds(counted: Client) -> None:
    with pytest.raises(ApiError, match="MaxItems: a whole number from 1 to 1000"):
        counted.statistics(limit=1001)
    with pytest.raises(ApiError, match="IntervalMs: 250 to 60000 milliseconds"):
        next(iter(counted.watch_statistics(interval=0.1)))
    with pytest.raises(ApiError, match="Order: Luck is not one of Invocations, Errors"):
        counted.statistics(order="Luck")
    with pytest.raises(ApiError, match="NamePrefix: the beginning of a function's name"):
        counted.list_functions("no such/name")


def test_functions_by_prefix(counted: Client) -> None:
    assert [function.function_name for function in counted.list_functions("talli")] == ["tallied"]
    assert [function.function_name for function in counted.list_functions("tallied")] == ["tallied"]
    assert counted.list_functions("tallie-") == []
    assert len(counted.list_functions("", limit=1)) == 1
