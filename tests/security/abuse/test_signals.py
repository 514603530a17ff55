"""Signals, endless loops, and ends that do not come."""

from __future__ import annotations

from typing import Any

import pytest

from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage


@pytest.mark.case("abuse", "signal storm in its process group")
def test_storm(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "storm"}, rounds=1)
    seen.timed_out()
    outcome("its group is its own; timed out", seen.neighbour)


@pytest.mark.case("abuse", "queued real-time signals")
def test_queued(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "queued"}, rounds=1, timeout=60)
    assert seen.values() == [1024]
    outcome("1,024 at most", seen.neighbour)


@pytest.mark.case("abuse", "SIGKILL to all that it sees")
def test_kill_all(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "kill_all"}, rounds=1, timeout=60)
    seen.exited("signal: killed")
    outcome("`Runtime.ExitError`; it sees only itself", seen.neighbour)


@pytest.mark.case("abuse", "SIGSTOP to itself")
def test_stop(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "stop"}, rounds=1)
    seen.timed_out()
    outcome("timed out", seen.neighbour)


@pytest.mark.case("abuse", "every signal ignored")
def test_deaf(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "deaf"}, rounds=1)
    seen.timed_out()
    outcome("timed out: SIGKILL cannot be ignored", seen.neighbour)


@pytest.mark.case("abuse", "endless loop")
def test_spin(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "spin"}, rounds=1)
    seen.timed_out()
    outcome("timed out", seen.neighbour)


@pytest.mark.case("abuse", "endless loop in C, the interpreter locked")
def test_spin_in_c(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "spin_in_c"}, rounds=1, memory=1024)
    seen.timed_out()
    outcome("timed out", seen.neighbour)


@pytest.mark.case("abuse", "endless loop in an exit handler")
def test_spin_at_exit(stage: Stage, outcome: Outcome) -> None:
    """The channel is closed by then, or the time-out comes: the caller does not wait for the handler."""
    seen = stage.suffer("signals", {"deed": "spin_at_exit"}, rounds=1)
    error = seen.results[0].error()
    assert error is not None and error.error_type in ("Runtime.ExitError", "Sandbox.Timedout"), error
    outcome("ended with its time-out at the latest", seen.neighbour)


@pytest.mark.case("abuse", "endless loop at import")
def test_spin_in_init(stage: Stage, outcome: Outcome) -> None:
    """The init phase has its own limit, and is repeated in the invocation, within the function's timeout."""
    seen = stage.suffer(
        "signals", {"deed": "spin"}, rounds=1, init="while True:\n    pass\n", then=lambda name: None, timeout=2
    )
    seen.timed_out(2)
    outcome("init is repeated within the call and times out with it", seen.neighbour)


@pytest.mark.case("abuse", "threads that spin on after the reply")
def test_lingering_threads(stage: Stage, outcome: Outcome) -> None:
    def five(found: dict[str, Any]) -> None:
        assert found["threads"] == 5
        stage.stands_still()

    seen = stage.suffer("signals", {"deed": "threads_spin_on"}, rounds=1, timeout=60, clean=five)
    assert seen.values() == [True]
    outcome("stand still 0.1 s after the reply, when the environment is frozen", seen.neighbour)


@pytest.mark.case("abuse", "overflow of the C stack")
def test_overflow(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "overflow"}, rounds=1, memory=512, timeout=60)
    seen.exited("signal: segmentation fault")
    outcome("`Runtime.ExitError`, no core dump", seen.neighbour)


@pytest.mark.case("abuse", "endless recursion")
def test_recursion(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "recursion"}, rounds=1, timeout=60)
    seen.failed_with("RecursionError", "^maximum recursion depth exceeded")
    outcome("`RecursionError`, the environment goes on", seen.neighbour)


@pytest.mark.case("abuse", "a timer that fires faster than its handler ends")
def test_alarms(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("signals", {"deed": "alarms"}, rounds=1)
    seen.timed_out()
    outcome("timed out", seen.neighbour)


@pytest.mark.case("abuse", "from processor to processor and back")
def test_wander(stage: Stage, outcome: Outcome) -> None:
    """The kernel moves who is pinned elsewhere by threads that run before everything else on the host."""

    def stays(name: str) -> None:
        assert stage.call(name, {"deed": "pinned"}).value is True

    seen = stage.suffer("signals", {"deed": "wander"}, rounds=1, then=stays)
    seen.timed_out()
    outcome("pinning does nothing, and says that it did; timed out", seen.neighbour)
