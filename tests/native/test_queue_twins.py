"""The queues' pure parts in C against twins in Python that know Lambda's rules and no more: what becomes of an event,
and what is due when."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.native.test_event_log import PROGRAM as POWER

PROGRAM = POWER.with_name("print_queue")
SHARED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
NEVER = 2**64 - 1
HORIZON = 2**48 - 1
Decided = tuple[int, int, int, int]
# Around what matters: nothing, the bounds of Lambda's settings, and far beyond.
TIMES = st.one_of(
    st.integers(0, 70_000), st.integers(21_590_000, 21_610_000), st.integers(1_700_000_000_000, 1_700_000_100_000)
)


class Outcome(IntEnum):
    SUCCESS, ERROR, THROTTLED = range(3)


class Verdict(IntEnum):
    INVOKE, SETTLE, DELIVER, RETRY, GATE = range(5)


class Condition(IntEnum):
    SUCCESS, RETRIES_EXHAUSTED, EVENT_AGE_EXCEEDED = range(3)


class Policy(NamedTuple):
    retries: int
    base: int
    age: int
    success: bool
    failure: bool
    refused: bool


class Program:
    """Asked again and again."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str, *numbers: int) -> list[int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{what} {' '.join(str(int(number)) for number in numbers)}\n")
        self._process.stdin.flush()
        return list(map(int, self._process.stdout.readline().split()))

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    if not PROGRAM.exists():
        pytest.skip("the sanitizer build is missing; ./dev test makes it")
    made = Program()
    yield made
    made.close()


# ---- policy ----------------------------------------------------------------------------------------------------------

POLICIES = st.builds(
    Policy,
    retries=st.integers(0, 40),
    base=st.sampled_from([1, 1000, 60_000, 3_600_000]),
    age=st.sampled_from([60_000, 3_600_000, 21_600_000, 2**62]),
    success=st.booleans(),
    failure=st.booleans(),
    refused=st.booleans(),
)


def end(policy: Policy, condition: Condition, attempts: int) -> Decided:
    wanted = policy.success if condition is Condition.SUCCESS else policy.failure
    return (Verdict.DELIVER if wanted else Verdict.SETTLE), condition, attempts, 0


def before(policy: Policy, attempts: int, accepted: int, now: int) -> Decided:
    if policy.refused:  # reserved concurrency 0: straight to the failure path, without a retry
        return end(policy, Condition.RETRIES_EXHAUSTED, attempts)
    if max(0, now - accepted) > policy.age:
        return end(policy, Condition.EVENT_AGE_EXCEEDED, attempts)
    return Verdict.INVOKE, 0, attempts, 0


def after(policy: Policy, outcome: Outcome, attempts: int, accepted: int, now: int, gates: int, random: int) -> Decided:
    if outcome is Outcome.SUCCESS:
        return end(policy, Condition.SUCCESS, attempts + 1)
    if (
        outcome is Outcome.THROTTLED
    ):  # from a second to five minutes, by doubling; half of it is jitter; no attempt used
        most = min(1000 * 2**gates, 300_000)
        return Verdict.GATE, 0, attempts, now + most // 2 + random % (most // 2 + 1)
    if attempts + 1 > min(policy.retries, 30):
        return end(policy, Condition.RETRIES_EXHAUSTED, attempts + 1)
    due = now + policy.base * (attempts + 1)  # a minute, then two
    if max(0, due - accepted) > policy.age:
        return end(policy, Condition.EVENT_AGE_EXCEEDED, attempts + 1)
    return Verdict.RETRY, 0, attempts + 1, due


@SHARED
@given(policy=POLICIES, attempts=st.integers(0, 31), accepted=TIMES, now=TIMES)
def test_before_an_attempt(program: Program, policy: Policy, attempts: int, accepted: int, now: int) -> None:
    assert program.ask("b", *policy, attempts, accepted, now) == list(before(policy, attempts, accepted, now))


@SHARED
@given(
    policy=POLICIES,
    outcome=st.sampled_from(Outcome),
    attempts=st.integers(0, 31),
    accepted=TIMES,
    now=TIMES,
    gates=st.integers(0, 100),
    random=st.integers(0, 2**32 - 1),
)
def test_after_an_attempt(
    program: Program,
    policy: Policy,
    outcome: Outcome,
    attempts: int,
    accepted: int,
    now: int,
    gates: int,
    random: int,
) -> None:
    told = program.ask("a", *policy, outcome, attempts, accepted, now, gates, random)
    assert told == list(after(policy, outcome, attempts, accepted, now, gates, random))


def test_lambdas_own_numbers(program: Program) -> None:
    """Two retries, after one minute and after two more; no more."""
    policy, now, made = Policy(2, 60_000, 21_600_000, False, True, False), 1_700_000_000_000, []
    for attempts in range(3):
        verdict, _, count, due = program.ask("a", *policy, Outcome.ERROR, attempts, 1_700_000_000_000, now, 0, 0)
        made.append((verdict, count, max(0, due - now)))
        now = due
    assert made == [(Verdict.RETRY, 1, 60_000), (Verdict.RETRY, 2, 120_000), (Verdict.DELIVER, 3, 0)]


# ---- the wheel -------------------------------------------------------------------------------------------------------

FAR = st.one_of(st.integers(0, 200), st.integers(0, 400_000), st.integers(0, 40_000_000_000), st.integers(0, 2**49))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("+"), FAR, st.integers(1, 3)),
        st.tuples(st.just(">"), FAR, st.just(0)),
        st.tuples(st.just("r"), FAR, st.integers(0, 7)),
    ),
    max_size=60,
)


@SHARED
@given(start=st.sampled_from([0, 63, 4095, 1_700_000_000_000, 2**42 - 3]), steps=STEPS)
def test_what_is_due(program: Program, start: int, steps: list[tuple[str, int, int]]) -> None:
    """The twin is a list that is looked through."""
    now, waiting = start, list[tuple[int, int, int]]()
    program.ask("i", start)
    for number, (what, by, kind) in enumerate(steps):
        if what == "+":
            program.ask("+", now + by, kind, number)
            waiting.append((min(now + by, HORIZON), kind, number))
        elif what == "r":
            back = max(0, now - by)
            program.ask("r", back, kind << 1, back + 5000)
            now = back
            waiting = [(min(d, now + 5000) if kind << 1 >> k & 1 else d, k, n) for d, k, n in waiting]
        else:
            now = min(now + by, HORIZON)
            due = sorted(n for d, _, n in waiting if d <= now)
            assert sorted(program.ask(">", now)) == due
            waiting = [item for item in waiting if item[0] > now]
        (following,) = program.ask("n")
        assert following <= min((d for d, _, _ in waiting), default=NEVER), "none is forgotten"
        assert waiting or following == NEVER
