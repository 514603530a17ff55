"""Logs: what is read from an environment's pipe, how it is tagged, what is kept, what a caller sees of it."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import re
import resource
import termios
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.dispatch.logs import Kind, Record, Status, parse_report
from runtimed.dispatch.render import render, stream_of
from runtimed.model import wire
from tests.integration.dispatch_stage import (
    FUNCTION,
    PROGRAM,
    ROUTE,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
    target,
)

TAIL = int(wire.CallFlags.LOG_TAIL)
SEGMENT = 8 << 20


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def lines(records: list[Record], request: bytes | None = None) -> list[str]:
    return [r.payload.decode() for r in records if r.kind == Kind.LINE and (request is None or r.request_id == request)]


def test_records_of_a_life(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch(peak=35 << 20)
    start = environment.expect(wire.Start)[1]
    environment.print("importing\n")
    environment.send(wire.InitDone())
    first = environment.invoke()[0]
    environment.print("one\ntwo\n")
    environment.result(first.id)
    invoker.answer()
    invoker.call()
    second = environment.invoke()[0]
    environment.print("three")
    environment.result(second.id, error="E", body=b'{"errorType":"E"}')
    invoker.answer()
    records = stage.await_records(11)
    assert [Kind(r.kind) for r in records] == [
        Kind.INIT_START, Kind.LINE, Kind.START, Kind.LINE, Kind.LINE, Kind.END, Kind.REPORT,
        Kind.START, Kind.LINE, Kind.END, Kind.REPORT,
    ]  # fmt: skip
    assert lines(records, bytes(16)) == ["importing"]
    assert lines(records, first.id) == ["one", "two"]
    assert lines(records, second.id) == ["three"], "a line without an end ends with its invocation"
    assert {r.environment for r in records} == {environment.number}
    assert {stream_of(r) for r in records} == {start.log_stream}
    assert [r.time_us for r in records] == sorted(r.time_us for r in records)
    warm, cold = parse_report(records[10].payload), parse_report(records[6].payload)
    assert warm is not None
    assert cold is not None
    assert (cold.status, warm.status) == (Status.SUCCESS, Status.ERROR)
    assert cold.init_us > 0
    assert warm.init_us == 0
    assert cold.billed_ms == -(-(cold.duration_us + cold.init_us) // 1000)
    assert (cold.memory_mb, cold.peak_mb) == (128, 35)
    assert warm.error_type == "E"


def warm_tail(invoker: Invoker, environment: Environment) -> bytes:
    invoker.call(flags=TAIL)
    environment.serve()
    tail: bytes = invoker.answer()[0].log_tail
    return tail


@pytest.mark.parametrize("as_json", [False, True])
def test_tail_is_what_the_log_shows(stage: Stage, as_json: bool) -> None:
    """Rendered in C for the caller and in Python for readers: the same."""
    stage.ready(log_format=wire.LogFormat.JSON if as_json else wire.LogFormat.TEXT)
    invoker = stage.invoker()
    invoker.call(flags=TAIL)
    environment = stage.launch()
    environment.expect(wire.Start)
    environment.print("importing\n")
    environment.send(wire.InitDone())
    invoke, _ = environment.invoke()
    environment.print("hällo\nno end")
    environment.result(invoke.id)
    answer, _ = invoker.answer()
    records = stage.await_records(7)
    assert answer.log_tail.startswith(b"importing\n"), "what the init phase wrote is part of the call that bears it"
    shown = [line for r in records[1:] if (line := render(r, as_json=as_json)) is not None]
    assert answer.log_tail.decode().splitlines() == shown
    assert warm_tail(invoker, environment).startswith(b"{" if as_json else b"START"), "and of no other"
    request = str(uuid.UUID(bytes=invoke.id))
    del shown[0]
    if as_json:
        system = [json.loads(line) for line in (shown[0], shown[-1])]
        assert [event["type"] for event in system] == ["platform.start", "platform.report"]
        assert {event["record"]["requestId"] for event in system} == {request}
    else:
        assert shown[0] == f"START RequestId: {request} Version: $LATEST"
        assert shown[1:3] == ["hällo", "no end"]
        assert shown[3] == f"END RequestId: {request}"
        assert re.fullmatch(
            rf"REPORT RequestId: {request}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\t"
            r"Max Memory Used: 10 MB\tInit Duration: \d+\.\d\d ms",
            shown[4],
        )


def test_tail_is_the_last_four_kilobytes(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call(flags=TAIL)
    invoke, _ = environment.invoke()
    environment.print("".join(f"{n}\n" for n in range(3000)))
    environment.result(invoke.id)
    tail = invoker.answer()[0].log_tail
    assert len(tail) == 4096
    assert b"\n2999\nEND RequestId: " in tail
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].log_tail == b"", "only when asked for"


def test_what_was_printed_before_the_result_is_tagged_with_it(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    ids = []
    for n in range(200):
        invoker.call()
        invoke, _ = environment.invoke()
        environment.print(f"{n}\n" * 3)
        environment.result(invoke.id)
        invoker.answer()
        ids.append(invoke.id)
    records = stage.await_records(4 + 200 * 6)
    for n, request in enumerate(ids):
        assert lines(records, request) == [str(n)] * 3


def test_long_lines_are_cut(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    environment.print(b"x" * (600 << 10) + b"\nshort\n")
    environment.result(invoke.id)
    invoker.answer()
    records = stage.await_records(4 + 6)
    assert [len(line) for line in lines(records, invoke.id)] == [256 << 10, 256 << 10, 88 << 10, 5]


def test_lines_of_any_bytes(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    environment.print(b"\x00\xff\xfe\n\n\r\n")
    environment.result(invoke.id)
    invoker.answer()
    records = stage.await_records(4 + 6)
    assert [r.payload for r in records if r.kind == Kind.LINE] == [b"\x00\xff\xfe", b"", b"\r"]


def test_a_flood_is_throttled(stage: Stage) -> None:
    """Above its budget the pipe is not read: the function blocks in its write, under its own time-out.

    What is in the pipe when it answers is read all the same, and belongs to it."""
    control = stage.ready(timeout_ms=60_000)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    os.set_blocking(environment.log, False)
    fcntl.fcntl(environment.log, fcntl.F_SETPIPE_SZ, 1 << 20)  # much at once: more a second than it may, however busy
    page = counters(control)
    text = (b"y" * 999 + b"\n") * 1000
    written = 0

    def throttled() -> bool:
        nonlocal written
        with contextlib.suppress(BlockingIOError):
            written += os.write(environment.log, text[written % 1000 :])
        return page.node()["log_throttled"] > 0

    while not throttled():
        pass
    assert written > 8 << 20, "twice the rate of a second at once"

    def left() -> int:
        held = array.array("i", [0])
        fcntl.ioctl(environment.log, termios.FIONREAD, held)
        return held[0]

    await_true(lambda: left() <= 32 << 10, "it is read as its budget allows, to no more than a pipe mostly holds")
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200
    await_true(lambda: len(lines(stage.records(), invoke.id)) == -(-written // 1000), "nothing is lost")
    assert page.node()["log_records_dropped"] == 0


def test_environment_that_closes_its_output(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    environment.print("bye\n")
    os.close(environment.log)
    environment.log = -1
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].status == 200
    assert lines(stage.await_records(4 + 4 + 3)) == ["bye"]


def test_segments_are_capped_and_the_oldest_dropped(stage: Stage) -> None:
    control = stage.ready(timeout_ms=600_000)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    environment.invoke()
    page = counters(control)
    total = 0
    while total < 45 << 20:
        environment.print((b"z" * 1023 + b"\n") * 64)
        total += 64 << 10
    await_true(lambda: page.node()["log_bytes_written"] > 44 << 20, "it is written")
    directory = stage.logs / FUNCTION.hex()
    files = sorted(directory.iterdir())
    assert 3 <= len(files) <= 4
    assert files[0].name > "00000001.log"
    assert all(SEGMENT * 0.9 < file.stat().st_size <= SEGMENT for file in files[:-1])
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o640"}
    assert oct(directory.stat().st_mode & 0o777) == "0o750"


def test_a_dispatcher_begins_a_new_segment(tmp_path: Path) -> None:
    for life in (1, 2):
        directory = tmp_path / str(life)
        directory.mkdir()
        with staged(directory) as stage:
            if life == 2:
                (tmp_path / "1" / "logs" / FUNCTION.hex()).rename(stage.logs / FUNCTION.hex())
            stage.ready()
            stage.warm(stage.invoker())
            stage.await_records(4 * life)
            names = sorted(file.name for file in (stage.logs / FUNCTION.hex()).iterdir())
            assert names == ["00000001.log", "00000002.log"][:life]


def test_full_disk_drops_and_counts(stage: Stage) -> None:
    """A limit on file sizes stands for the disk: writes fail, invocations do not; later the gap is told."""
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    stage.await_records(4)
    size = next((stage.logs / FUNCTION.hex()).iterdir()).stat().st_size
    page = counters(control)
    resource.prlimit(stage.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for n in range(3):
        invoker.call()
        invoke, _ = environment.invoke()
        environment.print(f"lost {n}\n")
        environment.result(invoke.id)
        assert invoker.answer()[0].status == 200
    await_true(lambda: page.node()["log_records_dropped"] >= 12, "they are dropped")
    resource.prlimit(stage.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found: list[Record] = []

    def told() -> bool:
        invoker.call()
        environment.serve()
        invoker.answer()
        found[:] = stage.records()
        return any(r.kind == Kind.DROPPED for r in found)

    await_true(told, "the gap is told")
    dropped = next(r for r in found if r.kind == Kind.DROPPED)
    assert int.from_bytes(dropped.payload[:8], "little") >= 12
    assert dropped.payload[16] == 2
    assert lines(found) == []


def test_functions_have_logs_of_their_own(stage: Stage) -> None:
    control = stage.control()
    control.greet()
    other = bytes(reversed(FUNCTION))
    control.synchronise(
        (1, target()),
        (2, target(function_uid=other, function_name="g", function_version="12")),
        (1, ROUTE),
        (2, wire.PutRoute(name="g", qualifier="12", target=2)),
    )
    invoker = stage.invoker()
    stage.warm(invoker)
    invoker.call(name="g", qualifier="12")
    environment = stage.launch()
    environment.start()
    environment.serve()
    invoker.answer()
    assert {r.version for r in stage.await_records(4)} == {0}
    assert {r.version for r in stage.await_records(4, other)} == {12}
    assert PROGRAM.exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_init_that_fails_is_reported(stage: Stage, as_json: bool) -> None:
    stage.ready(log_format=wire.LogFormat.JSON if as_json else wire.LogFormat.TEXT)
    invoker = stage.invoker()
    invoker.call(flags=TAIL)
    environment = stage.launch()
    environment.expect(wire.Start)
    environment.print("Traceback\n")
    environment.send(wire.InitError(error_type="Runtime.ImportModuleError", body=b"{}"))
    answer, _ = invoker.answer()
    records = stage.await_records(6)
    assert [Kind(r.kind) for r in records] == [
        Kind.INIT_START, Kind.LINE, Kind.INIT_REPORT, Kind.START, Kind.END, Kind.REPORT,
    ]  # fmt: skip
    shown = [line for r in records[1:] if (line := render(r, as_json=as_json)) is not None]
    assert answer.log_tail.decode().splitlines() == shown
    assert shown[0] == "Traceback"
    if as_json:
        event = json.loads(shown[-1])
        assert (event["record"]["status"], event["record"]["errorType"]) == ("error", "Runtime.ImportModuleError")
        return
    status = "Status: error\tError Type: Runtime.ImportModuleError"
    assert re.fullmatch(rf"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\t{status}", shown[1])
    assert shown[-1].endswith(f" ms\t{status}")
    assert "Init Duration" in shown[-1]


def test_an_init_that_takes_too_long_is_in_the_tail(stage: Stage) -> None:
    """It is repeated inside the invocation, which shows what both wrote."""
    stage.ready(init_timeout_ms=1000)
    invoker = stage.invoker()
    invoker.call(flags=TAIL)
    first = stage.launch()
    first.expect(wire.Start)
    first.print("slow\n")
    stage.ended(first)
    second = stage.launch()
    second.expect(wire.Start)
    second.print("again\n")
    second.send(wire.InitDone())
    second.serve()
    tail = invoker.answer()[0].log_tail.decode().splitlines()
    assert (tail[0], tail[2]) == ("slow", "again")
    assert re.fullmatch(r"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: timeout", tail[1])
    assert tail[3].startswith("START")
