"""Reads the log files that the dispatcher writes; their format is documented in
native/dispatch/include/dispatch/logs.h.

Blocking file IO without a loop: the caller brings a thread. Everything in a payload was written by a function and
may be anything. Segments are only appended to, and the oldest disappear: a reader meets both while it reads.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

MAGIC = 0x474C5452  # "RTLG"
VERSION = 1
SEGMENT = struct.Struct("<IIQ16s")
RECORD = struct.Struct("<IIQB3sQ16s")
REPORT = struct.Struct("<QQQIIBBHI")
DROPPED = struct.Struct("<QQB")
READ_BYTES = 1 << 20
RECORD_MAX = (256 << 10) + 4096  # LOG_LINE_MAX and room for the header
_NAME = re.compile(r"[0-9a-f]{8}\.log")


class Kind(IntEnum):
    LINE = 1
    START = 2
    END = 3
    REPORT = 4
    INIT_START = 5
    INIT_REPORT = 6
    DROPPED = 7


class Status(IntEnum):
    SUCCESS = 0
    ERROR = 1
    FAILURE = 2
    TIMEOUT = 3
    INIT_ERROR = 4


class Record(Struct, frozen=True):
    """One record; `version` 0 is $LATEST, `request_id` zeros is outside of any invocation."""

    time_us: int
    kind: int
    version: int
    environment: int
    request_id: bytes
    payload: bytes


class Report(Struct, frozen=True, kw_only=True):
    """What REPORT and INIT_REPORT carry."""

    duration_us: int
    billed_ms: int
    init_us: int
    memory_mb: int
    peak_mb: int
    status: int
    error_type: str


def parse_report(payload: bytes) -> Report | None:
    """None when it is cut short."""
    if len(payload) < REPORT.size:
        return None
    duration, billed, init, memory, peak, status, _, size, _ = REPORT.unpack_from(payload)
    error = payload[REPORT.size : REPORT.size + size].decode("utf-8", "replace")
    return Report(
        duration_us=duration,
        billed_ms=billed,
        init_us=init,
        memory_mb=memory,
        peak_mb=peak,
        status=status,
        error_type=error,
    )


class Cursor:
    """A place in one function's log, which moves forward over its segments."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment = ""  # the file being read; sorts before every name
        self._offset = 0

    def skip_before(self, time_us: int) -> None:
        """Passes over segments that ended before this time."""
        names = self._names()
        for _, following in pairwise(names):
            created = self._created(following)
            if created is None or created > time_us:
                return
            self._segment, self._offset = following, 0

    def skip_all(self) -> None:
        """To the present end: only what is written from now on will be read."""
        names = self._names()
        if names:
            self._segment = names[-1]
            try:
                self._offset = self._size(self._segment)
            except FileNotFoundError:
                self._offset = 0

    def read(self) -> list[Record]:
        """The next records, up to about a megabyte; empty at the present end."""
        while True:
            names = self._names()
            if self._segment not in names:
                later = [name for name in names if name > self._segment]
                if not later:
                    return []
                self._segment, self._offset = later[0], 0
            records, torn = self._read_segment()
            if records:
                return records
            later = [name for name in names if name > self._segment]
            if not later:
                return []
            if not torn:
                # It may have been completed between our read and the listing: once more, now that a later one exists.
                records, _ = self._read_segment()
                if records:
                    return records
            self._segment, self._offset = later[0], 0

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def _size(self, name: str) -> int:
        return (self._directory / name).stat().st_size

    def _created(self, name: str) -> int | None:
        try:
            with (self._directory / name).open("rb") as file:
                head = file.read(SEGMENT.size)
        except FileNotFoundError:
            return None
        if len(head) < SEGMENT.size:
            return None
        magic, version, created, _ = SEGMENT.unpack(head)
        return int(created) if (magic, version) == (MAGIC, VERSION) else None

    def _read_segment(self) -> tuple[list[Record], bool]:
        """Records from the offset on, and whether nothing more can be read from this segment."""
        try:
            with (self._directory / self._segment).open("rb") as file:
                if self._offset < SEGMENT.size:
                    head = file.read(SEGMENT.size)
                    if len(head) < SEGMENT.size:
                        return [], False
                    if SEGMENT.unpack(head)[:2] != (MAGIC, VERSION):
                        return [], True  # of a newer format: passed over
                    self._offset = SEGMENT.size
                file.seek(self._offset)
                data = file.read(READ_BYTES)
        except FileNotFoundError:
            return [], True
        records, used, torn = parse_records(data)
        self._offset += used
        return records, torn


def parse_records(data: bytes) -> tuple[list[Record], int, bool]:
    """The whole records at the head of `data`, how many bytes they take, and whether what follows cannot be one."""
    records: list[Record] = []
    at = 0
    while at + RECORD.size <= len(data):
        size, _, time_us, kind, version, environment, request_id = RECORD.unpack_from(data, at)
        if not RECORD.size <= size <= RECORD_MAX:
            return records, at, True
        if at + size > len(data):
            break
        records.append(
            Record(
                time_us,
                kind,
                int.from_bytes(version, "little"),
                environment,
                request_id,
                data[at + RECORD.size : at + size],
            )
        )
        at += size
    return records, at, False
