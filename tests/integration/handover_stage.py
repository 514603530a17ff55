"""Two dispatchers of which one hands over to the other; the test is the launcher between them, and passes on what it
likes."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtimed.model import wire
from tests.integration.dispatch_stage import Control, Stage

VERSION = 1  # of HANDED
PLAN = 7
Flags = wire.EnvironmentHandedFlags
ENVIRONMENT, CONNECTION, ALL, LOST = wire.HandedKind


class Passed(tuple[wire.Header, wire.Handed, list[int]]):
    """A HANDED on its way."""


class Pair:
    """The old one, and from `begin` on the new one, which serves and expects what the old one has."""

    def __init__(self, directory: Path, loops: tuple[int, int] = (1, 1), busy: int = 0, **changes: Any) -> None:
        """`loops`: of the old one, and of the new one; `busy`: percent at which one is, and connections move (0: none
        does); `changes`: as PUT_TARGET's fields."""
        self.directory, self.loops, self.changes, self.busy = directory, loops, changes, str(busy)
        (directory / "old").mkdir()
        self.old = Stage(
            directory / "old", RUNTIMED_DISPATCH_LOOPS=str(loops[0]), RUNTIMED_DISPATCH_BUSY_PERCENT=self.busy
        )
        self.new: Stage
        self.their = self.old.ready(**changes)
        self.control: Control

    def start(self, **changes: Any) -> None:
        (self.directory / "new").mkdir()
        self.new = Stage(
            self.directory / "new",
            features=1,
            RUNTIMED_DISPATCH_LOOPS=str(self.loops[1]),
            RUNTIMED_DISPATCH_BUSY_PERCENT=self.busy,
        )
        self.control = self.new.ready(**{**self.changes, **changes})
        self.new.launcher.expect(wire.Serving)

    def begin(self, version: int = VERSION) -> None:
        self.start()
        self.old.launcher.send(wire.HandOver(version=version))

    def next(self) -> Passed:
        """What the old one hands over next."""
        before = len(self.old.launcher.received)
        header, handed = self.old.launcher.expect(wire.Handed)
        fds = self.old.launcher.received[before:]
        del self.old.launcher.received[before:]
        return Passed((header, handed, fds))

    def next_environment(self) -> Passed:
        """The next environment; connections before it are passed on, those that have just ended too."""
        while (passed := self.next())[1].kind == CONNECTION:
            self.give(passed)
        assert passed[1].kind == ENVIRONMENT
        return passed

    def give(self, passed: Passed, **changes: Any) -> None:
        """As the launcher passes it on, but for the changes; its descriptors are closed."""
        header, handed, fds = passed
        known = b""
        if handed.kind == ENVIRONMENT:
            _, state = wire.decode(handed.state)
            assert isinstance(state, wire.EnvironmentHanded)
            known = bytes(flag & 31 for flag in Flags if state.descriptors & flag)
        fields = {"version": handed.version, "kind": handed.kind, "state": handed.state, "plan": PLAN, "known": known}
        self.hand(header.object, fds, **{**fields, **changes})

    def hand(self, number: int, fds: list[int], **fields: Any) -> None:
        self.new.launcher.send(wire.Handed(**{"uid": 1000, **fields}), fds=tuple(fds), object=number)
        for fd in fds:
            os.close(fd)

    def pass_on(self, *wanted: int) -> list[int]:
        """Until each of these kinds came, as often as it is named: several loops give in any order. What came."""
        kinds: list[int] = []
        while Counter(wanted) - Counter(kinds):
            passed = self.next()
            kinds.append(passed[1].kind)
            self.give(passed)
        return kinds

    def pass_all(self, *wanted: int) -> list[int]:
        """Until the old one has told all, and these kinds came too."""
        return self.pass_on(ALL, *wanted)

    def pass_ordered(self, *wanted: int) -> None:
        """All of it, environments first: connections find them there."""
        come = []
        while Counter((ALL, *wanted)) - Counter(passed[1].kind for passed in come):
            come.append(self.next())
        for passed in sorted(come, key=lambda passed: passed[1].kind):
            self.give(passed)

    def close(self) -> None:
        for stage in (self.old, getattr(self, "new", None)):
            if stage is not None:
                stage.close()


@contextlib.contextmanager
def paired(directory: Path, loops: tuple[int, int] = (1, 1), busy: int = 0, **changes: Any) -> Iterator[Pair]:
    pair = Pair(directory, loops, busy, **changes)
    try:
        yield pair
    finally:
        pair.close()
