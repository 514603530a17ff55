"""Rollouts and moves of aliases in the middle of which something fails or comes in between: what serves goes on
serving, and what the store keeps is what the dispatcher hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtimed.deployment import deployer as deployer_module
from runtimed.deployment import shield as shield_module
from runtimed.deployment import steps as steps_module
from runtimed.model import errors, wire
from runtimed.model.alias import AliasConfiguration, CreateAliasRequest, UpdateAliasRequest
from runtimed.model.function import LastUpdateStatus, State
from runtimed.model.version import PublishVersionRequest
from runtimed.store.aliases import Lead
from tests.integration.control_stage import Stage, staged
from tests.integration.peers import until
from tests.integration.zips import build, plain

NEW = build(plain(content=b"def handler(event, context):\n    return 'new'\n"))


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


async def led(stage: Stage, version: str) -> AliasConfiguration:
    """An alias of a function with two versions."""
    await stage.create(publish=True)
    await stage.settled()
    await stage.update("f", NEW)
    await stage.settled()
    await stage.deployer.publish(PublishVersionRequest(function_name="f"))
    return await stage.aliases.create(CreateAliasRequest(function_name="f", name="a", function_version=version))


async def move(stage: Stage, version: str) -> AliasConfiguration:
    return await stage.aliases.update(UpdateAliasRequest(function_name="f", name="a", function_version=version))


def fail(stage: Stage, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """The store cannot keep an alias' generation so often; the aliases it was asked for."""
    asked: list[int] = []
    lead_again = stage.routes._aliases.lead_again

    async def failing(number: int) -> Lead | None:
        asked.append(number)
        if len(asked) <= times:
            raise OSError("disk full")
        return await lead_again(number)

    monkeypatch.setattr(shield_module, "RETRY_SECONDS", 0.0, raising=False)
    monkeypatch.setattr(stage.routes._aliases, "lead_again", failing)
    return asked


def refuse_alias(message: wire.Message) -> str:
    return "target" if isinstance(message, wire.PutRoute) and message.qualifier == "a" else ""


async def test_a_target_that_is_tried_again_keeps_its_plan(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the time is over that plans outlive the withdrawal: it was the failed attempt's."""
    kept = 0.5
    monkeypatch.setattr(steps_module, "PLAN_KEPT_SECONDS", kept)
    monkeypatch.setattr(steps_module, "RECOVER_SECONDS", 0.0)
    monkeypatch.setattr(deployer_module, "AGAIN_SECONDS", 0.0)
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.FAILED, reason="its zygote left with 1")
    await stage.create()
    assert (await stage.settled()).state is State.FAILED
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(kept, over.set)  # comes after that of the withdrawal
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.READY)
    await stage.deployer.try_again(1.0)
    assert (await stage.settled()).state is State.ACTIVE
    await over.wait()
    await stage.create("g")  # what was sent before has arrived when this one's plan has
    await stage.settled("g")
    assert stage.launcher_peer.objects(wire.PutPlan) == set(stage.routed().values()) == stage.targets()


async def test_a_plan_that_goes_does_not_take_the_word_of_the_next_one(stage: Stage) -> None:
    """Put again while the launcher is being told of its end."""
    await stage.create()
    await stage.settled()
    [number] = stage.targets()
    plan = stage.steps.plan(await stage.functions.target(number))
    stage.launcher_peer.silent = True
    going = asyncio.create_task(stage.launcher.delete_plan(number))
    await until(lambda: stage.launcher_peer.kinds()[-1] == "DelPlan")
    coming = asyncio.create_task(stage.launcher.put_plan(number, plan))
    await until(lambda: stage.launcher_peer.kinds()[-1] == "PutPlan")
    stage.launcher_peer.silent = False
    stage.launcher_peer.keep(*stage.launcher_peer.heard[-1])
    stage.launcher_peer.acknowledge(stage.launcher_peer.heard[-1][0].seq)
    await asyncio.wait_for(asyncio.gather(going, coming), 30)
    assert stage.launcher.plan_state(number) is not None


async def test_a_start_leaves_alone_what_a_caller_has_begun(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers are heard before what was interrupted goes on."""
    began, go_on, prepare, prepared = asyncio.Event(), asyncio.Event(), stage.steps.prepare, list[int]()

    async def late(number: int) -> None:
        prepared.append(number)
        began.set()
        await go_on.wait()
        await prepare(number)

    monkeypatch.setattr(stage.steps, "prepare", late)
    await stage.create(publish=True)
    await began.wait()
    await stage.deployer.recover()
    go_on.set()
    await stage.settled()
    assert stage.routed().keys() == {"f", "f:1"} and stage.targets() == set(stage.routed().values())
    assert sorted(prepared) == sorted(stage.targets()), "each once"


# ---- aliases -------------------------------------------------------------------------------------------------


async def test_an_alias_that_moved_is_told_in_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await led(stage, "1")
    asked = fail(stage, monkeypatch, 2)
    assert (await move(stage, "2")).function_version == "2"
    assert len(asked) == 3
    assert stage.routed()["f:a"] == stage.routed()["f:2"]


async def test_who_depends_on_aliases_hears_also_of_one_that_was_refused(stage: Stage) -> None:
    await led(stage, "1")
    heard: list[bytes] = []

    async def hear(uid: bytes) -> None:
        heard.append(uid)

    stage.deployer.changes.heard = hear
    stage.dispatch_peer.refuse = refuse_alias
    with pytest.raises(errors.ServiceUnavailable, match="refused the alias"):
        await move(stage, "2")
    assert len(heard) == 1


async def test_an_update_that_serves_does_not_fail_for_an_alias(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await led(stage, "$LATEST")
    before = stage.routed()["f"]
    fail(stage, monkeypatch, 2)
    await stage.update("f", build(plain(content=b"def handler(event, context):\n    return 'newest'\n")))
    shown = await stage.settled()
    assert (shown.state, shown.last_update_status) == (State.ACTIVE, LastUpdateStatus.SUCCESSFUL)
    assert stage.routed()["f:a"] == stage.routed()["f"] != before
    assert stage.targets() == set(stage.routed().values())


async def test_a_version_that_serves_does_not_fail_for_an_alias(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await led(stage, "1")
    target = await stage.functions.target(stage.routed()["f:1"])
    await stage.stop()
    stage.code.remove_tree(target.package)
    await stage.start()
    fail(stage, monkeypatch, 2)
    await stage.deployer.recover()
    await stage.deployer.settle()
    shown = await stage.versions.get("f", 1)
    assert shown is not None and shown.state is State.ACTIVE
    assert stage.routed()["f:a"] == stage.routed()["f:1"] == target.id
    assert stage.targets() == set(stage.routed().values())


def check_never_astray(stage: Stage) -> None:
    """At no moment did the alias lead to a target that the dispatcher did not know."""
    targets: set[int] = set()
    leads = 0
    for header, message in stage.dispatch_peer.heard:
        if isinstance(message, wire.PutTarget):
            targets.add(header.object)
        elif isinstance(message, wire.DelTarget):
            targets.discard(header.object)
        elif isinstance(message, wire.PutRoute) and message.qualifier == "a":
            leads = message.target
        assert not leads or leads in targets


async def test_a_version_is_deleted_after_an_alias_has_left_it(stage: Stage) -> None:
    """Whose move the store has, and the dispatcher has not yet."""
    await led(stage, "1")
    routed = stage.routed()
    async with stage.routes._lock:
        moving = asyncio.create_task(move(stage, "2"))
        async with asyncio.timeout(30):
            while (found := await stage.aliases.get("f", "a")).function_version != "2":
                await asyncio.sleep(0)
        deleting = asyncio.create_task(stage.deployer.delete_version("f", 1))
        await until(lambda: "f:1" not in stage.routed())
        for _ in range(20):  # what is next of it: on the store's thread, and at the dispatcher
            await stage.functions.count()
            await asyncio.sleep(0.001)
        assert routed["f:1"] in stage.targets()
    await asyncio.wait_for(asyncio.gather(moving, deleting), 30)
    assert found.function_version == "2" and stage.routed()["f:a"] == routed["f:2"]
    assert stage.targets() == set(stage.routed().values())
    check_never_astray(stage)


@pytest.mark.parametrize("former", ["1", "$LATEST"])
async def test_what_an_alias_leads_to_that_should_not_is_left_before_it_goes(stage: Stage, former: str) -> None:
    """Its move was refused, when there was no memory for it; a moment later there is."""
    await led(stage, former)
    stage.dispatch_peer.refuse = refuse_alias
    with pytest.raises(errors.ServiceUnavailable):
        await move(stage, "2")
    stage.dispatch_peer.refuse = lambda message: ""
    if former == "1":
        await stage.deployer.delete_version("f", 1)
    else:
        await stage.update("f", build(plain()))
        await stage.settled()
    assert stage.routed()["f:a"] == stage.routed()["f:2"]
    assert stage.targets() == set(stage.routed().values())


async def test_an_alias_that_is_refused_for_good_keeps_no_version(stage: Stage) -> None:
    await led(stage, "1")
    stage.dispatch_peer.refuse = refuse_alias
    with pytest.raises(errors.ServiceUnavailable):
        await move(stage, "2")
    await asyncio.wait_for(stage.deployer.delete_version("f", 1), 30)
    assert await stage.versions.get("f", 1) is None
