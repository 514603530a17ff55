"""Versions and aliases through store, code store and both peers: what callers see, what peers hold, what is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtimed.deployment import deployer as deployer_module
from runtimed.deployment.routes import ALIAS
from runtimed.deployment.steps import NO_ROOM, StepError
from runtimed.model import errors, wire
from runtimed.model.alias import (
    AliasConfiguration,
    AliasRoutingConfiguration,
    CreateAliasRequest,
    UpdateAliasRequest,
)
from runtimed.model.function import Environment, FunctionConfiguration, State
from runtimed.model.version import PublishVersionRequest
from runtimed.store.aliases import Lead
from runtimed.store.versions import Version
from tests.integration.control_stage import Stage, staged
from tests.integration.peers import until
from tests.integration.zips import build, plain

OLD = build(plain())
NEW = build(plain(content=b"def handler(event, context):\n    return 'new'\n"))


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


async def publish(stage: Stage, name: str = "f", **more: str) -> FunctionConfiguration:
    return await stage.deployer.publish(PublishVersionRequest(function_name=name, **more))  # type: ignore[arg-type]


async def alias(
    stage: Stage, name: str, version: str, weights: dict[str, float] | None = None, of: str = "f"
) -> AliasConfiguration:
    routing = AliasRoutingConfiguration(additional_version_weights=weights or {})
    return await stage.aliases.create(
        CreateAliasRequest(function_name=of, name=name, function_version=version, routing_config=routing)
    )


async def two_versions(stage: Stage) -> None:
    """1 with the old code and 2 with the new one."""
    await stage.create(package=OLD)
    await stage.settled()
    await publish(stage)
    await stage.update("f", NEW)
    await stage.settled()
    await publish(stage)


def told(stage: Stage, target: int) -> wire.PutTarget:
    message = stage.dispatch_peer.held[wire.PutTarget, target]
    assert isinstance(message, wire.PutTarget)
    return message


async def test_a_version_has_a_target_of_its_own(stage: Stage) -> None:
    await stage.create(environment=Environment(variables={"KEY": "value"}))
    await stage.settled()
    first = await publish(stage, description="first")
    assert (first.version, first.state, first.description) == ("1", State.ACTIVE, "first")
    routed = stage.routed()
    assert routed.keys() == {"f", "f:1"} and routed["f"] != routed["f:1"]
    put = told(stage, routed["f:1"])
    assert (put.function_name, put.function_version, put.plan) == ("f", "1", routed["f:1"])
    said = json.loads(put.configuration)
    assert (said["function_version"], said["environment"]) == ("1", {"KEY": "value"})
    assert said["log_group"] == "/aws/lambda/f"
    assert put.function_uid == told(stage, routed["f"]).function_uid
    assert stage.launcher_peer.objects(wire.PutPlan) == set(routed.values())
    assert len(stage.code.contents()[1]) == 1, "both run the same tree"


async def test_a_version_stays_when_the_function_changes(stage: Stage) -> None:
    await two_versions(stage)
    old, new = await stage.versions.get("f", 1), await stage.versions.get("f", 2)
    assert old is not None and new is not None and old.code_sha256 != new.code_sha256
    assert stage.routed().keys() == {"f", "f:1", "f:2"}
    assert stage.targets() == set(stage.routed().values())
    again = await publish(stage)
    assert again.version == "2" and stage.routed().keys() == {"f", "f:1", "f:2"}


async def test_publishing_along(stage: Stage) -> None:
    first = await stage.create(publish=True)
    assert (first.version, first.state) == ("1", State.PENDING)
    await stage.settled()
    second = await stage.update("f", NEW, publish=True)
    assert (second.version, second.code_size) == ("2", len(NEW))
    await stage.settled()
    assert stage.routed().keys() == {"f", "f:1", "f:2"}
    same = await stage.update("f", NEW, publish=True)
    assert same.version == "2"
    await stage.settled()
    assert stage.targets() == set(stage.routed().values())


async def test_what_is_published_along_fails_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function's change fails, the version too; and room comes: only the version is tried again."""
    monkeypatch.setattr(deployer_module, "AGAIN_SECONDS", 0.0)
    await stage.create()
    await stage.settled()
    grant = stage.steps.grant

    async def none(number: int) -> None:
        raise StepError("no room", NO_ROOM)

    monkeypatch.setattr(stage.steps, "grant", none)
    await stage.update("f", NEW, publish=True)
    await stage.settled()
    failed = await stage.versions.get("f", 1)
    assert failed is not None and (failed.state, failed.state_reason_code) == (State.FAILED, NO_ROOM)
    assert stage.routed().keys() == {"f"} and stage.targets() == set(stage.routed().values())
    with pytest.raises(errors.ResourceConflict, match="not Active"):
        await alias(stage, "prod", "1")
    monkeypatch.setattr(stage.steps, "grant", grant)
    await stage.deployer.try_again(1.0)
    await stage.deployer.settle()
    assert stage.routed().keys() == {"f", "f:1"}


async def test_publishing_waits_only_so_long(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployer_module, "PUBLISH_SECONDS", 0.05)
    await stage.create()
    await stage.settled()
    stage.dispatch_peer.silent = True
    assert (await publish(stage)).state is State.PENDING
    with pytest.raises(errors.ResourceConflict, match="not Active"):
        await alias(stage, "prod", "1")
    stage.dispatch_peer.connection.close()
    stage.dispatch_peer = stage.new_dispatcher()
    await stage.deployer.settle()
    await alias(stage, "prod", "1")
    assert stage.routed()["f:prod"] == stage.routed()["f:1"]


async def test_an_alias_is_made_right_after_publishing(stage: Stage) -> None:
    """The version is on its way; the alias waits for it."""
    await stage.create(publish=True)
    await alias(stage, "prod", "1")
    assert stage.routed()["f:prod"] == stage.routed()["f:1"]


async def test_deleting_a_version_from_every_step(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.create()
    await stage.settled()
    kept = stage.routed()
    for number, step in enumerate(("prepare", "grant", "teach", "version", None), 1):
        blocked = asyncio.Event()

        async def block(*arguments: object, event: asyncio.Event = blocked) -> None:
            event.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(deployer_module, "PUBLISH_SECONDS", 0.01 if step else 30.0)
            if step is not None:
                patch.setattr(stage.routes if step == "version" else stage.steps, step, block)
            assert (await publish(stage)).version == str(number)
            await (blocked.wait() if step else asyncio.sleep(0))
            await stage.deployer.delete_version("f", number)
        assert await stage.versions.get("f", number) is None
        assert stage.routed() == kept and stage.targets() == set(kept.values())
        assert await stage.database.run(lambda c: c.execute("SELECT count(*) FROM targets").fetchone()) == (1,)
    with pytest.raises(errors.ResourceNotFound):
        await stage.deployer.delete_version("f", 1)


async def test_deleting_the_function_takes_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a version is being rolled out."""
    await two_versions(stage)
    await alias(stage, "prod", "1", {"2": 0.5})
    await alias(stage, "live", "$LATEST")
    taught, go_on, route = asyncio.Event(), asyncio.Event(), stage.routes.version

    async def late(version: Version) -> None:
        taught.set()
        await go_on.wait()
        await route(version)

    monkeypatch.setattr(deployer_module, "PUBLISH_SECONDS", 0.01)
    await stage.update("f", OLD)
    await stage.settled()
    monkeypatch.setattr(stage.routes, "version", late)
    assert (await publish(stage)).version == "3"
    await taught.wait()
    await stage.deployer.delete("f")
    go_on.set()
    await asyncio.wait_for(stage.deployer.settle(), 30)
    assert (stage.routed(), stage.targets()) == ({}, set())
    for table in ("functions", "targets", "versions", "aliases"):
        assert await stage.database.run(lambda c, t=table: c.execute(f"SELECT count(*) FROM {t}").fetchone()) == (0,)  # type: ignore[misc]


# ---- aliases -------------------------------------------------------------------------------------------------


async def test_an_alias_moves(stage: Stage) -> None:
    await two_versions(stage)
    made = await alias(stage, "prod", "1")
    assert made.alias_arn.endswith(":function:f:prod")
    routed = stage.routed()
    assert routed["f:prod"] == routed["f:1"]
    moved = await stage.aliases.update(
        UpdateAliasRequest(function_name="f", name="prod", function_version="2", revision_id=made.revision_id)
    )
    assert moved.revision_id != made.revision_id and moved.function_version == "2"
    assert stage.routed()["f:prod"] == routed["f:2"]
    generations = [header.generation for header, message in stage.dispatch_peer.heard if header.object >= ALIAS]
    assert generations[-1] > generations[0]
    with pytest.raises(errors.ResourceConflict, match="prod"):
        await stage.deployer.delete_version("f", 2)
    await stage.deployer.delete_version("f", 1)
    await stage.aliases.delete("f", "prod")
    await stage.aliases.delete("f", "prod")
    assert stage.routed().keys() == {"f", "f:2"}


async def test_weights(stage: Stage) -> None:
    await two_versions(stage)
    await alias(stage, "prod", "1", {"2": 0.25})
    [route] = [m for m in stage.dispatch_peer.held.values() if isinstance(m, wire.PutRoute) and m.qualifier == "prod"]
    routed = stage.routed()
    assert (route.target, route.alternate, route.alternate_weight) == (routed["f:1"], routed["f:2"], 16384)
    shown = await stage.aliases.update(
        UpdateAliasRequest(function_name="f", name="prod", routing_config=AliasRoutingConfiguration())
    )
    assert not shown.routing_config
    [route] = [m for m in stage.dispatch_peer.held.values() if isinstance(m, wire.PutRoute) and m.qualifier == "prod"]
    assert (route.alternate, route.alternate_weight) == (0, 0)


async def test_an_alias_follows_latest(stage: Stage) -> None:
    """At no moment does its route lead to a target that the dispatcher does not know."""
    await stage.create(package=OLD)
    await alias(stage, "live", "$LATEST")
    await stage.settled()
    first = stage.routed()["f:live"]
    assert first == stage.routed()["f"]
    await stage.update("f", NEW)
    await stage.settled()
    assert stage.routed()["f:live"] == stage.routed()["f"] != first
    kinds = [(type(message).__name__, header.object) for header, message in stage.dispatch_peer.heard if header.object]
    retold = max(n for n, (kind, number) in enumerate(kinds) if kind == "PutRoute" and number & ALIAS)
    assert kinds.index(("DelTarget", first)) > retold


async def test_aliases_moved_during_rollouts_lead_where_they_should(stage: Stage) -> None:
    await two_versions(stage)
    await alias(stage, "live", "1")
    for n in range(10):
        await stage.update("f", OLD if n % 2 else NEW)
        for version in ("$LATEST", "2", "1", "$LATEST"):
            await stage.aliases.update(UpdateAliasRequest(function_name="f", name="live", function_version=version))
        await stage.settled()
        assert stage.routed()["f:live"] == stage.routed()["f"]
        assert stage.targets() == set(stage.routed().values())


async def test_who_comes_later_is_told_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of an alias that was read, and is told only after the next change was kept."""
    await two_versions(stage)
    await alias(stage, "prod", "1", {"2": 0.5})
    store = stage.routes._aliases
    read, go_on, lead_again, late_ones = asyncio.Event(), asyncio.Event(), store.lead_again, [True, False]

    async def late(number: int) -> Lead | None:
        found = await lead_again(number)
        if late_ones.pop(0):
            read.set()
            await go_on.wait()
        return found

    async def move(version: str) -> None:
        routing = AliasRoutingConfiguration()
        request = UpdateAliasRequest(function_name="f", name="prod", function_version=version, routing_config=routing)
        await stage.aliases.update(request)

    monkeypatch.setattr(store, "lead_again", late)
    first = asyncio.create_task(move("1"))
    await read.wait()
    second = asyncio.create_task(move("2"))
    async with asyncio.timeout(30):
        while (found := await store.find("f", "prod")) is None or found.version != "2":
            await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0.001)
    go_on.set()
    await asyncio.gather(first, second)
    assert stage.routed()["f:prod"] == stage.routed()["f:2"]


# ---- starts --------------------------------------------------------------------------------------------------


async def test_a_restart_tells_the_same(stage: Stage) -> None:
    await two_versions(stage)
    await alias(stage, "prod", "1", {"2": 0.25})
    await alias(stage, "live", "$LATEST")
    before = {key: m for key, m in stage.dispatch_peer.held.items() if key[0] in (wire.PutRoute, wire.PutTarget)}
    plans = stage.launcher_peer.objects(wire.PutPlan)
    generations = {h.object: h.generation for h, m in stage.dispatch_peer.heard if isinstance(m, wire.PutRoute)}
    await stage.stop()
    await stage.start()
    await stage.deployer.recover()
    await stage.deployer.settle()
    after = {key: m for key, m in stage.dispatch_peer.held.items() if key[0] in (wire.PutRoute, wire.PutTarget)}
    assert after == before
    assert stage.launcher_peer.objects(wire.PutPlan) <= plans
    for header, message in stage.dispatch_peer.heard:
        if isinstance(message, wire.PutRoute) and header.object & ALIAS:
            assert header.generation > generations[header.object]


async def test_a_version_whose_tree_is_gone_is_rolled_out_again(stage: Stage) -> None:
    await two_versions(stage)
    await alias(stage, "prod", "1")
    target = await stage.functions.target(stage.routed()["f:1"])
    await stage.stop()
    stage.code.remove_tree(target.package)
    await stage.start()
    found = await stage.versions.get("f", 1)
    assert found is not None and found.state is State.PENDING
    assert stage.routed().keys() == {"f", "f:2"}
    await stage.deployer.recover()
    await stage.deployer.settle()
    assert stage.code.has_tree(target.package)
    assert stage.routed()["f:prod"] == stage.routed()["f:1"] == target.id
    await until(lambda: stage.launcher_peer.objects(wire.PutPlan) >= set(stage.routed().values()))
