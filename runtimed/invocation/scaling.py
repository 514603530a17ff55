"""Scaling of provisioned concurrency: scheduled actions and target tracking, kept and performed; for api.scaling.

A target is one row; each change of it is one transaction. What a scheduled action does to the bounds is on the disk
together with the time when it is due next, and with the mark that what is provisioned has still to follow: after a
crash nothing is done twice or left out. An action whose time passed while nobody was there is performed late, of
several missed times the last. How long utilisation has been too high or too low is forgotten with this process;
cooldowns are not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from runtimed.invocation.concurrency import check_meant
from runtimed.invocation.scaling_shapes import described, due, moment, planned, rule, shown
from runtimed.machines.scaling import Bounds, Measured, Periods, Policy, Scale, Tracking
from runtimed.machines.schedules import latest
from runtimed.model import errors
from runtimed.model.arn import LATEST
from runtimed.model.scaling import PutScheduledActionRequest, ScalableTarget, ScheduledAction, TargetTracking
from runtimed.store.scaling import Action, Activity, Scalable, ScalingStore

if TYPE_CHECKING:
    from runtimed.dispatch.control import Dispatcher
    from runtimed.invocation.concurrency import ConcurrencyKeeper

ACTIONS = 200
"""Of one target: Application Auto Scaling's quota."""
SAMPLES = 10
"""Of utilisation in a period, at least..."""
SAMPLE_SECONDS = 1.0
"""...and one in so long."""
LONGEST_PAUSE = 30.0
"""Seconds: the clock that schedules go by may be set, and what was refused may be granted."""
AGAIN_SECONDS = 1.0
"""After a look at what is due that did not succeed."""

T = TypeVar("T")
Key = tuple[bytes, str]

log = logging.getLogger(__name__)


class Terms(Struct, frozen=True, kw_only=True):
    """Settings."""

    period_ms: int = 60_000
    periods: Periods = Periods()


class _Tracked(Struct):
    """A target with a policy, and the period that runs."""

    row: Scalable
    tracking: Tracking
    ends: float
    """By the monotonic clock."""
    samples: int = 0
    busy: int = 0
    ready: int = 0


class ScalingKeeper:
    """`load` once, then `run`; `look` is what it repeats."""

    def __init__(
        self,
        store: ScalingStore,
        concurrency: ConcurrencyKeeper,
        dispatcher: Dispatcher,
        terms: Terms,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._concurrency = concurrency
        self._dispatcher = dispatcher
        self._terms = terms
        self._wall, self._monotonic = wall, monotonic
        self._rows: dict[Key, Scalable] = {}
        self._tracked: dict[Key, _Tracked] = {}
        self._retries: dict[Key, float] = {}
        """When what was refused is tried again, by the monotonic clock."""
        self._changing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load(self) -> None:
        """What there is, as it is on the disk."""
        self._rows = {row.key: row for row in await self._store.all()}
        self._retries = {key: at for key, at in self._retries.items() if key in self._rows}
        tracked: dict[Key, _Tracked] = {}
        for key, row in self._rows.items():
            if row.policy is None:
                continue
            before = self._tracked.get(key)
            if before is not None and (before.row.policy, before.row.bounds) == (row.policy, row.bounds):
                before.row = row
                tracked[key] = before
            else:
                tracking = Tracking(row.policy, row.bounds, self._terms.periods, row.cooldowns)
                tracked[key] = _Tracked(row, tracking, self._monotonic() + self._terms.period_ms / 1000)
        self._tracked = tracked

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            pause: float | None = AGAIN_SECONDS
            try:
                await self.look()
                pause = self._pause()
            except Exception:
                log.exception("provisioned concurrency could not be scaled; trying again")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause)

    async def look(self) -> None:
        """Does what is due, and takes a sample of utilisation."""
        now = self._now()
        if any(self._is_due(row, now) for row in self._rows.values()):
            async with self._changing:
                await self.load()
                for row in [row for row in self._rows.values() if self._is_due(row, now)]:
                    await self._guarded(row, self._due(row, now))
                await self.load()
        over = [key for key, tracked in self._tracked.items() if self._sample(tracked)]
        if over:
            async with self._changing:
                await self.load()  # their functions may be gone
                for key in over:
                    if key in self._tracked:
                        await self._guarded(self._tracked[key].row, self._period_over(self._tracked[key]))

    # ---- operations ------------------------------------------------------------------------------------------

    async def register(self, name: str, qualifier: str, least: int | None, most: int | None) -> ScalableTarget:
        async def change() -> Scalable:
            uid, found = await self._store.meant(name, qualifier)
            check_meant(name, qualifier, found)
            row = await self._store.get(name, qualifier)
            if row is None and (least is None or most is None):
                raise errors.InvalidParameterValue(
                    "MinCapacity, MaxCapacity: both are needed when a target is registered for the first time."
                )
            old = Bounds(0, 0) if row is None else row.bounds
            bounds = Bounds(old.least if least is None else least, old.most if most is None else most)
            if bounds.least > bounds.most:
                raise errors.InvalidParameterValue(
                    f"MinCapacity: {bounds.least} is more than MaxCapacity, {bounds.most}. Raise that, or lower this."
                )
            new = row is None
            if row is None:
                row = Scalable(uid=uid, name=name, qualifier=qualifier, version=found.version, bounds=bounds)
            row = await self._keep(replace(row, bounds=bounds, pending="registered"), new=new)
            return await self._apply(row)

        return self._described(await self._change(change()))

    async def deregister(self, name: str, qualifier: str) -> None:
        async def change() -> None:
            if not await self._store.remove(name, qualifier):
                raise _no_target(name, qualifier)

        await self._change(change())

    async def targets(self, name: str) -> list[ScalableTarget]:
        """All, when there is no name."""
        return [self._described(row) for row in await self._store.all() if name in ("", row.name)]

    async def track(self, name: str, qualifier: str, policy: TargetTracking) -> ScalableTarget:
        new = Policy(
            target=policy.target_value,
            out_seconds=policy.scale_out_cooldown,
            in_seconds=policy.scale_in_cooldown,
            scale_in=not policy.disable_scale_in,
        )

        async def change() -> Scalable:
            return await self._keep(replace(await self._existing(name, qualifier), policy=new))

        return self._described(await self._change(change()))

    async def untrack(self, name: str, qualifier: str) -> None:
        async def change() -> None:
            row = await self._existing(name, qualifier)
            if row.policy is None:
                raise errors.ResourceNotFound(
                    f"{name}:{qualifier} has no scaling policy. `runtimectl provision target` puts one."
                )
            await self._keep(replace(row, policy=None))

        await self._change(change())

    async def schedule(self, request: PutScheduledActionRequest) -> ScheduledAction:
        """The function's name and the qualifier are plain."""
        action = planned(request, self._now())

        async def change() -> Scalable:
            row = await self._existing(request.function_name, request.qualifier)
            others = [one for one in row.actions if one.name != action.name]
            if len(others) >= ACTIONS:
                raise errors.LimitExceeded(f"A target has at most {ACTIONS} scheduled actions. Delete one first.")
            actions = tuple(sorted([*others, action], key=lambda one: one.name))
            return await self._keep(replace(row, actions=actions))

        return shown(await self._change(change()), action)

    async def actions(self, name: str, qualifier: str) -> list[ScheduledAction]:
        row = await self._existing(name, qualifier)
        return [shown(row, action) for action in row.actions]

    async def unschedule(self, name: str, qualifier: str, action: str) -> None:
        async def change() -> None:
            row = await self._existing(name, qualifier)
            left = tuple(one for one in row.actions if one.name != action)
            if len(left) == len(row.actions):
                raise errors.ResourceNotFound(
                    f"{name} has no scheduled action {action!r}. `runtimectl provision schedule {name}` lists them."
                )
            await self._keep(replace(row, actions=left))

        await self._change(change())

    # ---- what is due -----------------------------------------------------------------------------------------

    def _is_due(self, row: Scalable, now: int) -> bool:
        retry = bool(row.pending) and self._monotonic() >= self._retries.get(row.key, 0.0)
        return retry or any(action.next_ms <= now for action in row.actions)

    async def _due(self, row: Scalable, now: int) -> None:
        missed = [(_last_time(action, now), action) for action in row.actions if action.next_ms <= now]
        bounds, left = row.bounds, {action.name: action for action in row.actions}
        for _, action in sorted(missed, key=lambda one: one[0]):
            bounds = bounds.changed(action.least, action.most)
            following = due(action, now)
            if following is None:
                left.pop(action.name)
            else:
                left[action.name] = replace(action, next_ms=following)
            row = replace(row, pending=f"scheduled action {action.name}")
        if missed:
            row = await self._keep(replace(row, bounds=bounds, actions=tuple(left.values())))
        if row.pending:
            await self._apply(row)

    async def _apply(self, row: Scalable) -> Scalable:
        """Brings what is provisioned within the bounds."""
        capacity = self._concurrency.executions(row.uid, row.qualifier)
        activity = await self._provision(row, row.bounds.clamp(capacity), row.pending)
        self._retries.pop(row.key, None)
        if activity.failed:
            self._retries[row.key] = self._monotonic() + LONGEST_PAUSE
        return await self._keep(replace(row, activity=activity, pending=row.pending if activity.failed else ""))

    async def _provision(self, row: Scalable, capacity: int, cause: str) -> Activity:
        before = self._concurrency.executions(row.uid, row.qualifier)
        failed, named = "", (row.name, row.qualifier)
        try:
            if capacity == 0 < before:
                await self._concurrency.unprovision(row.name, row.qualifier)
            elif capacity != before:
                await self._concurrency.provision(row.name, row.qualifier, capacity)
        except errors.ApiError as error:
            failed = error.message
            log.warning("%s:%s stays at %d provisioned instead of %d (%s): %s", *named, before, capacity, cause, failed)
        else:
            if capacity != before:
                log.info("%s:%s: from %d provisioned to %d: %s", *named, before, capacity, cause)
        return Activity(at_ms=self._now(), cause=cause, before=before, after=capacity, failed=failed)

    # ---- utilisation -----------------------------------------------------------------------------------------

    def _sample(self, tracked: _Tracked) -> bool:
        """Is the period over?"""
        if self._dispatcher.ready:
            demands = self._dispatcher.demands_of(tracked.row.uid, tracked.row.version)
            busy = sum(demand.busy for demand in demands)
            ready = sum(demand.provisioned for demand in demands)
            tracked.samples += 1
            tracked.ready += ready
            tracked.busy += min(busy, ready) if ready else busy
        return self._monotonic() >= tracked.ends

    async def _period_over(self, tracked: _Tracked) -> None:
        measured = Measured(
            now_ms=self._now(),
            busy=tracked.busy / max(1, tracked.samples),
            ready=tracked.ready / max(1, tracked.samples),
        )
        known = tracked.samples > 0
        tracked.ends = self._monotonic() + self._terms.period_ms / 1000
        tracked.samples = tracked.busy = tracked.ready = 0
        row, tracking = tracked.row, tracked.tracking
        if not known:
            return
        before = tracking.cooldowns
        for command in tracking.on(measured, self._concurrency.executions(row.uid, row.qualifier)):
            activity = await self._provision(row, command.capacity, _reason(command, row.policy))
            if activity.failed:
                tracking.cooldowns = before
            tracked.row = await self._keep(replace(row, activity=activity, cooldowns=tracking.cooldowns))

    # ---- parts -----------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self._wall() * 1000)

    def _pause(self) -> float | None:
        """Seconds until the next look; None: nothing will be due."""
        if not self._rows:
            return None
        pause = LONGEST_PAUSE
        if self._tracked:
            pause = min(SAMPLE_SECONDS, self._terms.period_ms / 1000 / SAMPLES)
        now = self._now()
        for row in self._rows.values():
            for action in row.actions:
                until = (action.next_ms - now) / 1000
                pause = min(pause, until if until > 0 else AGAIN_SECONDS)
        return max(pause, 0.001)

    async def _guarded(self, row: Scalable, work: Coroutine[Any, Any, None]) -> None:
        """What cannot be done for one target keeps none of the others waiting."""
        try:
            await work
        except Exception:
            log.exception("%s:%s could not be scaled; trying again", row.name, row.qualifier)

    async def _existing(self, name: str, qualifier: str) -> Scalable:
        row = await self._store.get(name, qualifier)
        if row is None:
            raise _no_target(name, qualifier)
        return row

    async def _keep(self, row: Scalable, *, new: bool = False) -> Scalable:
        if not await self._store.put(row, new=new):
            raise errors.ResourceNotFound(f"Function not found: {row.name}:{row.qualifier} was deleted meanwhile.")
        return row

    async def _change(self, change: Coroutine[Any, Any, T]) -> T:
        """One at a time, carried through also when its caller does not wait."""

        async def work() -> T:
            async with self._changing:
                try:
                    return await change
                finally:
                    await self.load()
                    self._changed.set()

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def qualifiers_changed(self) -> None:
        """Versions and aliases came, went, or mean something else."""
        async with self._changing:
            await self.load()

    def _described(self, row: Scalable) -> ScalableTarget:
        return described(row, self._concurrency.executions(row.uid, row.qualifier))


def _no_target(name: str, qualifier: str) -> errors.ResourceNotFound:
    shown = name if qualifier == LATEST else f"{name}:{qualifier}"
    return errors.ResourceNotFound(
        f"The provisioned concurrency of {shown} is not scalable yet. "
        f"`runtimectl provision target {shown} --min 1 --max 10` makes it so."
    )


def _last_time(action: Action, now: int) -> float:
    """When it should have been performed."""
    found = latest(rule(action), moment(action.next_ms), moment(now))
    return action.next_ms / 1000 if found is None else found.timestamp()


def _reason(command: Scale, policy: Policy | None) -> str:
    target = 0.0 if policy is None else policy.target
    return f"utilization {command.utilisation:.2f}, {'above' if command.out else 'below'} the target of {target:.2f}"
