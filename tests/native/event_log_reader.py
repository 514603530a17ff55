"""A reader of the event log's files that shares nothing with the log but the description of the format.

It reads groups and state areas, never footers: those are made from the groups, so that both must say the same.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

SECTOR = 512
HEADER = 2 * SECTOR
STATES = 488  # in a sector
GROUP = 48
ACCEPT, MOVED, CHANGE = 1, 2, 3
SETTLED = 3
ALL = 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _table()


def crc32c(data: bytes, crc: int = 0) -> int:
    table = TABLE
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Header(NamedTuple):
    salt: int
    sequence: int
    size: int
    events: int
    oldest: int
    previous: int
    previous_end: int


class Event(NamedTuple):
    id: bytes
    queue: bytes
    attempts: int
    phase: int
    origin: tuple[int, int] | None
    head: bytes
    payload: bytes
    response: bytes


class Change(NamedTuple):
    place: tuple[int, int]
    attempts: int
    phase: int


class Found(NamedTuple):
    """What a directory says."""

    live: dict[tuple[int, int], tuple[Event, int, int]]
    """By place: the event, its attempts and phase."""
    faults: list[str]
    """What a power cut alone cannot have done."""


def header_of(data: bytes) -> Header | None:
    for sector in (data[:SECTOR], data[SECTOR:HEADER]):
        if sector[:8] != b"RTEVENTS" or len(sector) < SECTOR:
            continue
        version, crc = struct.unpack_from("<II", sector, 8)
        if version == 1 and crc32c(sector[16:]) == crc:
            salt, sequence, size, events, _, oldest, previous, end = struct.unpack_from("<QQQIIQQQ", sector, 16)
            return Header(salt, sequence, size, events, oldest, previous, end)
    return None


def record_of(data: bytes, at: int, end: int, seed: int) -> tuple[int, int, Event | Change] | None:
    """(where the next one begins, ordinal, record)."""
    if at + 16 > end:
        return None
    crc, size, kind, _, attempts, phase, ordinal = struct.unpack_from("<IIBBBBI", data, at)
    following = at + (size + 7) // 8 * 8
    if size < 16 or following > end or kind not in (ACCEPT, MOVED, CHANGE):
        return None
    if crc32c(data[at + 4 : at + size], seed) != crc:
        return None
    if kind == CHANGE:
        (segment,) = struct.unpack_from("<Q", data, at + 16)
        return following, ordinal, Change((segment, ordinal), attempts, phase)
    segment, origin, head, payload, response = struct.unpack_from("<QIIII", data, at + 80)
    body = data[at + 112 : at + size]
    assert len(body) == head + payload + response
    event = Event(
        data[at + 16 : at + 32], data[at + 32 : at + 48], attempts, phase, (segment, origin) if segment else None,
        body[:head], body[head : head + payload], body[head + payload :],
    )  # fmt: skip
    return following, ordinal, event


def group_of(data: bytes, at: int, salt: int) -> tuple[int, int, int] | None:
    """(number, durable, size of the records) where a group's header is good."""
    if data[at : at + 4] != b"RTQG" or at + GROUP > len(data):
        return None
    (crc,) = struct.unpack_from("<I", data, at + 4)
    its_salt, number, durable, size, _ = struct.unpack_from("<QQQII", data, at + 8)
    if its_salt != salt or crc32c(data[at + 8 : at + GROUP]) != crc:
        return None
    return number, durable, size


def records_of(data: bytes, at: int, size: int, salt: int) -> list[tuple[int, Event | Change]] | None:
    """All records of a group, or None when one is bad."""
    seed, end, found = crc32c(struct.pack("<Q", salt)), at + GROUP + size, []
    at += GROUP
    while at < end:
        record = record_of(data, at, end, seed)
        if record is None:
            return None
        at = record[0]
        found.append(record[1:])
    return found


def states_of(data: bytes, header: Header) -> Iterator[tuple[int, int]]:
    """(ordinal, state byte) of those that the state area speaks of."""
    for which in range(-(-header.events // STATES)):
        best, states = 0, b""
        for copy in range(2):
            sector = data[HEADER + (2 * which + copy) * SECTOR :][:SECTOR]
            crc, its, salt, generation = struct.unpack_from("<IIQQ", sector.ljust(SECTOR, b"\0"))
            if its == which and salt == header.salt and generation > best and crc32c(sector[4:]) == crc:
                best, states = generation, sector[24:]
        yield from ((which * STATES + i, state) for i, state in enumerate(states) if state)


class Segment(NamedTuple):
    header: Header
    events: dict[int, Event]
    changes: list[Change]
    faults: list[str]


def segment_of(data: bytes, header: Header, known_end: int) -> Segment:
    start = HEADER + 2 * SECTOR * -(-header.events // STATES)
    found = Segment(header, {}, [], [])
    data = data.ljust(header.size, b"\0")
    at, last, torn = start, 0, 0
    while at < (known_end or len(data)):
        group = group_of(data, at, header.salt)
        records = records_of(data, at, group[2], header.salt) if group and group[0] > last else None
        if group is None or records is None:
            torn = torn or at
            at += SECTOR
            continue
        if torn:
            found.faults.append(f"segment {header.sequence}: a good group at {at} behind a bad one at {torn}")
        for ordinal, record in records:
            if isinstance(record, Change):
                found.changes.append(record)
            else:
                if ordinal in found.events:
                    found.faults.append(f"segment {header.sequence}: ordinal {ordinal} twice")
                found.events[ordinal] = record
        last = group[0]
        at += -(-(GROUP + group[2]) // SECTOR) * SECTOR
    if known_end and torn:
        found.faults.append(f"segment {header.sequence}: bad at {torn}, though it was synced up to {known_end}")
    return found


def read(files: Mapping[str, bytes]) -> Found:
    headers, faults = {}, []
    for name, data in files.items():
        if re.fullmatch(r"[0-9a-f]{16}\.log", name):
            header = header_of(data.ljust(HEADER, b"\0"))
            if header is None:
                faults.append(f"{name}: no header")
            elif header.sequence == int(name[:16], 16):
                headers[header.sequence] = header, data
    ends: dict[int, int] = {}
    for sequence in sorted(headers, reverse=True):  # of two successors the first counts
        ends[headers[sequence][0].previous] = headers[sequence][0].previous_end
    segments = {n: segment_of(data, header, ends.get(n, 0)) for n, (header, data) in headers.items()}
    done = max((segment.header.oldest - 1 for segment in segments.values()), default=0)
    for name in ("spare", "next"):
        former = header_of(files.get(name, b"").ljust(HEADER, b"\0"))
        if former is not None:
            done = max(done, former.oldest - 1)
    changes = [change for segment in segments.values() for change in segment.changes]
    done = max([done, *(change.place[0] for change in changes if change.place[1] == ALL)])
    states: dict[tuple[int, int], list[int]] = {}
    for number, segment in segments.items():
        faults += segment.faults if number > done else []
        if number > done and done < segment.header.previous and segment.header.previous not in segments:
            faults.append(f"segment {segment.header.previous} is missing")
        for ordinal, event in segment.events.items():
            states[number, ordinal] = [event.attempts, event.phase]
    origins = [event.origin for segment in segments.values() for event in segment.events.values() if event.origin]
    changes += [Change(origin, 0, SETTLED) for origin in origins]
    for number, segment in segments.items():
        area = states_of(headers[number][1], segment.header)
        changes += [Change((number, ordinal), state & 31, state >> 5 & 3) for ordinal, state in area]
    for change in changes:
        state = states.get(change.place)
        if state:
            state[:] = max(state[0], change.attempts), max(state[1], change.phase)
    live = {
        (number, ordinal): (event, *states[number, ordinal])
        for number, segment in segments.items()
        for ordinal, event in segment.events.items()
        if number > done and states[number, ordinal][1] != SETTLED
    }
    return Found(live, faults)
