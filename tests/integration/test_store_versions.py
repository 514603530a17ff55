"""The registry of published versions and aliases, in a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtimed.machines.deployment import State
from runtimed.model import errors, quotas
from runtimed.model.arn import Identity
from runtimed.model.function import LoggingConfig
from runtimed.store.aliases import AliasStore, Change
from runtimed.store.database import Database
from runtimed.store.functions import Function, FunctionStore
from runtimed.store.schema import MIGRATIONS
from runtimed.store.secrets import KEY_BYTES, Secrets
from runtimed.store.targets import Definition
from runtimed.store.versions import Version, VersionStore, Wish

VARIABLES = {"COLOUR": "green"}
ANYTHING = Wish()


def definition(**more: object) -> Definition:
    usual = {
        "runtime": "python3.11",
        "handler": "app.handler",
        "description": "as it is",
        "timeout": 3,
        "memory_size": 128,
        "storage_size": 512,
        "logging": LoggingConfig(),
        "zip_sha256": "ab" * 32,
        "zip_size": 100,
    }
    return Definition(**{**usual, **more})  # type: ignore[arg-type]


class Registry:
    def __init__(self, path: Path) -> None:
        self.database = Database(path, MIGRATIONS)
        self.functions = FunctionStore(self.database, Secrets(bytes(KEY_BYTES)), Identity(), "x86_64")
        self.versions = VersionStore(self.database, self.functions.rows)
        self.aliases = AliasStore(self.database, Identity())

    async def function(self, name: str = "f", **more: object) -> Function:
        """One that serves."""
        made = await self.functions.create(name, definition(**more), VARIABLES, 1)
        await self.functions.record(made.id, State.ACTIVE, made.next, None, "", "")
        found = await self.functions.find(name)
        assert found is not None
        return found

    async def update(self, name: str = "f", *, settle: bool = True, **more: object) -> Function:
        _, made = await self.functions.change(
            name, None, lambda was, variables: (definition(**more), dict(variables)), now_ms=2
        )
        if settle:
            await self.functions.record(made.id, State.ACTIVE, made.next, None, "", "")
        return made

    async def published(self, name: str = "f", wish: Wish = ANYTHING) -> Version:
        """One that serves."""
        made, _ = await self.versions.publish(name, wish, 3)
        await self.versions.record(made.id, State.ACTIVE, "", "")
        found = await self.versions.find(name, made.number)
        assert found is not None
        return found


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    made = Registry(tmp_path / "runtimed.db")
    try:
        yield made
    finally:
        made.database.close()


async def test_a_version_is_a_copy_with_a_number(registry: Registry) -> None:
    function = await registry.function()
    first = await registry.published()
    assert (first.number, first.state) == (1, State.ACTIVE)
    assert first.target != function.serving
    [(version, target)] = await registry.versions.served()
    assert version == first and target.environment == VARIABLES
    assert target.definition == definition(version="1", described="as it is")
    shown = await registry.versions.get("f", 1)
    assert shown is not None
    assert (shown.version, shown.function_arn.rpartition(":")[2]) == ("1", "1")
    whole = await registry.functions.get("f")
    assert whole is not None and whole.version == "$LATEST" and shown.code_sha256 == whole.code_sha256
    assert shown.revision_id != whole.revision_id


async def test_what_has_not_changed_is_not_published_anew(registry: Registry) -> None:
    await registry.function()
    _, new = await registry.versions.publish("f", Wish(description="its own"), 3)
    assert new
    again, new = await registry.versions.publish("f", Wish(), 4)
    assert (again.number, new) == (1, False)
    await registry.update(memory_size=256)
    assert (await registry.versions.publish("f", Wish(), 5))[0].number == 2
    await registry.update(memory_size=256, description="another")
    assert (await registry.versions.publish("f", Wish(), 6))[0].number == 3


async def test_one_that_failed_is_published_anew(registry: Registry) -> None:
    await registry.function()
    first, _ = await registry.versions.publish("f", Wish(), 3)
    await registry.versions.record(first.id, State.FAILED, "why", "Code")
    assert [one.number for one in await registry.versions.failed(["Code"])] == [1]
    assert (await registry.versions.publish("f", Wish(), 4))[0].number == 2
    assert await registry.versions.begin_again(first)
    assert not await registry.versions.begin_again(first)


async def test_a_number_never_comes_back(registry: Registry) -> None:
    await registry.function()
    first = await registry.published()
    await registry.versions.forget(await registry.versions.condemn("f", 1))
    assert await registry.versions.find("f", 1) is None
    assert (await registry.published()).number == 2
    with pytest.raises(KeyError):
        await registry.functions.target(first.target)


async def test_publishing_has_conditions(registry: Registry) -> None:
    with pytest.raises(errors.ResourceNotFound):
        await registry.versions.publish("f", Wish(), 1)
    await registry.function()
    with pytest.raises(errors.PreconditionFailed):
        await registry.versions.publish("f", Wish(revision_id="other"), 1)
    with pytest.raises(errors.InvalidParameterValue, match="CodeSha256"):
        await registry.versions.publish("f", Wish(code_sha256="A" * 43 + "="), 1)
    await registry.update(settle=False)
    with pytest.raises(errors.ResourceConflict, match="being created or updated"):
        await registry.versions.publish("f", Wish(), 1)


async def test_a_node_keeps_only_so_many(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions and versions together, but no update is refused."""
    await registry.function()
    monkeypatch.setattr(quotas, "TARGETS", 2)
    monkeypatch.setattr(quotas, "ALIASES", 1)
    await registry.published()
    await registry.update(timeout=9)
    with pytest.raises(errors.LimitExceeded, match="2 functions and published versions"):
        await registry.versions.publish("f", Wish(), 1)
    with pytest.raises(errors.LimitExceeded, match="2 functions and published versions"):
        await registry.function("g")
    assert await registry.functions.find("g") is None
    with pytest.raises(errors.ResourceExists):
        await registry.function("f")
    await registry.functions.forget_strays()  # what the update left behind
    monkeypatch.setattr(quotas, "TARGETS", 3)
    also = registry.versions.along(Wish(), 1, lambda version, new: None)
    with pytest.raises(errors.LimitExceeded):
        await registry.functions.create("g", definition(), VARIABLES, 1, also)
    assert await registry.functions.find("g") is None, "there is room for the function, not for its version"
    await registry.function("g")
    await registry.aliases.create("f", "one", Change(version="1"), 1)
    with pytest.raises(errors.LimitExceeded, match="1 aliases"):
        await registry.aliases.create("f", "two", Change(version="1"), 1)


async def test_a_new_target_and_its_version_are_one_change(registry: Registry) -> None:
    published: list[tuple[Version, bool]] = []
    also = registry.versions.along(Wish(), 1, lambda version, new: published.append((version, new)))
    made = await registry.functions.create("f", definition(), VARIABLES, 1, also)
    await registry.functions.record(made.id, State.ACTIVE, made.next, None, "", "")
    [(version, new)] = published
    assert new and (version.number, version.state) == (1, State.PREPARING)
    refused = registry.versions.along(Wish(code_sha256="A" * 43 + "="), 1, lambda version, new: None)
    with pytest.raises(errors.InvalidParameterValue):
        await registry.functions.change("f", None, lambda was, variables: (was, variables), 2, refused)
    found = await registry.functions.find("f")
    assert found is not None and (found.state, found.next) == (State.ACTIVE, None)


async def test_strays_go_and_versions_stay(registry: Registry) -> None:
    function = await registry.function()
    version = await registry.published()
    await registry.update(timeout=9)  # the former target is what a crash would leave
    assert await registry.functions.forget_strays() == 1
    assert (await registry.functions.target(version.target)).definition.version == "1"
    with pytest.raises(KeyError):
        await registry.functions.target(function.serving or 0)


async def test_all_goes_with_the_function(registry: Registry) -> None:
    function = await registry.function()
    version = await registry.published()
    await registry.aliases.create("f", "prod", Change(version="1"), 1)
    await registry.functions.forget(function.id)
    assert await registry.versions.all() == [] and await registry.aliases.leads() == []
    with pytest.raises(KeyError):
        await registry.functions.target(version.target)
    await registry.function()
    assert (await registry.published()).number == 1  # another function, though of this name


async def test_an_alias_leads_to_targets(registry: Registry) -> None:
    await registry.function()
    first = await registry.published()
    await registry.update(timeout=9)
    second = await registry.published()
    prod = await registry.aliases.create("f", "prod", Change(version="1", alternate=("2", 0.25)), 1)
    await registry.aliases.create("f", "live", Change(version="$LATEST"), 1)
    leads = {lead.alias.alias: (lead.target, lead.alternate) for lead in await registry.aliases.leads()}
    assert leads == {"prod": (first.target, second.target), "live": (None, None)}
    moved = await registry.aliases.change("f", "prod", Change(version="2", alternate=()), prod.revision_id, 2)
    assert (moved.version, moved.alternate, moved.weight, moved.description) == ("2", None, 0.0, "")
    lead = await registry.aliases.lead_again(prod.id)
    assert lead is not None and lead.target == second.target and lead.alias.generation > moved.generation
    assert [one.alias for one in await registry.aliases.naming(first.function, "2")] == ["prod"]
    assert [one.alias for one in await registry.aliases.page("f", "", 10)] == ["live", "prod"]
    assert [one.alias for one in await registry.aliases.page("f", "", 10, "$LATEST")] == ["live"]
    assert await registry.aliases.remove("f", "prod") is not None
    assert await registry.aliases.remove("f", "prod") is None
    assert await registry.aliases.lead_again(prod.id) is None


async def test_aliases_have_conditions(registry: Registry) -> None:
    with pytest.raises(errors.ResourceNotFound):
        await registry.aliases.create("f", "prod", Change(version="1"), 1)
    await registry.function()
    for missing in ("1", "01", "9" * 40):
        with pytest.raises(errors.ResourceNotFound, match=f"f:{missing}"):
            await registry.aliases.create("f", "prod", Change(version=missing), 1)
    pending, _ = await registry.versions.publish("f", Wish(), 1)
    with pytest.raises(errors.ResourceConflict, match="not Active"):
        await registry.aliases.create("f", "prod", Change(version="1"), 1)
    await registry.versions.record(pending.id, State.ACTIVE, "", "")
    for alternate in (("$LATEST", 0.5), ("1", 0.5)):
        with pytest.raises(errors.InvalidParameterValue, match="RoutingConfig"):
            await registry.aliases.create("f", "prod", Change(version="1", alternate=alternate), 1)
    await registry.aliases.create("f", "prod", Change(version="1"), 1)
    with pytest.raises(errors.ResourceExists):
        await registry.aliases.create("f", "prod", Change(version="1"), 1)
    with pytest.raises(errors.PreconditionFailed):
        await registry.aliases.change("f", "prod", Change(description="x"), "other", 1)
    with pytest.raises(errors.ResourceNotFound, match="f:other"):
        await registry.aliases.change("f", "other", Change(description="x"), None, 1)


async def test_a_version_that_an_alias_leads_to_stays(registry: Registry) -> None:
    await registry.function()
    await registry.published()
    await registry.update(timeout=9)
    await registry.published()
    await registry.aliases.create("f", "prod", Change(version="1", alternate=("2", 0.5)), 1)
    for number in (1, 2):
        with pytest.raises(errors.ResourceConflict, match="prod"):
            await registry.versions.condemn("f", number)
    await registry.aliases.remove("f", "prod")
    await registry.versions.condemn("f", 1)
    with pytest.raises(errors.ResourceConflict, match="not Active"):
        await registry.aliases.create("f", "prod", Change(version="1"), 1)
    with pytest.raises(errors.ResourceNotFound):
        await registry.versions.condemn("f", 3)


async def test_publishing_at_once_gives_each_its_number(registry: Registry) -> None:
    names = [f"f{n}" for n in range(4)]
    for name in names:
        await registry.function(name)
    made = await asyncio.gather(*(registry.versions.publish(name, Wish(), 1) for name in names for _ in range(5)))
    assert sorted(new for _, new in made) == [False] * 16 + [True] * 4
    assert {version.number for version, _ in made} == {1}
