"""Descriptors, and what the kernel counts per user or for the whole host."""

from __future__ import annotations

import pytest

from runtimed.client import FunctionFailed
from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage

EPERM, ENOENT, EAGAIN, EMFILE, ENOSPC = 1, 2, 11, 24, 28
DESCRIPTORS = 1020  # sandbox.descriptors by default, less what an environment has open


@pytest.mark.case("abuse", "descriptors of every kind")
def test_all_kinds(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("descriptors", {"deed": "all_kinds"}, rounds=1, timeout=60)
    (found,) = seen.values()
    assert found.pop("inotify") == [8, EMFILE], "a share of what a host's user may have"
    assert set(map(tuple, found.values())) == {(DESCRIPTORS, EMFILE)}, found
    outcome("`EMFILE` at 1,024; 8 inotify instances", seen.neighbour)


@pytest.mark.case("abuse", "descriptors kept over the reply")
def test_leave_open(stage: Stage, outcome: Outcome) -> None:
    """The environment is the function's own: what it keeps it has, as on Lambda. The platform needs none of them."""

    def none_left(name: str) -> None:
        with pytest.raises(FunctionFailed, match="Too many open files"):
            stage.call(name, {"deed": "look"}).raise_for_error()

    seen = stage.suffer("descriptors", {"deed": "leave_open"}, rounds=1, timeout=60, then=none_left)
    assert seen.values() == [True]
    outcome("the function's own next call has none; it is answered with its `OSError`", seen.neighbour)


@pytest.mark.case("abuse", "inotify watches")
def test_watches(stage: Stage, outcome: Outcome) -> None:
    """The host counts them for the zygote's user, all environments together."""
    seen = stage.suffer("descriptors", {"deed": "watches"}, rounds=1, timeout=60)
    ((made, errno),) = seen.values()
    assert errno == ENOSPC and 8000 < made < 10_000  # a file with two names is watched once
    outcome("`ENOSPC` at 8,192", seen.neighbour)


@pytest.mark.case("abuse", "timers, queues, keys, locked memory, priorities, cgroups")
def test_objects(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("descriptors", {"deed": "objects"}, rounds=1, timeout=60)
    (found,) = seen.values()
    assert found == {
        "timers": [1024, EAGAIN], "queues": [0, EMFILE], "keys": [0, EPERM], "locked": -1, "priority": [0, EPERM],
        "realtime": [0, EPERM], "cgroups": [0, ENOENT],
    }  # fmt: skip
    outcome("1,024 timers; none of the others", seen.neighbour)
