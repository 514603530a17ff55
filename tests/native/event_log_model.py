"""The event log's algorithm as a small model: every state that a few events, failing syncs and power cuts can lead to.

Pure. A disk is a tuple of segments; a group of the log is a tuple of records, which a power cut takes or leaves while
it is not synced. What the C code does in bytes (sectors, checksums, state areas) is left to the power cuts of
print_power. Records: ("accept", event), ("move", event, origin), ("settle", place, event), ("drop", sequence); a place
is (sequence, ordinal).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

Place = tuple[int, int]
Record = tuple[Any, ...]
Group = tuple[Record, ...]

FAULTS = (
    "ack before the sync",
    "a failed sync is forgotten",
    "no word of where the one before ends",
    "removed before the record of it",
    "removed out of order",
    "a move that leaves its origin",
    "settled before the move",
)


class Segment(NamedTuple):
    sequence: int
    oldest: int
    previous: int
    previous_end: int
    """How many groups of the one before count."""
    groups: tuple[Group, ...] = ()
    unsynced: bool = False
    """The last group may not be on the disk."""


class Process(NamedTuple):
    """What is in memory."""

    waiting: Group = ()
    writing: Group | None = None
    places: frozenset[tuple[int, Place]] = frozenset()
    """Of events that live."""
    moving: frozenset[int] = frozenset()
    dropping: int = 0
    remove: int = 0


class State(NamedTuple):
    disk: tuple[Segment, ...]
    process: Process
    submitted: int = 0
    acked: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()
    """To be settled."""
    settled: frozenset[int] = frozenset()
    """And told that it is on the disk."""
    cuts: int = 0
    failures: int = 0


class Bounds(NamedTuple):
    events: int = 2
    cuts: int = 2
    failures: int = 1
    groups: int = 2
    """In a segment."""
    segments: int = 4
    """The highest sequence."""


def recovered(disk: tuple[Segment, ...], fault: str) -> tuple[dict[int, list[Place]], int]:
    """Where each event lives, by what is on the disk; up to which segment all are done with."""
    ends = {segment.previous: segment.previous_end for segment in reversed(disk)}
    if fault == "no word of where the one before ends":
        ends = {}
    events: dict[Place, int] = {}
    gone: set[Place] = set()
    done = max((segment.oldest - 1 for segment in disk), default=0)
    for segment in disk:
        ordinals = itertools.count()
        for record in itertools.chain(*segment.groups[: ends.get(segment.sequence, len(segment.groups))]):
            if record[0] in ("accept", "move"):
                events[segment.sequence, next(ordinals)] = record[1]
            if record[0] == "move" and fault != "a move that leaves its origin":
                gone.add(record[2])
            elif record[0] == "settle":
                gone.add(record[1])
            elif record[0] == "drop":
                done = max(done, record[1])
    live: dict[int, list[Place]] = {}
    for place, event in events.items():
        if place not in gone and place[0] > done:
            live.setdefault(event, []).append(place)
    return live, done


def begin(disk: tuple[Segment, ...], oldest: int) -> tuple[Segment, ...]:
    """One more segment, which says where the last one ends."""
    last = disk[-1] if disk else None
    end = len(last.groups) if last else 0
    made = Segment((last.sequence if last else 0) + 1, oldest, last.sequence if last else 0, end)
    return (*disk, made)


def restart(state: State, disk: tuple[Segment, ...], fault: str) -> State:
    """What is found counts from now on: a segment that ended without a word of it is synced, and a new one begins."""
    live, done = recovered(disk, fault)
    kept = tuple(segment._replace(unsynced=False) for segment in disk if segment.sequence > done)
    sequence = disk[-1].sequence
    last = kept[-1] if kept else Segment(sequence, 0, 0, 0)
    oldest = kept[0].sequence if kept else sequence + 1
    new = Segment(sequence + 1, oldest, last.sequence if kept else 0, len(last.groups) if kept else 0)
    process = Process(places=frozenset((event, places[0]) for event, places in live.items()))
    return state._replace(disk=(*kept, new), process=process)


def wrong(state: State, disk: tuple[Segment, ...], fault: str) -> str:
    """What a reader of this disk would find that must not be; empty: nothing."""
    live, done = recovered(disk, fault)
    there = {segment.sequence for segment in disk}
    for segment in disk:
        if done < segment.previous and segment.previous not in there:
            return f"segment {segment.previous} is missing, as if it had been lost"
    for event in state.acked - state.asked:
        if event not in live:
            return f"{event} was acknowledged and is lost"
    for event, places in live.items():
        if event in state.settled:
            return f"{event} was settled and is back"
        if event in state.refused:
            return f"{event} was refused and is there"
        if event >= state.submitted:
            return f"{event} was never submitted"
        if len(places) > 1:
            return f"{event} is there twice"
    return ""


def cut(disk: tuple[Segment, ...]) -> Iterator[tuple[Segment, ...]]:
    """The disks that a power cut may leave."""
    choices = [(segment, segment._replace(groups=segment.groups[:-1])) if segment.unsynced else (segment,)
               for segment in disk]  # fmt: skip
    yield from itertools.product(*choices)


def collected(state: State, group: Group, sequence: int, first: int, fault: str) -> State:
    """A group is on the disk."""
    p, ordinal = state.process, itertools.count(first)
    places, acked, settled = dict(p.places), set(state.acked), set(state.settled)
    moving, remove, dropping = set(p.moving), p.remove, p.dropping
    for record in group:
        if record[0] == "accept":
            places[record[1]] = sequence, next(ordinal)
            acked.add(record[1])
        elif record[0] == "move":
            places[record[1]] = sequence, next(ordinal)
            moving.discard(record[1])
        elif record[0] == "settle" and record[2] is not None:
            settled.add(record[2])
        elif record[0] == "drop":
            remove, dropping = record[1], 0
    process = p._replace(
        places=frozenset(places.items()), moving=frozenset(moving), remove=remove, dropping=dropping, writing=None
    )
    return state._replace(process=process, acked=frozenset(acked), settled=frozenset(settled))


def refused(state: State, group: Group, bounds: Bounds, fault: str) -> State:
    """A sync failed: that file is done with, and its successor says so before anybody hears of it."""
    p = state.process
    again = tuple(record for record in group if record[0] in ("settle", "drop"))
    events = frozenset(record[1] for record in group if record[0] == "accept")
    moving = p.moving - {record[1] for record in group if record[0] == "move"}
    last = state.disk[-1]
    if fault == "a failed sync is forgotten":
        disk = (*state.disk[:-1], last)
    else:
        made = begin((*state.disk[:-1], last._replace(groups=last.groups[:-1])), state.disk[0].sequence)[-1]
        disk = (*state.disk, made)
    process = p._replace(waiting=again + p.waiting, writing=None, moving=moving)
    return state._replace(disk=disk, process=process, refused=state.refused | events, failures=state.failures + 1)


def written(state: State, bounds: Bounds, fault: str) -> Iterator[State]:
    """What waits becomes a group, not synced yet."""
    p, disk = state.process, state.disk
    if len(disk[-1].groups) >= bounds.groups:
        if disk[-1].sequence >= bounds.segments:
            return
        disk = begin(disk, disk[0].sequence)
    last = disk[-1]
    last = last._replace(groups=(*last.groups, p.waiting), unsynced=True)
    acked = state.acked
    if fault == "ack before the sync":
        acked |= {record[1] for record in p.waiting if record[0] == "accept"}
    process = p._replace(waiting=(), writing=p.waiting)
    yield state._replace(disk=(*disk[:-1], last), process=process, acked=acked)


def ended(state: State, bounds: Bounds, fault: str) -> Iterator[State]:
    """The sync succeeds, or fails."""
    group, last = state.process.writing, state.disk[-1]
    assert group is not None
    first = sum(record[0] in ("accept", "move") for record in itertools.chain(*last.groups[:-1]))
    synced = state._replace(disk=(*state.disk[:-1], last._replace(unsynced=False)))
    yield collected(synced, group, last.sequence, first, fault)
    if state.failures < bounds.failures and last.sequence < bounds.segments:
        yield refused(state, group, bounds, fault)


def changed(state: State, fault: str) -> Iterator[State]:
    """Events are settled, moved; segments dropped and removed."""
    p = state.process
    current, oldest = state.disk[-1].sequence, state.disk[0].sequence
    for event, place in p.places:
        if event in p.moving:
            continue
        rest = p._replace(places=p.places - {(event, place)})
        settle = ("settle", place, event)
        yield state._replace(process=rest._replace(waiting=(*p.waiting, settle)), asked=state.asked | {event})
        if place[0] == oldest < current:
            move: Group = (("move", event, place),)
            if fault == "settled before the move":
                # In a group of its own; the copy comes with the next one.
                yield from _two_groups(state, event, place)
                continue
            yield state._replace(process=p._replace(waiting=p.waiting + move, moving=p.moving | {event}))
    if oldest < current and p.dropping == 0 and p.remove < oldest:
        candidates = [oldest] if fault != "removed out of order" else [s.sequence for s in state.disk[:-1]]
        for sequence in candidates:
            if any(place[0] == sequence for _, place in p.places):
                continue
            if fault == "removed before the record of it":
                yield state._replace(disk=state.disk[1:])
            elif fault == "removed out of order":
                yield state._replace(disk=tuple(s for s in state.disk if s.sequence != sequence))
            else:
                drop = ("drop", sequence)
                yield state._replace(process=p._replace(waiting=(*p.waiting, drop), dropping=sequence))
    if oldest <= p.remove:
        yield state._replace(disk=state.disk[1:])


def _two_groups(state: State, event: int, place: Place) -> Iterator[State]:
    p = state.process
    if p.waiting or p.writing is not None or state.disk[-1].unsynced:
        return
    last = state.disk[-1]
    disk = (*state.disk[:-1], last._replace(groups=(*last.groups, (("settle", place, None),))))
    process = p._replace(waiting=(("move", event, place),), moving=p.moving | {event})
    yield state._replace(disk=disk, process=process)


def steps(state: State, bounds: Bounds, fault: str) -> Iterator[State]:
    """All that may come next, but for the end of the power."""
    p = state.process
    if state.submitted < bounds.events:
        waiting = (*p.waiting, ("accept", state.submitted))
        yield state._replace(process=p._replace(waiting=waiting), submitted=state.submitted + 1)
    if p.writing is not None:
        yield from ended(state, bounds, fault)
    elif p.waiting:
        yield from written(state, bounds, fault)
    yield from changed(state, fault)


def walk(bounds: Bounds, fault: str = "") -> tuple[int, str]:
    """How many states there are, and what is wrong with one of them; it ends with the first that is."""
    first = State(disk=begin((), 1), process=Process())
    seen, todo = {first}, [first]
    while todo:
        state = todo.pop()
        following = list(steps(state, bounds, fault))
        for disk in cut(state.disk):
            if found := wrong(state, disk, fault):
                return len(seen), f"{found}: {state}"
            if state.cuts < bounds.cuts and disk[-1].sequence < bounds.segments:
                following.append(restart(state._replace(cuts=state.cuts + 1), disk, fault))
        for after in following:
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return len(seen), ""
