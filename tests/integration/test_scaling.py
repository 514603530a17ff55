"""Scaling of provisioned concurrency in the real database, with a clock that the tests move: what is due, what the
account's concurrency allows, and what is left over when the control plane dies."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtimed.dispatch.control import Dispatcher
from runtimed.invocation.concurrency import ConcurrencyKeeper
from runtimed.invocation.scaling import ACTIONS, LONGEST_PAUSE, ScalingKeeper, Terms
from runtimed.machines.scaling import Periods
from runtimed.model import errors, wire
from runtimed.model.scaling import (
    LATEST,
    PutScheduledActionRequest,
    ScalableTarget,
    ScalingStatus,
    ScheduledAction,
    TargetTracking,
)
from runtimed.model.shape import UnsetType
from runtimed.store.concurrency import ConcurrencyStore
from runtimed.store.database import Database
from runtimed.store.scaling import ScalingStore
from runtimed.store.schema import MIGRATIONS
from tests.integration.peers import BUILD, Peer, pair, until

NAME = "work"
TARGET = 7
BEGAN = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday
TERMS = Terms(period_ms=60_000, periods=Periods(3, 5))

VERSION = (
    "INSERT INTO targets (id, function, definition, environment, zip, package) "
    "SELECT 1, id, CAST('{}' AS BLOB), x'', '', '' FROM functions",
    "INSERT INTO versions (function, number, target, state, reason, reason_code, revision_id, modified_ms) "
    "SELECT id, 1, 1, 'active', '', '', '', 0 FROM functions",
)
"""Of the only function."""


class Stage:
    """The keeper and what is around it; both clocks are the test's."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.now = BEGAN
        self.dispatcher = Dispatcher(BUILD)
        self.peers: list[Peer] = []
        self.told: list[bytes] = []
        self.store: Any = None

    async def start(self) -> None:
        """A control plane; also after `stop`."""
        self.database = Database(self.state / "runtimed.db", MIGRATIONS)
        self.concurrency = ConcurrencyKeeper(
            ConcurrencyStore(self.database), self.dispatcher, limit=100, tell=self._tell
        )
        await self.concurrency.load()
        self.store = ScalingStore(self.database)
        self.keeper = ScalingKeeper(
            self.store,
            self.concurrency,
            self.dispatcher,
            TERMS,
            wall=self._seconds,
            monotonic=self._seconds,
        )
        await self.keeper.load()

    def _seconds(self) -> float:
        return self.now.timestamp()

    async def _tell(self, uid: bytes) -> None:
        self.told.append(uid)

    def stop(self) -> None:
        self.database.close()

    async def restart(self) -> None:
        self.stop()
        await self.start()

    async def make(self, name: str = NAME) -> bytes:
        uid = uuid.uuid4().bytes
        query = (
            "INSERT INTO functions (uid, name, generation, revision_id, modified_ms, state, reason, reason_code) "
            "VALUES (?, ?, 1, '', 0, '', '', '')"
        )
        await self.database.run(lambda c: c.execute(query, (uid, name)))
        return uid

    async def unmake(self) -> None:
        await self.database.run(lambda c: c.execute("DELETE FROM functions"))

    async def after(self, **span: float) -> ScalableTarget:
        """Looks then."""
        self.now += timedelta(**span)
        await self.keeper.look()
        return await self.target()

    async def target(self) -> ScalableTarget:
        (found,) = await self.keeper.targets(NAME)
        return found

    async def plan(self, name: str, schedule: str, **more: Any) -> ScheduledAction:
        request = PutScheduledActionRequest(
            function_name=NAME, qualifier=LATEST, scheduled_action_name=name, schedule=schedule, **more
        )
        return await self.keeper.schedule(request)

    async def connect(self, uid: bytes) -> Peer:
        """A dispatcher that has a target of the function."""
        ours, theirs = pair()
        self.peers.append(Peer(theirs))
        self.dispatcher.attach(ours, 1)
        await until(lambda: self.dispatcher.ready)
        await self.dispatcher.put(wire.PutTarget(function_uid=uid, function_name=NAME), TARGET, 1)
        return self.peers[-1]

    async def load(self, busy: int, ready: int) -> None:
        """What the dispatcher says is at work."""
        demand = wire.Demand(busy=busy, provisioned=ready)
        self.peers[-1].connection.send(demand, object=TARGET)
        await until(lambda: self.dispatcher.demands.get(TARGET) == demand)

    async def minutes(self, count: int, *, share: float | None = None, busy: int | None = None) -> ScalableTarget:
        """Under one load; what is asked for is there at once. `share`: of what is provisioned."""
        for _ in range(count):
            ready = (await self.target()).capacity
            await self.load(round(share * ready) if share is not None else busy or 0, ready)
            for _ in range(4):
                self.now += timedelta(seconds=15)
                await self.keeper.look()
        return await self.target()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    await made.start()
    yield made
    made.dispatcher.detach()
    for peer in made.peers:
        peer.connection.close()
    made.stop()


def status(target: ScalableTarget) -> tuple[int, ScalingStatus]:
    assert not isinstance(target.last_activity, UnsetType)
    return target.capacity, target.last_activity.status


async def test_bounds_hold_at_once_and_stay(stage: Stage) -> None:
    await stage.make()
    made = await stage.keeper.register(NAME, LATEST, 3, 10)
    assert (made.min_capacity, made.max_capacity, made.capacity) == (3, 10, 3)
    await stage.concurrency.provision(NAME, LATEST, 20)
    assert (await stage.after(hours=1)).capacity == 20, "who asks for more by hand gets it"
    assert (await stage.keeper.register(NAME, LATEST, None, 8)).capacity == 8
    assert (await stage.keeper.register(NAME, LATEST, 0, 0)).capacity == 0
    assert await stage.concurrency.provisioned(NAME) == {}
    await stage.concurrency.provision(NAME, LATEST, 5)
    await stage.keeper.deregister(NAME, LATEST)
    assert await stage.keeper.targets("") == []
    assert stage.concurrency.executions(stage.told[-1], LATEST) == 5
    with pytest.raises(errors.ResourceNotFound, match="provision target work --min"):
        await stage.keeper.deregister(NAME, LATEST)


async def test_schedules_over_days(stage: Stage) -> None:
    await stage.make()
    await stage.keeper.register(NAME, LATEST, 1, 4)
    await stage.plan("morning", "cron(0 8 ? * MON-FRI *)", timezone="Europe/Berlin", min_capacity=10)
    await stage.plan("evening", "cron(0 20 * * ? *)", timezone="Europe/Berlin", min_capacity=0, max_capacity=2)
    once = await stage.plan("sale", "at(2026-03-03T12:00:00)", min_capacity=30)
    assert once.next_time == datetime(2026, 3, 3, 12, tzinfo=UTC)
    assert (await stage.after(hours=6, minutes=59)).capacity == 1
    assert (await stage.after(minutes=1)).capacity == 1, "20:00 in Berlin: two at most"
    assert (await stage.target()).max_capacity == 2
    assert (await stage.after(hours=12)).capacity == 10, "8:00 on Tuesday"
    sale = await stage.after(hours=5)
    assert (sale.capacity, sale.max_capacity, sale.scheduled_actions) == (30, 30, 2)
    assert not isinstance(sale.last_activity, UnsetType)
    assert (sale.last_activity.cause, sale.last_activity.from_capacity) == ("scheduled action sale", 10)
    evening, morning = await stage.keeper.actions(NAME, LATEST)
    assert evening.next_time == datetime(2026, 3, 3, 19, tzinfo=UTC)
    assert morning.next_time == datetime(2026, 3, 4, 7, tzinfo=UTC)
    await stage.keeper.unschedule(NAME, LATEST, "evening")
    assert (await stage.after(hours=8)).capacity == 30
    with pytest.raises(errors.ResourceNotFound, match="no scheduled action 'evening'"):
        await stage.keeper.unschedule(NAME, LATEST, "evening")


async def test_times_that_were_missed(stage: Stage) -> None:
    """Of each action the last one, in the order in which they were due."""
    await stage.make()
    await stage.keeper.register(NAME, LATEST, 1, 50)
    await stage.plan("night", "cron(0 22 * * ? *)", min_capacity=0, max_capacity=1)
    await stage.plan("day", "cron(0 6 * * ? *)", min_capacity=20, max_capacity=50)
    await stage.plan("gone", "at(2026-03-02T21:00:00)", min_capacity=5)
    await stage.restart()
    assert (await stage.after(hours=35)).capacity == 1, "23:00 on Tuesday: night, day, night"
    assert [action.next_time for action in await stage.keeper.actions(NAME, LATEST)] == [
        datetime(2026, 3, 4, 6, tzinfo=UTC),
        datetime(2026, 3, 4, 22, tzinfo=UTC),
    ]
    await stage.restart()
    assert (await stage.after(days=30, hours=9)).capacity == 20
    before = len(stage.told)
    await stage.after(minutes=1)
    assert len(stage.told) == before, "and nothing twice"


@pytest.mark.parametrize("survives", range(4))
async def test_a_control_plane_that_dies_at_any_step(stage: Stage, survives: int) -> None:
    """After so many writes of what is kept, the next one never happens."""
    await stage.make()
    await stage.keeper.register(NAME, LATEST, 1, 50)
    await stage.plan("hourly", "rate(1 hour)", min_capacity=20)
    put, left = stage.store.put, [survives]

    async def dying(row: Any) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionAbortedError("killed")
        done: bool = await put(row)
        return done

    stage.store.put = dying
    await stage.after(minutes=61)
    await stage.restart()
    target = await stage.after(seconds=1)
    assert status(target) == (20, ScalingStatus.SUCCESSFUL)
    (action,) = await stage.keeper.actions(NAME, LATEST)
    assert action.next_time == BEGAN + timedelta(hours=2)


async def test_what_the_account_refuses_is_tried_again(stage: Stage) -> None:
    await stage.make()
    other = await stage.make("other")
    await stage.concurrency.reserve("other", 80)
    await stage.keeper.register(NAME, LATEST, 1, 50)
    await stage.plan("more", "rate(1 hour)", min_capacity=20)
    target = await stage.after(hours=1)
    assert status(target) == (1, ScalingStatus.FAILED)
    assert not isinstance(target.last_activity, UnsetType)
    assert "Take at most 10" in str(target.last_activity.status_message)
    await stage.concurrency.unreserve("other")
    assert stage.told[-1] == other
    assert status(await stage.after(seconds=1)) == (1, ScalingStatus.FAILED)
    assert status(await stage.after(seconds=LONGEST_PAUSE)) == (20, ScalingStatus.SUCCESSFUL)


async def test_utilisation_is_kept_near_its_target(stage: Stage) -> None:
    uid = await stage.make()
    await stage.keeper.register(NAME, LATEST, 2, 30)
    await stage.keeper.track(NAME, LATEST, TargetTracking(target_value=0.5, scale_out_cooldown=300))
    assert (await stage.after(minutes=60)).capacity == 2, "there is no dispatcher: nothing is known"
    peer = await stage.connect(uid)
    assert (await stage.minutes(2, share=1)).capacity == 2
    assert (await stage.minutes(1, share=1)).capacity == 4
    target = await stage.target()
    assert not isinstance(target.last_activity, UnsetType)
    assert target.last_activity.cause == "utilization 1.00, above the target of 0.50"
    await stage.restart()
    assert (await stage.minutes(4, share=1)).capacity == 4, "the cooldown has outlived the one who began it"
    assert (await stage.minutes(3, share=1)).capacity == 8
    assert (await stage.minutes(20, busy=4)).capacity == 8, "it is at its target"
    assert (await stage.minutes(4, busy=1)).capacity == 8
    assert (await stage.minutes(1, busy=1)).capacity == 2
    await stage.keeper.untrack(NAME, LATEST)
    assert (await stage.minutes(5, busy=9)).capacity == 2
    assert not peer.closed.is_set()
    with pytest.raises(errors.ResourceNotFound, match="no scaling policy"):
        await stage.keeper.untrack(NAME, LATEST)


async def test_load_beyond_the_bounds_and_none_at_all(stage: Stage) -> None:
    uid = await stage.make()
    await stage.keeper.register(NAME, LATEST, 0, 5)
    await stage.keeper.track(NAME, LATEST, TargetTracking(target_value=0.7, disable_scale_in=True))
    await stage.connect(uid)
    assert (await stage.minutes(6, busy=0)).capacity == 0
    assert (await stage.minutes(3, busy=2)).capacity == 3, "nothing was provisioned, and two were at work"
    assert (await stage.minutes(3, busy=50)).capacity == 5
    assert (await stage.minutes(20, busy=0)).capacity == 5, "it may not scale in"
    await stage.keeper.track(NAME, LATEST, TargetTracking(target_value=0.7))
    assert (await stage.minutes(5, busy=0)).capacity == 0


async def test_an_alias_is_scaled_by_its_versions_load(stage: Stage) -> None:
    """And not by that of another version, wherever it moves."""
    uid = await stage.make()

    async def lead(version: str) -> None:
        query = (
            "INSERT INTO aliases (function, name, version, weight, description, revision_id, generation, modified_ms) "
            "SELECT id, 'live', ?, 0, '', '', 1, 0 FROM functions "
            "WHERE true ON CONFLICT DO UPDATE SET version = excluded.version"
        )
        await stage.database.run(lambda c: c.execute(query, (version,)))
        await stage.keeper.qualifiers_changed()

    await stage.database.run(lambda c: [c.execute(query) for query in VERSION])
    await lead("1")
    await stage.keeper.register(NAME, "live", 1, 9)
    await stage.keeper.track(NAME, "live", TargetTracking(target_value=0.5))
    peer = await stage.connect(uid)
    put = wire.PutTarget(function_uid=uid, function_name=NAME, function_version="1")
    await stage.dispatcher.put(put, TARGET + 1, 1)
    assert (await stage.minutes(9, busy=9)).capacity == 1, "$LATEST is busy"
    peer.connection.send(wire.Demand(busy=4, provisioned=1), object=TARGET + 1)
    assert (await stage.minutes(3, busy=0)).capacity == 2
    await lead(LATEST)
    assert (await stage.minutes(30, busy=0)).capacity == 1


@pytest.mark.parametrize("scheduled", [True, False])
async def test_another_function_of_the_same_name_has_none_of_it(stage: Stage, scheduled: bool) -> None:
    uid = await stage.make()
    await stage.keeper.register(NAME, LATEST, 1, 5)
    await stage.connect(uid)
    if scheduled:
        await stage.plan("more", "rate(1 hour)", min_capacity=3)
    else:
        await stage.keeper.track(NAME, LATEST, TargetTracking(target_value=0.5))
        assert (await stage.minutes(2, share=1)).capacity == 1
    await stage.unmake()
    await stage.make()
    stage.now += timedelta(hours=1)
    await stage.keeper.look()
    assert await stage.keeper.targets("") == []
    assert await stage.concurrency.provisioned(NAME) == {}


async def test_what_cannot_be_planned_is_told(stage: Stage) -> None:
    await stage.make()
    with pytest.raises(errors.ResourceNotFound, match="not scalable yet"):
        await stage.plan("early", "rate(1 hour)", min_capacity=1)
    with pytest.raises(errors.InvalidParameterValue, match="both are needed"):
        await stage.keeper.register(NAME, LATEST, 1, None)
    with pytest.raises(errors.InvalidParameterValue, match="5 is more than MaxCapacity, 4"):
        await stage.keeper.register(NAME, LATEST, 5, 4)
    with pytest.raises(errors.ResourceNotFound, match="not found: none"):
        await stage.keeper.register("none", LATEST, 1, 2)
    await stage.keeper.register(NAME, LATEST, 1, 4)
    with pytest.raises(errors.InvalidParameterValue, match="5 is more than MaxCapacity, 4"):
        await stage.keeper.register(NAME, LATEST, 5, None)
    refused: Callable[[str], Any] = lambda told: pytest.raises(errors.InvalidParameterValue, match=told)  # noqa: E731
    with refused("no time zone 'Europe/Nowhere'"):
        await stage.plan("x", "rate(1 hour)", timezone="Europe/Nowhere", min_capacity=1)
    with refused("no time zone 'Europe'"):
        await stage.plan("x", "rate(1 hour)", timezone="Europe", min_capacity=1)
    with refused("give one of them"):
        await stage.plan("x", "rate(1 hour)")
    with refused("2 is more than MaxCapacity, 1"):
        await stage.plan("x", "rate(1 hour)", min_capacity=2, max_capacity=1)
    with refused("Schedule: .* is never due"):
        await stage.plan("x", "at(2026-03-02T12:00:00)", min_capacity=1)
    with refused("is never due"):
        await stage.plan("x", "rate(1 hour)", min_capacity=1, end_time=BEGAN)
    for member, moment in (
        ("start_time", datetime(1, 1, 1, tzinfo=UTC)),
        ("end_time", datetime(9999, 12, 31, tzinfo=UTC)),
    ):
        with refused("Time: the year must be from 1970 to 2199"):
            await stage.plan("x", "rate(1 hour)", timezone="Asia/Tokyo", min_capacity=1, **{member: moment})
    with refused("Schedule: minutes 61"):
        await stage.plan("x", "cron(61 * * * ? *)", min_capacity=1)
    for number in range(ACTIONS):
        await stage.plan(f"a{number}", "rate(1 day)", min_capacity=1)
    await stage.plan("a0", "rate(2 days)", min_capacity=1)
    with pytest.raises(errors.LimitExceeded, match="at most 200"):
        await stage.plan("x", "rate(1 day)", min_capacity=1)
