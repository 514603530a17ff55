"""Log files, as the dispatcher writes them and while it writes them."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest

from runtimed.dispatch.logs import MAGIC, RECORD, REPORT, SEGMENT, Cursor, Kind, Record, Status
from runtimed.dispatch.render import render, stream_of

UID = bytes(16)
ID = uuid.UUID("8476a536-e9f4-11e8-9739-2dfe598c3fcd")
ENVIRONMENT = 1_700_000_000_000 << 20 | 5


def record(payload: bytes = b"", kind: int = Kind.LINE, time_us: int = 1_700_000_000_123_456) -> bytes:
    size = RECORD.size + len(payload)
    return RECORD.pack(size, 0, time_us, kind, bytes(3), ENVIRONMENT, ID.bytes) + payload


def report(status: int = Status.SUCCESS, init_us: int = 0, error_type: bytes = b"") -> bytes:
    return REPORT.pack(1234567, 1235, init_us, 128, 35, status, 0, len(error_type), 0) + error_type


class Log:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def segment(self, number: int, *records: bytes, created: int = 0, version: int = 1) -> Path:
        path = self.directory / f"{number:08x}.log"
        path.write_bytes(SEGMENT.pack(MAGIC, version, created, UID) + b"".join(records))
        return path


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def lines(cursor: Cursor) -> list[bytes]:
    """Everything up to the present end."""
    found: list[bytes] = []
    while records := cursor.read():
        found += [entry.payload for entry in records]
    return found


def test_segments_are_read_in_order_and_followed(log: Log, tmp_path: Path) -> None:
    assert lines(Cursor(tmp_path / "absent")) == []
    cursor = Cursor(tmp_path)
    assert lines(cursor) == []
    log.segment(1, record(b"one"), record(b"two"))
    last = log.segment(2, record(b"three"))
    (tmp_path / "other.txt").write_text("not a segment")
    assert lines(cursor) == [b"one", b"two", b"three"]
    with last.open("ab") as file:
        file.write(record(b"four"))
    assert lines(cursor) == [b"four"]
    log.segment(3, record(b"five"))
    assert lines(cursor) == [b"five"]
    assert lines(cursor) == []


def test_every_cut_of_a_growing_file_waits_for_the_rest(log: Log, tmp_path: Path) -> None:
    whole = log.segment(1, record(b"one"), record(b"two" * 100)).read_bytes()
    path = tmp_path / "00000001.log"
    path.write_bytes(b"")
    cursor, found = Cursor(tmp_path), []
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        found += lines(cursor)
    assert found == [b"one", b"two" * 100]


def test_a_torn_tail_is_passed_over_once_a_newer_segment_exists(log: Log, tmp_path: Path) -> None:
    log.segment(1, record(b"one"), record(b"torn")[:-2])
    cursor = Cursor(tmp_path)
    assert lines(cursor) == [b"one"]
    log.segment(2, record(b"two"))
    assert lines(cursor) == [b"two"]


@pytest.mark.parametrize("garbage", [bytes(100), b"\xff" * 100, RECORD.pack(43, 0, 0, 1, bytes(3), 0, bytes(16))])
def test_garbage_ends_a_segment_not_the_reading(log: Log, tmp_path: Path, garbage: bytes) -> None:
    log.segment(1, record(b"one"), garbage)
    log.segment(2, record(b"two"))
    assert lines(Cursor(tmp_path)) == [b"one", b"two"]


def test_segments_that_disappear_and_newer_formats_are_passed_over(log: Log, tmp_path: Path) -> None:
    first = log.segment(1, record(b"one"))
    cursor = Cursor(tmp_path)
    assert lines(cursor) == [b"one"]
    first.unlink()
    log.segment(2, record(b"two"), version=9)
    log.segment(3, record(b"three"))
    assert lines(cursor) == [b"three"]


def test_large_logs_come_in_parts(log: Log, tmp_path: Path) -> None:
    many = [record(b"%6d" % number * 40) for number in range(10_000)]
    log.segment(1, *many)
    cursor = Cursor(tmp_path)
    first = cursor.read()
    assert 0 < len(first) < len(many)
    assert len(first) + len(lines(cursor)) == len(many)


def test_the_start_can_be_chosen(log: Log, tmp_path: Path) -> None:
    for number in range(1, 5):
        log.segment(number, record(b"%d" % number), created=number * 100)
    cursor = Cursor(tmp_path)
    cursor.skip_before(250)
    assert lines(cursor) == [b"2", b"3", b"4"], "segment 2 may hold what came until 300"
    cursor = Cursor(tmp_path)
    cursor.skip_all()
    assert lines(cursor) == []
    log.segment(5, record(b"5"))
    assert lines(cursor) == [b"5"]


# ---- as text -------------------------------------------------------------------------------------------------


def made(kind: int, payload: bytes = b"", request: bytes = ID.bytes) -> Record:
    return Record(1_700_000_000_123_456, kind, 0, ENVIRONMENT, request, payload)


TEXT = [
    (made(Kind.LINE, b"hello \xff"), "hello \ufffd"),
    (made(Kind.START), f"START RequestId: {ID} Version: $LATEST"),
    (made(Kind.END), f"END RequestId: {ID}"),
    (
        made(Kind.REPORT, report()),
        f"REPORT RequestId: {ID}\tDuration: 1234.57 ms\tBilled Duration: 1235 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 35 MB",
    ),
    (
        made(Kind.REPORT, report(Status.FAILURE, 2500, b"Runtime.ExitError")),
        f"REPORT RequestId: {ID}\tDuration: 1234.57 ms\tBilled Duration: 1235 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 35 MB\tInit Duration: 2.50 ms\tStatus: error\tError Type: Runtime.ExitError",
    ),
    (
        made(Kind.REPORT, report(Status.TIMEOUT)),
        f"REPORT RequestId: {ID}\tDuration: 1234.57 ms\tBilled Duration: 1235 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 35 MB\tStatus: timeout",
    ),
    (made(Kind.INIT_START, b"\0"), "INIT_START Runtime Version: python:3.11"),
    (made(Kind.INIT_REPORT, report(3)), "INIT_REPORT Init Duration: 1234.57 ms\tPhase: init\tStatus: timeout"),
    (
        made(Kind.DROPPED, struct.pack("<QQB", 3, 999, 1)),
        "LOGS_DROPPED Records: 3\tBytes: 999\tReason: they came faster than they could be written",
    ),
    (made(99), None),
    (made(Kind.REPORT, b"cut"), None),
    (made(Kind.DROPPED, b"cut"), None),
]


@pytest.mark.parametrize(("entry", "line"), TEXT)
def test_text(entry: Record, line: str | None) -> None:
    assert render(entry, as_json=False, runtime="python3.11") == line


def test_json() -> None:
    time = '"time":"2023-11-14T22:13:20.123Z"'
    assert render(made(Kind.START), as_json=True) == (
        f'{{{time},"type":"platform.start","record":{{"requestId":"{ID}","version":"$LATEST"}}}}'
    )
    assert render(made(Kind.END), as_json=True) is None
    assert render(made(Kind.REPORT, report(Status.ERROR, 2500, b'Key"Error')), as_json=True) == (
        f'{{{time},"type":"platform.report","record":{{"requestId":"{ID}","status":"error","errorType":"Key\\"Error",'
        '"metrics":{"durationMs":1234.57,"billedDurationMs":1235,"memorySizeMB":128,"maxMemoryUsedMB":35,'
        '"initDurationMs":2.50}}}'
    )


def test_log_stream() -> None:
    stream = stream_of(made(Kind.LINE))
    assert stream.startswith("2023/11/14/[$LATEST]")
    assert len(stream.rpartition("]")[2]) == 32
