"""How many spares a runtime has: the launcher's C against a twin in Python, and what must hold of both."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.native.test_event_log import PROGRAM as POWER

PROGRAM = POWER.with_name("print_spares")
SECOND = 1_000_000
HALF, SLEEP = 10 * SECOND, 3600 * SECOND
SHARED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Steps of time around what matters.
STEPS = st.one_of(
    st.integers(0, SECOND),
    st.integers(HALF - 2, HALF + 2),
    st.integers(0, 10 * HALF),
    st.integers(SLEEP - 2, SLEEP + 2),
    st.integers(0, 2**48),
)
LINES = st.lists(st.tuples(st.sampled_from("fsssw"), STEPS, st.integers(0, 64)), max_size=60)


class Program:
    """Asked again and again."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str, *numbers: int) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{what} {' '.join(map(str, numbers))}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


class Twin:
    """The same rules, told otherwise: every start is remembered, and weighs half as much after each ten seconds."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.first = 0
        self.weight = 0.0  # in 256ths, whole
        self.periods = 0

    def _let_pass(self, now: int) -> None:
        periods = (now - self.first) // HALF
        self.weight = self.weight // 2 ** min(periods - self.periods, 64)
        self.periods = periods

    def wake(self, now: int) -> None:
        if self.last is None:
            self.first = now
        self.last = now

    def start(self, now: int) -> None:
        self.wake(now)
        self._let_pass(now)
        self.weight = min(self.weight + 256, 1024 * 256)

    def wanted(self, now: int, most: int) -> int:
        if self.last is None or now - self.last >= SLEEP:
            return 0
        passed = (now - self.first) // HALF - self.periods
        return int(min(most, 1 + self.weight // 2 ** min(passed, 64) // 256))


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    asked = Program()
    yield asked
    asked.close()


@SHARED
@given(LINES)
def test_both_want_the_same(program: Program, lines: list[tuple[str, int, int]]) -> None:
    twin, now = Twin(), 1
    program.ask("n")
    for what, step, most in lines:
        now += step
        if what == "f":
            twin.wake(now)
            program.ask("f", now)
        elif what == "s":
            twin.start(now)
            program.ask("s", now)
        assert program.ask("w", now, most) == twin.wanted(now, most)


@SHARED
@given(st.integers(0, 40), st.integers(0, 64), STEPS)
def test_what_must_hold(program: Program, starts: int, most: int, step: int) -> None:
    """None before anybody asked and after a long sleep; never more than allowed; fewer as time passes; at least one
    soon after a start; as many as there were starts at once, and one."""
    program.ask("n")
    assert program.ask("w", 5, most) == 0
    program.ask("f", 5)
    for _ in range(starts):
        program.ask("s", 5)
    now = program.ask("w", 5, most)
    assert now == min(most, 1 + starts)
    later = program.ask("w", 5 + step, most)
    assert later <= now
    assert (later == 0) == (most == 0 or step >= SLEEP)
