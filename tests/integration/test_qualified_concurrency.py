"""What is provisioned under versions' numbers and aliases: whose it is, how far it is, what Lambda refuses, and where
it goes when an alias moves. Real database, real protocol; the dispatcher is the test's."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtimed.dispatch.control import Dispatcher
from runtimed.invocation import concurrency
from runtimed.invocation.concurrency import FAILURES, ConcurrencyKeeper
from runtimed.model import errors, wire
from runtimed.model.arn import LATEST, Identity
from runtimed.model.concurrency import ProvisionedConcurrencyStatus as Status
from runtimed.store.aliases import AliasStore, Change
from runtimed.store.concurrency import ConcurrencyStore
from runtimed.store.database import Database
from runtimed.store.schema import MIGRATIONS
from runtimed.store.versions import forget_qualifier
from tests.integration.peers import BUILD, Peer, pair, until

NAME = "work"
VERSIONS = ("1", "2", "3")
SNAPPED = "3"
"""Published with SnapStart."""


class Stage:
    """A function with three versions; the target of version n is n, that of $LATEST is 9."""

    def __init__(self, state: Path) -> None:
        self.database = Database(state / "runtimed.db", MIGRATIONS)
        self.uid = uuid.uuid4().bytes
        self.dispatcher = Dispatcher(BUILD)
        self.store = ConcurrencyStore(self.database)
        self.keeper = ConcurrencyKeeper(self.store, self.dispatcher, limit=100, tell=self._tell)
        self.told: list[dict[str, int]] = []
        """What was provisioned, by version, each time the dispatcher was told."""

    async def start(self) -> None:
        def work(c: sqlite3.Connection) -> None:
            c.execute(
                "INSERT INTO functions (id, uid, name, generation, revision_id, modified_ms, state, reason, "
                "reason_code) VALUES (1, ?, ?, 1, '', 0, '', '', '')",
                (self.uid, NAME),
            )
            for number in VERSIONS:
                apply_on = "PublishedVersions" if number == SNAPPED else "None"
                c.execute(
                    "INSERT INTO targets (id, function, definition, environment, zip, package) "
                    "VALUES (?, 1, ?, x'', '', '')",
                    (int(number), b'{"snap_start":{"ApplyOn":"%s"}}' % apply_on.encode()),
                )
                c.execute(
                    "INSERT INTO versions (function, number, target, state, reason, reason_code, revision_id, "
                    "modified_ms) VALUES (1, ?, ?, 'active', '', '', '', 0)",
                    (int(number), int(number)),
                )

        await self.database.run(work)
        ours, theirs = pair()
        self.peer = Peer(theirs)
        self.dispatcher.attach(ours, 1)
        await until(lambda: self.dispatcher.ready)
        for number in (*VERSIONS, "9"):
            put = wire.PutTarget(
                function_uid=self.uid, function_name=NAME, function_version=LATEST if number == "9" else number
            )
            await self.dispatcher.put(put, int(number), 1)

    async def _tell(self, uid: bytes) -> None:
        assert uid == self.uid
        told = {version: self.keeper.provision_of(uid, version) for version in (*VERSIONS, LATEST)}
        self.told.append({version: count for version, count in told.items() if count})

    async def alias(self, name: str, version: str, alternate: str | None = None) -> None:
        await self.database.run(
            lambda c: c.execute(
                "INSERT INTO aliases (function, name, version, alternate, weight, description, revision_id, "
                "generation, modified_ms) VALUES (1, ?, ?, ?, 0.5, '', '', 1, 0) "
                "ON CONFLICT DO UPDATE SET version = excluded.version, alternate = excluded.alternate",
                (name, version, alternate),
            )
        )
        await self.keeper.qualifiers_changed(self.uid)

    async def there(self, version: str, ready: int, failures: int = 0) -> None:
        """The dispatcher says so."""
        target = 9 if version == LATEST else int(version)
        demand = wire.Demand(provisioned=ready, provision_failures=failures)
        self.peer.connection.send(demand, object=target)
        await until(lambda: self.dispatcher.demands.get(target) == demand)

    async def shown(self) -> dict[str, tuple[Status, int]]:
        found = await self.keeper.provisioned(NAME)
        return {
            qualifier: (one.status, one.available_provisioned_concurrent_executions) for qualifier, one in found.items()
        }

    def close(self) -> None:
        self.dispatcher.detach()
        self.peer.connection.close()
        self.database.close()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    await made.start()
    yield made
    made.close()


async def test_each_version_has_its_own(stage: Stage) -> None:
    await stage.alias("live", "2")
    await stage.keeper.provision(NAME, "1", 3)
    await stage.keeper.provision(NAME, LATEST, 1)
    await stage.keeper.provision(NAME, "live", 4)
    assert stage.told[-1] == {"1": 3, LATEST: 1, "2": 4}
    assert await stage.shown() == dict.fromkeys(("$LATEST", "1", "live"), (Status.IN_PROGRESS, 0))
    await stage.there("2", 4)
    await stage.there("1", 2)
    assert await stage.shown() == {
        LATEST: (Status.IN_PROGRESS, 0), "1": (Status.IN_PROGRESS, 2), "live": (Status.READY, 4),
    }  # fmt: skip
    await stage.there("1", 2, failures=FAILURES)
    assert (await stage.shown())["1"] == (Status.FAILED, 2)
    assert (await stage.shown())["live"] == (Status.READY, 4), "another version's failures are not its own"
    assert await stage.keeper.unprovision(NAME, "1")
    assert stage.told[-1] == {LATEST: 1, "2": 4}


async def test_aliases_of_one_version_share_what_there_is(stage: Stage) -> None:
    await stage.alias("a", "1")
    await stage.alias("b", "1")
    await stage.keeper.provision(NAME, "a", 2)
    await stage.keeper.provision(NAME, "b", 3)
    assert stage.told[-1] == {"1": 5}
    await stage.there("1", 3)
    assert await stage.shown() == {"a": (Status.READY, 2), "b": (Status.IN_PROGRESS, 1)}
    await stage.there("1", 5)
    assert await stage.shown() == {"a": (Status.READY, 2), "b": (Status.READY, 3)}


async def test_what_lambda_refuses(stage: Stage) -> None:
    await stage.alias("live", "1")
    await stage.alias("split", "1", "2")
    for qualifier, said in (("split", "weights"), (SNAPPED, "SnapStart")):
        with pytest.raises(errors.InvalidParameterValue, match=said):
            await stage.keeper.provision(NAME, qualifier, 1)
    for first, second in (("1", "live"), ("live", "1")):
        await stage.keeper.provision(NAME, first, 1)
        with pytest.raises(errors.InvalidParameterValue, match=f"version 1 already, as {first}"):
            await stage.keeper.provision(NAME, second, 1)
        await stage.keeper.provision(NAME, first, 2)
        assert await stage.keeper.unprovision(NAME, first)
    for qualifier in ("4", "nobody", "01x"):
        with pytest.raises(errors.ResourceNotFound, match=f"{NAME}:{qualifier}"):
            await stage.keeper.provision(NAME, qualifier, 1)
        with pytest.raises(errors.ResourceNotFound):
            await stage.keeper.provisioned_for(NAME, qualifier)
        with pytest.raises(errors.ResourceNotFound):
            await stage.keeper.unprovision(NAME, qualifier)


async def test_a_version_that_failed_has_none(stage: Stage) -> None:
    """Neither does it look as if it might have soon."""

    async def state(now: str, reason: str = "") -> None:
        values = (now, reason)
        await stage.database.run(
            lambda c: c.execute("UPDATE versions SET state = ?, reason = ? WHERE number = 1", values)
        )

    async def said(qualifier: str) -> tuple[Status, object]:
        found = (await stage.keeper.provisioned(NAME))[qualifier]
        return found.status, found.status_reason

    await state("failed", "there is no room")
    with pytest.raises(errors.ResourceConflict, match="version 1 of work is Failed: there is no room"):
        await stage.keeper.provision(NAME, "1", 1)
    assert await stage.shown() == {}
    await state("preparing")
    await stage.keeper.provision(NAME, "1", 1)
    assert (await said("1"))[0] is Status.IN_PROGRESS
    await state("failed", "there is no room")
    assert await said("1") == (Status.FAILED, "Version 1 could not be made: there is no room")
    await stage.keeper.provision(NAME, LATEST, 1)
    await stage.database.run(lambda c: c.execute("UPDATE functions SET state = 'failed', reason = 'no runtime'"))
    assert await said(LATEST) == (Status.FAILED, "Version $LATEST could not be made: no runtime")
    await state("active")
    assert (await said("1"))[0] is Status.IN_PROGRESS, "whatever became of $LATEST"
    await stage.there("1", 1)
    assert (await said("1"))[0] is Status.READY


async def test_all_versions_together_are_bounded(stage: Stage) -> None:
    await stage.alias("live", "2")
    await stage.keeper.provision(NAME, "1", 50)
    with pytest.raises(errors.InvalidParameterValue, match="ProvisionedConcurrentExecutions"):
        await stage.keeper.provision(NAME, "live", 41)
    await stage.keeper.provision(NAME, "live", 40)
    assert await stage.keeper.unreserved() == 10
    with pytest.raises(errors.InvalidParameterValue, match="90 provisioned are more than the 60 reserved"):
        await stage.keeper.reserve(NAME, 60)
    await stage.keeper.unprovision(NAME, "1")
    await stage.keeper.reserve(NAME, 60)
    assert await stage.keeper.unreserved() == 40


async def test_an_alias_takes_it_along_when_it_is_ready(stage: Stage) -> None:
    """Both versions have theirs meanwhile; then the former one has none."""
    await stage.alias("live", "1")
    await stage.keeper.provision(NAME, "live", 2)
    await stage.there("1", 2)
    moved = asyncio.Event()

    async def move() -> None:
        async with stage.keeper.moving(NAME, "live", "2"):
            await stage.alias("live", "2")
            moved.set()

    task = asyncio.create_task(move())
    await until(lambda: stage.told[-1] == {"1": 2, "2": 2})
    await stage.there("2", 1)
    assert not moved.is_set(), "one of two is ready"
    assert await stage.shown() == {"live": (Status.READY, 2)}
    await stage.there("2", 2)
    await task
    assert stage.told[-1] == {"2": 2}
    assert all(count <= 2 for told in stage.told for count in told.values()), "never more of a version than is wanted"
    assert await stage.shown() == {"live": (Status.READY, 2)}


async def test_what_is_changed_on_the_way_counts(stage: Stage) -> None:
    """Under the alias that moves, and while it moves twice at once."""
    await stage.alias("live", "1")
    await stage.keeper.provision(NAME, "live", 2)
    await stage.there("2", 9)
    async with stage.keeper.moving(NAME, "live", "2"):
        assert stage.told[-1] == {"1": 2, "2": 2}
        await stage.keeper.provision(NAME, "live", 3)
        assert stage.told[-1] == {"1": 3, "2": 3}
        async with stage.keeper.moving(NAME, "live", "2"):
            assert stage.told[-1] == {"1": 3, "2": 3}
        assert stage.told[-1] == {"1": 3, "2": 3}, "one is still under way"
        assert await stage.keeper.unprovision(NAME, "live")
        assert stage.told[-1] == {}
    assert stage.told[-1] == {}


@pytest.mark.parametrize("how", ["late", "failed", "broken off"])
async def test_an_alias_that_cannot_wait(stage: Stage, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "late":
        monkeypatch.setattr(concurrency, "PATIENCE", 0.01)
    await stage.alias("live", "1")
    await stage.keeper.provision(NAME, "live", 2)
    await stage.there("1", 2)
    if how != "late":
        await stage.there("2", 0, failures=FAILURES)
    if how == "broken off":
        with pytest.raises(LookupError):
            async with stage.keeper.moving(NAME, "live", "2"):
                raise LookupError
        assert stage.told[-1] == {"1": 2}, "as if nothing had been"
        return
    async with stage.keeper.moving(NAME, "live", "2"):
        await stage.alias("live", "2")
    assert stage.told[-1] == {"2": 2}
    status = Status.IN_PROGRESS if how == "late" else Status.FAILED
    assert await stage.shown() == {"live": (status, 0)}
    async with stage.keeper.moving(NAME, "live", "2"):
        assert stage.told[-1] == {"2": 2}, "it is there already"


async def test_it_goes_with_its_alias_and_its_version(stage: Stage) -> None:
    await stage.alias("live", "1")
    await stage.keeper.provision(NAME, "live", 2)
    await stage.keeper.provision(NAME, "2", 3)
    await stage.database.run(lambda c: forget(c, "live"))
    await stage.keeper.qualifiers_changed(stage.uid)
    assert stage.told[-1] == {"2": 3}
    await stage.alias("live", "1")
    assert set(await stage.shown()) == {"2"}, "an alias of the same name has nothing of the one before"


async def test_an_alias_may_not_lead_where_its_provision_cannot_be(stage: Stage) -> None:
    aliases = AliasStore(stage.database, Identity())
    await stage.alias("live", "1")
    await stage.keeper.provision(NAME, "live", 2)
    await stage.keeper.provision(NAME, "2", 3)
    for change, said in (
        (Change(alternate=("2", 0.5)), "weights"),
        (Change(version="2"), "under version 2 too"),
        (Change(version=SNAPPED), "SnapStart"),
    ):
        with pytest.raises(errors.InvalidParameterValue, match=said):
            await aliases.change(NAME, "live", change, None, 0)
    await stage.keeper.unprovision(NAME, "2")
    assert (await aliases.change(NAME, "live", Change(version="2"), None, 0)).version == "2"
    await stage.keeper.unprovision(NAME, "live")
    assert (await aliases.change(NAME, "live", Change(alternate=("1", 0.5)), None, 0)).alternate == "1"


def forget(c: sqlite3.Connection, alias: str) -> None:
    c.execute("DELETE FROM aliases WHERE name = ?", (alias,))
    forget_qualifier(c, 1, alias)
