"""How long logs stay, and what becomes of them on a disk that is full or stuck: the dispatcher on real file systems."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtimed.dispatch.logs import Kind, Record
from runtimed.model import wire
from tests.integration.disks import block_device, frozen, mounted
from tests.integration.dispatch_stage import (
    FUNCTION,
    ROUTE,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
    target,
)

MEGABYTE = 1 << 20
DAY = 86400
OTHER = bytes(reversed(FUNCTION))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts small file systems, which needs root")


def segment(logs: Path, uid: bytes, number: int, size: int, age: float) -> Path:
    """What an earlier dispatcher left `age` seconds ago."""
    path = logs / uid.hex() / f"{number:08x}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def fill(descriptor: int) -> None:
    """Takes what room there is."""
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))


def lines(records: list[Record]) -> list[str]:
    return [r.payload.decode() for r in records if r.kind == Kind.LINE]


def total(logs: Path) -> int:
    return sum(path.stat().st_size for path in logs.glob("*/*.log"))


def call(invoker: Invoker, environment: Environment, *texts: str | bytes, name: str = "f") -> None:
    invoker.call(name=name)
    invoke = environment.invoke()[0]
    for text in texts:
        environment.print(text)
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200


def two_functions(stage: Stage) -> tuple[wire.Message, Invoker, Environment, Environment]:
    """Control, an invoker, and a warm environment of `f` and of `g`."""
    control = stage.control()
    control.greet()
    control.synchronise(
        (1, target(timeout_ms=60_000)),
        (2, target(timeout_ms=60_000, function_uid=OTHER, function_name="g")),
        (1, ROUTE),
        (2, wire.PutRoute(name="g", qualifier="$LATEST", target=2)),
    )
    invoker = stage.invoker()
    f = stage.warm(invoker)
    invoker.call(name="g")
    g = stage.launch()
    g.start()
    g.serve()
    invoker.answer()
    return counters(control), invoker, f, g


def test_what_is_too_old_goes_with_its_directory(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    deleted, living = bytes([1] * 16), bytes([2] * 16)
    segment(logs, deleted, 1, 100, 9 * DAY)
    segment(logs, deleted, 2, 100, 8 * DAY)
    old, young = segment(logs, living, 7, 100, 8 * DAY), segment(logs, living, 8, 100, 6 * DAY)
    segment(logs, living, 9, 100, 1000)  # somebody wrote of late: the clock is believed
    (logs / ("3" * 32)).mkdir()
    (logs / "kept.by.others").mkdir()
    with staged(tmp_path, RUNTIMED_LOGS_DAYS="7") as stage:
        stage.ready()
        old_ones = (logs / deleted.hex(), logs / ("3" * 32), old)
        await_true(lambda: not any(path.exists() for path in old_ones), "they are gone")
        assert young.exists()
        assert (logs / "kept.by.others").exists()


def test_the_node_has_a_limit_and_the_oldest_go(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    left = [segment(logs, bytes([n] * 16), 1, MEGABYTE, 1000 - n) for n in range(1, 13)]
    with staged(tmp_path, RUNTIMED_LOGS_NODE_MB="8") as stage:
        stage.ready()
        await_true(lambda: [path.exists() for path in left] == [False] * 5 + [True] * 7, "at the start")
        await_true(lambda: not left[4].parent.exists(), "and their directories")
        invoker = stage.invoker()
        environment = stage.warm(invoker)
        call(invoker, environment, *[b"z" * 1023 + b"\n"] * 3072)
        call(invoker, environment, "last\n")
        await_true(lambda: total(logs) <= 8 * MEGABYTE and not left[5].exists(), "and while it goes on")
        await_true(lambda: lines(stage.records())[-1:] == ["last"], "what is written is kept")
        assert len(lines(stage.records())) == 3073


def test_a_function_has_a_limit(tmp_path: Path) -> None:
    with staged(tmp_path, RUNTIMED_LOGS_FUNCTION_MB="1") as stage:
        control = stage.ready(timeout_ms=60_000)
        invoker = stage.invoker()
        environment = stage.warm(invoker)
        for _ in range(3):
            call(invoker, environment, *[b"z" * 1023 + b"\n"] * 1024)
        call(invoker, environment, "last\n")
        await_true(lambda: counters(control).node()["log_bytes_written"] > 3 * MEGABYTE, "it is written")
        await_true(lambda: lines(stage.records())[-1:] == ["last"], "all of it")
        assert MEGABYTE // 2 < total(stage.logs) <= MEGABYTE


def test_a_log_that_was_removed_begins_anew(tmp_path: Path) -> None:
    """One function is quiet for long, with its segment open, while another one writes beyond the node's limit."""
    with staged(tmp_path, RUNTIMED_LOGS_NODE_MB="2") as stage:
        _, invoker, f, g = two_functions(stage)
        stage.await_records(4)
        [path] = (stage.logs / FUNCTION.hex()).iterdir()
        os.utime(path, (time.time() - DAY,) * 2)
        call(invoker, g, *[b"z" * 1023 + b"\n"] * 3072, name="g")
        await_true(lambda: not path.parent.exists(), "it is removed")
        call(invoker, f, "again\n")
        assert lines(stage.await_records(4)) == ["again"]


def test_a_dispatcher_killed_while_it_writes(tmp_path: Path) -> None:
    """What is on disk can be read up to where it ends; the next dispatcher goes on in a segment of its own."""
    with staged(tmp_path) as stage:
        stage.ready(timeout_ms=60_000)
        invoker = stage.invoker()
        environment = stage.warm(invoker)
        invoker.call()
        environment.invoke()
        while total(stage.logs) < MEGABYTE:
            environment.print("".join(f"{n:01000}\n" for n in range(16)))
        os.kill(stage.pid, signal.SIGKILL)
        os.waitpid(stage.pid, 0)
        stage.pid = 0
    logs = tmp_path / "logs"
    [torn] = (logs / FUNCTION.hex()).iterdir()
    os.truncate(torn, torn.stat().st_size - 500)  # as if it had ended in the midst of a record
    before = lines(stage.records())
    assert len(before) > 900
    assert [int(line) for line in before] == [n % 16 for n in range(len(before))]
    second = tmp_path / "second"
    second.mkdir()
    with staged(second, logs) as stage:
        stage.ready()
        call(stage.invoker(), stage.warm(stage.invoker()), "after\n")
        await_true(lambda: lines(stage.records()) == [*before, "after"], "both")
        assert len(list((logs / FUNCTION.hex()).iterdir())) == 2


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    """Whole records stay whole; once there is room the loss is told, also by who has fallen silent."""
    with mounted(b"tmpfs", size="2m") as logs, staged(tmp_path, logs) as stage:
        control = stage.ready(timeout_ms=60_000)
        invoker = stage.invoker()
        environment = stage.warm(invoker)
        call(invoker, environment, "first\n")
        stage.await_records(4 + 4)
        with (logs / "filler").open("wb") as filler:
            fill(filler.fileno())
            for _ in range(3):
                call(invoker, environment, *[b"lost " * 200 + b"\n"] * 50)
            page = counters(control)
            await_true(lambda: page.node()["log_records_dropped"] >= 150, "they are dropped")
            assert page.node()["log_write_errors"] > 0
        whole = stage.records()
        assert lines(whole)[0] == "first"
        assert all(line == "lost " * 200 for line in lines(whole)[1:])
        (logs / "filler").unlink()
        await_true(lambda: any(r.kind == Kind.DROPPED for r in stage.records()), "the loss is told")
        told = [r for r in stage.records() if r.kind == Kind.DROPPED]
        assert sum(int.from_bytes(r.payload[:8], "little") for r in told) == page.node()["log_records_dropped"]
        assert {r.payload[16] for r in told} == {2}
        call(invoker, environment, "room again\n")
        await_true(lambda: lines(stage.records())[-1] == "room again", "and the log goes on")


def test_a_stuck_disk_and_a_flood_are_not_the_neighbours(tmp_path: Path) -> None:
    """While no write returns, one function floods its log: it loses lines; the other loses neither calls nor lines."""
    with (
        block_device(tmp_path / "image", 64) as device,
        mounted(b"ext4", source=device) as logs,
        staged(tmp_path, logs) as stage,
    ):
        page, invoker, f, g = two_functions(stage)
        stage.await_records(4, OTHER)
        with frozen(logs):
            invoker.call()
            flood = f.invoke()[0]
            dropped: Callable[[], int] = lambda: page.node()["log_records_dropped"]  # type: ignore[attr-defined] # noqa: E731
            while dropped() == 0:
                f.print((b"y" * 1023 + b"\n") * 32)
            neighbour = stage.invoker()
            for n in range(300):
                call(neighbour, g, f"{n}\n" * 3, name="g")
            f.result(flood.id)
            assert invoker.answer()[0].status == 200
        assert lines(stage.await_records(4 + 300 * 6, OTHER)) == [str(n) for n in range(300) for _ in range(3)]
        await_true(lambda: any(r.kind == Kind.REPORT and r.request_id == flood.id for r in stage.records()), "its end")
        call(invoker, f, "told\n")
        await_true(lambda: any(r.kind == Kind.DROPPED for r in stage.records()), "its loss")
        assert not any(r.kind == Kind.DROPPED for r in stage.records(OTHER))
