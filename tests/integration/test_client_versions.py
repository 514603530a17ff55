"""Versions and aliases in the SDK, blocking and asynchronous, against a server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from runtimed.client import AsyncClient, Client, ClientError, DeployFailed
from runtimed.model import errors
from runtimed.model.function import State
from runtimed.model.shape import UNSET
from tests.integration.conftest import Gateway
from tests.integration.stub import package

SECOND = b"def handler(event, context): return 'second'\n"


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.address) as made:
        yield made


def test_versions_and_aliases_live(client: Client) -> None:
    latest = client.deploy("echo", package(), description="as deployed")
    one = client.publish_version("echo")
    assert (one.version, one.description, one.code_sha256) == ("1", "as deployed", latest.code_sha256)
    two = client.publish_version(
        "echo", description="mine", code_sha256=latest.code_sha256, revision_id=latest.revision_id
    )
    assert (two.version, two.description) == ("2", "mine")
    with pytest.raises(errors.PreconditionFailed):
        client.publish_version("echo", revision_id="stale")
    with pytest.raises(errors.InvalidParameterValue):
        client.publish_version("echo", code_sha256="0" * 44)
    assert client.get_function("echo", "2").description == client.get_function("echo:2").description == "mine"
    assert client.wait_until_active("echo", qualifier="2").version == "2"

    made = client.create_alias("echo", "prod", 1, description="for customers")
    assert (made.name, made.function_version, made.routing_config) == ("prod", "1", UNSET)
    moved = client.update_alias("echo", "prod", weights={2: 0.25})
    assert (moved.function_version, moved.description) == ("1", "for customers")
    assert moved.routing_config is not UNSET
    assert moved.routing_config.additional_version_weights == {"2": 0.25}
    with pytest.raises(errors.PreconditionFailed):
        client.update_alias("echo", "prod", version=2, revision_id=made.revision_id)
    moved = client.update_alias("echo", "prod", version=2, weights={}, revision_id=moved.revision_id)
    assert (moved.function_version, moved.routing_config) == ("2", UNSET)
    assert client.get_alias("echo", "prod") == moved
    assert client.get_function("echo", "prod").version == "2"
    assert (client.list_aliases("echo"), client.list_aliases("echo", 1)) == ([moved], [])

    with pytest.raises(errors.ResourceConflict):
        client.delete_version("echo", 2)
    client.delete_alias("echo", "prod")
    with pytest.raises(errors.ResourceNotFound):
        client.get_alias("echo", "prod")
    client.delete_version("echo", 2)
    assert [version.version for version in client.list_versions("echo")] == ["$LATEST", "1"]


def test_lists_of_many_pages(client: Client) -> None:
    """Numbers of one digit and of several, and more than a page holds."""
    client.deploy("echo", package())
    client.deploy("other", package())
    for _ in range(112):
        client.publish_version("echo")
    names = [f"a{n}" for n in range(53)]
    for name in names:
        client.create_alias("echo", name, 1)
    everything = ["$LATEST", *map(str, range(1, 113))]
    assert [one.version for one in client.list_versions("echo")] == everything
    assert [one.version for one in client.list_versions("echo", limit=60)] == everything[:60]
    assert [one.name for one in client.list_aliases("echo")] == sorted(names)
    found = client.list_functions(versions=True)
    assert [(one.function_name, one.version) for one in found] == [
        *(("echo", version) for version in everything), ("other", "$LATEST"),
    ]  # fmt: skip
    assert [one.function_name for one in client.list_functions()] == ["echo", "other"]


def test_deploying_publishes_and_moves_the_alias(client: Client) -> None:
    told: list[str] = []
    one = client.deploy("echo", package(), publish=True, alias="prod", progress=lambda stage, *_: told.append(stage))
    assert (one.version, one.state) == ("1", State.ACTIVE)
    assert list(dict.fromkeys(told)) == ["uploading", "activating", "publishing", "moving"]
    assert client.get_alias("echo", "prod").function_version == "1"
    client.update_alias("echo", "prod", version="$LATEST")
    two = client.deploy("echo", package(SECOND), publish=True, alias="prod")
    moved = client.get_alias("echo", "prod")
    assert (two.version, moved.function_version, two.code_sha256 == one.code_sha256) == ("2", "2", False)
    three = client.deploy("echo", package(), publish=True)
    assert (three.version, client.get_alias("echo", "prod")) == ("3", moved)
    client.update_alias("echo", "prod", weights={3: 0.5})
    client.deploy("echo", package(SECOND), publish=True, alias="prod")
    assert client.get_alias("echo", "prod").routing_config is UNSET


def test_what_another_deployed_meanwhile_is_not_published(client: Client) -> None:
    def interfere(stage: str, *_: int) -> None:
        if stage == "publishing":
            client.update_function_configuration("echo", timeout=9)
            client.wait_until_active("echo")

    with pytest.raises(errors.PreconditionFailed):
        client.deploy("echo", package(), publish=True, alias="prod", progress=interfere)
    assert [one.version for one in client.list_versions("echo")] == ["$LATEST"]
    assert client.list_aliases("echo") == []


def test_what_failed_or_is_wrong_is_not_published(client: Client) -> None:
    wrong: list[dict[str, Any]] = [{"alias": "prod"}, {"publish": True, "wait": None}]
    for given in wrong:
        with pytest.raises(ClientError):
            client.deploy("echo", package(), **given)
    with pytest.raises(errors.InvalidParameterValue, match="not digits alone"):
        client.deploy("echo", package(), publish=True, alias="7")
    assert client.list_functions() == []
    with pytest.raises(DeployFailed):
        client.deploy("echo", package(), handler="broken.handler", publish=True, alias="prod")
    assert [one.version for one in client.list_versions("echo")] == ["$LATEST"]
    client.deploy("echo", package(), handler="app.handler", publish=True)
    for name in ("echo:1", "new:1"):
        with pytest.raises(errors.InvalidParameterValue, match="Leave the qualifier out"):
            client.deploy(name, package())


def test_the_asynchronous_client_does_the_same(gateway: Gateway) -> None:
    async def live() -> None:
        async with AsyncClient(gateway.address) as client:
            assert (await client.deploy("echo", package(), publish=True, alias="prod")).version == "1"
            await client.update_function_code("echo", package(SECOND))
            await client.wait_until_active("echo")
            assert (await client.publish_version("echo", description="two")).version == "2"
            assert (await client.update_alias("echo", "prod", version=2, weights={1: 0.5})).function_version == "2"
            assert (await client.create_alias("echo", "old", 1)).function_version == "1"
            assert [one.name for one in await client.list_aliases("echo")] == ["old", "prod"]
            assert (await client.get_function("echo", "prod")).description == "two"
            assert len(await client.list_versions("echo")) == len(await client.list_functions(versions=True)) == 3
            await client.delete_alias("echo", "old")
            with pytest.raises(errors.ResourceNotFound):
                await client.get_alias("echo", "old")
            await client.update_alias("echo", "prod", weights={})
            await client.delete_version("echo", 1)
            with pytest.raises(errors.ResourceNotFound):
                await client.get_function("echo", "1")

    gateway.loop.run(live)
