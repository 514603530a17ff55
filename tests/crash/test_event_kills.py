"""kill -9 of the dispatcher while it accepts, invokes, retries and settles events, with a ledger that misses nothing:
the test is every caller and every environment.

The short form is among the tests; RUNTIMED_SOAK_MINUTES (10) says how long the other one is, RUNTIMED_SOAK_SEED which
choices are made; the seed is printed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import Environment, Stage, await_true
from tests.integration.event_stage import EVENT, counted, kill, operate, prepare, staged

RULE = {"retries": 2, "base_delay_ms": 1, "dead_max": 100_000}
LEFT = (wire.EventState.WAITING, wire.EventState.RUNNING)
LIVES = 12
"""Dispatchers of the short form."""


class Ledger:
    """What was said of each event, by its payload."""

    def __init__(self) -> None:
        self.sent = 0
        self.acked: dict[int, bytes] = {}
        self.tried: Counter[int] = Counter()
        self.handled: set[int] = set()
        self.handled_here: set[int] = set()
        """By this dispatcher."""

    def invoked(self, body: bytes) -> int:
        number = int(body[5:].partition(b",")[0])
        assert number < self.sent, "an event that nobody sent"
        assert number not in self.handled_here, f"{number} was handled by this very dispatcher, and is invoked again"
        self.tried[number] += 1
        return number

    def succeeds(self, number: int) -> None:
        self.handled.add(number)
        self.handled_here.add(number)


def launched(stage: Stage) -> Environment | None:
    header, message = stage.launcher.next()
    if not isinstance(message, wire.Launch):
        return None
    environment = Environment(stage.launcher, header.object, stage.directory, peak=1 << 20, frozen="0\n")
    stage.links.append(environment)
    environment.start()
    return environment


class Life:
    """One dispatcher, whose callers and environments do something by chance: events are sent, several at a time;
    invoked ones end one way or another."""

    def __init__(self, stage: Stage, rng: random.Random, ledger: Ledger) -> None:
        self.control = prepare(stage, rule=RULE, max_environments=1)
        self.stage, self.rng, self.ledger = stage, rng, ledger
        self.sender = stage.invoker()
        self.environment: Environment | None = None
        self.open_calls: dict[int, int] = {}

    def send(self) -> int:
        number = self.ledger.sent
        size = self.rng.choice((0, 0, 300, 9000, 200_000))
        call = self.sender.call(b'{"n":%d,"pad":"%s"}' % (number, b"x" * size), flags=EVENT)
        self.open_calls[call] = number
        self.ledger.sent += 1
        return number

    def step(self) -> None:
        for _ in range(self.rng.choice((0, 0, 1, 3))):
            self.send()
        self.listen()

    def listen(self) -> None:
        """Nothing is sent, but what comes is answered."""
        if not self.sender.silent(0.001):
            header, answer = self.sender.next()
            assert isinstance(answer, wire.Answer) and answer.status == 202, answer
            self.ledger.acked[self.open_calls.pop(header.object)] = bytes(answer.request_id)
        if not self.stage.launcher.silent(0.001):
            self.environment = launched(self.stage) or self.environment
        if self.environment is not None and not self.environment.silent(0.001):
            self.environment = attempt(self.environment, self.rng, self.ledger)


def live(stage: Stage, rng: random.Random, ledger: Ledger, steps: int) -> None:
    life = Life(stage, rng, ledger)
    for _ in range(steps):
        life.step()


def attempt(environment: Environment, rng: random.Random, ledger: Ledger) -> Environment | None:
    """None: it did not survive that."""
    invoke, body = environment.invoke()
    number = ledger.invoked(body)
    fate = rng.random()
    if fate < 0.15:
        environment.result(invoke.id, b"{}", error="E")
    elif fate < 0.2:
        environment.exit(139)
        return None
    else:
        ledger.succeeds(number)
        environment.result(invoke.id)
    return environment


def drain(stage: Stage, ledger: Ledger) -> None:
    """All that is left succeeds."""
    control = prepare(stage, rule=RULE, max_environments=1)
    environment: Environment | None = None

    def empty() -> bool:
        nonlocal environment
        if not stage.launcher.silent(0):
            environment = launched(stage) or environment
        while environment is not None and not environment.silent(0):
            invoke, body = environment.invoke()
            ledger.succeeds(ledger.invoked(body))
            environment.result(invoke.id)
        if counted(control, "events_waiting") > 0:
            return False  # nor does 0 say much: it may not have read its log yet
        left = [operate(control, wire.QueueOperation.LIST, state=state, limit=4000)[1] for state in LEFT]
        return all((done.error, done.matched, done.more) == (0, 0, 0) for done in left)

    await_true(empty, "all events to be handled or given up")
    assert counted(control, "events_damaged_files") == 0


def storm(directory: Path, rng: random.Random, lives: int, until: float) -> Ledger:
    ledger, life = Ledger(), 0
    while life < lives or time.monotonic() < until:
        life += 1
        ledger.handled_here.clear()
        with staged(directory / f"life{life}", directory / "queue") as stage:
            live(stage, rng, ledger, rng.randrange(20, 150))
            kill(stage)
    ledger.handled_here.clear()
    with staged(directory / "last", directory / "queue") as stage:
        drain(stage, ledger)
    return ledger


def judge(ledger: Ledger) -> None:
    assert len(ledger.acked) > 20
    missing = {number for number in ledger.acked if number not in ledger.handled and ledger.tried[number] < 3}
    assert not missing, f"accepted, and neither handled nor tried as often as it may be: {sorted(missing)}"
    print(f"{ledger.sent} sent, {len(ledger.acked)} acknowledged, {len(ledger.handled)} handled")


def test_no_event_is_lost_by_kill_9(tmp_path: Path) -> None:
    judge(storm(tmp_path, random.Random(6), LIVES, 0))


@pytest.mark.soak
def test_no_event_is_lost_by_kill_9_for_minutes(tmp_path: Path) -> None:
    minutes = float(os.environ.get("RUNTIMED_SOAK_MINUTES", "10"))
    seed = int(os.environ.get("RUNTIMED_SOAK_SEED", str(time.time_ns() % 1_000_000)))
    print(f"seed {seed}, {minutes:g} minutes")
    judge(storm(tmp_path, random.Random(seed), LIVES, time.monotonic() + minutes * 60))
