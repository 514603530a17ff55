"""/metrics of a real node, read by prometheus-client's parser; and its listener under callers that misbehave."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench import calls
from bench.node import Node, await_true, free_address
from runtimed.client import Client
from runtimed.gateway.metrics import THREADS, MetricsServer
from tests.conftest import need_root

SOURCE = """
def handler(event, context):
    if event == "fail":
        raise ValueError("as asked")
    print("a line")
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def asked(where: str, path: str = "/metrics", method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(where, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


def scraped(where: str) -> Samples:
    status, body = asked(where)
    assert status == 200
    return {
        (sample.name.removeprefix("runtimed_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


class Measured(Node):
    where = ""


@pytest.fixture(scope="module")
def measured() -> Iterator[Measured]:
    need_root()
    Measured.where = free_address()
    settings = {"RUNTIMED_METRICS_LISTEN": Measured.where, "RUNTIMED_METRICS_FUNCTIONS": "1"}
    with Measured.start(settings) as node:
        assert isinstance(node, Measured)
        with Client(node.address) as client:
            for name in ("often", "seldom"):
                calls.deploy(client, name, SOURCE, 128)
        yield node


def at_rest(found: Samples, calls: float) -> bool:
    """All counted, nothing running, the log written, the environment known: what is told a moment after the answer."""
    often = {name: found.get(of(f"function_{name}", function="often"), 0) for name in (
        "invocations_total", "duration_seconds_count", "concurrent_executions", "log_bytes_total", "environments",
    )}  # fmt: skip
    return (
        often["invocations_total"] == often["duration_seconds_count"] == calls
        and often["concurrent_executions"] == 0
        and often["log_bytes_total"] > 0
        and often["environments"] >= 1
    )


def test_what_a_node_says(measured: Measured) -> None:
    before = scraped(measured.where).get(of("function_invocations_total", function="often"), 0)
    with Client(measured.address) as client:
        for event in ("x", "x", "fail"):
            client.invoke("often", event)
    await_true(lambda: at_rest(scraped(measured.where), before + 3), 30, "what was called is counted, and over")
    found = scraped(measured.where)
    assert found[of("ready")] == 1
    assert found[of("functions")] == 2
    told = {name: found[of(f"function_{name}", function="often")] for name in (
        "invocations_total", "errors_total", "throttles_total", "cold_starts_total", "concurrent_executions",
        "duration_seconds_count", "init_duration_seconds_count", "environments",
    )}  # fmt: skip
    assert told["invocations_total"] == told["duration_seconds_count"] == before + 3
    assert told["errors_total"] >= 1
    assert told["cold_starts_total"] == told["init_duration_seconds_count"] >= 1
    assert told["environments"] >= 1
    assert told["throttles_total"] == told["concurrent_executions"] == 0
    assert found[of("function_duration_seconds_bucket", function="often", le="+Inf")] == before + 3
    assert found[of("function_duration_seconds_sum", function="often")] > 0
    assert found[of("function_memory_peak_bytes", function="often")] > 1 << 18
    assert found[of("function_log_bytes_total", function="often")] > 0
    assert found[of("node_invocations_total")] >= 3
    assert of("node_wait_seconds_count") in found
    assert of("node_waiting") in found
    for role, name in (("launcher", "runtimed-launcher"), ("control", "runtimed"), ("dispatch", "runtimed-dispatch")):
        labels = {"process": name, "pid": str(measured.roles()[role])}
        assert found[of("process_memory_bytes", **labels)] > 1 << 20
        assert found[of("process_cpu_seconds_total", **labels)] >= 0
        assert found[of("process_start_time_seconds", **labels)] > 1e9
        shown = len(os.listdir(f"/proc/{labels['pid']}/fd"))
        assert shown / 2 <= found[of("process_open_fds", **labels)] <= shown * 2


def test_only_so_many_functions_have_series(measured: Measured) -> None:
    with Client(measured.address) as client:
        client.invoke("often", "x")
    found = scraped(measured.where)
    assert found[of("functions_without_series")] == 1
    assert {dict(labels)["function"] for _, labels in found if "function" in dict(labels)} == {"often"}


def test_other_paths_and_methods(measured: Measured) -> None:
    assert asked(measured.where, "/")[0] == 404
    assert asked(measured.where, "/metrics?x=1")[0] == 200
    assert asked(measured.where, method="HEAD") == (200, b"")
    assert asked(measured.where, method="POST")[0] == 501


def test_counts_outlive_a_dispatcher_that_dies(measured: Measured) -> None:
    pid = measured.roles()["dispatch"]
    before = scraped(measured.where).get(of("function_invocations_total", function="often"), 0)
    with Client(measured.address) as client:
        client.invoke("often", "x")
        await_true(lambda: at_rest(scraped(measured.where), before + 1), 30, "it is counted, and over")
        found = scraped(measured.where)
        os.kill(pid, signal.SIGKILL)
        await_true(
            lambda: measured.roles().get("dispatch", pid) != pid and client.status().ready,
            60,
            "the dispatcher's return",
        )
        client.invoke("often", "x")
    await_true(lambda: at_rest(scraped(measured.where), before + 2), 30, "one more call")
    after = scraped(measured.where)
    counters = {
        key for key in found if key[0].startswith(("function_", "node_")) and key[0].endswith(("_total", "_count"))
    }
    assert of("node_calls_total") in counters
    assert not {key: (found[key], after.get(key)) for key in counters if after.get(key, -1) < found[key]}
    assert after[of("counting_since_seconds")] == found[of("counting_since_seconds")]


def test_a_port_that_is_taken_stops_no_node() -> None:
    need_root()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with Node.start({"RUNTIMED_METRICS_LISTEN": where}) as node:
            assert f"cannot listen on {where}" in node.log.read_text()


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer("127.0.0.1:0", lambda: b"x 1\n")
    made.start()
    yield made
    made.stop()


def test_silent_callers_are_bounded_and_keep_nobody_from_stopping(server: MetricsServer) -> None:
    where = f"127.0.0.1:{server.port}"
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(THREADS)]
    try:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            asked(where)
        silent.pop().close()

        def answered() -> bool:
            try:
                return asked(where) == (200, b"x 1\n")
            except (http.client.RemoteDisconnected, ConnectionError):
                return False

        await_true(answered, 30, "an answer when a place is free")
        server.stop()
    finally:
        for one in silent:
            one.close()


def test_what_cannot_be_read_is_a_503(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise TimeoutError

    made = MetricsServer("127.0.0.1:0", fail)
    made.start()
    try:
        assert asked(f"127.0.0.1:{made.port}")[0] == 503
    finally:
        made.stop()
    assert "TimeoutError" in caplog.text
