"""The control plane killed at every step of publishing a version, moving an alias and deleting a version that leaves a
trace on disk. What it left is opened again: nothing that was acknowledged may be missing, whatever was under way goes
on to its end, an alias leads to one of the versions between which it was moved, and nothing may be left over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from runtimed.machines.deployment import State as Step
from runtimed.model.alias import CreateAliasRequest, UpdateAliasRequest
from runtimed.model.function import State
from runtimed.model.version import PublishVersionRequest
from tests.crash.test_deployment import KILLED, NEW, OLD, Children
from tests.integration.control_stage import Stage, staged
from tests.integration.zips import build, plain

FEWEST = 30
NEWEST = build(plain(content=b"newest = True\n"))


async def life(stage: Stage, arm: Callable[[], None]) -> None:
    """Steps are counted from `arm` on."""

    def tell(what: str) -> None:
        print(what, flush=True)

    await stage.create(package=OLD)
    await stage.settled()
    await stage.deployer.publish(PublishVersionRequest(function_name="f"))
    await stage.update("f", NEW)
    await stage.settled()
    arm()
    await stage.deployer.publish(PublishVersionRequest(function_name="f"))
    tell("published")
    await stage.aliases.create(CreateAliasRequest(function_name="f", name="prod", function_version="1"))
    tell("made")
    await stage.aliases.update(UpdateAliasRequest(function_name="f", name="prod", function_version="2"))
    tell("moved")
    await stage.deployer.delete_version("f", 1)
    tell("deleted")
    await stage.aliases.delete("f", "prod")
    tell("taken away")


async def check(state: Path, told: set[str]) -> None:
    async with staged(state) as stage:
        await stage.deployer.recover()
        await asyncio.wait_for(stage.deployer.settle(), 60)
        versions = {version.number: version for version in await stage.versions.all()}
        assert all(version.state is Step.ACTIVE for version in versions.values())
        assert "published" not in told or 2 in versions
        assert "deleted" not in told or 1 not in versions
        assert "moved" in told or 1 in versions, "it was not to be deleted yet"
        aliases = {alias.name: alias for alias in await stage.aliases.page("f", "", 10, "")}
        assert ("made" not in told) or aliases or "deleted" in told
        assert "taken away" not in told or not aliases
        routed = stage.routed()
        for name, alias in aliases.items():
            assert alias.function_version == "2" or "moved" not in told
            assert routed[f"f:{name}"] == routed[f"f:{alias.function_version}"]
        assert routed.keys() == {"f", *(f"f:{number}" for number in versions), *(f"f:{name}" for name in aliases)}
        assert stage.targets() == set(routed.values())
        rows = await stage.database.run(lambda c: c.execute("SELECT count(*) FROM targets").fetchone()[0])
        assert rows == 1 + len(versions), "a target without a use is left"
        # And the node is as good as new: the next number was never given.
        await stage.update("f", NEWEST)
        await stage.settled()
        found = await stage.deployer.publish(PublishVersionRequest(function_name="f"))
        assert found.state is State.ACTIVE
        assert int(found.version) == (3 if 2 in versions or "published" in told else 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_killed_at_every_step(tmp_path: Path) -> None:
    n, status = 0, KILLED
    with Children(__name__, counted=False) as children:
        while status == KILLED:
            n += 1
            state = tmp_path / str(n)
            status, told = await asyncio.to_thread(children.crash_at, state, n)
            await check(state, told)
    assert n > FEWEST, "the steps are counted"
