"""The deployment machine, by walking every legal event sequence and checking what must hold after each step."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from msgspec import Struct

from runtimed.machines.deployment import (
    PUBLIC,
    SETTLED,
    STEPS,
    TRANSITIONS,
    Again,
    Begin,
    Command,
    Delete,
    Deployment,
    Event,
    Forget,
    Grant,
    Granted,
    Illegal,
    Prepare,
    Prepared,
    Record,
    Retire,
    Retired,
    Route,
    Routed,
    State,
    StepFailed,
    Taught,
    Teach,
    Withdraw,
    recovered,
)

DEPTH = 13
STEP_OF = {Prepared: Prepare, Granted: Grant, Taught: Teach, Routed: Route}
ORDER = (Prepare, Grant, Teach, Route)


class World(Struct):
    """What a performer that obeys every command would have brought about."""

    rows: set[int] = set()
    prepared: set[int] = set()
    granted: set[int] = set()
    taught: set[int] = set()
    routed: int | None = None
    kept: Record | None = None
    asked: Command | None = None
    retired: bool = False

    def obey(self, command: Command) -> None:
        match command:
            case Prepare() | Grant() | Teach() | Route():
                assert self.asked is None, "one step at a time"
                self.asked = command
            case Record():
                self.kept = command
                for target in (command.serving, command.next):
                    assert target is None or target in self.rows
            case Withdraw(target):
                assert self.routed != target, "the target that serves was withdrawn"
                self.granted.discard(target)
                self.taught.discard(target)
            case Forget(target):
                assert target not in self.granted | self.taught, "forgotten before it was withdrawn"
                assert self.kept is None or target not in (self.kept.serving, self.kept.next)
                self.rows.discard(target)
            case Retire(targets):
                assert self.granted | self.taught <= set(targets)
                self.routed = None
                self.granted.clear()
                self.taught.clear()
                self.rows.clear()
                self.retired = True

    def done(self, event: Event) -> None:
        """The step's outcome, before the machine hears of it."""
        asked, self.asked = self.asked, None
        if isinstance(event, StepFailed):
            return
        match asked:
            case Prepare(target):
                self.prepared.add(target)
            case Grant(target):
                assert target in self.prepared
                self.granted.add(target)
            case Teach(target):
                assert target in self.granted
                self.taught.add(target)
            case Route(target):
                assert target in self.taught
                self.routed = target


def legal(machine: Deployment, world: World) -> Iterator[Event]:
    """Events that the world around the machine could send now."""
    if machine.state in SETTLED or machine.state is State.ABSENT:
        yield Begin(max(world.rows, default=world.routed or 0) + 1)
    if machine.state is State.FAILED:
        yield Again()
    if world.asked is not None:
        yield next(event() for event, step in STEP_OF.items() if isinstance(world.asked, step))
        yield StepFailed("because", "Code")
    if machine.state not in (State.ABSENT, State.DELETING, State.GONE):
        yield Delete()
    if machine.state is State.DELETING:
        yield Retired()


def apply(machine: Deployment, world: World, event: Event) -> None:
    if isinstance(event, Begin):
        world.rows.add(event.target)
        world.kept = Record(TRANSITIONS[machine.state, Begin], machine.serving, event.target)
    elif isinstance(event, Again):
        world.kept = Record(State.PREPARING, None, machine.next)
    elif isinstance(event, Delete):
        world.asked = None
    elif type(event) in STEP_OF or isinstance(event, StepFailed):
        world.done(event)
    for command in machine.on(event):
        world.obey(command)


def check(machine: Deployment, world: World) -> None:
    state = machine.state
    if state in (State.ABSENT, State.GONE):
        assert not (world.rows or world.granted or world.taught or world.routed)
        return
    if state is State.DELETING:
        assert world.retired
        return
    assert world.routed == machine.serving, "invocations reach what the machine says serves"
    if machine.serving is not None:
        assert machine.serving in world.granted & world.taught & world.rows
    assert (world.asked is not None) == (state in STEPS), "a step is under way exactly in a step's state"
    if state in STEPS:
        assert isinstance(world.asked, STEPS[state])
        assert world.asked.target == machine.next
    else:
        expected = {target for target in (machine.serving, machine.next) if target is not None}
        assert world.rows == expected, "no row is left over"
        assert world.granted == world.taught == ({machine.serving} - {None}), "nothing is left with the others"
        assert world.kept is not None
        assert (world.kept.state, world.kept.serving, world.kept.next) == (state, machine.serving, machine.next)
        assert bool(world.kept.reason) == (state in (State.FAILED, State.UPDATE_FAILED))


def walk(depth: int) -> tuple[int, set[tuple[State, type[Event]]]]:
    steps, seen = 0, set()
    stack = [(Deployment(), World(), 0)]
    while stack:
        machine, world, at = stack.pop()
        check(machine, world)
        if at == depth:
            continue
        for event in legal(machine, world):
            after, then = copy.deepcopy(machine), copy.deepcopy(world)
            seen.add((after.state, type(event)))
            apply(after, then, event)
            steps += 1
            stack.append((after, then, at + 1))
    return steps, seen


def test_every_sequence_keeps_what_must_hold() -> None:
    steps, seen = walk(DEPTH)
    assert steps > 3000
    assert seen == set(TRANSITIONS), "every transition of the table was walked, and no other"


def test_unlisted_pairs_raise_and_change_nothing() -> None:
    events = {kind: kind(*(() if kind not in (Begin, StepFailed) else (1,) if kind is Begin else ("r", "c")))
              for kind in {kind for _, kind in TRANSITIONS}}  # fmt: skip
    for state in State:
        for kind, event in events.items():
            if (state, kind) in TRANSITIONS:
                continue
            machine = Deployment()
            machine.state, machine.serving, machine.next = state, 1, 2
            with pytest.raises(Illegal):
                machine.on(event)
            assert (machine.state, machine.serving, machine.next) == (state, 1, 2)


def test_recovery_from_every_state_leads_on() -> None:
    """A crash between any two events: what Record and the begin of a change kept is enough to go on."""
    for state in State:
        if state in (State.ABSENT, State.GONE):
            continue
        serving = None if state in (State.PREPARING, State.FAILED, State.GRANTING, State.TEACHING, State.ROUTING) else 1
        following = 2 if state in STEPS or state is State.FAILED else None
        machine, commands = recovered(state, serving, following)
        if state in STEPS:
            assert commands == (Prepare(2),)
            for event in (Prepared(), Granted(), Taught(), Routed()):
                machine.on(event)
            assert (machine.state, machine.serving, machine.next) == (State.ACTIVE, 2, None)
        elif state is State.DELETING:
            assert commands == (Retire((1,)),)
            machine.on(Retired())
            assert machine.state is State.GONE
        else:
            assert commands == ()
            assert machine.state is state


def test_what_can_be_stored_can_be_shown() -> None:
    shown = {state for (_, event), state in TRANSITIONS.items() if event in (Routed, StepFailed, Delete, Begin, Again)}
    assert shown == set(PUBLIC)
