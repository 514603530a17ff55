"""What a crash, a loss of power or a hostile neighbour may leave of a log: nothing of it makes a reader fail."""

from __future__ import annotations

import os
import random
import struct
from datetime import UTC, datetime
from pathlib import Path

from runtimed.dispatch.logs import MAGIC, READ_BYTES, RECORD, REPORT, SEGMENT, Cursor, Kind, Status
from runtimed.dispatch.render import render, stream_of

T0 = 1_700_000_000_000_000


def record(payload: bytes, time_us: int, kind: int = Kind.LINE) -> bytes:
    return (
        RECORD.pack(RECORD.size + len(payload), 0, time_us, kind, bytes(3), 1_700_000_000_000 << 20, bytes(16))
        + payload
    )


def damaged(chance: random.Random, whole: bytes) -> bytes:
    """One segment as it should not be."""
    data = bytearray(whole)
    match chance.randrange(6):
        case 0:
            return bytes(data[: chance.randrange(len(data))])
        case 1:
            for _ in range(chance.randrange(1, 40)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case 2:
            begin = chance.randrange(len(data))
            data[begin : begin + chance.randrange(4096)] = bytes(chance.randrange(4096))
        case 3:
            data[SEGMENT.size :] = chance.randbytes(chance.randrange(10_000))
        case 4:
            sizes = [0, 1, 43, 44, 45, RECORD.size + (256 << 10) + 4096, 0x7FFFFFFF, 0xFFFFFFFF]
            struct.pack_into("<I", data, SEGMENT.size, chance.choice(sizes))
        case 5:
            values = [0, 1 << 63, (1 << 64) - 1, 253_402_300_800_000_000, T0]
            kind, payload = chance.randrange(256), chance.randbytes(chance.randrange(80))
            size = RECORD.size + len(payload)
            data[SEGMENT.size :] = (
                RECORD.pack(
                    size,
                    7,
                    chance.choice(values),
                    kind,
                    chance.randbytes(3),
                    chance.choice(values),
                    chance.randbytes(16),
                )
                + payload
                + data[SEGMENT.size :]
            )
    return bytes(data)


def test_no_bytes_make_a_reader_fail_or_turn_in_circles(tmp_path: Path) -> None:
    chance = random.Random(20)
    report = REPORT.pack(1234567, 1235, 0, 128, 35, Status.FAILURE, 0, 7, 0) + b"Some\x00\xff\n"
    good = SEGMENT.pack(MAGIC, 1, T0, bytes(16)) + b"".join(
        record(payload, T0, kind)
        for kind, payload in [
            (Kind.START, b""),
            (Kind.LINE, b"x" * 50),
            (Kind.REPORT, report),
            (Kind.INIT_START, b"\0"),
            (Kind.INIT_REPORT, report),
            (Kind.DROPPED, struct.pack("<QQB", 1, 2, 9)),
            (Kind.END, b""),
            (77, b"later"),
        ]
    )
    for _ in range(400):
        (tmp_path / "00000001.log").write_bytes(damaged(chance, good))
        (tmp_path / "00000002.log").write_bytes(good)
        cursor, found, reads = Cursor(tmp_path), [], 0
        while records := cursor.read():
            found += records
            reads += 1
            assert reads < 100
            for entry in records:
                for as_json in (False, True):
                    render(entry, as_json=as_json)
                stream_of(entry)
                datetime.fromtimestamp(entry.time_us / 1e6, UTC)
        assert [entry.kind for entry in found[-8:]] == [2, 1, 4, 5, 6, 7, 3, 77]
        again = Cursor(tmp_path)
        again.skip_to_last(3, lambda _record: True)
        assert [entry.kind for entry in again.read()] == [7, 3, 77]


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    """The dispatcher owns the directory; what it puts there must not make the control plane read anything else."""
    secret = tmp_path / "secret"
    secret.write_bytes(SEGMENT.pack(MAGIC, 1, T0, bytes(16)) + record(b"secret", T0))
    log = tmp_path / "log"
    log.mkdir()
    (log / "00000001.log").symlink_to(secret)
    os.mkfifo(log / "00000002.log")
    (log / "00000003.log").mkdir()
    (log / "00000004.log").write_bytes(SEGMENT.pack(MAGIC, 1, T0, bytes(16)) + record(b"mine", T0))
    cursor = Cursor(log)
    assert [entry.payload for entry in cursor.read()] == [b"mine"]
    assert cursor.read() == []


def test_memory_does_not_follow_what_a_segment_claims(tmp_path: Path) -> None:
    path = tmp_path / "00000001.log"
    with path.open("wb") as file:
        file.write(SEGMENT.pack(MAGIC, 1, T0, bytes(16)) + record(b"one", T0))
        file.truncate(1 << 40)
    cursor = Cursor(tmp_path)
    assert [entry.payload for entry in cursor.read()] == [b"one"]
    assert cursor.read() == []
    assert cursor.place.offset < READ_BYTES
