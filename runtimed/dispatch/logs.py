"""Reads the log files that the dispatcher writes; their format is documented in
native/dispatch/include/dispatch/logs.h.

Blocking file IO without a loop: the caller brings a thread. Everything in a payload was written by a function and
may be anything; after a loss of power the rest of a segment may be anything too. Segments are only appended to, and
the oldest disappear: a reader meets both while it reads. Memory is bounded by READ_BYTES, whatever a segment holds.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

MAGIC = 0x474C5452  # "RTLG"
VERSION = 1
SEGMENT = struct.Struct("<IIQ16s")
RECORD = struct.Struct("<IIQB3sQ16s")
REPORT = struct.Struct("<QQQIIBBHI")
DROPPED = struct.Struct("<QQB")
READ_BYTES = 512 << 10  # more than any record
RECORD_MAX = (256 << 10) + 4096  # LOG_LINE_MAX and room for the header
TIME_MAX_US = 253_402_300_799_000_000  # the end of the year 9999: what no clock says was never written
LAG_US = 60_000_000  # how much older than its segment a record may be: it waited for a slow disk
_NAME = re.compile(r"([0-9a-f]{8})\.log")


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
    end: int = 0
    """Where it ends in its segment."""


class Report(Struct, frozen=True, kw_only=True):
    """What REPORT and INIT_REPORT carry."""

    duration_us: int
    billed_ms: int
    init_us: int
    memory_mb: int
    peak_mb: int
    status: int
    error_type: str
    init_type: int = 0
    """Of its environment, as wire.InitType."""


def parse_report(payload: bytes) -> Report | None:
    """None when it is cut short."""
    if len(payload) < REPORT.size:
        return None
    duration, billed, init, memory, peak, status, init_type, size, _ = REPORT.unpack_from(payload)
    error = payload[REPORT.size : REPORT.size + size].decode("utf-8", "replace")
    return Report(
        duration_us=duration,
        billed_ms=billed,
        init_us=init,
        memory_mb=memory,
        peak_mb=peak,
        status=status,
        error_type=error,
        init_type=init_type,
    )


class Place(NamedTuple):
    """A place between records. Later places are greater; segment 0 lies before every segment."""

    segment: int
    offset: int


BEGINNING = Place(0, 0)


class Cursor:
    """A place in one function's log, which moves forward over its segments."""

    def __init__(self, directory: Path, place: Place = BEGINNING) -> None:
        self._directory = directory
        self.place = place

    def skip_before(self, time_us: int) -> None:
        """Passes over segments that ended before this time; not over one at whose end the clock was set back."""
        numbers = self.segments()
        earlier = self.created(numbers[0]) if numbers else None
        for _, following in pairwise(numbers):
            created = self.created(following)
            if created is None or created > time_us or (earlier is not None and created < earlier):
                return
            earlier = created
            self.place = max(self.place, Place(following, 0))

    def skip_all(self) -> None:
        """To the present end: only what is written from now on will be read."""
        self.place = max(self.place, self.end())

    def skip_to_last(self, count: int, wanted: Callable[[Record], bool], since_us: int = 0) -> None:
        """In front of the last `count` records that are wanted. Segments are looked at from the newest back."""
        lowest, numbers, start = self.place, self.segments(), self.end()
        for at in range(len(numbers) - 1, -1, -1):
            number = numbers[at]
            if number < lowest.segment:
                break
            last: deque[int] = deque(maxlen=count)
            last.extend(begin for begin, record in self._scan(number, lowest) if wanted(record))
            if last:
                start = Place(number, last[0])
                count -= len(last)
            created = self.created(number)
            if count == 0 or (created is not None and created + LAG_US < since_us):
                break
        self.place = max(lowest, start)

    def read(self) -> list[Record]:
        """The next records, all of one segment, up to about half a megabyte; empty at the present end."""
        while True:
            numbers = self.segments()
            later = [number for number in numbers if number > self.place.segment]
            if self.place.segment not in numbers:
                if not later:
                    return []
                self.place = Place(later[0], 0)
                del later[0]
            records, torn = self._read_segment()
            if records:
                return records
            if not later:
                return []
            if not torn:
                # It may have been completed between our read and the listing: once more, now that a later one exists.
                records, _ = self._read_segment()
                if records:
                    return records
            self.place = Place(later[0], 0)

    def end(self) -> Place:
        """The present end."""
        numbers = self.segments()
        if not numbers:
            return BEGINNING
        file = self._open(numbers[-1])
        if file is None:
            return Place(numbers[-1], 0)
        with file:
            return Place(numbers[-1], os.fstat(file.fileno()).st_size)

    def segments(self) -> list[int]:
        """Numbers of those that there are."""
        try:
            return sorted(int(found[1], 16) for name in os.listdir(self._directory) if (found := _NAME.fullmatch(name)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def created(self, number: int) -> int | None:
        """When a segment was begun, in microseconds; None when that cannot be said."""
        file = self._open(number)
        if file is None:
            return None
        with file:
            head = file.read(SEGMENT.size)
        if len(head) < SEGMENT.size:
            return None
        magic, version, created, _ = SEGMENT.unpack(head)
        return int(created) if (magic, version) == (MAGIC, VERSION) else None

    def _open(self, number: int) -> io.FileIO | None:
        """A plain file and nothing else: the dispatcher, who owns the directory, is trusted with less than we are."""
        path = self._directory / f"{number:08x}.log"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                return None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return io.FileIO(descriptor)

    def _scan(self, number: int, lowest: Place) -> Iterator[tuple[int, Record]]:
        """The records of one segment behind `lowest`, each with where it begins."""
        looking = Cursor(self._directory, max(lowest, Place(number, 0)))
        while looking.place.segment == number:
            records, _ = looking._read_segment()
            if not records:
                return
            for record in records:
                yield record.end - RECORD.size - len(record.payload), record

    def _read_segment(self) -> tuple[list[Record], bool]:
        """Records from the place on, and whether nothing more can be read from this segment."""
        number, offset = self.place
        file = self._open(number)
        if file is None:
            return [], True
        with file:
            if offset < SEGMENT.size:
                head = file.read(SEGMENT.size)
                if len(head) < SEGMENT.size:
                    return [], False
                if SEGMENT.unpack(head)[:2] != (MAGIC, VERSION):
                    return [], True  # of a newer format: passed over
                offset = SEGMENT.size
            data = os.pread(file.fileno(), READ_BYTES, offset)
        records, used, torn = parse_records(data, offset)
        self.place = Place(number, offset + used)
        return records, torn


def parse_records(data: bytes, offset: int = 0) -> tuple[list[Record], int, bool]:
    """The whole records at the head of `data`, how many bytes they take, and whether what follows cannot be one.

    `offset`: where `data` begins in its segment.
    """
    records: list[Record] = []
    at = 0
    while at + RECORD.size <= len(data):
        size, _, time_us, kind, version, environment, request_id = RECORD.unpack_from(data, at)
        if not RECORD.size <= size <= RECORD_MAX or max(time_us, (environment >> 20) * 1000) > TIME_MAX_US:
            return records, at, True
        if at + size > len(data):
            break
        payload = data[at + RECORD.size : at + size]
        at += size
        number = int.from_bytes(version, "little")
        records.append(Record(time_us, kind, number, environment, request_id, payload, offset + at))
    return records, at, False
