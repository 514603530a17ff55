"""What the dispatcher is told of targets anew while functions are updated and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtimed.deployment.retell import Reteller
from runtimed.model import wire
from runtimed.store.functions import Function
from runtimed.store.targets import Target
from tests.integration.control_stage import Stage, staged
from tests.integration.zips import build, plain

NEW = build(plain(content=b"def handler(event, context):\n    return 'new'\n"))


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


def told(stage: Stage, number: int) -> wire.PutTarget:
    message = stage.dispatch_peer.held[wire.PutTarget, number]
    assert isinstance(message, wire.PutTarget)
    return message


@pytest.mark.parametrize("what", ["updated", "deleted"])
@pytest.mark.parametrize("after_reading", [False, True])
async def test_what_is_withdrawn_meanwhile_stays_so(
    stage: Stage, what: str, after_reading: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ef":
        await stage.create(name)
        await stage.settled(name)
    before = stage.routed()["f"]
    read = stage.functions.target

    async def change() -> None:
        monkeypatch.setattr(stage.functions, "target", read)
        if what == "updated":
            await stage.update("f", NEW)
        else:
            await stage.deployer.delete("f")
        await stage.deployer.settle()

    async def meanwhile(number: int) -> Target:
        if number != before:
            return await read(number)
        if not after_reading:
            await change()
            return await read(number)
        target = await read(number)
        await change()
        return target

    monkeypatch.setattr(stage.functions, "target", meanwhile)
    await Reteller(stage.functions, stage.dispatcher, stage.steps).tell()
    assert before not in stage.targets() and before not in stage.dispatcher.targets()
    assert stage.targets() == set(stage.routed().values())


async def test_what_is_being_rolled_out_hears_of_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.create()
    await stage.settled()
    [before] = stage.targets()
    taught, go_on, route = asyncio.Event(), asyncio.Event(), stage.routes.latest

    async def late(function: Function, number: int) -> None:
        taught.set()
        await go_on.wait()
        await route(function, number)

    monkeypatch.setattr(stage.routes, "latest", late)
    await stage.update("f", NEW)
    await taught.wait()
    [new] = stage.targets() - {before}
    unreserved = told(stage, new).max_concurrency
    stage.steps.reserved = lambda uid: 3
    await Reteller(stage.functions, stage.dispatcher, stage.steps).tell(bytes(told(stage, new).function_uid))
    assert told(stage, new).max_concurrency == told(stage, before).max_concurrency != unreserved
    go_on.set()
    await stage.settled()
    assert stage.targets() == {new}


async def test_others_are_not_told(stage: Stage) -> None:
    for name in "ef":
        await stage.create(name)
        await stage.settled(name)
    one = stage.routed()["e"]
    before = len(stage.dispatch_peer.heard)
    stage.steps.reserved = lambda uid: 3
    await Reteller(stage.functions, stage.dispatcher, stage.steps).tell(bytes(told(stage, one).function_uid))
    assert [header.object for header, _ in stage.dispatch_peer.heard[before:]] == [one]
