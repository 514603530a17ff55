"""Processes and threads: what pids.max and the end of a pid namespace are for."""

from __future__ import annotations

import pytest

from bench.node import await_true
from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage

# sandbox.processes by default, and beside them in the cgroup: the zygote, until it is moved on.
PROCESSES = range(1000, 1025)
SECONDS = 60.0


@pytest.mark.case("abuse", "fork bomb")
def test_fork_bomb(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("processes", {"deed": "fork_bomb"}, rounds=1)
    seen.timed_out_or_out_of_memory()
    outcome("held to its process limit; timed out, all of it gone", seen.neighbour)


@pytest.mark.case("abuse", "as many sleeping processes as it gets")
def test_processes(stage: Stage, outcome: Outcome) -> None:
    """They outlive the reply, as on Lambda, and end with the environment."""

    def kept(found: dict[str, list[str]]) -> None:
        assert len(found["processes"]) in PROCESSES

    seen = stage.suffer("processes", {"deed": "forks"}, rounds=1, clean=kept, timeout=60, memory=1769)
    ((made, errno),) = seen.values()
    assert made in PROCESSES and errno == 11
    outcome("`EAGAIN` at 1,024 processes; they end with the environment", seen.neighbour)


@pytest.mark.case("abuse", "thread bomb")
def test_thread_bomb(stage: Stage, outcome: Outcome) -> None:
    def ended(found: dict[str, list[str]]) -> None:
        assert len(found["processes"]) == 1

    seen = stage.suffer("processes", {"deed": "threads"}, rounds=1, timeout=60, clean=ended)
    ((made, message),) = seen.values()
    assert made in PROCESSES and message == "can't start new thread"
    outcome("`can't start new thread` at 1,024", seen.neighbour)


@pytest.mark.case("abuse", "zombies")
def test_zombies(stage: Stage, outcome: Outcome) -> None:
    """Children that nobody waits for count against the limit; they are gone with their parent."""
    seen = stage.suffer("processes", {"deed": "zombies"}, rounds=1, timeout=60, memory=1769)
    seen.exited("exit status 3")
    outcome("count against the process limit, gone with their parent", seen.neighbour)


@pytest.mark.case("abuse", "orphans by the hundred")
def test_orphans(stage: Stage, outcome: Outcome) -> None:
    """Adopted and waited for by the sandbox's first process: no zombies collect."""

    def swept(name: str) -> None:
        """The last ones are about to end when the reply comes, and stand still between two invocations."""
        await_true(lambda: len(stage.look(name)["processes"]) == 1, SECONDS, "no orphans")

    seen = stage.suffer("processes", {"deed": "orphans"}, rounds=1, then=swept, timeout=60, memory=1769)
    assert seen.values() == [True]
    outcome("reaped by the sandbox's first process", seen.neighbour)


@pytest.mark.case("abuse", "children that spin on after the reply")
def test_lingering_children(stage: Stage, outcome: Outcome) -> None:
    def four_more(found: dict[str, list[str]]) -> None:
        assert len(found["processes"]) == 5
        stage.stands_still()

    seen = stage.suffer("processes", {"deed": "linger"}, rounds=1, timeout=60, clean=four_more)
    assert seen.values() == [True]
    outcome("stand still 0.1 s after the reply, when the environment is frozen", seen.neighbour)
