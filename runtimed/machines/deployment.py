"""The life of one function: from its first code to its deletion. Pure; `deployment.deployer` runs the commands.

A change of code or configuration makes a new *target*. Rolling one out takes four steps, each an answer away from
the next: prepare (unpack, compile, place), grant (the launcher takes the launch plan), teach (the dispatcher takes
the target), route (invocations go to it). Until the route is swapped the former target serves; if a step fails, it
goes on serving and what was pushed of the new one is withdrawn. Nothing of the step is kept on disk: after a
restart a rollout that was under way begins again, and every step is idempotent.

    ABSENT --Begin--> PREPARING -> GRANTING -> TEACHING -> ROUTING -> ACTIVE            StepFailed: FAILED
    FAILED --Again--> PREPARING            what stood in the way may have passed: the performer tries anew, now and then
    ACTIVE --Begin--> UPDATE_PREPARING -> ... -> UPDATE_ROUTING -> ACTIVE               StepFailed: UPDATE_FAILED
    any but ABSENT and the last two --Delete--> DELETING --Retired--> GONE
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

from runtimed.model.function import LastUpdateStatus
from runtimed.model.function import State as PublicState


class State(Enum):
    ABSENT = "absent"
    PREPARING = "preparing"
    GRANTING = "granting"
    TEACHING = "teaching"
    ROUTING = "routing"
    FAILED = "failed"
    ACTIVE = "active"
    UPDATE_PREPARING = "update preparing"
    UPDATE_GRANTING = "update granting"
    UPDATE_TEACHING = "update teaching"
    UPDATE_ROUTING = "update routing"
    UPDATE_FAILED = "update failed"
    DELETING = "deleting"
    GONE = "gone"


# ---- events --------------------------------------------------------------------------------------------------


class Event(Struct, frozen=True):
    """What happened."""


class Begin(Event, frozen=True):
    """A new target was recorded as the function's next, in one transaction with the state that follows."""

    target: int


class Again(Event, frozen=True):
    """The target that failed is tried once more; the state that follows was recorded before."""


class Prepared(Event, frozen=True):
    """Its package lies whole in the code store."""


class Granted(Event, frozen=True):
    """The launcher will start environments of it."""


class Taught(Event, frozen=True):
    """The dispatcher knows it."""


class Routed(Event, frozen=True):
    """Invocations reach it."""


class StepFailed(Event, frozen=True):
    """The step under way cannot be done; `reason` is for the function's owner."""

    reason: str
    code: str


class Delete(Event, frozen=True):
    """The owner wants it gone. The performer has stopped the step that was under way."""


class Retired(Event, frozen=True):
    """Nobody knows the function any more."""


# ---- commands ------------------------------------------------------------------------------------------------


class Command(Struct, frozen=True):
    """What the performer must do."""


class Prepare(Command, frozen=True):
    """Answered by Prepared or StepFailed."""

    target: int


class Grant(Command, frozen=True):
    """Answered by Granted or StepFailed."""

    target: int


class Teach(Command, frozen=True):
    """Answered by Taught or StepFailed."""

    target: int


class Route(Command, frozen=True):
    """Answered by Routed or StepFailed."""

    target: int


class Withdraw(Command, frozen=True):
    """Take the target from dispatcher and launcher, whatever they know of it; running invocations end by themselves."""

    target: int


class Forget(Command, frozen=True):
    """Take the target's row from the store."""

    target: int


class Record(Command, frozen=True):
    """Keep state and targets in the store. It comes before what it makes obsolete is withdrawn and forgotten."""

    state: State
    serving: int | None
    next: int | None
    reason: str = ""
    code: str = ""


class Retire(Command, frozen=True):
    """Take route, targets and plans away, then forget the function. Answered by Retired."""

    targets: tuple[int, ...]


# ---- the machine ---------------------------------------------------------------------------------------------

# What each step is followed by, first rollout and update alike.
TRANSITIONS: Mapping[tuple[State, type[Event]], State] = {
    (State.ABSENT, Begin): State.PREPARING,
    (State.PREPARING, Prepared): State.GRANTING,
    (State.GRANTING, Granted): State.TEACHING,
    (State.TEACHING, Taught): State.ROUTING,
    (State.ROUTING, Routed): State.ACTIVE,
    (State.PREPARING, StepFailed): State.FAILED,
    (State.GRANTING, StepFailed): State.FAILED,
    (State.TEACHING, StepFailed): State.FAILED,
    (State.ROUTING, StepFailed): State.FAILED,
    (State.FAILED, Begin): State.PREPARING,
    (State.FAILED, Again): State.PREPARING,
    (State.ACTIVE, Begin): State.UPDATE_PREPARING,
    (State.UPDATE_FAILED, Begin): State.UPDATE_PREPARING,
    (State.UPDATE_PREPARING, Prepared): State.UPDATE_GRANTING,
    (State.UPDATE_GRANTING, Granted): State.UPDATE_TEACHING,
    (State.UPDATE_TEACHING, Taught): State.UPDATE_ROUTING,
    (State.UPDATE_ROUTING, Routed): State.ACTIVE,
    (State.UPDATE_PREPARING, StepFailed): State.UPDATE_FAILED,
    (State.UPDATE_GRANTING, StepFailed): State.UPDATE_FAILED,
    (State.UPDATE_TEACHING, StepFailed): State.UPDATE_FAILED,
    (State.UPDATE_ROUTING, StepFailed): State.UPDATE_FAILED,
    (State.PREPARING, Delete): State.DELETING,
    (State.GRANTING, Delete): State.DELETING,
    (State.TEACHING, Delete): State.DELETING,
    (State.ROUTING, Delete): State.DELETING,
    (State.FAILED, Delete): State.DELETING,
    (State.ACTIVE, Delete): State.DELETING,
    (State.UPDATE_PREPARING, Delete): State.DELETING,
    (State.UPDATE_GRANTING, Delete): State.DELETING,
    (State.UPDATE_TEACHING, Delete): State.DELETING,
    (State.UPDATE_ROUTING, Delete): State.DELETING,
    (State.UPDATE_FAILED, Delete): State.DELETING,
    (State.DELETING, Retired): State.GONE,
}

STEPS: Mapping[State, type[Prepare] | type[Grant] | type[Teach] | type[Route]] = {
    State.PREPARING: Prepare,
    State.GRANTING: Grant,
    State.TEACHING: Teach,
    State.ROUTING: Route,
    State.UPDATE_PREPARING: Prepare,
    State.UPDATE_GRANTING: Grant,
    State.UPDATE_TEACHING: Teach,
    State.UPDATE_ROUTING: Route,
}

# What the function's owner sees.
PUBLIC: Mapping[State, tuple[PublicState, LastUpdateStatus]] = {
    State.PREPARING: (PublicState.PENDING, LastUpdateStatus.IN_PROGRESS),
    State.FAILED: (PublicState.FAILED, LastUpdateStatus.FAILED),
    State.ACTIVE: (PublicState.ACTIVE, LastUpdateStatus.SUCCESSFUL),
    State.UPDATE_PREPARING: (PublicState.ACTIVE, LastUpdateStatus.IN_PROGRESS),
    State.UPDATE_FAILED: (PublicState.ACTIVE, LastUpdateStatus.FAILED),
    State.DELETING: (PublicState.INACTIVE, LastUpdateStatus.IN_PROGRESS),
}

# Where a change may begin; everywhere else it is a conflict.
SETTLED = frozenset({State.ACTIVE, State.UPDATE_FAILED, State.FAILED})


class Illegal(Exception):
    """The event does not belong in this state: a defect of the performer."""


class Deployment:
    """One function's. `recovered` makes it from what Record kept."""

    def __init__(self) -> None:
        self.state = State.ABSENT
        self.serving: int | None = None
        self.next: int | None = None

    def on(self, event: Event) -> tuple[Command, ...]:
        """The next state and what to do; Illegal for a pair that is not in TRANSITIONS."""
        state = TRANSITIONS.get((self.state, type(event)))
        if state is None:
            raise Illegal(f"{type(event).__name__} in state {self.state.value}")
        commands: list[Command] = []
        if isinstance(event, Begin):
            commands = self._begin(event)
        elif isinstance(event, StepFailed):
            commands = self._failed(event, state)
        elif isinstance(event, Routed):
            former, self.serving, self.next = self.serving, self.next, None
            commands = [Record(state, self.serving, None)]
            if former is not None:
                commands += [Withdraw(former), Forget(former)]
        elif isinstance(event, Delete):
            known = tuple(target for target in (self.serving, self.next) if target is not None)
            commands = [Record(state, self.serving, self.next), Retire(known)]
        elif state in STEPS and self.next is not None:
            commands = [STEPS[state](self.next)]
        self.state = state
        return tuple(commands)

    def _begin(self, event: Begin) -> list[Command]:
        failed, self.next = self.next, event.target
        return [Prepare(event.target)] if failed is None else [Forget(failed), Prepare(event.target)]

    def _failed(self, event: StepFailed, state: State) -> list[Command]:
        failed = self.next
        if self.serving is not None:
            self.next = None
        commands: list[Command] = [Record(state, self.serving, self.next, event.reason, event.code)]
        if failed is not None:
            commands.append(Withdraw(failed))
            if self.serving is not None:  # otherwise the failed target stays: it is what the configuration shows
                commands.append(Forget(failed))
        return commands


def recovered(state: State, serving: int | None, next: int | None) -> tuple[Deployment, tuple[Command, ...]]:
    """The machine as Record left it, and what to do first: begin the rollout again, finish the deletion, or nothing.

    The targets that serve are known to launcher and dispatcher by synchronisation, not by commands.
    """
    machine = Deployment()
    machine.state, machine.serving, machine.next = state, serving, next
    if state is State.DELETING:
        return machine, (Retire(tuple(target for target in (serving, next) if target is not None)),)
    if state in STEPS and next is not None:
        machine.state = State.PREPARING if serving is None else State.UPDATE_PREPARING
        return machine, (Prepare(next),)
    return machine, ()
